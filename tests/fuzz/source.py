"""What a fuzz target makes of its input: numbers, bytes and choices, from the front.

Any input is a valid one: behind its end there are zeros. So an input means the same to a
coverage-guided fuzzer, to a test that replays it, and to whoever reads it by hand.

    >>> source = Source(bytes.fromhex("05 0300 616263 ff"))
    >>> source.byte(), source.blob(), source.choose("xyz"), source.left, source.byte()
    (5, b'abc', 'x', False, 0)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Source:
    """An input that is used up from the front.

    Args:
        data: the input.
    """

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        """Whether there is more."""
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """Up to `size` bytes: as many as there are."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def number(self, size: int) -> int:
        """An unsigned number of `size` bytes, little-endian."""
        return int.from_bytes(self.take(size), "little")

    def byte(self) -> int:
        """A number of one byte."""
        return self.number(1)

    def blob(self) -> bytes:
        """Bytes with their number, of two bytes, in front."""
        return self.take(self.number(2))

    def choose(self, options: Sequence[T]) -> T:
        """One of `options`: by a byte, modulo their number."""
        return options[self.byte() % len(options)]
