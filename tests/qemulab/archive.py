"""A cpio archive as the kernel unpacks it: the format "newc".

See the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat

_MAGIC = b"070701"
_ALIGNMENT = 4


class Archive:
    """Files, folders and devices, in the order in which they are added.

    A folder is added before what is in it.
    """

    def __init__(self) -> None:
        self._content = bytearray()
        self._count = 0

    def folder(self, path: str) -> None:
        """Add a folder."""
        self._add(path, stat.S_IFDIR | 0o755)

    def file(self, path: str, content: bytes) -> None:
        """Add a file, which may be executed."""
        self._add(path, stat.S_IFREG | 0o755, content)

    def character_device(self, path: str, major: int, minor: int) -> None:
        """Add a device."""
        self._add(path, stat.S_IFCHR | 0o600, device=(major, minor))

    def finish(self) -> bytes:
        """Return the archive."""
        self._add("TRAILER!!!", 0)
        return bytes(self._content)

    def _add(
        self, path: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)
    ) -> None:
        name = path.encode() + b"\0"
        self._count += 1
        # inode, mode, uid, gid, links, mtime, size, device of the file (major, minor),
        # device that it is (major, minor), size of the name, check sum (of another format)
        fields = (self._count, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name), 0)
        self._append(_MAGIC + b"".join(b"%08X" % field for field in fields) + name)
        self._append(content)

    def _append(self, data: bytes) -> None:
        self._content += data
        self._content += bytes(-len(self._content) % _ALIGNMENT)
