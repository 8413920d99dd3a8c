"""Locks that keep two programs from writing one disk image, as QEMU takes them.

QEMU's convention (block/file-posix.c): each permission that a user of an image may have has
a number. Who has permission N holds a shared lock on byte 100 + N of the file, and who
wants that nobody else has it holds one on byte 200 + N. Nobody ever holds an exclusive
lock: these are only asked for, to find out who holds a shared one. So QEMU's own tools see
that an image is in use here, and a QEMU that runs on an image is seen here.

The locks belong to the open file description (`F_OFD_SETLK`). They go when it is closed,
and so with the process, however that ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

_READ, _WRITE, _RESIZE = 0, 1, 3
"""Permissions: consistent reads, writes, and a change of the size."""

_HELD = 100
_WITHHELD = 200

_FLOCK = struct.Struct("@hh4xqqi4x")
"""struct flock: type, whence, start, size in bytes, process."""


def lock_image(fd: int, *, read_only: bool) -> None:
    """Lock an image for as long as `fd` is open.

    Readers share it. Who writes has it alone.

    Raises:
        BlockingIOError: another one has it, in a way that rules this out.
        OSError: locks don't work there.
    """
    held = (_READ,) if read_only else (_READ, _WRITE, _RESIZE)
    withheld = (_WRITE, _RESIZE)
    # First told, then asked: of two that come at once, both may be refused, but not neither.
    for byte in (*(_HELD + each for each in held), *(_WITHHELD + each for each in withheld)):
        _flock(fd, fcntl.F_OFD_SETLK, fcntl.F_RDLCK, byte)
    for byte in (*(_WITHHELD + each for each in held), *(_HELD + each for each in withheld)):
        if _flock(fd, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, byte) != fcntl.F_UNLCK:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _flock(fd: int, command: int, kind: int, byte: int) -> int:
    """Lock one byte, or ask for it; return the kind of lock that there is."""
    answer = fcntl.fcntl(fd, command, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
    found: int = _FLOCK.unpack(answer)[0]
    return found
