"""What an allocation costs with few and with many live ones around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from measure import Result, result, time_batches

from devicehost_server.allocation import ResourceManager
from devicehost_server.model.resources import MmioAddressConstraint

LIVE = (100, 10_000)


def results(*, quick: bool) -> Iterator[Result]:
    """Measure an allocation and its release in fragmented pools, taking turns."""
    allocators = {live: _allocator(live) for live in LIVE}
    samples: dict[int, list[float]] = {live: [] for live in LIVE}
    for _ in range(10 if quick else 40):
        for live, allocator in allocators.items():
            samples[live] += time_batches(allocator, 10, 20)
    for live in LIVE:
        yield result(f"allocate.{live}", samples[live], f"allocate and release, {live} live")


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
