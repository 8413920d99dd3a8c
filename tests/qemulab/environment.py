"""QEMU, its tools, a kernel and what a guest boots from, in a folder that is made once.

The folder is ${XDG_CACHE_HOME:-~/.cache}/devicehost/qemu-KEY, or where DEVICEHOST_QEMU_ROOT
says. KEY stands for the recipe below: with another recipe the folder is made anew. It appears
as a whole, by a rename, and two processes that want it make it once.

QEMU's release is newer than the machine's C library may be. So programs in the folder run by
the folder's own dynamic loader: no chroot and no mount is needed, and paths mean what they
mean outside.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from qemulab.packages import Apt, NoPackages

SUITES = ("trixie", "trixie-backports")
PACKAGES = ("qemu-system-x86", "qemu-utils", "busybox-static", "e2fsprogs", "fio")
"""qemu-utils has qemu-storage-daemon; fio is for measuring inside the guest."""
KERNEL = "linux-image-cloud-amd64"

_LIBRARIES = "usr/lib/x86_64-linux-gnu"


class NoEnvironment(Exception):
    """It isn't there and can't be made; the message says what is missing."""


@dataclass(frozen=True)
class Environment:
    """What runs guests.

    Attributes:
        root: the folder, laid out as Debian's root folder.
    """

    root: Path

    @cached_property
    def version(self) -> str:
        """What QEMU says of its version."""
        return self.run("qemu-system-x86_64", "--version").stdout.splitlines()[0]

    @cached_property
    def kernel(self) -> Path:
        """The kernel's image."""
        return next((self.root / "boot").glob("vmlinuz-*"))

    @cached_property
    def modules(self) -> Path:
        """The folder of the kernel's modules; its name is the kernel's release."""
        return next((self.root / "usr/lib/modules").iterdir())

    def find(self, program: str) -> Path:
        """Where a program is."""
        folders = (self.root / "usr" / each for each in ("bin", "sbin"))
        return next(found for folder in folders if (found := folder / program).exists())

    def command(self, program: str, *arguments: str | Path) -> list[str | Path]:
        """The command line that runs a program of the folder."""
        return [*self._loader, self.find(program), *arguments]

    def libraries(self, program: str) -> list[Path]:
        """The libraries that a program loads."""
        said = subprocess.run(
            [*self._loader, "--list", self.find(program)],
            capture_output=True,
            text=True,
            check=True,
        )
        words = (line.split() for line in said.stdout.splitlines())
        return [Path(line[2]) for line in words if "=>" in line]

    def run(self, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program of the folder to its end."""
        return subprocess.run(
            self.command(program, *arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    @cached_property
    def loader(self) -> Path:
        """The dynamic loader."""
        return self.root / _LIBRARIES / "ld-linux-x86-64.so.2"

    @property
    def _loader(self) -> list[str | Path]:
        folders = (self.root / _LIBRARIES, self.root / _LIBRARIES / "ceph")
        return [self.loader, "--library-path", ":".join(map(str, folders))]


def provide() -> Environment:
    """Return the environment; make it if it isn't there.

    Raises:
        NoEnvironment: neither can be.
    """
    if platform.machine() != "x86_64":
        raise NoEnvironment(f"needs an x86-64 machine, this is {platform.machine()}")
    root = _place()
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        with root.with_name(f"{root.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not root.exists():
                _make(root)
    return Environment(root)


def _place() -> Path:
    if given := os.environ.get("DEVICEHOST_QEMU_ROOT"):
        return Path(given).absolute()
    recipe = repr((SUITES, PACKAGES, KERNEL))
    key = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "devicehost" / f"qemu-{key}"


def _make(root: Path) -> None:
    sys.stderr.write(f"making {root}: takes about 100 MB from Debian's mirror\n")
    for left in root.parent.glob(f"{root.name}.making-*"):  # by one that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=f"{root.name}.making-", dir=root.parent) as folder:
        made = Path(folder, "root")
        try:
            apt = Apt(Path(folder, "apt"), SUITES)
            apt.download(PACKAGES, SUITES[-1])
            apt.download_only_what_it_names(KERNEL)
            apt.unpack(made)
        except NoPackages as error:
            raise NoEnvironment(str(error)) from error
        made.rename(root)


if __name__ == "__main__":
    try:
        environment = provide()
    except NoEnvironment as why:
        sys.exit(f"no QEMU to test with: {why}")
    sys.stdout.write(
        f"{environment.root}: {environment.version}, Linux {environment.modules.name}\n"
    )
