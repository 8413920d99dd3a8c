"""What the guest boots: busybox, some modules and programs, and init.sh.

It lies beside the environment, and is made anew when what it is made from is another.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from qemulab.archive import Archive
from qemulab.environment import Environment

MODULES = ("uio_pci_generic", "virtio_blk", "virtio_net", "virtio-rng")
"""Loaded at boot; what else a guest needs is built into the kernel."""

PROGRAMS = ("mkfs.ext4",)
"""Beside busybox, which has the rest."""

_INIT = Path(__file__).with_name("init.sh")
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


def initramfs(environment: Environment, *more: str) -> Path:
    """Return the file, with the programs `more` in it."""
    programs = (*PROGRAMS, *more)
    recipe = repr((MODULES, programs)).encode() + _INIT.read_bytes() + Path(__file__).read_bytes()
    key = hashlib.sha256(recipe).hexdigest()[:12]
    path = environment.root / "boot" / f"initramfs-{key}"
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as made:
            made.write(_make(environment, programs))
        Path(made.name).rename(path)
    return path


def _make(environment: Environment, programs: Sequence[str]) -> bytes:
    archive = Archive()
    modules = f"lib/modules/{environment.modules.name}"
    for folder in ("bin", "dev", "lib", "lib64", "lib/modules", modules):
        archive.folder(folder)
    archive.character_device("dev/console", 5, 1)
    archive.file("init", _INIT.read_bytes())
    archive.file("bin/busybox", environment.find("busybox").read_bytes())
    archive.file(f"lib64/{environment.loader.name}", environment.loader.read_bytes())
    libraries: set[Path] = set()
    for program in programs:
        archive.file(f"bin/{program}", environment.find(program).read_bytes())
        libraries.update(environment.libraries(program))
    for library in sorted(libraries):
        archive.file(f"lib/{library.name}", library.read_bytes())
    dependencies = []
    for name, (content, needs) in _with_dependencies(environment, MODULES).items():
        archive.file(f"{modules}/{name}.ko", content)
        dependencies.append(f"{name}.ko: {' '.join(f'{each}.ko' for each in needs)}\n")
    archive.file(f"{modules}/modules.dep", "".join(dependencies).encode())
    return archive.finish()


def _with_dependencies(
    environment: Environment, names: Sequence[str]
) -> dict[str, tuple[bytes, list[str]]]:
    """Modules by name: the content, and all that must be loaded before, the first one last."""
    files = {path.name.split(".")[0]: path for path in environment.modules.rglob("*.ko.xz")}
    found: dict[str, tuple[bytes, list[str]]] = {}
    for name in names:
        content = lzma.decompress(files[name].read_bytes())
        depends = _DEPENDS.search(content)
        direct = depends[1].decode().split(",") if depends and depends[1] else []
        behind = _with_dependencies(environment, direct)
        needs = [each for name in direct for each in (name, *behind[name][1])]
        found |= {**behind, name: (content, needs)}
    return found
