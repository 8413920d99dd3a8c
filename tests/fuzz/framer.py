"""A stream cut into messages in the plainest way: the measure for `devicehost`'s own.

It copies, and knows nothing of a message but its size. File descriptors belong to the
message that holds the last byte of the read that they came by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from devicehost.vfio_user import Limits
from devicehost.vfio_user.header import HEADER_SIZE

Piece: TypeAlias = tuple[bytes, tuple[int, ...]]
"""Bytes, and the file descriptors that belong to them."""


class Framer:
    """Collects bytes, and hands out whole messages.

    Args:
        limits: a message beyond `max_drained_size` can't be one: from there on, everything
            comes out as it goes in.
    """

    def __init__(self, limits: Limits) -> None:
        self._longest = max(limits.max_message_size, limits.max_drained_size)
        self._bytes = b""
        self._fds: tuple[int, ...] = ()
        self._lost = False

    @property
    def empty(self) -> bool:
        """Whether the next byte begins a message."""
        return not self._bytes

    def feed(self, chunk: bytes, fds: Sequence[int]) -> list[Piece]:
        """Take what one read brought; return the messages that are whole now."""
        if not chunk:
            return [(b"", tuple(fds))]
        self._bytes += chunk
        pieces: list[Piece] = []
        while size := self._next_size():
            pieces.append((self._bytes[:size], self._fds))
            self._bytes, self._fds = self._bytes[size:], ()
        if pieces and not self._bytes:
            last, held = pieces.pop()
            pieces.append((last, (*held, *fds)))
        else:
            self._fds += tuple(fds)
        return pieces

    def rest(self) -> Piece:
        """The message that stays unfinished."""
        return self._bytes, self._fds

    def _next_size(self) -> int:
        """The size of the message at the front, or 0 if it isn't whole."""
        there = len(self._bytes)
        if self._lost:
            return there
        if there < HEADER_SIZE:
            return 0
        size = int.from_bytes(self._bytes[4:8], "little")
        if not HEADER_SIZE <= size <= self._longest:
            self._lost = True
            return there
        return size if size <= there else 0
