"""The buffers of one connection, which are used over and over."""

from __future__ import annotations

from devicehost.vfio_user.fast_access import DATA

RECEIVE_SIZE = 1 << 16
"""The most that one read takes, in bytes."""

SMALL = 64
"""Windows are kept for data up to this size: to make one takes longer than to use it."""


class Buffers:
    """What is read, and what is to be written.

    Attributes:
        start, size: what was read and isn't served yet is `received[start:size]`.
        windows: the data of a reply at the front of `answers`, by its size.
    """

    __slots__ = ("answers", "into", "received", "size", "start", "view", "windows")

    def __init__(self, unserved: bytes = b"") -> None:
        self.received = bytearray(RECEIVE_SIZE)
        self.received[: len(unserved)] = unserved
        self.into = [self.received]
        self.start = 0
        self.size = len(unserved)
        self.answers = bytearray(2 * RECEIVE_SIZE + DATA)
        self.view = memoryview(self.answers)
        self.windows = [self.view[DATA : DATA + size] for size in range(SMALL + 1)]

    def take(self) -> bytes:
        """Return what isn't served yet, as if it were."""
        unserved = bytes(self.received[self.start : self.size])
        self.size = self.start
        return unserved
