"""A pool of consecutive integers, and who has which of them.

    >>> pool: RangePool[str] = RangePool("pio", 0, 0x1_0000, [Reserved("COM1", 0x3F8, 8)])
    >>> pool.find(8, low=0x3F8)
    1024
    >>> pool.claim(0x3F8, 8, "uart0")
    >>> pool.overlapping(0x3FF, 2)
    Claim(base=1016, size=8, holder='uart0')

The integers are addresses, interrupt numbers or slots; the pool doesn't care. It is
generic in what a holder is.

Reserved ranges are free, but a search never finds them: they are for those who know
which one they want and `claim` it. A claim may reach across several of them and across
what lies between.

Invariants:
    An integer of the pool is claimed once, or in exactly one of: a gap, a reserved range.
    A range is released in the shape in which it was claimed.

What it costs with n ranges claimed: `find`, `claim` and `release` take O(log n) steps in
the tree of gaps. The sorted list of bases is a plain list: it moves 8 bytes for each
range behind the change, a microsecond or two at 10,000.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from devicehost_server.allocation.gap_tree import GapTree
from devicehost_server.model.errors import hex_range

HolderT = TypeVar("HolderT")


@dataclass(frozen=True, slots=True)
class Reserved:
    """`size` integers from `base` on that only an exact request gets.

    Attributes:
        name: what they are kept for: `COM1`.
        base: the first.
        size: how many.
    """

    name: str
    base: int
    size: int

    @property
    def last(self) -> int:
        """The last of them."""
        return self.base + self.size - 1


@dataclass(frozen=True, slots=True)
class PoolCapacity:
    """What a pool has left. All figures count integers: bytes, interrupts or slots.

    Attributes:
        name: of the pool.
        total: how many there are.
        free: how many nobody has, the reserved ones included.
        reserved: how many of the free ones only an exact request gets.
        largest_free: the size of the largest free piece without reserved ones.
    """

    name: str
    total: int
    free: int
    reserved: int
    largest_free: int


@dataclass(frozen=True, slots=True)
class Claim(Generic[HolderT]):
    """`holder` has the `size` integers from `base` on."""

    base: int
    size: int
    holder: HolderT


class RangePool(Generic[HolderT]):
    """The integers from `base` to `last`. Not thread-safe.

    Args:
        name: of the pool, for people.
        base: the first integer.
        size: how many, at least 1.
        reserved: ranges within the pool that don't overlap.
    """

    def __init__(self, name: str, base: int, size: int, reserved: Iterable[Reserved] = ()) -> None:
        self.name = name
        self.base = base
        self.size = size
        self.last = base + size - 1
        self._reserved = sorted(reserved, key=lambda piece: piece.base)
        self._gaps = GapTree()
        for piece_base, piece_size in self._unreserved(base, size):
            self._gaps.give(piece_base, piece_size)
        self._free = size
        self._bases: list[int] = []  # of the claimed ranges, ascending
        self._claims: dict[int, Claim[HolderT]] = {}  # by base

    @property
    def largest_free(self) -> int:
        """The size of the largest piece that `find` can find."""
        return self._gaps.largest

    def capacity(self) -> PoolCapacity:
        """Say what is left."""
        return PoolCapacity(
            name=self.name,
            total=self.size,
            free=self._free,
            reserved=self._free - self._gaps.total,
            largest_free=self._gaps.largest,
        )

    def claims(self) -> Iterator[Claim[HolderT]]:
        """Yield what is claimed, in ascending order."""
        return (self._claims[base] for base in self._bases)

    def reserved_within(self, low: int, high: int) -> list[Reserved]:
        """List the reserved ranges that touch [low, high]."""
        return [piece for piece in self._reserved if piece.base <= high and piece.last >= low]

    def find(
        self, size: int, align: int = 1, low: int | None = None, high: int | None = None
    ) -> int | None:
        """Return the lowest base at which `size` integers are free and not reserved.

        Args:
            size: at least 1.
            align: the base is a multiple of this power of two.
            low: the lowest integer allowed; None for the pool's.
            high: the highest integer allowed, inclusive; None for the pool's.
        """
        base = self._gaps.first_fit(size, align, self.base if low is None else max(low, self.base))
        # The lowest that there is runs past the window: so does every other.
        if base is None or (high is not None and base + size - 1 > high):
            return None
        return base

    def claim(self, base: int, size: int, holder: HolderT) -> None:
        """Give `size` integers from `base` on, reserved or not, to `holder`.

        Raises:
            ValueError: they are not all in the pool, or not all free. Nothing has changed.
        """
        inside = size > 0 and self.base <= base and base + size - 1 <= self.last
        if not inside or self.overlapping(base, size) is not None:
            raise ValueError(f"{hex_range(base, size)} is not all free in pool {self.name!r}")
        for piece_base, piece_size in self._unreserved(base, size):
            self._gaps.take(piece_base, piece_size)
        insort(self._bases, base)
        self._claims[base] = Claim(base, size, holder)
        self._free -= size

    def release(self, base: int) -> None:
        """Take back the range that was claimed at `base`.

        Raises:
            KeyError: there is none.
        """
        claim = self._claims.pop(base)
        del self._bases[bisect_left(self._bases, base)]
        for piece_base, piece_size in self._unreserved(base, claim.size):
            self._gaps.give(piece_base, piece_size)
        self._free += claim.size

    def claim_at(self, base: int) -> Claim[HolderT] | None:
        """Return the claim that begins at `base`; None if there is none."""
        return self._claims.get(base)

    def overlapping(self, base: int, size: int) -> Claim[HolderT] | None:
        """Return the first claim that shares an integer with these; None if there is none."""
        index = max(bisect_right(self._bases, base) - 1, 0)
        for claim in (self._claims[at] for at in self._bases[index : index + 2]):
            if claim.base < base + size and base < claim.base + claim.size:
                return claim
        return None

    def _unreserved(self, base: int, size: int) -> Iterator[tuple[int, int]]:
        """Yield base and size of each piece of a range that isn't reserved."""
        end = base + size
        index = bisect_right(self._reserved, base, key=lambda piece: piece.last + 1)
        for piece in self._reserved[index:]:
            if piece.base >= end:
                break
            if base < piece.base:
                yield base, piece.base - base
            base = piece.last + 1
        if base < end:
            yield base, end - base
