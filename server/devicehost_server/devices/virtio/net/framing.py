r"""How frames travel on a stream: QEMU's way (`-netdev stream`), without any I/O.

Before each frame stands its size in 4 bytes, big-endian. There is nothing else: no greeting,
no metadata.

    >>> reader = FrameReader()
    >>> window = reader.room()
    >>> window[:7] = b"\0\0\0\x03abc"
    >>> reader.filled(7)
    >>> bytes(reader.frame()), reader.frame_done()
    (b'abc', None)
"""

from __future__ import annotations

import struct

LENGTH = struct.Struct(">I")

BUFFER_SIZE = 256 << 10
"""Bytes that are read from a peer at once, and wait here for the guest."""

SIZE_MAX = 68 << 10
"""The longest frame that a peer may announce, in bytes: what QEMU takes. Frames that are
longer than `frames.FRAME_MAX` aren't for guests, but no reason to leave."""


class BadLength(Exception):
    """The peer announced a frame that nobody sends; the argument is its size."""


class FrameReader:
    """Finds frames in bytes that come in any pieces.

    A buffer is read into, and frames are windows on it: they are moved only when the
    buffer's end has come.
    """

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(BUFFER_SIZE))
        self._first = 0  # where the bytes begin that haven't been dealt with
        self._last = 0  # one past the last byte that has come

    def room(self) -> memoryview:
        """Return where the next bytes belong; it is empty while too many wait."""
        if self._first and len(self._buffer) - self._last < LENGTH.size + SIZE_MAX:
            waiting = self._last - self._first
            self._buffer[:waiting] = self._buffer[self._first : self._last]
            self._first, self._last = 0, waiting
        return self._buffer[self._last :]

    def filled(self, size: int) -> None:
        """Take note that so many bytes have come into `room`."""
        self._last += size

    def frame(self) -> memoryview | None:
        """Return the next frame, if all of it has come. It is the same until `frame_done`.

        Raises:
            BadLength: its size can't be true.
        """
        first = self._first + LENGTH.size
        if first > self._last:
            return None
        size: int = LENGTH.unpack_from(self._buffer, self._first)[0]
        if size > SIZE_MAX:
            raise BadLength(size)
        if first + size > self._last:
            return None
        return self._buffer[first : first + size]

    def frame_done(self) -> None:
        """Go on behind the frame."""
        self._first += LENGTH.size + LENGTH.unpack_from(self._buffer, self._first)[0]
        if self._first == self._last:
            self._first = self._last = 0

    def clear(self) -> int:
        """Forget everything. Returns how many whole frames that were."""
        frames = 0
        try:
            while self.frame() is not None:
                self.frame_done()
                frames += 1
        except BadLength:
            pass
        self._first = self._last = 0
        return frames
