"""Debian packages, from a release that isn't the machine's own, unpacked into a folder.

apt resolves and downloads them with configuration, lists and status of its own: the machine's
packages are neither looked at nor changed, and no privilege is needed. Which mirror is used,
and through which proxy, is what the machine's apt is configured with.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_RELEASES = ("oldstable", "stable", "testing", "unstable", "bookworm", "trixie", "forky", "sid")
"""What a mirror's entry in the machine's configuration may be for."""


class NoPackages(Exception):
    """They can't be had on this machine, or not now; the message says what is missing."""


class Apt:
    """An apt beside the machine's own.

    Attributes:
        archives: where downloaded packages are.
    """

    def __init__(self, folder: Path, suites: Sequence[str]) -> None:
        """Fetch the lists of `suites` into `folder`, which isn't there yet.

        Raises:
            NoPackages: apt, the mirror or the key isn't there.
        """
        for program in ("apt-get", "apt-cache", "dpkg-deb"):
            if shutil.which(program) is None:
                raise NoPackages(f"needs Debian's {program}")
        if not KEYRING.exists():
            raise NoPackages(f"needs {KEYRING}: apt install debian-archive-keyring")
        mirror = _mirror()
        self.archives = folder / "cache/archives"
        for made in ("state/lists/partial", "cache/archives/partial"):
            (folder / made).mkdir(parents=True)
        (folder / "status").touch()
        lines = [f"deb [signed-by={KEYRING}] {mirror} {suite} main\n" for suite in suites]
        (folder / "sources.list").write_text("".join(lines))
        options = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State": folder / "state",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "Acquire::Languages": "none",
            "Acquire::Retries": "1",
            "APT::Architecture": "amd64",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "",  # root downloads into a folder that is only root's
        }
        self._options = [f"-o{name}={value}" for name, value in options.items()]
        self._get("update", "--error-on=any")

    def download(self, names: Sequence[str], suite: str) -> None:
        """Download packages and all that they depend on, in the versions of `suite` if it can."""
        self._get("install", "--download-only", "--assume-yes", "--target-release", suite, *names)

    def download_only_what_it_names(self, name: str) -> None:
        """Download what a metapackage depends on, and nothing that those depend on."""
        said = _output(["apt-cache", *self._options, "depends", "--important", name])
        named = [line.split()[1] for line in said.splitlines() if "Depends:" in line]
        self._get("download", *named)

    def unpack(self, root: Path) -> None:
        """Unpack all that was downloaded; nothing is configured, no script of a package runs."""
        root.mkdir()
        packages = sorted(self.archives.glob("*.deb"))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(
                lambda each: _output(["dpkg-deb", "--extract", each, root]), packages
            ):
                pass

    def _get(self, *arguments: str) -> None:
        _output(["apt-get", *self._options, "--quiet", *arguments], self.archives)


def _mirror() -> str:
    """The mirror of Debian that the machine's apt is configured with."""
    listed = _output(
        [
            *("apt-get", "indextargets", "--no-release-info", "--format", "$(RELEASE) $(REPO_URI)"),
            *("Created-By: Packages", "Component: main"),
        ]
    )
    for line in listed.splitlines():
        release, _, uri = line.partition(" ")
        if release in _RELEASES:
            return uri
    raise NoPackages("needs a mirror of Debian in apt's configuration")


def _output(command: Sequence[str | Path], folder: Path | None = None) -> str:
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise NoPackages(f"{Path(command[0]).name} failed: {said}")
    return done.stdout
