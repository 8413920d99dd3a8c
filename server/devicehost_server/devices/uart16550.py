"""The serial port of PCs, and of many a board: a 16550A with its bytes on a stream.

The chip is in `pc16550d`, after the data sheet. What is around it, and is left to boards by
the data sheet, is here:

    Speed       Sending takes no time: the holding register or FIFO is empty again at once,
                unless the stream has no room. Then THRE stays clear, and is set later, with
                its interrupt: a guest that waits for it loses nothing. A guest that doesn't
                has what it writes to a full FIFO dropped and counted. Input is taken from
                the stream only as there is room for it, so only loopback overruns.
    Modem       CTS, DSR and DCD are on while a peer is attached to the stream. RTS, DTR and
                a break that is sent go nowhere.
    Interrupt   On `bus=pio` as on a PC: OUT2 gates the interrupt. It must be set for the
                interrupt to reach the line, and in loopback its pin is off. On `bus=mmio`
                the chip is wired to the line directly, as it is on most boards.

As a PCI function it is QEMU's `pci-serial`, to which Linux's 8250_pci binds: eight ports in
BAR 0, and INTx.

With a register stride (`reg_shift`) the bytes between registers read as zero. An access of
several bytes is as many accesses of one byte, lowest address first, as on the ISA bus.

    --device uart16550,chardev=pty:/run/vm1/com1
    --device uart16550,bus=mmio,base=0x10000000,reg_shift=2,irq=10,chardev=stdio
    --device uart16550,chardev=pty:/run/vm1/ttyS4,pci-socket=/run/vm1/ttyS4.sock
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from devicehost.registers import RegisterMap, scaled
from devicehost_server.devices.base import DeviceContext, State
from devicehost_server.devices.chardev import DEFAULT_CAPACITY, open_stream, parse_spec
from devicehost_server.devices.config import option
from devicehost_server.devices.pc16550d import Pc16550d
from devicehost_server.devices.pc16550d_registers import (
    IIR_NONE,
    MAP,
    MSR_CTS,
    MSR_DCD,
    MSR_DSR,
    REGISTER_COUNT,
)
from devicehost_server.devices.peeking import Peekable, Views
from devicehost_server.devices.state import StateReader
from devicehost_server.model.clock import Timer
from devicehost_server.model.device_io import ReadableBuffer, WritableBuffer
from devicehost_server.model.interrupts import InterruptLine
from devicehost_server.model.pci import PciIdentity
from devicehost_server.model.resources import (
    LegacyIrqConstraint,
    MmioAddressConstraint,
    PioAddressConstraint,
    ResourceConstraint,
)

ATTACHED = MSR_CTS | MSR_DSR | MSR_DCD
"""The modem inputs that are on while a peer is attached."""

PCI_SERIAL = PciIdentity(0x1B36, 0x0002, 0x070002)
"""A serial card with one port (QEMU, docs/specs/pci-serial.rst): class 07/00, 16550 compatible."""

_NS_PER_S = 1_000_000_000


class Bus(enum.Enum):
    """Which address space the registers are in."""

    PIO = "pio"
    MMIO = "mmio"


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of a `uart16550`."""

    base: int | None = option(
        0x3F8, "first port, or guest-physical address; none for any", minimum=0
    )
    irq: int | None = option(4, "legacy IRQ; none to have no interrupt", minimum=0)
    bus: Bus = option(Bus.PIO, "address space of the registers")
    reg_shift: int = option(0, "registers are 1 << this many bytes apart", minimum=0, maximum=3)
    chardev: str = option("null", "where the bytes go to and come from")
    buffer: int = option(
        DEFAULT_CAPACITY, "bytes of output that wait for a slow sink", minimum=1, maximum=1 << 30
    )
    clock: int = option(1_843_200, "input clock in Hz: 16 times the fastest baud", minimum=16)


@dataclass(frozen=True, slots=True)
class UartCounters:
    """Characters since the device was made.

    Attributes:
        sent: handed to the sink of the stream.
        received: come from its source.
        dropped: written by a guest that didn't wait, while the transmitter was full.
        unheard: thrown away, since nobody was attached or the device was closed.
        overruns: received while the receiver was full.
    """

    sent: int
    received: int
    dropped: int
    unheard: int
    overruns: int


class Uart16550(Peekable[Config]):
    """A serial port with FIFOs of 16 bytes (16550A)."""

    type_name = "uart16550"
    config_type = Config
    register_map = MAP
    pci_identity = PCI_SERIAL

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        parse_spec(config.chardev)
        self._chip = Pc16550d()
        self._shift = config.reg_shift
        self._gated = config.bus is Bus.PIO
        self._stream = open_stream("null")  # until there are resources
        self._line: InterruptLine | None = None
        self._timer: Timer | None = None
        self._timeout_at_ns = 0

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        """Eight registers, and an interrupt if it is wanted."""
        kind = PioAddressConstraint if self.config.bus is Bus.PIO else MmioAddressConstraint
        size = REGISTER_COUNT << self._shift
        base, irq = self.config.base, self.config.irq
        wanted: list[ResourceConstraint] = [
            kind(size=size) if base is None else kind.exact(base, size)
        ]
        if irq is not None:
            wanted.append(LegacyIrqConstraint(irq))
        return wanted

    def assign(self, context: DeviceContext) -> None:
        """Make the interrupt line and open the stream.

        Raises:
            BadConfig: the stream can't be opened.
        """
        super().assign(context)
        if (gsi := context.resources.get_legacy_irq()) is not None:
            self._line = context.interrupt_line(gsi)
        config = self.config
        self._stream = context.open_stream(config.chardev, capacity=config.buffer)
        self.reset()  # whoever is attached already was so at power-on

    def start(self) -> None:
        """Let bytes come and go."""
        self._stream.start(self._stream_changed)

    def reset(self) -> None:
        """Return to the state after power-on. What was sent already still goes out."""
        with self.lock:
            self._cancel_timeout()
            self._chip.set_inputs(ATTACHED if self._stream.attached else 0)
            self._chip.reset()
            self._settle()

    def close(self) -> None:
        """Send what the peer takes within a second. There are no more interrupts."""
        with self.lock:
            self._cancel_timeout()
            if self._line is not None:
                self._line.set_level(asserted=False)
                self._line = None
        self._stream.close()

    def counters(self) -> UartCounters:
        """Return the counters as they are now."""
        stream, chip = self._stream.counters(), self._chip
        return UartCounters(
            sent=stream.sent,
            received=stream.received,
            dropped=chip.dropped,
            unheard=stream.dropped,
            overruns=chip.receiver.overruns,
        )

    def receive_break(self) -> None:
        """Receive a break, as if the peer had sent one."""
        with self.lock:
            self._chip.receive_break()
            self._settle()

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:  # noqa: ARG002 # one range
        """Read registers, one byte after the other."""
        shift = self._shift
        for at, place in enumerate(range(offset, offset + len(data))):
            if place >> shift << shift == place:
                data[at] = self._chip.read(place >> shift)
                self._settle()

    def pio_write(self, base: int, offset: int, data: ReadableBuffer) -> None:  # noqa: ARG002 # one range
        """Write registers, one byte after the other."""
        shift = self._shift
        for place, value in enumerate(data, offset):
            if place >> shift << shift == place:
                self._chip.write(place >> shift, value)
                self._settle()

    read = pio_read
    write = pio_write

    def get_register_map(self) -> RegisterMap:
        """Its registers, with the stride that is configured.

        With one, an access may be as wide as the distance between registers.
        """
        sizes = tuple(1 << n for n in range(self._shift + 1))
        wired = scaled(MAP, self._shift)
        return replace(wired, registers=tuple(replace(each, sizes=sizes) for each in wired))

    def views(self) -> Views:
        """How to tell and set the registers."""
        return self._chip.views()

    def registers_changed(self) -> None:
        """Drive the line. Nothing is sent or fetched from the stream."""
        self._drive_line()

    def _settle(self) -> None:
        """Do all that follows from an access, or from news of the stream."""
        chip = self._chip
        if chip.unsent:
            self._drive_line()  # a character ended the THRE interrupt: the next is a new edge
            chip.transmit(self._stream.write)
        if self._stream.pending and (room := chip.room):
            chip.receiver.receive(self._stream.read(room))
        if chip.receiver.active:
            chip.receiver.active = False
            self._restart_timeout()
        self._drive_line()

    def _drive_line(self) -> None:
        line, chip = self._line, self._chip
        if line is not None:
            open_gate = chip.modem.out2 or not self._gated
            line.set_level(asserted=open_gate and chip.interrupt() != IIR_NONE)

    def _stream_changed(self) -> None:
        """Input came, or room for output, or a peer came or left. On the stream's thread."""
        with self.lock:
            self._chip.set_inputs(ATTACHED if self._stream.attached else 0)
            self._settle()

    def _restart_timeout(self) -> None:
        """Count from now on, if there is something to fetch."""
        if not self._chip.receiver.unread:
            return
        clock = self.context.clock
        timeout_ns = self._chip.timeout_clocks * _NS_PER_S // self.config.clock
        self._timeout_at_ns = clock.now_ns() + timeout_ns
        # A timer that is early is let run: it looks when it is due. A late one is no use.
        if self._timer is None or self._timer.deadline_ns > self._timeout_at_ns:
            self._set_timer()

    def _set_timer(self) -> None:
        self._cancel_timeout()
        self._timer = self.context.clock.call_at(self._timeout_at_ns, self._timer_due)

    def _cancel_timeout(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timer_due(self) -> None:
        """The timer has run out. On the clock's thread."""
        with self.lock:
            self._timer = None
            if self.context.clock.now_ns() < self._timeout_at_ns:
                self._set_timer()  # there was a character meanwhile
            else:
                self._chip.time_out()
                self._drive_line()

    def save(self) -> State:
        """Return the chip's state, and what is left of a time-out that runs, or 0."""
        with self.lock:
            left_ns = 0
            if self._timer is not None and self._chip.receiver.unread:
                left_ns = max(0, self._timeout_at_ns - self.context.clock.now_ns())
            return {**self._chip.save(), "timeout_in_ns": left_ns}

    def restore(self, state: State) -> None:
        """Take over a saved state; a peer that came or left since then is a change.

        Raises:
            BadState: it doesn't fit; the device is as it was.
        """
        reader = StateReader(self.name, state)
        chip = Pc16550d.restored(reader)
        left_ns = reader.integer("timeout_in_ns", maximum=(1 << 63) - 1)
        reader.finish()
        with self.lock:
            chip.dropped = self._chip.dropped
            chip.receiver.overruns = self._chip.receiver.overruns
            self._chip = chip
            self._cancel_timeout()
            if chip.receiver.unread:
                self._timeout_at_ns = self.context.clock.now_ns() + left_ns
                self._set_timer()
            self._stream_changed()
