"""InterruptService.WatchInterrupts: levels and pulses, in order and without a gap."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from daemonlab import Lab, refused, wait_until
from devicehost.v1 import interrupt_service_pb2 as pb
from devicehost.v1.interrupt_service_pb2_grpc import InterruptServiceStub
from devicehost_client import DeviceHost
from devicehost_server.services.feed import BACKLOG_MAX
from testdevices import LEVEL, PULSE, Caller
from wire import CALL_S

BASE = 0xD000_0000
ASSERTED, DEASSERTED, PULSED = (
    pb.INTERRUPT_KIND_ASSERTED,
    pb.INTERRUPT_KIND_DEASSERTED,
    pb.INTERRUPT_KIND_PULSED,
)


@contextmanager
def watch(channel: grpc.Channel) -> Iterator[Any]:
    """Watch; the watch ends with the block."""
    stub = InterruptServiceStub(channel)
    call = stub.WatchInterrupts(pb.WatchInterruptsRequest(), timeout=CALL_S)
    try:
        yield call
    finally:
        call.cancel()


def events(watching: Any, count: int) -> list[tuple[int, int]]:
    """Take messages that have `count` events together; return GSIs and kinds."""
    found: list[tuple[int, int]] = []
    while len(found) < count:
        found += [(event.gsi, event.kind) for event in next(watching).events]
    assert len(found) == count
    return found


class Recorder:
    """A VMM that writes down its interrupts."""

    def __init__(self) -> None:
        self.levels: list[tuple[int, bool]] = []
        self.pulses: list[int] = []

    def level(self, gsi: int, /, *, asserted: bool) -> None:
        self.levels.append((gsi, asserted))

    def pulse(self, gsi: int) -> None:
        self.pulses.append(gsi)

    def start(self, host: DeviceHost) -> None:
        host.interrupts.start(on_level=self.level, on_pulse=self.pulse)


@pytest.fixture
def recorder(host: DeviceHost) -> Recorder:
    """A recorder on `host`, where register "r" drives GSI 9."""
    host.hotplug.plug("register", {"base": str(BASE), "irq": "9"}, device_id="r")
    result = Recorder()
    result.start(host)
    return result


# On the wire.


def test_the_first_message_has_all_that_is_asserted(lab: Lab) -> None:
    for gsi in (9, 5, 7):
        lab.server.interrupts.line(gsi, "x").set_level(asserted=True)
    lab.server.interrupts.pulse(24)
    with watch(lab.channel()) as watching:
        first = next(watching)
    assert list(first.snapshot.asserted) == [5, 7, 9]
    assert first.generation == 4
    assert not first.events


def test_changes_come_in_order_each_with_a_number(lab: Lab) -> None:
    lines = [lab.server.interrupts.line(gsi, "x") for gsi in range(8)]
    chance = random.Random(3)
    with watch(lab.channel()) as watching:
        assert next(watching).generation == 0
        expected: list[tuple[int, int]] = []
        for _ in range(2000):
            line = chance.choice(lines)
            if chance.random() < 0.2:
                line.pulse()
                expected.append((line.gsi, PULSED))
            else:
                line.set_level(asserted=not line.asserted)
                expected.append((line.gsi, ASSERTED if line.asserted else DEASSERTED))
        generation = 0
        found: list[tuple[int, int]] = []
        while generation < len(expected):
            message = next(watching)
            generation += len(message.events)
            assert message.generation == generation
            assert not message.HasField("snapshot")
            found += [(event.gsi, event.kind) for event in message.events]
    assert found == expected


def test_a_level_that_several_share_is_up_while_one_of_them_is(lab: Lab) -> None:
    one, two = (lab.server.interrupts.line(5, name) for name in ("one", "two"))
    with watch(lab.channel()) as watching:
        next(watching)
        one.set_level(asserted=True)
        two.set_level(asserted=True)
        one.set_level(asserted=False)
        two.set_level(asserted=False)
        two.set_level(asserted=True)
        assert events(watching, 3) == [(5, ASSERTED), (5, DEASSERTED), (5, ASSERTED)]


def test_snapshot_and_changes_have_no_gap_whatever_happens_meanwhile(lab: Lab) -> None:
    stop = threading.Event()

    def toggle(gsi: int) -> None:
        line = lab.server.interrupts.line(gsi, "x")
        while not stop.wait(0.0001):
            line.set_level(asserted=not line.asserted)

    threads = [threading.Thread(target=toggle, args=(gsi,)) for gsi in (5, 6, 7)]
    for thread in threads:
        thread.start()
    channel = lab.channel()
    try:
        for _ in range(20):
            with watch(channel) as watching:
                first = next(watching)
                up = set(first.snapshot.asserted)
                generation = first.generation
                while generation < first.generation + 100:
                    message = next(watching)
                    for event in message.events:
                        generation += 1
                        # A level only goes up where it is down, and the other way round.
                        assert (event.gsi in up) == (event.kind == DEASSERTED)
                        up ^= {event.gsi}
                    assert message.generation == generation
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_watcher_that_is_too_slow_is_told_so_after_changes_without_a_gap(lab: Lab) -> None:
    line = lab.server.interrupts.line(5, "x")
    stop = threading.Event()

    def toggle() -> None:
        while not stop.is_set():
            line.set_level(asserted=not line.asserted)

    toggling = threading.Thread(target=toggle)
    with watch(lab.channel()) as watching:
        generation = next(watching).generation
        toggling.start()
        try:
            # It reads, but never as fast as that.
            with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "WATCH_TOO_SLOW") as metadata:
                for message in watching:
                    generation += len(message.events)
                    assert message.generation == generation
        finally:
            stop.set()
            toggling.join()
    assert metadata == {"backlog": str(BACKLOG_MAX)}


def test_a_watch_ends_when_the_server_stops(lab: Lab) -> None:
    with watch(lab.channel()) as watching:
        next(watching)
        lab.server.stop()
        with refused(grpc.StatusCode.UNAVAILABLE, "DRAINING"):
            list(watching)


# As the client brings them.


def test_an_interrupt_is_there_before_the_access_that_caused_it_returns(
    host: DeviceHost, recorder: Recorder
) -> None:
    vcpu = host.vcpu(0)
    for number in range(1000):
        vcpu.mmio_write(BASE + LEVEL, 1, 1 - number % 2)
        assert len(recorder.levels) == number + 1
        assert recorder.levels[-1] == (9, number % 2 == 0)


def test_an_interrupt_is_there_before_the_access_that_raised_it_and_failed_returns(
    lab: Lab, host: DeviceHost
) -> None:
    device_id = host.hotplug.plug("caller").id
    base = host.hotplug.get(device_id).resources[0].mmio.base
    device = lab.server.devices.device(device_id)
    assert isinstance(device, Caller)
    line = lab.server.interrupts.line(9, device_id)
    recorder = Recorder()
    recorder.start(host)

    def toggle_and_fail() -> None:
        line.set_level(asserted=not line.asserted)
        raise ValueError("after the interrupt")

    device.on_write = toggle_and_fail
    vcpu = host.vcpu(0)
    for number in range(300):
        vcpu.mmio_write(base, 1, 1)
        assert vcpu.failures == number + 1
        assert len(recorder.levels) == number + 1


def test_pulses_are_brought_each(host: DeviceHost, recorder: Recorder) -> None:
    vcpu = host.vcpu(0)
    for number in range(100):
        vcpu.mmio_write(BASE + PULSE, 1, 0)
        assert recorder.pulses == [9] * (number + 1)


def test_a_level_that_is_up_at_the_start_is_brought_at_once(lab: Lab) -> None:
    lab.server.interrupts.line(7, "x").set_level(asserted=True)
    host, recorder = lab.host(), Recorder()
    recorder.start(host)
    assert recorder.levels == [(7, True)]


def test_interrupts_are_started_once(host: DeviceHost, recorder: Recorder) -> None:
    with pytest.raises(RuntimeError, match="delivered already"):
        recorder.start(host)


def test_a_callback_may_make_an_access(host: DeviceHost) -> None:
    host.hotplug.plug("register", {"base": str(BASE), "irq": "9"}, device_id="r")
    answers: list[int] = []

    def on_level(gsi: int, /, *, asserted: bool) -> None:
        del gsi
        if asserted:
            host.vcpu(1).mmio_write(BASE + LEVEL, 1, 0)  # lowers it again
            answers.append(host.vcpu(1).mmio_read(BASE + LEVEL, 1))

    host.interrupts.start(on_level=on_level)
    host.vcpu(0).mmio_write(BASE + LEVEL, 1, 1)
    wait_until(lambda: answers == [0])


def test_after_the_close_nothing_is_brought(lab: Lab) -> None:
    host, recorder = lab.host(), Recorder()
    recorder.start(host)
    line = lab.server.interrupts.line(7, "x")
    line.set_level(asserted=True)
    wait_until(lambda: recorder.levels == [(7, True)])
    host.close()
    line.set_level(asserted=False)
    with watch(lab.channel()) as watching:
        assert next(watching).generation == 2  # it has been told to all who watch
    assert recorder.levels == [(7, True)]


def test_a_client_can_be_closed_at_any_moment(lab: Lab) -> None:
    stop = threading.Event()
    line = lab.server.interrupts.line(7, "x")

    def toggle() -> None:
        while not stop.wait(0.0001):
            line.set_level(asserted=not line.asserted)

    toggling = threading.Thread(target=toggle)
    toggling.start()
    try:
        for _ in range(20):
            host, recorder = lab.host(), Recorder()
            recorder.start(host)
            host.close()
            host.close()  # and again, as a `with` block does
    finally:
        stop.set()
        toggling.join()
