"""Recordings of a bus on which everything changes: they replay with no difference.

What is dangerous is a moment: between a change and the note of it, or between an access and
its copy. Where that can be had, a test puts an access just there; else it tries often.
"""

from __future__ import annotations

import io
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from devicehost.access_status import AccessStatus
from devicehost.recording import Recording
from devicehost.recording.events import Access, Event, Interrupt, InterruptKind, Learned, Woken
from devicehost_server.debug.breakpoint import Breakpoint
from devicehost_server.debug.filters import AccessFilter
from devicehost_server.debug.holds import Hit, HoldEnded
from devicehost_server.debug.taps import RecordTap, Span
from devicehost_server.device_info import DeviceEvent, DeviceState
from devicehost_server.devices.base import Device, NoConfig, State
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.model.errors import BadAccessSize, DeviceHostError
from devicehost_server.model.initiator import Initiator
from devicehost_server.model.resources import MmioAddressConstraint, ResourceConstraint
from devicehost_server.replay import Replayer
from devicehost_server.server import DeviceServer, ServerConfig

BASE, HOT = 0xD000_0000, 0xD800_0000
UART, RTC = 0x3F8, 0x70
LOAD_S = 2.0


class Unspeakable(Device[NoConfig]):
    """Has a state that isn't JSON."""

    type_name = "unspeakable"

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        return [MmioAddressConstraint(size=0x1000)]

    def save(self) -> State:
        return {"what": {1, 2}}


@pytest.fixture
def server() -> Iterator[DeviceServer]:
    """A server, which listens nowhere, with a UART, a clock, and memory."""
    running = DeviceServer(ServerConfig(), DeviceTypes([Unspeakable]))
    running.devices.plug("uart16550", device_id="uart0")
    running.devices.plug("mc146818", device_id="rtc")
    running.devices.plug("scratch", {"base": str(BASE)}, device_id="s")
    yield running
    running.stop()


@contextmanager
def recording(server: DeviceServer, *device_ids: str) -> Iterator[Callable[[], Recording]]:
    """Record while the block runs; then what it yields returns the recording."""
    file = io.BytesIO()
    with server.debugger.record(device_ids) as feed:
        reader = threading.Thread(target=lambda: file.writelines(feed))
        reader.start()
        try:
            yield lambda: Recording.read(io.BytesIO(file.getvalue()))
        finally:
            feed.close()
            reader.join()


def differences(recorded: Recording) -> list[str]:
    return [str(each) for each in Replayer(recorded, DeviceTypes()).run()]


def accesses(recorded: Recording) -> list[Access]:
    return [event for event in recorded if isinstance(event, Access)]


def plug_hot(server: DeviceServer) -> None:
    server.devices.plug("scratch", {"base": str(HOT)}, device_id="hot")


def before_others(server: DeviceServer, state: DeviceState, do: Callable[[], None]) -> None:
    """Do something when the device `hot` gets into a state, before anybody is told."""

    def listen(event: DeviceEvent) -> None:
        if (event.device.id, event.device.state) == ("hot", state):
            do()

    server.devices._listeners.insert(0, listen)


def test_an_access_between_plugging_and_its_note_is_no_difference(server: DeviceServer) -> None:
    vcpu = server.io.initiator(0)
    before_others(server, DeviceState.PLUGGED, lambda: vcpu.mmio_write(HOT, b"\1\2\3\4"))
    with recording(server) as made:
        plug_hot(server)
        vcpu.mmio_write(BASE, b"\7")
    assert differences(made()) == []
    assert [each.address for each in accesses(made())] == [BASE]


def test_an_access_between_unplugging_and_its_note_is_no_difference(server: DeviceServer) -> None:
    plug_hot(server)
    vcpu = server.io.initiator(0)

    def miss() -> None:
        with suppress(DeviceHostError):
            vcpu.mmio_read(HOT, bytearray(4))

    before_others(server, DeviceState.UNPLUGGING, miss)
    with recording(server) as made:
        vcpu.mmio_read(HOT, bytearray(4))
        server.devices.unplug("hot")
    assert differences(made()) == []
    assert [each.status for each in accesses(made())] == [AccessStatus.OK]


def test_accesses_that_find_nobody_are_recorded_again_some_time_after_hotplug(
    server: DeviceServer,
) -> None:
    vcpu = server.io.initiator(0)
    with recording(server) as made:
        plug_hot(server)
        server.devices.unplug("hot")
        deadline = time.monotonic() + 20
        while not any(each.status is AccessStatus.NO_DEVICE for each in accesses(made())):
            assert time.monotonic() < deadline
            with suppress(DeviceHostError):
                vcpu.mmio_read(HOT, bytearray(4))
    assert differences(made()) == []


def test_a_poke_is_recorded_before_anybody_else_is_in_the_device(server: DeviceServer) -> None:
    check_that_changes_are_recorded_at_once(
        server, lambda: server.debugger.registers.poke("uart0", "SCR", 0x55)
    )


def test_a_state_is_recorded_before_anybody_else_is_in_the_device(server: DeviceServer) -> None:
    saved = server.debugger.states.save(["uart0"])
    saved["uart0"]["state"]["scratch"] = 0x55
    check_that_changes_are_recorded_at_once(server, lambda: server.debugger.states.restore(saved))


def check_that_changes_are_recorded_at_once(
    server: DeviceServer, change: Callable[[], None]
) -> None:
    """Have an access come as soon as a device is free that was changed, and replay that."""
    vcpu, got = server.io.initiator(0), bytearray(1)
    registers, states = server.debugger.registers, server.debugger.states
    for each in (registers, states):
        tell = each._on_changed

        def access_first(device_id: str, tell: Callable[[str], None] = tell) -> None:
            vcpu.pio_read(UART + 7, got)
            tell(device_id)

        each.on_changed(access_first, inside=each._on_changed_inside)
    with recording(server) as made:
        change()
    assert got == b"\x55"
    assert differences(made()) == []


def test_an_access_that_is_held_when_a_recording_begins_is_in_it(server: DeviceServer) -> None:
    breakpoints, vcpu = server.debugger.breakpoints, server.io.initiator(0)
    hits: queue.Queue[Hit | HoldEnded] = queue.Queue()
    breakpoints.subscribe(hits.put)
    breakpoints.create(Breakpoint(AccessFilter(devices=frozenset({"uart0"}))))
    thread = threading.Thread(target=lambda: vcpu.pio_write(UART + 7, b"\x66"))
    thread.start()
    hit = hits.get(timeout=20)
    assert isinstance(hit, Hit)
    with recording(server) as made:
        breakpoints.resume(hit.id)
        thread.join()
    assert [each.data for each in accesses(made())] == [b"\x66"]


def test_to_save_states_during_a_recording_is_part_of_it(server: DeviceServer) -> None:
    with recording(server) as made:
        server.debugger.states.save(["rtc"])
    sources = [each.source for each in made() if isinstance(each, Woken) and each.device == "rtc"]
    assert sources.count("save") == 2  # that of the beginning is the other


def test_accesses_of_impossible_sizes_are_no_difference(server: DeviceServer) -> None:
    vcpu = server.io.initiator(0)
    with recording(server) as made:
        for length, size in ((0, 1), (6, 4), (1, 1 << 40)):
            with pytest.raises(BadAccessSize):
                vcpu.pio_read(UART, bytearray(length), size)
        with pytest.raises(BadAccessSize):
            vcpu.mmio_read(BASE, bytearray())
    assert [each.status for each in accesses(made())] == [AccessStatus.BAD_ACCESS_SIZE] * 4
    assert differences(made()) == []


def test_a_device_whose_state_is_no_json_is_left_out_and_nothing_stays_armed(
    server: DeviceServer,
) -> None:
    server.devices.plug("unspeakable", device_id="u")
    with recording(server, "u", "uart0") as made:
        server.io.initiator(0).pio_write(UART + 7, b"\1")
    assert [each.id for each in made().header.devices] == ["uart0"]
    assert server.debugger._feeds == []


def test_what_a_device_did_before_it_is_recorded_is_no_part_of_it() -> None:
    before: list[Event] = [
        Learned(1, "rtc", "now", 5),
        Woken(2, "rtc", "timer:_on_timer"),
        Interrupt(3, 8, InterruptKind.ASSERTED, "rtc"),
    ]
    tap = RecordTap(())
    tap.awaited = frozenset({"rtc"})
    for event in before:
        tap.event(event)
    assert tap.take() == []
    tap.devices, tap.awaited = frozenset({"rtc"}), frozenset()
    for event in before:
        tap.event(event)
    assert [each.count for each in tap.take()] == [3]


def test_an_access_that_waited_for_its_note_is_not_told_if_nobody_wants_it_by_then() -> None:
    tap = RecordTap(None)
    with tap._lock:
        thread = threading.Thread(
            target=lambda: tap.access(1, 1, 0, False, False, HOT, 1, b"\0", 0)  # noqa: FBT003 # as a tap is told
        )
        thread.start()
        tap.spans = (Span(pio=False, base=BASE, last=BASE),)
    thread.join()
    assert tap.take() == []


def drive(vcpu: Initiator, chance: random.Random) -> None:
    """Make one access, to anything."""
    with suppress(DeviceHostError):
        match chance.randrange(6):
            case 0:
                vcpu.mmio_write(BASE + 4 * chance.randrange(4), chance.randbytes(4))
            case 1:
                vcpu.mmio_read(BASE + 4 * chance.randrange(4), bytearray(4))
            case 2:
                vcpu.pio_write(UART + chance.choice((1, 3, 7)), bytes((chance.randrange(128),)))
            case 3:
                vcpu.pio_read(UART + chance.choice((1, 2, 3, 5, 7)), bytearray(1))
            case 4:
                vcpu.pio_write(RTC, bytes((chance.choice((0, 2, 10, 11, 12, 40)),)))
                vcpu.pio_read(RTC + 1, bytearray(1))
            case _:
                vcpu.pio_write(RTC + chance.randrange(2), bytes((chance.randrange(256),)))
                vcpu.mmio_read(HOT, bytearray(4))


def test_a_recording_replays_whatever_happened_meanwhile(server: DeviceServer) -> None:
    over = threading.Event()
    debugger = server.debugger

    def guest(number: int) -> None:
        vcpu, chance = server.io.initiator(number), random.Random(number)
        while not over.wait(0.0005):
            for _ in range(50):
                drive(vcpu, chance)

    threads = [threading.Thread(target=guest, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    chance = random.Random(5)
    try:
        until = time.monotonic() + LOAD_S
        while time.monotonic() < until:
            with recording(server) as made:
                for _ in range(3):
                    plug_hot(server)
                    debugger.registers.poke("uart0", "SCR", chance.randrange(256))
                    saved = debugger.states.save()
                    with debugger.trace():
                        debugger.registers.peek_all("rtc")
                    server.devices.unplug("hot")
                    del saved["hot"]
                    debugger.states.restore(saved)
            assert differences(made()) == []
    finally:
        over.set()
        for thread in threads:
            thread.join()
