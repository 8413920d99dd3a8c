"""The keyboard controller in use: firmware, kernels, resets, states, and anything else."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_server.devices.i8042 import I8042, Config
from devicehost_server.devices.ps2_keyboard import KEYS
from devicehost_server.devices.ps2_mouse import MouseButton
from devicehost_server.model.errors import BadState
from devicelab import pio_in, pio_out
from i8042_guest import (
    A20_IRQ,
    AUX,
    AUX_IRQ,
    FULL,
    INPUT_FULL,
    KEYBOARD_IRQ,
    PARITY,
    RESET_IRQ,
    SYSTEM,
    TIMEOUT,
    UNLOCKED,
    Guest,
)


@pytest.fixture
def guest() -> Guest:
    return Guest()


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
