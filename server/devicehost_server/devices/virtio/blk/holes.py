"""Space of a file given back, or made to read as zeros, without writing it.

These are Linux's `fallocate(2)` modes that Python's `os` doesn't have, and one `ioctl` of
block devices. Offsets and sizes are in bytes.

    punch(fd, 0, 4096)      # deallocated, reads as zeros
    zero(fd, 0, 4096)       # reads as zeros, stays allocated
    discard(fd, 0, 4096)    # deallocated as far as the storage likes; reads as anything

Each raises `OSError`. `EOPNOTSUPP` says that the file system or the device can't do it.
None of them changes the file's size.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02
_ZERO_RANGE = 0x10
"""FALLOC_FL_*, linux/falloc.h."""

_BLKDISCARD = 0x1277
"""linux/fs.h; its argument is the offset and the size, 64 bits each."""

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = _libc.fallocate
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_fallocate.restype = ctypes.c_int


def punch(fd: int, offset: int, size: int) -> None:
    """Deallocate a range, which reads as zeros then. Works on block devices as well."""
    _allocate(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, size)


def zero(fd: int, offset: int, size: int) -> None:
    """Make a range read as zeros, and keep its space. Works on block devices as well."""
    _allocate(fd, _ZERO_RANGE | _KEEP_SIZE, offset, size)


def discard(fd: int, offset: int, size: int) -> None:
    """Tell a block device that nobody needs what is in a range."""
    fcntl.ioctl(fd, _BLKDISCARD, struct.pack("=QQ", offset, size))


def _allocate(fd: int, mode: int, offset: int, size: int) -> None:
    while _fallocate(fd, mode, offset, size):
        error = ctypes.get_errno()
        if error != errno.EINTR:
            raise OSError(error, os.strerror(error))
