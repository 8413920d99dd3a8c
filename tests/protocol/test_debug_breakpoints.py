"""DebugService's breakpoints: made, hit, held, resumed, and let go."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import grpc
import pytest

from daemonlab import Lab, refused, wait_until
from debugwire import IER, LCR, LSR, SCR, UART, DebugWire, Hits, in_thread
from devicehost.v1 import debug_service_pb2 as pb
from devicehost.v1 import io_service_pb2 as io_pb
from devicehost_client import DeviceHost
from testdevices import FAULT, LEVEL
from wire import CALL_S

BASE = 0xD000_0000
LOG, SAVE, RECORD = (
    pb.BREAKPOINT_ACTION_LOG,
    pb.BREAKPOINT_ACTION_SAVE_STATE,
    pb.BREAKPOINT_ACTION_RECORD,
)
STEP = pb.RESUME_ACTION_STEP
NOT_FOUND, INVALID = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
def wire(lab: Lab, host: DeviceHost) -> DebugWire:
    """The service, where a UART and a device that can fail are plugged."""
    host.hotplug.plug("uart16550", device_id="uart0")
    host.hotplug.plug("register", {"base": str(BASE), "irq": "9"}, device_id="r")
    return DebugWire(lab.channel())


@pytest.fixture
def hits(wire: DebugWire) -> Iterator[Hits]:
    """A watch, which began before all else."""
    with wire.hits() as watching:
        assert watching.held == []
        yield watching


def delete(wire: DebugWire, breakpoint_id: int) -> None:
    request = pb.DeleteBreakpointRequest(breakpoint_id=breakpoint_id)
    wire.call.DeleteBreakpoint(request, timeout=CALL_S)


# The list.


def test_breakpoints_are_numbered_and_listed_with_their_counts(
    wire: DebugWire, host: DeviceHost
) -> None:
    one = wire.break_at("uart0.SCR", action=LOG, ignore=1, limit_ms=500)
    two = wire.break_at(
        filter=pb.AccessFilter(device_ids=["r"], operation=io_pb.OPERATION_WRITE, value=1, mask=3)
    )
    assert (one.id, two.id) == (1, 2)
    for value in range(3):
        host.vcpu(0).pio_write(UART + SCR, 1, value)
    first, second = wire.breakpoints()
    assert (first.matches, first.hits) == (3, 2)
    first.matches = first.hits = 0
    assert first == one
    assert second == two
    assert second.filter.device_ids == ["r"]
    assert (second.event, second.action) == (
        pb.BREAKPOINT_EVENT_ACCESS,
        pb.BREAKPOINT_ACTION_HOLD,
    )


def test_a_breakpoint_that_is_deleted_is_gone(wire: DebugWire, host: DeviceHost) -> None:
    made = wire.break_at("uart0.SCR")
    delete(wire, made.id)
    assert wire.breakpoints() == []
    with refused(NOT_FOUND, "NO_SUCH_BREAKPOINT"):
        delete(wire, made.id)
    host.vcpu(0).pio_write(UART + SCR, 1, 1)  # nobody holds it


def test_a_breakpoint_that_had_its_hits_is_gone(
    wire: DebugWire, host: DeviceHost, hits: Hits
) -> None:
    made = wire.break_at("uart0.SCR", action=LOG, hits_max=2)
    for _ in range(5):
        host.vcpu(0).pio_read(UART + SCR, 1)
    assert [hits.hit().breakpoint_id for _ in range(2)] == [made.id] * 2
    assert wire.breakpoints() == []


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"event": 9}, INVALID, "BAD_REQUEST"),
        ({"action": 9}, INVALID, "BAD_REQUEST"),
        ({"limit_ms": 3_600_001}, INVALID, "BAD_REQUEST"),
        ({"gsi": 4}, INVALID, "BAD_REQUEST"),
        (
            {
                "event": pb.BREAKPOINT_EVENT_INTERRUPT,
                "filter": pb.AccessFilter(device_ids=["uart0"]),
            },
            INVALID,
            "BAD_REQUEST",
        ),
        ({"filter": pb.AccessFilter(registers=["uart0.NONE"])}, NOT_FOUND, "NO_SUCH_REGISTER"),
        ({"filter": pb.AccessFilter(registers=["none.LCR"])}, NOT_FOUND, "NO_SUCH_DEVICE"),
        ({"filter": pb.AccessFilter(operation=5)}, INVALID, "BAD_REQUEST"),  # type: ignore[arg-type] # from a newer client
    ],
)
def test_a_breakpoint_that_cannot_be_is_refused(
    wire: DebugWire, fields: dict[str, object], code: grpc.StatusCode, reason: str
) -> None:
    with refused(code, reason) as metadata:
        wire.break_at(**fields)
    if reason == "BAD_REQUEST":
        assert metadata["field"]
    assert wire.breakpoints() == []


# Holding.


def test_a_write_is_held_until_it_is_resumed(wire: DebugWire, host: DeviceHost, hits: Hits) -> None:
    made = wire.break_at("uart0.LCR")
    writing = in_thread(lambda: host.vcpu(2).pio_write(UART + LCR, 1, 0x83))
    hit = hits.hit()
    assert (hit.breakpoint_id, hit.held, hit.after) == (made.id, True, False)
    assert 0 < hit.remaining_ms <= 30_000
    access = hit.event.access
    assert (access.vcpu, access.device_id, access.data) == (2, "uart0", b"\x83")
    assert [(each.name, each.value) for each in access.registers] == [("LCR", 0x83)]
    assert wire.peek("uart0", "LCR")[0].value == 0  # the device hasn't got it
    assert host.vcpu(1).mmio_read(BASE, 4) == 0  # and others go on meanwhile
    assert not writing.done()
    wire.resume(hit)
    assert hits.ended() == (hit.id, pb.HOLD_END_RESUMED)
    writing.result(CALL_S)
    assert wire.peek("uart0", "LCR")[0].value == 0x83


def test_a_read_is_named_before_it_has_a_value(
    wire: DebugWire, host: DeviceHost, hits: Hits
) -> None:
    wire.poke("uart0", "LCR", 0x80)
    wire.break_at("uart0.DLM")
    reading = in_thread(lambda: host.vcpu(0).pio_read(UART + IER, 1))
    hit = hits.hit()
    assert [(each.name, each.value) for each in hit.event.access.registers] == [("DLM", 0)]
    assert hit.event.access.data == b""
    wire.resume(hit)
    assert reading.result(CALL_S) == 0


def test_a_step_holds_the_next_access_of_the_same_vcpu(
    wire: DebugWire, host: DeviceHost, hits: Hits
) -> None:
    wire.break_at("uart0.LCR", hits_max=1)

    def boot() -> None:
        host.vcpu(0).pio_write(UART + LCR, 1, 3)
        host.vcpu(0).mmio_write(BASE, 4, 5)
        host.vcpu(0).mmio_write(BASE, 4, 6)

    booting = in_thread(boot)
    first = hits.hit()
    wire.resume(first, STEP)
    assert hits.ended() == (first.id, pb.HOLD_END_RESUMED)
    host.vcpu(1).mmio_read(BASE, 4)  # of another vCPU: not held
    second = hits.hit()
    assert (second.breakpoint_id, second.held) == (0, True)
    assert (second.event.access.device_id, second.event.access.data) == ("r", b"\5\0\0\0")
    wire.resume(second)
    booting.result(CALL_S)
    assert hits.ended() == (second.id, pb.HOLD_END_RESUMED)


def test_what_is_written_and_what_is_read_can_be_changed(
    wire: DebugWire, host: DeviceHost, hits: Hits
) -> None:
    wire.break_at("uart0.SCR", filter=pb.AccessFilter(registers=["uart0.SCR"]), hits_max=1)
    writing = in_thread(lambda: host.vcpu(0).pio_write(UART + SCR, 1, 0x11))
    hit = hits.hit()
    with refused(INVALID, "BAD_REQUEST") as metadata:
        wire.resume(hit, data=b"\x22\x22")
    assert metadata["field"] == "data"
    assert not writing.done()
    wire.resume(hit, data=b"\x22")
    writing.result(CALL_S)
    hits.ended()
    assert wire.peek("uart0", "SCR")[0].value == 0x22
    wire.break_at("uart0.LSR", after=True)
    reading = in_thread(lambda: host.vcpu(0).pio_read(UART + LSR, 1))
    hit = hits.hit()
    assert hit.after
    assert hit.event.access.data == b"\x60"
    wire.resume(hit, data=b"\x00")
    assert reading.result(CALL_S) == 0


def test_nobody_who_resumes_lets_go_at_the_limit(
    wire: DebugWire, host: DeviceHost, hits: Hits
) -> None:
    wire.break_at("uart0.SCR", limit_ms=100)
    begun = time.monotonic()
    host.vcpu(0).pio_write(UART + SCR, 1, 7)
    assert 0.1 <= time.monotonic() - begun < 20
    hit = hits.hit()
    assert hits.ended() == (hit.id, pb.HOLD_END_LIMIT)
    assert wire.peek("uart0", "SCR")[0].value == 7
    with refused(NOT_FOUND, "NO_SUCH_HIT"):
        wire.resume(hit)


def test_a_breakpoint_that_is_deleted_lets_go_of_what_it_holds(
    wire: DebugWire, host: DeviceHost, hits: Hits
) -> None:
    made = wire.break_at("uart0.SCR")
    writing = in_thread(lambda: host.vcpu(0).pio_write(UART + SCR, 1, 7))
    hit = hits.hit()
    delete(wire, made.id)
    writing.result(CALL_S)
    assert hits.ended() == (hit.id, pb.HOLD_END_RESUMED)


def test_who_comes_later_is_told_what_is_held(
    wire: DebugWire, host: DeviceHost, hits: Hits
) -> None:
    wire.break_at("uart0.SCR", limit_ms=20_000)
    writing = in_thread(lambda: host.vcpu(0).pio_write(UART + SCR, 1, 7))
    hit = hits.hit()
    with wire.hits() as later:
        (held,) = later.held
        assert held.id == hit.id
        assert held.remaining_ms <= hit.remaining_ms
        assert held.event.access.registers[0].name == "SCR"
        wire.resume(held)
        assert later.ended() == (hit.id, pb.HOLD_END_RESUMED)
    writing.result(CALL_S)


def test_an_unknown_hit_or_action_is_refused(wire: DebugWire) -> None:
    with refused(NOT_FOUND, "NO_SUCH_HIT"):
        wire.resume(pb.Hit(id=77))
    with refused(INVALID, "BAD_REQUEST") as metadata:
        wire.resume(pb.Hit(id=77), action=9)
    assert metadata["field"] == "action"


# Other events and actions.


def test_an_access_in_which_the_device_raises_is_held(
    wire: DebugWire, host: DeviceHost, hits: Hits
) -> None:
    wire.break_at(event=pb.BREAKPOINT_EVENT_FAULT)
    reading = in_thread(lambda: host.vcpu(0).mmio_read(BASE + FAULT, 4))
    hit = hits.hit()
    assert (hit.held, hit.after) == (True, True)
    assert (hit.event.access.failure, hit.event.access.device_id) == ("DEVICE_FAULT", "r")
    wire.resume(hit)
    assert reading.result(CALL_S) == 0xFFFF_FFFF


def test_a_change_of_an_interrupt_is_a_hit(wire: DebugWire, host: DeviceHost, hits: Hits) -> None:
    wire.break_at(event=pb.BREAKPOINT_EVENT_INTERRUPT, gsi=9, action=LOG)
    wire.break_at(event=pb.BREAKPOINT_EVENT_INTERRUPT, gsi=8)
    host.vcpu(0).mmio_write(BASE + LEVEL, 1, 1)
    hit = hits.hit()
    assert hit.breakpoint_id == 1
    assert (hit.held, hit.event.interrupt.gsi, hit.event.interrupt.device_id) == (False, 9, "r")


def test_a_hit_can_bring_the_states_of_all_devices(
    wire: DebugWire, host: DeviceHost, hits: Hits
) -> None:
    host.vcpu(0).pio_write(UART + SCR, 1, 0x42)
    wire.break_at("uart0.LCR", action=SAVE)
    host.vcpu(0).pio_write(UART + LCR, 1, 3)
    hit = hits.hit()
    assert not hit.held
    states = json.loads(hit.states)
    assert states.keys() == {"uart0", "r"}
    assert states["uart0"]["state"]["scratch"] == 0x42
    wire.restore(hit.states)


def test_a_hit_can_arm_the_flight_recorder(wire: DebugWire, host: DeviceHost, hits: Hits) -> None:
    wire.break_at("uart0.LCR", action=RECORD)
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "NOT_ARMED"):
        wire.flight_recording()
    host.vcpu(0).pio_write(UART + LCR, 1, 3)
    hits.hit()
    host.vcpu(0).pio_write(UART + SCR, 1, 3)
    assert wire.flight_recording()


# The end.


def test_a_server_that_stops_lets_go_and_says_so(
    lab: Lab, wire: DebugWire, host: DeviceHost, hits: Hits
) -> None:
    wire.break_at("uart0.SCR", limit_ms=60_000)
    writing = in_thread(lambda: host.vcpu(0).pio_write(UART + SCR, 1, 7))
    hit = hits.hit()
    stopping = threading.Thread(target=lab.server.stop)
    stopping.start()
    assert hits.ended() == (hit.id, pb.HOLD_END_DRAINING)
    with refused(grpc.StatusCode.UNAVAILABLE, "DRAINING"):
        hits.next()
    stopping.join(CALL_S)
    writing.result(CALL_S)


def test_who_does_not_keep_up_is_told_so(wire: DebugWire, host: DeviceHost, hits: Hits) -> None:
    host.hotplug.plug("scratch", {"size": "65536", "base": "0xd3000000"}, device_id="large")
    wire.break_at("uart0.SCR", action=SAVE)  # each hit has more than 128 KiB with it
    done = threading.Event()

    def go_on() -> None:
        while not done.is_set():
            host.vcpu(0).pio_read(UART + SCR, 1)

    guest = in_thread(go_on)
    try:
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "WATCH_TOO_SLOW"):
            wait_until(lambda: (wire.breakpoints() or [pb.Breakpoint()])[0].hits > 2500)
            list(hits)
    finally:
        done.set()
        guest.result(CALL_S)
