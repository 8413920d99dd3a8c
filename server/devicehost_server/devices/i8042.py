"""The 8042 keyboard controller of a PC, with a keyboard and a mouse plugged in.

Two ports: 0x60 for data, 0x64 for status (read) and commands (write). What comes from the
keyboard, the mouse and the controller itself passes one at a time through the output
buffer, which the guest reads at 0x60. Status and interrupts say whose byte it is.

    >>> Config(reset_irq=64, a20_irq=65)
    Config(keyboard_irq=1, aux_irq=12, reset_irq=64, a20_irq=65)

The user's side is `press`, `release`, `move_mouse` and `hold_buttons`, from any thread.

The controller also drives two wires to the processor: reset, and A20, which lets address
bit 20 through. A device has no other wires than interrupt lines, so the configuration can
give either a GSI, one that nothing else uses, and a VMM listens to it like to any other:

    reset_irq   asserted while the guest pulls reset. Commands 0xFE and 0xF0 to 0xFE (even)
                assert and deassert at once; an output port written with bit 0 clear holds
                it until the port is written again, or the device reset.
    a20_irq     asserted while A20 is let through, which it is from the start.

Invariants:
    A byte in the output buffer stays until it is read; nothing overwrites it.
    When the buffer is free, a reply of the controller goes first, then the keyboard, then
    the mouse; these two only while their interface is enabled.
    IRQ 12 is high while the buffer holds a byte of the mouse's, IRQ 1 while it holds any
    other; each if its enable bit is set, and IRQ 1 only while the keyboard is enabled, too.
    They fall between two bytes.
    Commands are done at once: the input buffer is never seen full. There are no cables, so
    parity and time-out errors don't happen.

Sources are named where the registers and commands are: in `i8042_registers`.
"""

from __future__ import annotations

from dataclasses import dataclass

from devicehost_server.devices.base import DeviceContext, State
from devicehost_server.devices.config import option
from devicehost_server.devices.i8042_registers import (
    A20,
    A20_OFF,
    A20_ON,
    ANSWERS,
    AUX_DISABLED,
    AUX_INTERRUPT,
    AUX_IRQ_PIN,
    COMMAND_PORT,
    DATA_FOLLOWS,
    DATA_PORT,
    INTERFACES,
    KEYBOARD_DISABLED,
    KEYBOARD_INTERRUPT,
    KEYBOARD_IRQ_PIN,
    LAST_WRITE_COMMAND,
    MAP,
    NOT_INHIBITED,
    NOT_RESET,
    OUTPUT_AUX,
    OUTPUT_FULL,
    PULSE_OUTPUT_PORT,
    READ_MEMORY,
    READ_OUTPUT_PORT,
    SELF_TEST,
    SYSTEM,
    TRANSLATE,
    WRITE_AUX,
    WRITE_AUX_BUFFER,
    WRITE_KEYBOARD_BUFFER,
    WRITE_MEMORY,
    WRITE_OUTPUT_PORT,
)
from devicehost_server.devices.peeking import Peekable, View, Views, attribute
from devicehost_server.devices.ps2 import NOTHING, one_of
from devicehost_server.devices.ps2_keyboard import Keyboard, Translator
from devicehost_server.devices.ps2_mouse import Mouse, MouseButton
from devicehost_server.devices.state import StateReader
from devicehost_server.model.device_io import ReadableBuffer, WritableBuffer
from devicehost_server.model.interrupts import InterruptLine
from devicehost_server.model.resources import (
    LegacyIrq,
    LegacyIrqConstraint,
    PioAddressConstraint,
    ResourceConstraint,
)

_PINS = KEYBOARD_IRQ_PIN | AUX_IRQ_PIN
_OUTPUT_PORT_AT_RESET = 0xCF  # all high but the two pins, as after power-on

_SELF_TEST_PASSED = 0x55
_MEMORY_SIZE = 32
_NOT_AUX = 0  # the source of a byte is this, or OUTPUT_AUX


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of an `i8042`; the module's text says more of the last two."""

    keyboard_irq: int = option(1, "legacy IRQ of the keyboard", minimum=0)
    aux_irq: int = option(12, "legacy IRQ of the mouse", minimum=0)
    reset_irq: int | None = option(None, "GSI asserted to reset the processor", minimum=0)
    a20_irq: int | None = option(None, "GSI asserted while A20 is on", minimum=0)


class I8042(Peekable[Config]):
    """A keyboard controller with a keyboard and a mouse."""

    type_name = "i8042"
    config_type = Config
    register_map = MAP

    _keyboard_irq: InterruptLine | None = None
    _aux_irq: InterruptLine | None = None
    _reset_wire: InterruptLine | None = None
    _a20_wire: InterruptLine | None = None

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._power_on()

    def _power_on(self) -> None:
        self._keyboard = Keyboard()
        self._mouse = Mouse()
        self._translator = Translator()
        self._memory = bytearray(_MEMORY_SIZE)
        self._memory[0] = KEYBOARD_INTERRUPT | AUX_INTERRUPT  # as QEMU starts
        self._output_port = _OUTPUT_PORT_AT_RESET
        self._status = NOT_INHIBITED | LAST_WRITE_COMMAND
        self._output = 0
        self._reply: tuple[int, int] | None = None  # a byte, and its source
        self._expects = NOTHING  # the command whose data comes next

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        """Two ports, and two interrupts."""
        return [
            PioAddressConstraint.exact(DATA_PORT, 1),
            PioAddressConstraint.exact(COMMAND_PORT, 1),
            LegacyIrqConstraint(self.config.keyboard_irq),
            LegacyIrqConstraint(self.config.aux_irq),
        ]

    def assign(self, context: DeviceContext) -> None:
        """Take the resources, and connect the wires."""
        super().assign(context)
        keyboard, aux = context.resources.of_type(LegacyIrq)
        self._keyboard_irq = context.interrupt_line(keyboard.irq)
        self._aux_irq = context.interrupt_line(aux.irq)
        if self.config.reset_irq is not None:
            self._reset_wire = context.interrupt_line(self.config.reset_irq)
        if self.config.a20_irq is not None:
            self._a20_wire = context.interrupt_line(self.config.a20_irq)

    def start(self) -> None:
        """Put the levels of power-on on the wires."""
        with self.lock:
            self._update()

    def close(self) -> None:
        """Let go of all wires."""
        for wire in (self._keyboard_irq, self._aux_irq, self._reset_wire, self._a20_wire):
            _drive(wire, 0)

    def reset(self) -> None:
        """Return to the state after power-on: controller, keyboard and mouse."""
        with self.lock:
            self._power_on()
            self._update()

    def press(self, key: str) -> None:
        """Push a key of the keyboard down.

        Raises:
            ValueError: no key has this name; `ps2_keyboard.KEYS` are the names.
        """
        with self.lock:
            self._keyboard.press(key)
            self._update()

    def release(self, key: str) -> None:
        """Let a key of the keyboard go. Its name, and the error, are those of `press`."""
        with self.lock:
            self._keyboard.release(key)
            self._update()

    def move_mouse(self, dx: int, dy: int, wheel: int = 0) -> None:
        """Move the mouse by `dx` to the right and `dy` up, and turn its wheel down."""
        with self.lock:
            self._mouse.move(dx, dy, wheel)
            self._update()

    def hold_buttons(self, buttons: MouseButton) -> None:
        """Hold these buttons of the mouse down from now on, and no others."""
        with self.lock:
            self._mouse.hold(buttons)
            self._update()

    @property
    def leds(self) -> int:
        """The keyboard's LEDs: bit 0 scroll lock, bit 1 num lock, bit 2 caps lock."""
        return self._keyboard.leds

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:  # noqa: ARG002 # one port each
        """Read the output buffer, or the status."""
        if base == COMMAND_PORT:
            data[0] = self._status_register()
        else:
            data[0] = self._output  # when it isn't full: the last byte again
            if self._status & OUTPUT_FULL:
                self._status &= ~(OUTPUT_FULL | OUTPUT_AUX)
                self._drive_wires()  # down between two bytes, for edge-triggered inputs
                self._update()

    def pio_write(self, base: int, offset: int, data: ReadableBuffer) -> None:  # noqa: ARG002 # one port each
        """Take a command, or data for the last command or for the keyboard."""
        if base == COMMAND_PORT:
            self._status |= LAST_WRITE_COMMAND
            self._take_command(data[0])
        else:
            self._status &= ~LAST_WRITE_COMMAND
            self._take_data(data[0])
        self._update()

    def views(self) -> Views:
        """How to tell and set the registers. A command can't be told.

        A poke of DATA leaves the buffer as full as it is, one of STATUS changes that.
        """
        return {
            "DATA": attribute(self, "_output"),
            "STATUS": View(self._status_register, self._poke_status),
        }

    def registers_changed(self) -> None:
        """Drive the wires. A buffer that became free is filled with the next access."""
        self._drive_wires()

    def save(self) -> State:
        """Return the state of the controller, the keyboard and the mouse."""
        with self.lock:
            reply, reply_source = self._reply or (0, 0)
            return {
                "memory": self._memory.hex(),
                "output_port": self._output_port,
                "expects": self._expects,
                "last_write_command": bool(self._status & LAST_WRITE_COMMAND),
                "output": self._output,
                "output_full": bool(self._status & OUTPUT_FULL),
                "output_aux": bool(self._status & OUTPUT_AUX),
                "reply": reply,
                "reply_pending": self._reply is not None,
                "reply_aux": reply_source == OUTPUT_AUX,
                "released": self._translator.released,
                **self._keyboard.save(),
                **self._mouse.save(),
            }

    def restore(self, state: State) -> None:
        """Take over a saved state, and put its levels on the wires.

        Raises:
            BadState: it doesn't fit; the device is as it was.
        """
        reader = StateReader(self.name, state)
        memory = reader.octets("memory", size_min=_MEMORY_SIZE, size_max=_MEMORY_SIZE)
        output_port = reader.integer("output_port", maximum=0xFF) & ~_PINS
        expects = one_of(reader, "expects", {NOTHING, *DATA_FOLLOWS})
        status = NOT_INHIBITED
        if reader.boolean("last_write_command"):
            status |= LAST_WRITE_COMMAND
        output = reader.integer("output", maximum=0xFF)
        output_aux = reader.boolean("output_aux")
        if reader.boolean("output_full"):
            status |= OUTPUT_FULL | (OUTPUT_AUX if output_aux else 0)
        reply = reader.integer("reply", maximum=0xFF)
        reply_source = OUTPUT_AUX if reader.boolean("reply_aux") else _NOT_AUX
        reply_pending = reader.boolean("reply_pending")
        translator = Translator(released=reader.boolean("released"))
        keyboard, mouse = Keyboard(), Mouse()
        keyboard.restore(reader)
        mouse.restore(reader)
        reader.finish()
        with self.lock:
            self._memory[:] = memory
            self._output_port, self._expects = output_port, expects
            self._status, self._output = status, output
            self._reply = (reply, reply_source) if reply_pending else None
            self._translator, self._keyboard, self._mouse = translator, keyboard, mouse
            self._update()

    def _status_register(self) -> int:
        return self._status | self._memory[0] & SYSTEM

    def _poke_status(self, value: int) -> None:
        """Set the bits that aren't always the same. Only a byte in the buffer is the mouse's."""
        self._status = NOT_INHIBITED | value & (OUTPUT_FULL | LAST_WRITE_COMMAND)
        if value & OUTPUT_FULL:
            self._status |= value & OUTPUT_AUX
        self._memory[0] = self._memory[0] & ~SYSTEM | value & SYSTEM

    def _take_command(self, command: int) -> None:
        """Do `command`; one that isn't known is ignored."""
        self._expects = command if command in DATA_FOLLOWS else NOTHING
        if command in ANSWERS:
            self._answer(ANSWERS[command])
        elif command in READ_MEMORY:
            self._answer(self._memory[command - READ_MEMORY.start])
        elif command in INTERFACES:
            cleared, added = INTERFACES[command]
            self._memory[0] = self._memory[0] & ~cleared | added
        elif command == SELF_TEST:
            self._memory[0] |= SYSTEM
            self._answer(_SELF_TEST_PASSED)
        elif command == READ_OUTPUT_PORT:
            self._answer(self._output_port | self._pins())
        elif command == A20_OFF:
            self._output_port &= ~A20
        elif command == A20_ON:
            self._output_port |= A20
        elif command in PULSE_OUTPUT_PORT and not command & NOT_RESET:
            _drive(self._reset_wire, 1)  # and `_update` brings it back

    def _take_data(self, octet: int) -> None:
        command, self._expects = self._expects, NOTHING
        if command == NOTHING:
            self._memory[0] &= ~KEYBOARD_DISABLED  # sending to a device enables its interface
            self._keyboard.write(octet)
        elif command == WRITE_AUX:
            self._memory[0] &= ~AUX_DISABLED
            self._mouse.write(octet)
        elif command == WRITE_KEYBOARD_BUFFER:
            self._answer(octet)
        elif command == WRITE_AUX_BUFFER:
            self._answer(octet, OUTPUT_AUX)
        elif command == WRITE_OUTPUT_PORT:
            self._output_port = octet & ~_PINS
        else:
            self._memory[command - WRITE_MEMORY.start] = octet

    def _answer(self, octet: int, source: int = _NOT_AUX) -> None:
        """Give `octet` to the guest, after the byte that is in the output buffer."""
        self._reply = octet, source

    def _update(self) -> None:
        """Fill the output buffer if there is something for it, and drive the wires."""
        if not self._status & OUTPUT_FULL:
            self._fill()
        self._drive_wires()

    def _fill(self) -> None:
        command_byte = self._memory[0]
        octet: int | None
        source = _NOT_AUX
        if self._reply is not None:
            octet, source = self._reply
            self._reply = None
        else:
            octet = None if command_byte & KEYBOARD_DISABLED else self._take_from_keyboard()
            if octet is None and not command_byte & AUX_DISABLED:
                octet = self._mouse.take()
                source = OUTPUT_AUX
        if octet is not None:
            self._output = octet
            self._status |= OUTPUT_FULL | source

    def _take_from_keyboard(self) -> int | None:
        """Return the keyboard's next byte as the guest wants it, if there is one."""
        octet = self._keyboard.take()
        if not self._memory[0] & TRANSLATE:
            return octet
        while octet is not None:
            code = self._translator.feed(octet)
            if code is not None:
                return code
            octet = self._keyboard.take()
        return None

    def _pins(self) -> int:
        """The pins of the output port that are the two interrupts."""
        command_byte = self._memory[0]
        if self._status & OUTPUT_AUX:
            return AUX_IRQ_PIN if command_byte & AUX_INTERRUPT else 0
        if self._status & OUTPUT_FULL:
            # Firmware disables the keyboard while it polls for a reply of the controller. An
            # interrupt then would be served later, when the byte is gone. QEMU agrees.
            deciding = command_byte & (KEYBOARD_INTERRUPT | KEYBOARD_DISABLED)
            return KEYBOARD_IRQ_PIN if deciding == KEYBOARD_INTERRUPT else 0
        return 0

    def _drive_wires(self) -> None:
        pins = self._pins()
        _drive(self._keyboard_irq, pins & KEYBOARD_IRQ_PIN)
        _drive(self._aux_irq, pins & AUX_IRQ_PIN)
        _drive(self._a20_wire, self._output_port & A20)
        _drive(self._reset_wire, ~self._output_port & NOT_RESET)


def _drive(wire: InterruptLine | None, level: int) -> None:
    if wire is not None:
        wire.set_level(asserted=level != 0)
