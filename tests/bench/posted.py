"""Posted writes, sustained: the client goes on for a second or more, and all of them count.

The device keeps what it gets. At the end it is asked how many came in order, and a write
that was lost, doubled or overtaken ends the bench.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import cycle
from statistics import median

from lab import ADDRESS, SIZES, queue_of
from ledger import IN_ORDER, LEDGER, numbers
from measure import Effort, Result, percentile

from devicehost.v1 import io_service_pb2 as pb
from devicehost_client.vcpu import Vcpu

_BLOCK = 256  # writes between two looks at the clock


class LostWrites(Exception):
    """Posted writes didn't arrive, or not in order."""


def posted(
    way: str, vcpu: Vcpu, note: str, effort: Effort, *, suffix: str = ""
) -> Iterator[Result]:
    """Post writes of all sizes over the transport of a vCPU."""
    for size in SIZES:
        yield _sustained(
            f"{way}.posted{size}{suffix}",
            f"{size}-byte posted writes {note}, {effort.sustained_s:g} s on end",
            vcpu,
            size,
            effort.sustained_s,
        )


def _sustained(name: str, note: str, vcpu: Vcpu, size: int, sustained_s: float) -> Result:
    values = numbers(size)
    blocks = [values[first : first + _BLOCK] for first in range(0, len(values), _BLOCK)]
    vcpu.mmio_read(ADDRESS + IN_ORDER, 8)  # begins anew
    post, mmio, address = queue_of(vcpu).post, pb.SPACE_MMIO, ADDRESS + LEDGER
    times: list[float] = []
    now = time.perf_counter_ns
    began = before = now()
    end = began + sustained_s * 1e9
    for block in cycle(blocks):
        for value in block:
            post(mmio, address, value, size)
        after = now()
        times.append((after - before) / _BLOCK)
        before = after
        if after >= end:
            break
    vcpu.mmio_read(ADDRESS, size)  # comes after them, so they are made when it returns
    took_s = (now() - began) / 1e9
    sent, arrived = len(times) * _BLOCK, vcpu.mmio_read(ADDRESS + IN_ORDER, 8)
    if arrived != sent:
        raise LostWrites(f"{name}: {sent} were posted, {arrived} arrived in order")
    return Result(name, note, median(times), percentile(times, 99), per_second=sent / took_s)
