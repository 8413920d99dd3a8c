"""A kind of number that is handed out: ports, addresses, interrupts or slots.

A `Space` is one pool, or several in the order in which they are tried. It turns what a
pool answers into errors for people: who has it, how much is left, what was allowed.

    >>> pio = Space("pio", [RangePool("pio", 0, 0x1_0000)], NoSpace)
    >>> base = pio.find(Wish(size=8))
    >>> pio.claim(base, 8, Allocation(PioAddressRange(base, 8), "uart0"))

Invariants:
    What `find` returns can be claimed, until something else is.
    A failure changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from devicehost_server.allocation.range_pool import RangePool
from devicehost_server.model.errors import BadConstraint, NotAllocated, NothingLeft, RangeTaken
from devicehost_server.model.resources import Resource


@dataclass(frozen=True, slots=True)
class Allocation:
    """A resource, and whose it is."""

    resource: Resource
    owner: str


Pool: TypeAlias = RangePool[Allocation]


@dataclass(frozen=True, slots=True)
class Wish:
    """`size` consecutive numbers, the first a multiple of `align`, within [low, high].

    Attributes:
        size: at least 1.
        align: a power of two.
        low: None for no bound but the pools' own.
        high: inclusive; None likewise.
    """

    size: int
    align: int = 1
    low: int | None = None
    high: int | None = None

    @classmethod
    def exact(cls, base: int, size: int = 1) -> Wish:
        """These and no others."""
        return cls(size, low=base, high=base + size - 1)

    @property
    def only_base(self) -> int | None:
        """The one base that the bounds allow; None if they leave a choice."""
        if self.low is None or self.high is None or self.high - self.low + 1 > self.size:
            return None
        return self.low

    @property
    def is_bounded(self) -> bool:
        """Whether the wish names any number."""
        return self.low is not None or self.high is not None

    def fits(self, pool: Pool) -> bool:
        """Whether `pool` could satisfy the wish if it were empty."""
        low = pool.base if self.low is None else max(self.low, pool.base)
        high = pool.last if self.high is None else min(self.high, pool.last)
        return low + -low % self.align + self.size - 1 <= high


class Space:
    """The pools of one kind of number. Not thread-safe.

    Args:
        name: what the numbers are, for people: `mmio`.
        pools: in the order in which they are tried; no number is in two of them.
        exhausted: the error if nothing is left.
        decimal: whether people read the numbers in decimal: interrupts, not addresses.
        field: the field of a constraint that names a number, if it isn't `min` and `max`.
    """

    def __init__(
        self,
        name: str,
        pools: Iterable[Pool],
        exhausted: type[NothingLeft],
        *,
        decimal: bool = False,
        field: str = "",
    ) -> None:
        self.name = name
        self.pools = list(pools)
        self._exhausted = exhausted
        self._format = "d" if decimal else "#x"
        self._field = field

    def describe(self, base: int, size: int) -> str:
        """Name some numbers for people: `pio 0x3f8-0x3ff`, `legacy IRQ 4`."""
        return f"{self.name} {self._span(base, base + size - 1)}"

    def allocations(self) -> Iterator[Allocation]:
        """Yield what is claimed, in ascending order."""
        return (claim.holder for pool in self.pools for claim in pool.claims())

    def find(self, wish: Wish) -> int:
        """Return the lowest base that satisfies `wish`, in the first pool that has one.

        Raises:
            BadConstraint: no pool could satisfy the bounds, even if it were empty.
            RangeTaken: the wish is exact, and somebody has a part of it.
            NothingLeft: nothing free satisfies it.
        """
        pools = [pool for pool in self.pools if wish.fits(pool)]
        if wish.is_bounded and not pools:
            raise self._out_of_bounds(wish)
        only_base = wish.only_base
        if only_base is not None:
            self._require_free(pools[0], only_base, wish.size)
            return only_base
        for pool in pools:
            base = pool.find(wish.size, wish.align, wish.low, wish.high)
            if base is not None:
                return base
        raise self._nothing_left(wish, pools)

    def claim(self, base: int, size: int, allocation: Allocation) -> None:
        """Record that what `find` found is somebody's."""
        pool = self._pool_of(base)
        if pool is None:
            raise ValueError(f"{self.describe(base, size)} is in no pool")
        pool.claim(base, size, allocation)

    def release(self, base: int, size: int, allocation: Allocation) -> None:
        """Take back what was claimed for exactly this `allocation`.

        Raises:
            NotAllocated: it wasn't, and nothing has changed.
        """
        pool = self._pool_of(base)
        claim = None if pool is None else pool.overlapping(base, size)
        what = self.describe(base, size)
        if pool is None or claim is None:
            raise NotAllocated(f"{what} isn't allocated")
        owner, resource = claim.holder.owner, claim.holder.resource
        if resource != allocation.resource:
            raise NotAllocated(f"{what} isn't allocated like this: {owner!r} has {resource!r}")
        if owner != allocation.owner:
            raise NotAllocated(f"{what} belongs to {owner!r}")
        pool.release(base)

    def _pool_of(self, number: int) -> Pool | None:
        return next((pool for pool in self.pools if pool.base <= number <= pool.last), None)

    def _span(self, low: int, high: int) -> str:
        first = format(low, self._format)
        return first if low == high else f"{first}-{format(high, self._format)}"

    # Errors.

    def _require_free(self, pool: Pool, base: int, size: int) -> None:
        claim = pool.overlapping(base, size)
        if claim is not None:
            held = self.describe(claim.base, claim.size)
            raise RangeTaken(
                f"{self.describe(base, size)} is taken: {claim.holder.owner!r} has {held}",
                pool=pool.name,
                range=self._span(base, base + size - 1),
                holder=claim.holder.owner,
                held=self._span(claim.base, claim.base + claim.size - 1),
            )

    def _out_of_bounds(self, wish: Wish) -> BadConstraint:
        allowed = " or ".join(self._span(pool.base, pool.last) for pool in self.pools)
        asked = self._bounds(wish)
        size = format(wish.size, self._format)
        what = f"{size} in {asked}" if wish.only_base is None else asked
        return BadConstraint(
            f"{self.name} constraint: {what}: no pool has that, allowed: {allowed}",
            field=self._field or ("max" if wish.low is None else "min"),
            value=asked,
            size=size,
            allowed=allowed,
        )

    def _nothing_left(self, wish: Wish, pools: Sequence[Pool]) -> NothingLeft:
        requested = format(wish.size, self._format)
        largest = format(max(pool.largest_free for pool in self.pools), self._format)
        aligned = f", aligned to {format(wish.align, self._format)}" if wish.align > 1 else ""
        within = f" in {self._bounds(wish)}" if wish.is_bounded else ""
        return self._exhausted(
            f"{self.name}: no free piece of size {requested}{aligned}{within};"
            f" the largest has {largest}{self._kept(wish, pools)}",
            pool=self.name,
            requested=requested,
            align=format(wish.align, self._format),
            largest_free=largest,
        )

    def _bounds(self, wish: Wish) -> str:
        """Name the bounds of a wish that has any."""
        low = 0 if wish.low is None else wish.low
        if wish.high is None:
            return f"{format(low, self._format)} and up"
        return self._span(low, wish.high)

    @staticmethod
    def _kept(wish: Wish, pools: Sequence[Pool]) -> str:
        """Tell whoever named a window what in it is reserved, and how to get that."""
        if wish.low is None or wish.high is None:
            return ""
        names = [
            piece.name for pool in pools for piece in pool.reserved_within(wish.low, wish.high)
        ]
        return f"; only an exact request gets what is reserved: {', '.join(names)}" if names else ""
