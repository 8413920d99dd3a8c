"""What a person wants to see afterwards."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from statistics import median

from devicehost.v1 import io_service_pb2
from devicehost_client.demo.measured_port import MeasuredPort

NOBODY = "(no device)"

# Control sequences (ECMA-48, 5.4) and the reset of a terminal, which firmware sends to its
# screen and which would clear the one that the report is on.
_CONTROL = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|[@-_a-z])")

_SPACE_NAMES = {io_service_pb2.SPACE_PIO: "pio", io_service_pb2.SPACE_MMIO: "mmio"}


def console_text(output: bytes) -> str:
    """What a guest printed, fit to be shown on a terminal."""
    return _CONTROL.sub("", output.decode(errors="replace")).replace("\r", "").strip()


def address_map(ranges: Iterable[io_service_pb2.ListRangesResponse.Range]) -> Iterator[str]:
    """The ranges that trap, a line each."""
    for trapped in ranges:
        last = trapped.base + trapped.size - 1
        space = _SPACE_NAMES[trapped.space]
        digits = 6 if space == "pio" else 18
        yield f"  {space:<5}{trapped.base:#0{digits}x}-{last:#0{digits}x}  {trapped.device_id}"


def accesses(
    port: MeasuredPort, ranges: Iterable[io_service_pb2.ListRangesResponse.Range]
) -> Iterator[str]:
    """How often each device was accessed, a line each, the busiest first."""
    owners = [
        (_SPACE_NAMES[trapped.space], range(trapped.base, trapped.base + trapped.size), trapped)
        for trapped in ranges
    ]

    def by_device(counts: Counter[tuple[str, int]]) -> Counter[str]:
        result: Counter[str] = Counter()
        for (space, address), count in counts.items():
            names = (
                t.device_id for s, addresses, t in owners if s == space and address in addresses
            )
            result[next(names, NOBODY)] += count
        return result

    reads, writes = by_device(port.reads), by_device(port.writes)
    yield f"  {'device':<14}{'reads':>8}{'writes':>8}"
    for device, _ in (reads + writes).most_common():
        yield f"  {device:<14}{reads[device]:>8}{writes[device]:>8}"


def round_trip(port: MeasuredPort, transport: str) -> str:
    """How long an access took, there and back."""
    latencies = sorted(port.latencies_ns)
    late = latencies[len(latencies) * 99 // 100] / 1000
    return (
        f"{len(latencies)} accesses, each to another process and back by {transport}:"
        f" median {median(latencies) / 1000:.1f} us, 99th percentile {late:.0f} us"
    )


def share_of_exit(exits_ns: Sequence[int], forwarded_ns: Sequence[int]) -> str:
    """What it adds to a KVM exit that its access is forwarded."""
    exit_ns = median(exits_ns)
    added_ns = median(forwarded_ns) - exit_ns
    return (
        f"A KVM exit takes {exit_ns / 1000:.1f} us here (median of {len(exits_ns)}). To forward"
        f" its access to the device, and back, adds {added_ns / 1000:.1f} us:"
        f" {added_ns / exit_ns:.0%} of it."
    )
