"""The keyboard controller, as a guest sees it on ports 0x60 and 0x64."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_server.devices.config import parse
from devicehost_server.devices.i8042 import I8042, Config
from devicehost_server.devices.ps2_keyboard import KEYS
from devicehost_server.devices.ps2_mouse import MouseButton
from devicehost_server.model.errors import BadState
from devicehost_server.model.interrupts import InterruptEvent, InterruptKind
from devicehost_server.model.resources import LegacyIrqConstraint, PioAddressConstraint
from devicelab import Lab, pio_in, pio_out

KEYBOARD_IRQ, AUX_IRQ, RESET_IRQ, A20_IRQ = 1, 12, 100, 101

FULL, INPUT_FULL, SYSTEM, COMMAND, UNLOCKED, AUX, TIMEOUT, PARITY = (1 << bit for bit in range(8))


class Guest:
    """A guest that drives a controller, and never waits in vain."""

    def __init__(self, config: Config | None = None) -> None:
        self.lab = Lab()
        self.device = self.lab.host(I8042(config or Config(reset_irq=RESET_IRQ, a20_irq=A20_IRQ)))

    @property
    def status(self) -> int:
        return pio_in(self.device, 0x64)

    def command(self, command: int, *data: int) -> None:
        pio_out(self.device, 0x64, command)
        for octet in data:
            self.send(octet)

    def send(self, octet: int) -> None:
        """Write to port 0x60."""
        assert not self.status & INPUT_FULL
        pio_out(self.device, 0x60, octet)

    def receive(self, *, aux: bool = False) -> int:
        """Read the byte that there must be, from the source that it must be from."""
        assert self.status & (FULL | AUX) == (FULL | AUX if aux else FULL)
        return pio_in(self.device, 0x60)

    def receive_all(self, *, aux: bool = False) -> list[int]:
        octets: list[int] = []
        while self.status & FULL:
            octets.append(self.receive(aux=aux))
        return octets

    def ask(self, command: int) -> int:
        """Give a command, and receive its reply."""
        self.command(command)
        return self.receive()

    def keyboard(self, octet: int) -> list[int]:
        """Send to the keyboard, and receive all of its answer."""
        self.send(octet)
        return self.receive_all()

    def mouse(self, octet: int) -> list[int]:
        """Send to the mouse, and receive all of its answer."""
        self.command(0xD4, octet)
        return self.receive_all(aux=True)

    def asserted(self) -> set[int]:
        return set(self.lab.interrupts.asserted())

    def watch(self) -> list[InterruptEvent]:
        """Return a list that collects events from now on."""
        events: list[InterruptEvent] = []
        self.lab.interrupts.subscribe(events.append)
        return events


@pytest.fixture
def guest() -> Guest:
    return Guest()


def test_it_asks_for_two_ports_and_two_interrupts() -> None:
    assert I8042(Config()).get_resource_constraints() == [
        PioAddressConstraint.exact(0x60, 1),
        PioAddressConstraint.exact(0x64, 1),
        LegacyIrqConstraint(1),
        LegacyIrqConstraint(12),
    ]


def test_its_configuration_can_come_as_text() -> None:
    config = parse("i8042", Config, {"keyboard_irq": "7", "a20_irq": "none", "reset_irq": "0x40"})
    assert config == Config(keyboard_irq=7, aux_irq=12, reset_irq=64, a20_irq=None)


def test_after_power_on_nothing_waits_and_nothing_interrupts(guest: Guest) -> None:
    assert guest.status == COMMAND | UNLOCKED
    assert guest.ask(0x20) == 0x03
    assert guest.asserted() == {A20_IRQ}


# The controller's commands.


@pytest.mark.parametrize(
    ("command", "reply"), [(0xAA, 0x55), (0xAB, 0x00), (0xA9, 0x00), (0xC0, 0x80), (0xA4, 0xF1)]
)
def test_a_command_that_asks_is_answered(guest: Guest, command: int, reply: int) -> None:
    assert guest.ask(command) == reply
    assert not guest.status & FULL


def test_the_self_test_sets_the_system_flag(guest: Guest) -> None:
    assert not guest.status & SYSTEM
    guest.ask(0xAA)
    assert guest.status & SYSTEM
    assert guest.ask(0x20) & 0x04


def test_the_system_flag_is_that_of_the_command_byte(guest: Guest) -> None:
    guest.command(0x60, 0x04)
    assert guest.status & SYSTEM
    guest.command(0x60, 0x00)
    assert not guest.status & SYSTEM


def test_all_of_its_memory_can_be_written_and_read(guest: Guest) -> None:
    for offset in range(1, 32):
        guest.command(0x60 + offset, 0xE0 ^ offset)
    assert [guest.ask(0x20 + offset) for offset in range(1, 32)] == [
        0xE0 ^ offset for offset in range(1, 32)
    ]


@pytest.mark.parametrize(("off", "on", "bit"), [(0xA7, 0xA8, 0x20), (0xAD, 0xAE, 0x10)])
def test_an_interface_is_disabled_and_enabled(guest: Guest, off: int, on: int, bit: int) -> None:
    guest.command(off)
    assert guest.ask(0x20) & 0x30 == bit
    guest.command(on)
    assert guest.ask(0x20) & 0x30 == 0


def test_the_status_tells_a_command_from_data(guest: Guest) -> None:
    guest.command(0xD2)
    assert guest.status & COMMAND
    guest.send(0x00)
    assert not guest.status & COMMAND


def test_an_unknown_command_is_ignored(guest: Guest) -> None:
    guest.command(0x60, 0x03)
    state = guest.device.save()
    for command in (0x00, 0x1F, 0x40, 0x80, 0xA1, 0xE0, 0xEF):
        guest.command(command)
    assert guest.device.save() == state | {"last_write_command": True}


def test_a_new_command_is_not_taken_for_data(guest: Guest) -> None:
    guest.command(0x60)
    guest.command(0xAE)
    assert guest.keyboard(0xEE) == [0xEE]
    assert guest.ask(0x20) == 0x03


def test_a_second_reply_waits_for_the_first(guest: Guest) -> None:
    guest.command(0xAA)
    guest.command(0xC0)
    assert guest.receive_all() == [0x55, 0x80]


def test_of_replies_that_wait_the_last_one_stays(guest: Guest) -> None:
    guest.command(0xAA)
    guest.command(0xC0)
    guest.command(0xAB)
    assert guest.receive_all() == [0x55, 0x00]


def test_bytes_can_be_put_into_the_buffer_as_if_from_a_device(guest: Guest) -> None:
    guest.command(0xD2, 0x83)
    assert guest.receive() == 0x83
    guest.command(0xD3, 0x5A)
    assert guest.receive(aux=True) == 0x5A


def test_an_empty_buffer_reads_as_its_last_byte(guest: Guest) -> None:
    assert guest.ask(0xAA) == 0x55
    assert pio_in(guest.device, 0x60) == 0x55


# The wires.


def test_a20_is_gated_by_commands_and_by_the_output_port(guest: Guest) -> None:
    assert guest.ask(0xD0) == 0xCF
    for off, on in (((0xDD,), (0xDF,)), ((0xD1, 0xDD), (0xD1, 0xDF))):
        guest.command(*off)
        assert guest.asserted() == set()
        assert guest.ask(0xD0) == 0xCD
        guest.command(*on)
        assert guest.asserted() == {A20_IRQ}
        assert guest.ask(0xD0) == 0xCF


@pytest.mark.parametrize("command", [0xFE, 0xF0, 0xF2, 0xFC])
def test_a_pulse_command_with_bit_0_clear_pulls_reset_once(guest: Guest, command: int) -> None:
    events = guest.watch()
    guest.command(command)
    assert [(event.gsi, event.kind) for event in events] == [
        (RESET_IRQ, InterruptKind.ASSERTED),
        (RESET_IRQ, InterruptKind.DEASSERTED),
    ]


@pytest.mark.parametrize("command", [0xFF, 0xF1, 0xFD])
def test_a_pulse_command_with_bit_0_set_pulls_nothing(guest: Guest, command: int) -> None:
    events = guest.watch()
    guest.command(command)
    assert events == []


def test_the_output_port_holds_reset_until_the_device_is_reset(guest: Guest) -> None:
    guest.command(0xD1, 0xDE)
    assert guest.asserted() == {RESET_IRQ, A20_IRQ}
    guest.device.reset()
    assert guest.asserted() == {A20_IRQ}


def test_the_output_port_shows_the_interrupts(guest: Guest) -> None:
    guest.command(0xD2, 0x00)
    guest.command(0xD0)
    assert guest.receive_all() == [0x00, 0xDF]
    guest.command(0xD3, 0x00)
    guest.command(0xD0)
    assert guest.receive(aux=True) == 0x00
    assert guest.receive() == 0xEF


def test_without_gsis_for_them_a20_and_reset_reach_nobody() -> None:
    guest = Guest(Config())
    events = guest.watch()
    guest.command(0xFE)
    guest.command(0xDD)
    assert events == []
    assert guest.ask(0xD0) == 0xCD


# Interrupts.


def test_a_key_interrupts_until_it_is_read(guest: Guest) -> None:
    guest.device.press("a")
    assert KEYBOARD_IRQ in guest.asserted()
    assert guest.receive() == 0x1C
    assert KEYBOARD_IRQ not in guest.asserted()


def test_the_mouse_has_an_interrupt_of_its_own(guest: Guest) -> None:
    guest.mouse(0xF4)
    guest.device.move_mouse(1, 1)
    assert guest.asserted() == {AUX_IRQ, A20_IRQ}
    guest.receive_all(aux=True)
    assert guest.asserted() == {A20_IRQ}


def test_the_interrupt_falls_between_two_bytes(guest: Guest) -> None:
    guest.device.press("up")
    events = guest.watch()
    assert guest.receive_all() == [0xE0, 0x75]
    assert [event.kind for event in events if event.gsi == KEYBOARD_IRQ] == [
        InterruptKind.DEASSERTED,
        InterruptKind.ASSERTED,
        InterruptKind.DEASSERTED,
    ]


def test_without_its_enable_bit_an_interrupt_stays_down(guest: Guest) -> None:
    guest.command(0x60, 0x00)
    guest.device.press("a")
    assert guest.status & FULL
    assert guest.asserted() == {A20_IRQ}
    guest.command(0x60, 0x01)
    assert guest.asserted() == {KEYBOARD_IRQ, A20_IRQ}


def test_a_reply_does_not_interrupt_while_the_keyboard_is_disabled(guest: Guest) -> None:
    guest.command(0xAD)
    guest.command(0xAA)
    assert guest.asserted() == {A20_IRQ}
    assert guest.receive() == 0x55


def test_a_byte_looped_through_the_mouse_s_side_interrupts(guest: Guest) -> None:
    guest.command(0xD3, 0xA5)
    assert guest.asserted() == {AUX_IRQ, A20_IRQ}
    assert guest.receive(aux=True) == 0xA5


# The order of things.


def test_a_byte_in_the_buffer_is_never_overwritten(guest: Guest) -> None:
    guest.device.press("a")
    guest.command(0xAA)
    guest.device.press("b")
    assert guest.receive_all() == [0x1C, 0x55, 0x32]


def test_the_keyboard_goes_before_the_mouse(guest: Guest) -> None:
    guest.mouse(0xF4)
    guest.command(0xD2, 0x77)  # holds both back
    guest.device.move_mouse(1, 2)
    guest.device.press("up")
    assert [guest.receive() for _ in range(3)] == [0x77, 0xE0, 0x75]
    assert guest.receive_all(aux=True) == [0x08, 1, 2]


def test_a_disabled_interface_holds_its_bytes_back(guest: Guest) -> None:
    guest.mouse(0xF4)
    guest.command(0xAD)
    guest.command(0xA7)
    guest.device.press("a")
    guest.device.move_mouse(1, 2)
    assert not guest.status & FULL
    guest.command(0xA8)
    assert guest.receive_all(aux=True) == [0x08, 1, 2]
    guest.command(0xAE)
    assert guest.receive_all() == [0x1C]


def test_sending_to_a_device_enables_its_interface(guest: Guest) -> None:
    guest.command(0xAD)
    guest.command(0xA7)
    assert guest.keyboard(0xEE) == [0xEE]
    assert guest.ask(0x20) & 0x30 == 0x20
    assert guest.mouse(0xF2) == [0xFA, 0x00]
    assert guest.ask(0x20) & 0x30 == 0x00


# Translation.


def test_translation_makes_set_1_of_the_keyboards_set_2(guest: Guest) -> None:
    guest.command(0x60, 0x41)
    for key in ("a", "delete"):
        guest.device.press(key)
        guest.device.release(key)
    assert guest.receive_all() == [0x1E, 0x9E, 0xE0, 0x53, 0xE0, 0xD3]


def test_translation_changes_the_identity_and_no_other_reply(guest: Guest) -> None:
    guest.command(0x60, 0x41)
    assert guest.keyboard(0xF2) == [0xFA, 0xAB, 0x41]
    assert guest.keyboard(0xFF) == [0xFA, 0xAA]
    assert guest.keyboard(0xEE) == [0xEE]


def test_translation_leaves_the_controller_and_the_mouse_alone(guest: Guest) -> None:
    guest.command(0x60, 0x43)
    assert guest.ask(0x20) == 0x43
    guest.command(0xD2, 0x1C)
    assert guest.receive() == 0x1C
    assert guest.mouse(0xE9) == [0xFA, 0x00, 0x02, 0x64]


def test_a_translated_f0_waits_for_its_code(guest: Guest) -> None:
    guest.device.release("a")  # its F0 goes to the buffer,
    guest.send(0xF4)  # its code is dropped,
    guest.send(0xFE)  # the F0 comes again,
    guest.command(0x60, 0x41)
    assert guest.receive_all() == [0xF0]  # and there is nothing to say of it yet
    other = Guest()
    other.device.restore(guest.device.save())
    for device in (guest, other):
        device.device.press("b")
        assert device.receive_all() == [0xB0]


# What firmware and kernels do.


def test_firmware_sets_the_keyboard_up_without_a_time_out(guest: Guest) -> None:
    """The order of SeaBIOS 1.16.2."""
    assert guest.receive_all() == []
    guest.command(0xAD)
    guest.command(0xA7)
    assert guest.receive_all() == []
    assert guest.ask(0xAA) == 0x55
    assert guest.ask(0xAB) == 0x00
    for command, answers in (
        ([0xFF], [[0xFA, 0xAA]]),
        ([0xF5], [[0xFA]]),
        ([0xF0, 0x02], [[0xFA], [0xFA]]),
        ([0xF4], [[0xFA]]),
    ):
        guest.command(0x60, 0x30)
        guest.command(0x60, 0x20)
        assert [guest.keyboard(octet) for octet in command] == answers
        guest.command(0x60, 0x30)
    guest.command(0x60, 0x61)
    assert guest.asserted() == {A20_IRQ}
    guest.device.press("enter")
    assert guest.asserted() == {KEYBOARD_IRQ, A20_IRQ}
    assert guest.receive() == 0x1C


def test_a_kernel_finds_the_mouses_port_and_its_interrupt(guest: Guest) -> None:
    """The order of Linux: drivers/input/serio/i8042.c."""
    assert guest.receive_all() == []
    control = guest.ask(0x20)
    assert guest.ask(0x20) == control
    assert guest.status & UNLOCKED
    control = (control | 0x10) & ~0x01
    guest.command(0x60, control)
    guest.command(0xD3, 0x5A)
    assert guest.receive(aux=True) == 0x5A
    guest.command(0xA7)
    assert guest.ask(0x20) & 0x20
    guest.command(0xA8)
    assert not guest.ask(0x20) & 0x20
    guest.command(0x60, control | 0x02)
    guest.command(0xD3, 0xA5)
    assert AUX_IRQ in guest.asserted()
    assert guest.receive(aux=True) == 0xA5
    # A multiplexer would answer the third of these with its version.
    for octet in (0xF0, 0x56, 0xA4):
        guest.command(0xD3, octet)
        assert guest.receive(aux=True) == octet


def test_a_kernel_sets_the_keyboard_up(guest: Guest) -> None:
    """The order of Linux: drivers/input/keyboard/atkbd.c, on a translated port."""
    guest.command(0x60, 0x43)
    assert guest.keyboard(0xF2) == [0xFA, 0xAB, 0x41]
    assert guest.keyboard(0xF5) == [0xFA]
    assert guest.keyboard(0xED) + guest.keyboard(0x02) == [0xFA, 0xFA]
    assert guest.keyboard(0xF3) + guest.keyboard(0x00) == [0xFA, 0xFA]
    assert guest.keyboard(0xF4) == [0xFA]
    assert guest.device.leds == 0x02


def test_a_kernel_finds_a_mouse_with_a_wheel(guest: Guest) -> None:
    """The order of Linux: drivers/input/mouse/psmouse-base.c, where it tells mice apart."""
    assert guest.mouse(0xF2) == [0xFA, 0x00]
    assert guest.mouse(0xF5) == [0xFA]
    for octet in (0xE8, 0x00, 0xE8, 0x00, 0xE8, 0x00, 0xE8, 0x00):
        assert guest.mouse(octet) == [0xFA]
    assert guest.mouse(0xE9)[2] != 0x47  # a Synaptics touchpad says this
    assert guest.mouse(0xE1) == [0xFE]  # a TrackPoint would answer
    assert guest.mouse(0xFF) == [0xFA, 0xAA, 0x00]
    for rate in (200, 100, 80):
        assert guest.mouse(0xF3) + guest.mouse(rate) == [0xFA, 0xFA]
    assert guest.mouse(0xF2) == [0xFA, 0x03]
    for rate in (200, 200, 80):
        assert guest.mouse(0xF3) + guest.mouse(rate) == [0xFA, 0xFA]
    assert guest.mouse(0xF2) == [0xFA, 0x03]  # and no further buttons
    assert guest.mouse(0xF4) == [0xFA]
    guest.device.hold_buttons(MouseButton.LEFT)
    guest.device.move_mouse(0, 0, 1)
    assert guest.receive_all(aux=True) == [0x09, 0, 0, 0, 0x09, 0, 0, 1]


# Its life.


def test_a_reset_returns_to_the_state_after_power_on(guest: Guest) -> None:
    fresh = guest.device.save()
    guest.command(0x60, 0x47)
    guest.command(0xD1, 0x00)
    guest.mouse(0xF4)
    guest.keyboard(0xED)
    guest.device.press("a")
    guest.command(0xAA)
    guest.device.reset()
    assert guest.device.save() == fresh
    assert guest.asserted() == {A20_IRQ}


def test_closing_lets_all_wires_go(guest: Guest) -> None:
    guest.command(0xD1, 0x02)
    guest.device.press("a")
    assert guest.asserted() == {KEYBOARD_IRQ, RESET_IRQ, A20_IRQ}
    guest.device.close()
    assert guest.asserted() == set()


def test_a_device_that_got_nothing_can_be_closed() -> None:
    I8042(Config()).close()


def test_keys_may_be_pressed_from_several_threads(guest: Guest) -> None:
    def press_all() -> None:
        for key in KEYS:
            guest.device.press(key)
            guest.device.release(key)

    threads = [threading.Thread(target=press_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with guest.device.lock:
            guest.receive_all()
    for thread in threads:
        thread.join()
    guest.receive_all()
    guest.device.press("a")
    assert guest.receive_all() == [0x1C]


def test_a_restored_device_drives_its_wires_from_the_state(guest: Guest) -> None:
    guest.device.press("a")
    guest.command(0xDD)
    other = Guest()
    other.device.restore(guest.device.save())
    assert other.asserted() == {KEYBOARD_IRQ}
    assert other.receive() == 0x1C
    assert other.asserted() == set()


GOOD_STATE = Guest().device.save()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("memory", "00" * 31),
        ("output_port", 0x100),
        ("expects", 0xAA),
        ("last_write_command", 1),
        ("output", -1),
        ("output_full", None),
        ("output_aux", 0),
        ("reply", 0x100),
        ("reply_pending", "no"),
        ("reply_aux", 2),
        ("released", 0),
        ("keyboard_scan_set", 3),
        ("mouse_identity", 1),
        ("surprise", 1),
    ],
)
def test_a_bad_state_is_refused_and_changes_nothing(
    guest: Guest, field: str, value: object
) -> None:
    guest.device.press("a")
    guest.keyboard(0xED)
    guest.command(0xD4)
    before, wires = guest.device.save(), guest.asserted()
    with pytest.raises(BadState, match=field):
        guest.device.restore(GOOD_STATE | {field: value})
    assert guest.device.save() == before
    assert guest.asserted() == wires


@pytest.mark.parametrize("field", sorted(GOOD_STATE))
def test_a_state_without_a_field_is_refused(guest: Guest, field: str) -> None:
    state = {name: value for name, value in GOOD_STATE.items() if name != field}
    with pytest.raises(BadState, match=field):
        guest.device.restore(state)


# Whatever happens.

Event = tuple[str, tuple[Any, ...]]
COMMANDS = st.one_of(
    st.integers(0, 0xFF),
    st.sampled_from([0x20, 0x60, 0xD1, 0xD2, 0xD3, 0xD4, 0xAA, 0xAD, 0xAE, 0xA7, 0xA8, 0xD0]),
)
DATA = st.one_of(st.integers(0, 0xFF), st.sampled_from([0xF4, 0xF0, 0xFE, 0xFF, 0xED, 0x41, 0x43]))
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("command"), st.tuples(COMMANDS)),
        st.tuples(st.just("data"), st.tuples(DATA)),
        st.tuples(st.just("read"), st.tuples(st.sampled_from([0x60, 0x64]))),
        st.tuples(st.just("press"), st.tuples(st.sampled_from(sorted(KEYS)))),
        st.tuples(st.just("release"), st.tuples(st.sampled_from(sorted(KEYS)))),
        st.tuples(st.just("move_mouse"), st.tuples(*[st.integers(-300, 300)] * 3)),
        st.tuples(st.just("hold_buttons"), st.tuples(st.integers(0, 7).map(MouseButton))),
    ),
    max_size=60,
)


def happen(guest: Guest, event: Event) -> int | None:
    """Let `event` happen, and return what was read."""
    name, arguments = event
    if name == "read":
        return pio_in(guest.device, *arguments)
    if name == "command":
        pio_out(guest.device, 0x64, *arguments)
    elif name == "data":
        pio_out(guest.device, 0x60, *arguments)
    else:
        getattr(guest.device, name)(*arguments)
    return None


@given(events=EVENTS)
def test_status_wires_and_command_byte_always_agree(events: list[Event]) -> None:
    guest = Guest()
    for event in events:
        happen(guest, event)
        status, state = guest.status, guest.device.save()
        command_byte = bytes.fromhex(state["memory"])[0]
        assert not status & (INPUT_FULL | TIMEOUT | PARITY)
        assert status & UNLOCKED
        assert bool(status & SYSTEM) == bool(command_byte & 0x04)
        assert status & FULL or not status & AUX
        other = status & (FULL | AUX) == FULL
        assert guest.asserted() == {
            *([KEYBOARD_IRQ] if other and command_byte & 0x11 == 0x01 else []),
            *([AUX_IRQ] if status & AUX and command_byte & 0x02 else []),
            *([RESET_IRQ] if not state["output_port"] & 0x01 else []),
            *([A20_IRQ] if state["output_port"] & 0x02 else []),
        }


@given(events=EVENTS)
def test_a_guest_can_always_drain_it_and_go_on(events: list[Event]) -> None:
    guest = Guest()
    for event in events:
        happen(guest, event)
    guest.command(0xAD)
    guest.command(0xA7)
    reads = 0
    while guest.status & FULL:
        pio_in(guest.device, 0x60)
        reads += 1
    assert reads <= 2  # the byte in the buffer, and one reply
    assert guest.ask(0xAA) == 0x55


@given(before=EVENTS, after=EVENTS)
def test_a_restored_device_has_the_same_future(before: list[Event], after: list[Event]) -> None:
    original, copy = Guest(), Guest()
    for event in before:
        happen(original, event)
    state = json.loads(json.dumps(original.device.save()))
    copy.device.restore(state)
    assert copy.device.save() == state
    assert copy.asserted() == original.asserted()
    for event in after:
        assert happen(copy, event) == happen(original, event)
        assert copy.asserted() == original.asserted()
    assert copy.device.save() == original.device.save()
