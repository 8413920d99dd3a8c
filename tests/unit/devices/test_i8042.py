"""The keyboard controller, as a guest sees it on ports 0x60 and 0x64."""

from __future__ import annotations

import pytest

from devicehost_server.devices.config import parse
from devicehost_server.devices.i8042 import I8042, Config
from devicehost_server.devices.ps2_mouse import MouseButton
from devicehost_server.model.interrupts import InterruptKind
from devicehost_server.model.resources import LegacyIrqConstraint, PioAddressConstraint
from devicelab import pio_in
from i8042_guest import (
    A20_IRQ,
    AUX_IRQ,
    COMMAND,
    FULL,
    KEYBOARD_IRQ,
    RESET_IRQ,
    SYSTEM,
    UNLOCKED,
    Guest,
)


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
    assert pio_in(guest.device, 0x60) == 0x00
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
    assert guest.ask(0x20) == 0x03 | bit
    guest.command(on)
    assert guest.ask(0x20) == 0x03


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


def test_a_button_interrupts(guest: Guest) -> None:
    guest.mouse(0xF4)
    guest.device.hold_buttons(MouseButton.RIGHT)
    assert guest.asserted() == {AUX_IRQ, A20_IRQ}
    assert guest.receive_all(aux=True) == [0x0A, 0, 0]


def test_each_interrupt_has_its_own_enable_bit(guest: Guest) -> None:
    for command_byte, keyboard, aux in ((0x01, {KEYBOARD_IRQ}, set()), (0x02, set(), {AUX_IRQ})):
        guest.command(0x60, command_byte)
        guest.command(0xD2, 0x00)
        assert guest.asserted() - {A20_IRQ} == keyboard
        guest.receive()
        guest.command(0xD3, 0x00)
        assert guest.asserted() - {A20_IRQ} == aux
        guest.receive(aux=True)


def test_disabling_one_interface_leaves_the_other(guest: Guest) -> None:
    guest.mouse(0xF4)
    guest.command(0xA7)
    guest.device.press("a")
    assert guest.receive_all() == [0x1C]
    guest.command(0xA8)
    guest.command(0xAD)
    guest.device.move_mouse(1, 1)
    assert guest.receive_all(aux=True) == [0x08, 1, 1]


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
