"""Output to a file, and to nowhere.

A file can't be waited for (epoll refuses it), and it needn't be: a write to it is done when
it returns. What can happen is that it fails, since the disk is full or the quota used up.
Then nothing is thrown away: the bytes stay in the outbox, the write is tried again at
growing intervals, and the device has to wait once the outbox is full.

The loop's thread does the writes. A disk that hangs stalls the other streams of the
process until their buffers are full, but no vCPU.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from devicehost_server.devices.chardev.stream import Stream
from devicehost_server.model.device_io import ReadableBuffer


class NullStream(Stream):
    """Takes everything at once, and brings nothing. It needs no loop."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity, attached=True)

    @property
    def address(self) -> str:
        """Nowhere."""
        return "null"

    def write(self, data: ReadableBuffer) -> int:
        """Take all of `data`."""
        self._sent += len(data)
        return len(data)

    def start(self, listener: object) -> None:
        """Do nothing: there will be no news for `listener`."""

    def _transfer(self) -> None:
        """Move nothing: no loop calls this."""

    def _release(self) -> None:
        """Free nothing: there is nothing to free."""


class FileStream(Stream):
    """Appends to the file at `path`: earlier output stays when a daemon starts again.

    Raises:
        OSError: it can't be opened, or is neither a regular file nor a character device.
    """

    def __init__(self, path: Path, capacity: int) -> None:
        super().__init__(capacity, attached=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_NONBLOCK
        self._path = path
        self._fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
        mode = os.fstat(self._fd).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISCHR(mode):
            os.close(self._fd)
            raise OSError(errno.EINVAL, "neither a regular file nor a character device")

    @property
    def address(self) -> str:
        """The file's path."""
        return str(self._path)

    def _transfer(self) -> None:
        if not self._send_patiently(lambda chunk: os.write(self._fd, chunk)):
            self._put_off()  # some character device that isn't ready

    def _release(self) -> None:
        os.close(self._fd)
