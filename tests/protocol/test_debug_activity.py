"""DebugService.WatchActivity: at an interval, what was accessed in it."""

from __future__ import annotations

import grpc
import pytest

from daemonlab import Lab, refused
from debugwire import LCR, SCR, UART, DebugWire
from devicehost.v1 import debug_service_pb2 as pb
from devicehost.v1 import io_service_pb2 as io_pb
from devicehost_client import DeviceHost
from testdevices import FAULT, LEVEL, PULSE

BASE = 0xD000_0000


@pytest.fixture
def wire(lab: Lab, host: DeviceHost) -> DebugWire:
    """The service, where a UART and a device that can fail are plugged."""
    host.hotplug.plug("uart16550", device_id="uart0")
    host.hotplug.plug("register", {"base": str(BASE), "irq": "9"}, device_id="r")
    return DebugWire(lab.channel())


class Watched:
    """The sums of all messages of a watch so far."""

    def __init__(self, messages: object) -> None:
        self._messages = iter(messages)  # type: ignore[call-overload] # a call
        self.places: dict[tuple[str, str, int], pb.PlaceActivity] = {}
        self.interrupts: dict[int, int] = {}
        self.asserted: set[int] = set()
        self.latency = 0

    def take(self, accesses: int) -> None:
        """Take messages until so many accesses were counted."""
        while sum(each.reads + each.writes for each in self.places.values()) < accesses:
            message = next(self._messages)
            assert message.interval_ns > 0
            self.latency += sum(message.latency)
            self.asserted = {each.gsi for each in message.interrupts if each.asserted}
            for each in message.interrupts:
                self.interrupts[each.gsi] = self.interrupts.get(each.gsi, 0) + each.count
            for place in message.places:
                key = (place.device_id, place.register, place.address)
                total = self.places.setdefault(key, pb.PlaceActivity())
                for field in ("reads", "writes", "failures", "took_ns"):
                    setattr(total, field, getattr(total, field) + getattr(place, field))
                total.longest_ns = max(total.longest_ns, place.longest_ns)
                total.space = place.space


def test_each_place_is_counted(wire: DebugWire, host: DeviceHost) -> None:
    vcpu = host.vcpu(0)
    with wire.activity(100) as stream:
        watched = Watched(stream)
        watched._messages.__next__()  # it is armed
        for _ in range(30):
            vcpu.pio_write(UART + SCR, 1, 1)
        for _ in range(20):
            vcpu.pio_read(UART + SCR, 1)
        vcpu.pio_write(UART + LCR, 1, 3)
        vcpu.mmio_read(BASE + FAULT, 4)
        vcpu.mmio_read(0xDEAD_0000, 4)
        watched.take(53)
    scr = watched.places["uart0", "SCR", UART + SCR]
    assert (scr.reads, scr.writes, scr.failures, scr.space) == (20, 30, 0, io_pb.SPACE_PIO)
    assert 0 < scr.longest_ns <= scr.took_ns
    assert watched.places["uart0", "LCR", UART + LCR].writes == 1
    assert watched.places["r", "", BASE + FAULT].failures == 1
    assert watched.places["", "", 0xDEAD_0000].failures == 1
    assert watched.latency == 53


def test_interrupts_are_counted_and_those_that_are_up_are_told(
    wire: DebugWire, host: DeviceHost
) -> None:
    vcpu = host.vcpu(0)
    with wire.activity(100) as stream:
        watched = Watched(stream)
        watched._messages.__next__()
        for level in (1, 0, 1, 0, 1):
            vcpu.mmio_write(BASE + LEVEL, 1, level)
        vcpu.mmio_write(BASE + PULSE, 1, 0)
        watched.take(6)
        assert watched.interrupts == {9: 4}
        assert watched.asserted == {9}


def test_where_nothing_happens_messages_come_all_the_same(wire: DebugWire) -> None:
    with wire.activity(100) as stream:
        for _ in range(3):
            message = stream.next()
            assert (len(message.places), len(message.interrupts)) == (0, 0)
        assert message.interval_ns > 50_000_000


@pytest.mark.parametrize("interval_ms", [1, 99, 60_001])
def test_an_interval_that_cannot_be_is_refused(wire: DebugWire, interval_ms: int) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST") as metadata:
        wire.activity(interval_ms).next()
    assert metadata["field"] == "interval_ms"


def test_a_watch_of_activity_ends_when_the_server_stops(lab: Lab, wire: DebugWire) -> None:
    with wire.activity(100) as stream:
        stream.next()
        lab.server.stop()
        with refused(grpc.StatusCode.UNAVAILABLE, "DRAINING"):
            list(stream)
