"""A disk image: a regular file or a block device, as a range of bytes.

    disk = Disk.open(path, read_only=False, locked=True)
    disk.write(windows, 0)          # from memory, without a copy in Python
    disk.flush()                    # what was written before is on the disk now
    disk.close()

Data is moved between the file and `windows`, memoryviews of single bytes, by `preadv` and
`pwritev`. Offsets and sizes are in bytes. The methods may be called by any thread, several
at once. They raise `OSError` for what the disk couldn't do.

What is durable: a write is, once a `flush` that was called after it has returned. Linux
tells of a failed write-back once, and regards the data as clean then, though it isn't on
the disk. A flush that comes after a failed one would succeed, and claim what isn't so.
Therefore flushes fail from the first failure on, until the disk is opened anew for a guest
that starts anew, too; for one that goes on, set `flush_error` as it was.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from devicehost_server.devices.virtio.blk import holes
from devicehost_server.devices.virtio.blk.image_lock import lock_image
from devicehost_server.devices.virtio.blk.spec import SECTOR
from devicehost_server.model.errors import BadConfig

_IOV_MAX: int = os.sysconf("SC_IOV_MAX")
_ZEROS = memoryview(bytes(1 << 18))
_CANT = (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY)
_CANT_BE_WRITTEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY)


class Disk:
    """An open image. `Disk.open` makes one.

    Attributes:
        size: of the image when it was opened.
        read_only: whether it was opened so.
        tells_cached: whether it may be able to do `read_cached`.
        flush_error: the number of the error by which all flushes fail; 0 if none did.
    """

    def __init__(self, fd: int, *, read_only: bool) -> None:
        self._fd = fd
        self.read_only = read_only
        self.size = os.lseek(fd, 0, os.SEEK_END)
        self._is_device = stat.S_ISBLK(os.fstat(fd).st_mode)
        self.tells_cached = True
        self._cant: set[Callable[[int, int, int], None]] = set()
        self._flushing = threading.Lock()
        self._flushes = 0
        self.flush_error = 0

    @classmethod
    def open(cls, path: Path, *, read_only: bool, locked: bool, device_type: str) -> Disk:
        """Open the image at `path`.

        Args:
            path: of a regular file or a block device.
            read_only: whether nothing may be written.
            locked: whether to lock it, see `image_lock`.
            device_type: whose configuration named it, for errors.

        Raises:
            BadConfig: it can't be used; the field is `file`, or `lock`.
        """

        def bad(why: str, field: str = "file") -> BadConfig:
            message = f"device type {device_type!r}: field {field!r}: {str(path)!r} {why}"
            return BadConfig(message, field=field, type=device_type)

        mode = os.O_RDONLY if read_only else os.O_RDWR
        try:
            kind = path.stat().st_mode
            if not stat.S_ISREG(kind) and not stat.S_ISBLK(kind):
                what = "is a folder" if stat.S_ISDIR(kind) else "is something else"
                raise bad(f"{what}; allowed: a regular file or a block device")
            fd = os.open(path, mode | os.O_CLOEXEC)
        except OSError as error:
            why = f"can't be opened: {error.strerror}"
            if not read_only and error.errno in _CANT_BE_WRITTEN:
                why = f"{why}; read_only=yes does without writing"
            raise bad(why) from None
        with ExitStack() as undo:
            undo.callback(os.close, fd)
            if locked:
                _lock(fd, bad, read_only=read_only)
            disk = cls(fd, read_only=read_only)
            if not disk.size or disk.size % SECTOR:
                allowed = f"a multiple of {SECTOR}, at least {SECTOR}"
                raise bad(f"has {disk.size} bytes; allowed: {allowed}")
            undo.pop_all()
        return disk

    def close(self) -> None:
        """Close the image; its locks go."""
        os.close(self._fd)

    def read(self, windows: Sequence[memoryview], offset: int, size: int) -> None:
        """Fill `windows`, which have `size` bytes, from `offset` on.

        Raises:
            OSError: that failed, or the image ends before.
        """
        _move(lambda some, at: os.preadv(self._fd, some, at), windows, offset, size)

    def read_cached(self, windows: Sequence[memoryview], offset: int, size: int) -> bool:
        """Do as `read` if that doesn't have to wait for the disk; return whether it was done.

        What is in `windows` if it wasn't may be anything.
        """
        try:
            return os.preadv(self._fd, windows[:_IOV_MAX], offset, os.RWF_NOWAIT) == size
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _CANT:
                raise
            self.tells_cached = False  # a tmpfs can't, for one
            return False

    def write(self, windows: Sequence[memoryview], offset: int, size: int) -> None:
        """Write `windows`, which have `size` bytes, from `offset` on."""
        _move(lambda some, at: os.pwritev(self._fd, some, at), windows, offset, size)

    def flush(self) -> None:
        """Return when all that was written before is on the disk.

        Raises:
            OSError: it isn't. All later flushes fail, too.
        """
        seen = self._flushes
        # One at a time: Linux tells only one of those that wait for a failure.
        with self._flushing:
            if self.flush_error:
                raise OSError(self.flush_error, os.strerror(self.flush_error))
            if self._flushes != seen:
                return  # one has begun after this call, and ended
            self._flushes += 1
            try:
                os.fdatasync(self._fd)
            except OSError as error:
                self.flush_error = error.errno or errno.EIO
                raise

    def discard(self, offset: int, size: int) -> None:
        """Give back the space of a range, if that is possible."""
        self._try(holes.discard if self._is_device else holes.punch, offset, size)

    def zero(self, offset: int, size: int, *, unmap: bool) -> None:
        """Make a range read as zeros.

        Args:
            offset: of its first byte.
            size: of it.
            unmap: whether its space may be given back.
        """
        if unmap and self._try(holes.punch, offset, size):
            return
        if self._try(holes.zero, offset, size):
            return
        while size:
            part = min(size, len(_ZEROS))
            self.write([_ZEROS[:part]], offset, part)
            offset, size = offset + part, size - part

    def _try(self, way: Callable[[int, int, int], None], offset: int, size: int) -> bool:
        """Do what the file system may be unable to do; return whether it was done.

        It may be able to do it for other ranges: a disk with blocks of 4096 bytes takes no
        less (EINVAL), while the page cache, by which data goes, doesn't mind.
        """
        if way in self._cant:
            return False
        try:
            way(self._fd, offset, size)
        except OSError as error:
            if error.errno in _CANT:
                self._cant.add(way)
            elif error.errno != errno.EINVAL:
                raise
            return False
        return True


def _lock(fd: int, bad: Callable[[str, str], BadConfig], *, read_only: bool) -> None:
    """Lock an image, or raise what `bad` makes of a reason and a field."""
    try:
        lock_image(fd, read_only=read_only)
    except BlockingIOError:
        why = "is in use by another program that writes it, or wants no writer"
        raise bad(why, "file") from None
    except OSError as error:
        why = f"can't be locked: {error.strerror}; lock=no does without"
        raise bad(why, "lock") from None


def _move(
    call: Callable[[Sequence[memoryview], int], int],
    windows: Sequence[memoryview],
    offset: int,
    size: int,
) -> None:
    """Call `call` with (windows, offset) until `size` bytes are moved.

    Raises:
        OSError: it failed, or moved nothing.
    """
    while size:
        moved = call(windows[:_IOV_MAX], offset)
        if not moved:
            raise OSError(errno.EIO, "the image ends before its size")
        offset += moved
        size -= moved
        if size:
            windows = _skip(windows, moved)


def _skip(windows: Sequence[memoryview], count: int) -> Sequence[memoryview]:
    """Return what follows the first `count` bytes of `windows`."""
    for index, window in enumerate(windows):
        if count < len(window):
            return (window[count:], *windows[index + 1 :])
        count -= len(window)
    return ()
