"""A gRPC call to a server whose poller spins, beside the same call while it sleeps.

The poller is kept awake by a client of the ring in a process of its own, with an access
every 50 microseconds; it does nothing in between.

Run as a program, it is that client: `polling.py ENDPOINT`.
"""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import lab
from children import child, say
from grpc_ways import unary_read
from measure import Case, Effort, Result, measure

from devicehost_client import connect

_PERIOD_S = 50e-6


def results(effort: Effort) -> Iterator[Result]:
    """Measure a unary read with and without."""
    periods_us: list[float] = []
    with (
        lab.server() as running,
        grpc.insecure_channel(running.endpoint) as channel,
        child("polling.py", running.endpoint) as pacer,
    ):

        def begin() -> None:
            pacer.tell("go")
            pacer.hear()

        def end() -> None:
            pacer.tell("stop")
            periods_us.append(float(pacer.hear()))

        read = unary_read(channel, 4)
        asleep = Case("asleep", "", read)
        awake = Case("grpc.unary.read4.polling", "", read, "asleep", begin=begin, end=end)
        *_, result = measure([asleep, awake], effort).results()
    period_us = sorted(periods_us)[len(periods_us) // 2]
    yield replace(
        result,
        note="4-byte read by gRPC unary while the ring is polled,"
        f" with an access every {period_us:.0f} us",
        beside="grpc.unary.read4",
    )


def pace(endpoint: str) -> None:
    """Make accesses in time, from one line to the next; say how far apart they were, in us."""
    # Else the kernel adds up to 50 us to each sleep.
    Path("/proc/self/timerslack_ns").write_text("1")
    told = select.poll()
    told.register(sys.stdin, select.POLLIN)
    with connect(endpoint, transport="ring") as host:
        vcpu = host.vcpu(0)
        say("ready")
        while sys.stdin.readline():
            say("going")
            began = following = time.monotonic()
            made = 0
            while not told.poll(0):
                vcpu.mmio_read(lab.ADDRESS, 4)
                made += 1
                following = max(following + _PERIOD_S, time.monotonic())
                time.sleep(max(0.0, following - time.monotonic()))
            sys.stdin.readline()
            say(1e6 * (time.monotonic() - began) / max(made, 1))


if __name__ == "__main__":
    pace(sys.argv[1])
