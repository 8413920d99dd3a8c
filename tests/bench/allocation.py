"""What an allocation costs with few and with many live ones around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from measure import Case, Effort, Result, measure

from devicehost_server.allocation import ResourceManager
from devicehost_server.model.resources import MmioAddressConstraint

LIVE = (100, 10_000)


def results(effort: Effort) -> Iterator[Result]:
    """Measure an allocation and its release in fragmented pools."""
    cases = [
        Case(
            f"allocate.{live}",
            f"allocate and release, {live} live",
            _allocator(live),
            beside="" if live == LIVE[0] else f"allocate.{LIVE[0]}",
        )
        for live in LIVE
    ]
    return measure(cases, effort).results()


def _allocator(live: int) -> Callable[[int], None]:
    """Allocates in a pool with `live` ranges, as many gaps between them, of mixed sizes."""
    resources = ResourceManager()
    sizes = [0x1000 << (n % 4) for n in range(2 * live)]
    given = [
        resources.allocate([MmioAddressConstraint(size=size)], f"owner-{n}")
        for n, size in enumerate(sizes)
    ]
    for n in range(0, 2 * live, 2):
        resources.release(given[n], f"owner-{n}")
    # Twice as large as any gap, aligned, so that the search can't take the first one.
    wanted = [MmioAddressConstraint(size=0x10000, align=0x10000)]

    def allocate(times: int) -> None:
        for _ in range(times):
            resources.release(resources.allocate(wanted, "bench"), "bench")

    return allocate
