"""Trying to lose a wake-up of the ring: accesses that come just as somebody falls asleep.

Two processes. The gaps between accesses are random, around the times for which the server
spins; its device takes random times, around that for which the client spins. Each end falls
asleep again and again, and now and then the other one publishes just then: what it looks for
is there at the last look. That is counted, for only then is there a wake-up to be lost.

`DEVICEHOST_RING_ACCESSES=1000000` makes a million accesses, which takes about three minutes.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from devicehost.ring.membarrier import _no_barrier, register
from devicehost_server.model.device_io import DeviceIo, WritableBuffer
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.resources import MmioAddressRange
from ringlab import LATE_S, WAIT_S, ClientProcess, attached, client_process
from ringpair import WatchedRing

ACCESSES = int(os.environ.get("DEVICEHOST_RING_ACCESSES", "40000"))
SERVER_SPIN_S = 50e-6
CLIENT_SPIN_S = 25e-6
GAPS_S = [2 * SERVER_SPIN_S / part for part in (1, 2, 4, 8, 16)]
ADDRESS = 0x1000

PER_ACCESS_S = 1e-3
"""What an access and its gap may take, all in all, on a busy machine."""


class SlowCounter(DeviceIo):
    """Counts its reads, and takes a random time for every other one.

    Attributes:
        may_answer: what a read waits for first.
    """

    def __init__(self) -> None:
        self.count = 0
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._chance = random.Random(1)

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:
        del base, offset
        assert self.may_answer.wait(WAIT_S)
        if self.count % 2:
            until = time.perf_counter() + self._chance.uniform(0, 2 * CLIENT_SPIN_S)
            while time.perf_counter() < until:
                pass
        self.count += 1
        data[:] = self.count.to_bytes(len(data), "little")


@pytest.fixture
def counter() -> SlowCounter:
    return SlowCounter()


@pytest.fixture
def io() -> IoManager:
    return IoManager()


@pytest.fixture
def ring(io: IoManager, counter: SlowCounter) -> Iterator[WatchedRing]:
    io.register_device_io(counter, [MmioAddressRange(ADDRESS, 8)])
    ring = WatchedRing(io.initiator, spin_s=SERVER_SPIN_S)
    ring.open_queue(0)
    yield ring
    ring.close()
    assert ring.join(WAIT_S)


@pytest.mark.timeout(WAIT_S + ACCESSES * PER_ACCESS_S)
def test_no_access_is_late_however_the_gaps_fall(
    ring: WatchedRing, record_property: Callable[[str, object], None]
) -> None:
    # Side by side: where they take turns on one processor, nobody sleeps.
    first, *others = os.sched_getaffinity(0)
    assert ring._poller is not None
    assert ring._poller.native_id is not None
    os.sched_setaffinity(ring._poller.native_id, [first])
    with client_process(
        ring,
        0,
        "read_with_gaps",
        processors=others or [first],
        address=ADDRESS,
        accesses=ACCESSES,
        gaps_s=GAPS_S,
        spin_s=CLIENT_SPIN_S,
    ) as client:
        facts = client.facts(WAIT_S + ACCESSES * PER_ACCESS_S)
    facts |= {"server_late_wakeups": ring.late_wakeups, "server_nearly_slept": ring.nearly_slept}
    print(f"{ACCESSES} accesses: {facts}")  # noqa: T201 # for who runs it by hand, with -s
    for name, fact in facts.items():
        record_property(name, fact)
    if others:  # the test means something
        assert facts["rung"] > ACCESSES / 100
        assert facts["slept"] > ACCESSES / 100
        assert facts["nearly_slept"] > ACCESSES / 10_000
        assert facts["server_nearly_slept"] > ACCESSES / 10_000
    assert facts["slowest_s"] < LATE_S
    if register() is not _no_barrier:
        assert (facts["late_wakeups"], ring.late_wakeups) == (0, 0)


@pytest.mark.timeout(WAIT_S + ACCESSES * PER_ACCESS_S)
def test_no_access_is_late_where_two_queues_fall_asleep_together(
    ring: WatchedRing, io: IoManager
) -> None:
    io.register_device_io(SlowCounter(), [MmioAddressRange(2 * ADDRESS, 8)])
    ring.open_queue(1)
    processors = list(os.sched_getaffinity(0))

    def reader(queue: int, address: int) -> AbstractContextManager[ClientProcess]:
        return client_process(
            ring,
            queue,
            "read_with_gaps",
            processors=processors,
            address=address,
            accesses=ACCESSES // 8,
            gaps_s=GAPS_S,
            spin_s=CLIENT_SPIN_S,
        )

    with reader(0, ADDRESS) as first, reader(1, 2 * ADDRESS) as second:
        found = [each.facts(WAIT_S + ACCESSES * PER_ACCESS_S) for each in (first, second)]
    for facts in found:
        assert facts["rung"] > 0
        assert facts["slept"] > 0
        assert facts["slowest_s"] < LATE_S
    if register() is not _no_barrier:
        assert [facts["late_wakeups"] for facts in found] == [0, 0]
        assert ring.late_wakeups == 0


def test_a_lost_doorbell_is_late_by_no_more_than_the_bound_and_counted(ring: WatchedRing) -> None:
    with attached(ring) as client:
        rings = client._doorbell
        for number in range(1, 11):
            client._doorbell = (lambda: None) if number % 2 else rings
            ring.until_asleep()
            began = time.monotonic()
            client.mmio_read(ADDRESS, 8)
            assert time.monotonic() - began < LATE_S
    assert ring.late_wakeups == 5
    assert client.late_wakeups == 0


def test_a_lost_wake_up_is_late_by_no_more_than_the_bound_and_counted(
    ring: WatchedRing, counter: SlowCounter
) -> None:
    def sleep_through(timeout_s: float) -> bool:
        """Wait without hearing anything."""
        counter.may_answer.set()
        time.sleep(timeout_s)
        return False

    with attached(ring, spin_s=0) as client:
        hears = client._wait
        for number in range(1, 11):
            if number % 2:
                counter.may_answer.clear()  # it must not be there before the client sleeps
            client._wait = sleep_through if number % 2 else hears
            began = time.monotonic()
            client.mmio_read(ADDRESS, 8)
            assert time.monotonic() - began < LATE_S
    assert client.late_wakeups == 5
    assert ring.late_wakeups == 0
