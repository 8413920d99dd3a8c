"""A device to learn from: factorials, interrupts and DMA, as QEMU's `edu` has them.

Source: QEMU, docs/specs/edu.rst, and what its device does where that says nothing.

What is asked for is done a millisecond later, off the vCPU's path, so that a driver sees it
going on. Then the device may interrupt: a reason is set in IRQ_STATUS, the line is asserted
until the driver has acknowledged all reasons, and a message is sent. It does both, and a
driver gets what it has set up.

Where there is a choice:
    - DMA goes between the guest's memory and a buffer in the device, which only DMA sees, at
      0x40000. A transfer that isn't all in the buffer, or in memory that the guest has shared,
      moves nothing, and ends like any other.
    - The DMA registers are 8 bytes wide, and a half of one can be written. A command is
      ignored while a transfer goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from devicehost.registers import Access, Field, OnWrite, Register, RegisterMap
from devicehost_server.devices.base import DeviceContext, State
from devicehost_server.devices.config import option
from devicehost_server.devices.register_device import RegisterDevice
from devicehost_server.devices.state import StateReader
from devicehost_server.model.clock import Timer
from devicehost_server.model.errors import MemoryNotMapped
from devicehost_server.model.interrupts import InterruptLine
from devicehost_server.model.pci import PciIdentity
from devicehost_server.model.resources import (
    LegacyIrq,
    LegacyIrqConstraint,
    MmioAddressConstraint,
    MsiIrq,
    PciMsiIrqConstraint,
    ResourceConstraint,
)

SIZE = 0x10_0000
IDENTIFICATION = 0x0100_00ED

# STATUS.
COMPUTING = 0x01
INTERRUPT_WHEN_COMPUTED = 0x80

# DMA_COMMAND.
START = 0x1
FROM_BUFFER = 0x2
INTERRUPT_WHEN_MOVED = 0x4

# Reasons in IRQ_STATUS.
COMPUTED = 0x001
MOVED = 0x100

BUFFER_BASE = 0x4_0000
BUFFER_SIZE = 0x1000

READ_ONLY, WRITE_ONLY = Access.READ_ONLY, Access.WRITE_ONLY
WIDE = (4, 8)

MAP = RegisterMap(
    "edu",
    help="a device to learn from",
    registers=(
        Register("ID", 0x00, 4, READ_ONLY, IDENTIFICATION, help="identification and version"),
        Register("LIVENESS", 0x04, 4, help="inverts what is written", on_write=OnWrite.CHANGES),
        Register("FACTORIAL", 0x08, 4, help="takes a number, then holds its factorial"),
        Register(
            "STATUS",
            0x20,
            4,
            fields=(
                Field("COMPUTING", COMPUTING, "the factorial isn't there yet", access=READ_ONLY),
                Field("IRQ", INTERRUPT_WHEN_COMPUTED, "interrupt when it is"),
            ),
            help="status of the factorial",
        ),
        Register("IRQ_STATUS", 0x24, 4, READ_ONLY, help="why the device interrupts"),
        Register("IRQ_RAISE", 0x60, 4, WRITE_ONLY, help="sets reasons, and interrupts"),
        Register("IRQ_ACK", 0x64, 4, WRITE_ONLY, help="clears reasons"),
        Register("DMA_SOURCE", 0x80, 8, help="where DMA is from, an address", sizes=WIDE),
        Register("DMA_DESTINATION", 0x88, 8, help="where DMA is to, an address", sizes=WIDE),
        Register("DMA_COUNT", 0x90, 8, help="how much, in bytes", sizes=WIDE),
        Register(
            "DMA_COMMAND",
            0x98,
            8,
            fields=(
                Field("START", START, "a transfer goes on", on_write=OnWrite.ONE_SETS),
                Field("FROM_BUFFER", FROM_BUFFER, "from the device to the guest's memory"),
                Field("IRQ", INTERRUPT_WHEN_MOVED, "interrupt when it is done"),
            ),
            help="starts a transfer",
            sizes=WIDE,
        ),
    ),
)

WORK_NS = 1_000_000

_ALL_ZEROS = 34  # from this number on, the factorial's low 32 bits are


@dataclass(frozen=True, slots=True)
class EduConfig:
    """Where it is on the bus, and how far its DMA goes."""

    base: int | None = option(None, "guest-physical address; none to be given one", minimum=0)
    irq: int | None = option(None, "legacy IRQ; none to be given one", minimum=0)
    dma_mask: int = option((1 << 28) - 1, "the bits of an address that DMA has", minimum=0)


class Edu(RegisterDevice[EduConfig]):
    """A device to learn from: factorials, interrupts and DMA."""

    type_name = "edu"
    config_type = EduConfig
    register_map = MAP
    pci_identity = PciIdentity(0x1234, 0x11E8, 0x00FF00, revision=0x10)

    _line: InterruptLine | None = None
    _msi = 0

    def __init__(self, config: EduConfig) -> None:
        super().__init__(config)
        self._buffer = bytearray(BUFFER_SIZE)
        self._timers: dict[Callable[[], None], Timer] = {}  # by what they finish

    def get_resource_constraints(self) -> Sequence[ResourceConstraint]:
        """A megabyte of registers, a line, and one message."""
        if self.config.base is None:
            registers = MmioAddressConstraint(size=SIZE, align=SIZE)
        else:
            registers = MmioAddressConstraint.exact(self.config.base, SIZE)
        return [registers, LegacyIrqConstraint(self.config.irq), PciMsiIrqConstraint()]

    def assign(self, context: DeviceContext) -> None:
        """Take the resources."""
        super().assign(context)
        for irq in context.resources.of_type(LegacyIrq):
            self._line = context.interrupt_line(irq.irq)
        for messages in context.resources.of_type(MsiIrq):
            self._msi = messages.base

    def write_liveness(self, value: int) -> None:
        """LIVENESS."""
        self.registers["LIVENESS"] = ~value

    def write_factorial(self, value: int) -> None:
        """FACTORIAL: ignored while it is being computed."""
        if not self.registers["STATUS"] & COMPUTING:
            self.registers["FACTORIAL"] = value
            self.registers["STATUS"] |= COMPUTING
            self.registers_changed()

    def write_irq_raise(self, value: int) -> None:
        """IRQ_RAISE."""
        self._interrupt(value)

    def write_irq_ack(self, value: int) -> None:
        """IRQ_ACK."""
        self.registers["IRQ_STATUS"] &= ~value
        self.registers_changed()

    def write_dma_command(self, value: int) -> None:
        """DMA_COMMAND: ignored while a transfer goes on, and if it doesn't start one."""
        if value & START and not self.registers["DMA_COMMAND"] & START:
            self.registers["DMA_COMMAND"] = value
            self.registers_changed()

    def registers_changed(self) -> None:
        """Drive the line; see to it that what has begun is finished."""
        registers = self.registers
        if self._line is not None:
            self._line.set_level(asserted=bool(registers["IRQ_STATUS"]))
            self._work(self._compute, busy=bool(registers["STATUS"] & COMPUTING))
            self._work(self._move, busy=bool(registers["DMA_COMMAND"] & START))

    def reset(self) -> None:
        """Stop what goes on, and clear everything."""
        with self.lock:
            self._buffer[:] = bytes(BUFFER_SIZE)
            super().reset()

    def save(self) -> State:
        """Return the registers and the buffer."""
        with self.lock:
            return {**super().save(), "buffer": self._buffer.hex()}

    def restore(self, state: State) -> None:
        """Take over a state; what was going on begins anew.

        Raises:
            BadState: it doesn't fit; the device is as it was.
        """
        reader = StateReader(self.name, state)
        registers = self.registers.restored(reader)
        buffer = reader.octets("buffer", size_min=BUFFER_SIZE, size_max=BUFFER_SIZE)
        reader.finish()
        with self.lock:
            self._buffer[:] = buffer
            self.registers.take(registers)
            self.registers_changed()

    def close(self) -> None:
        """Stop what goes on, and let go of the line."""
        with self.lock:
            for timer in self._timers.values():
                timer.cancel()
            if self._line is not None:
                self._line.set_level(asserted=False)
                self._line = None

    def _interrupt(self, reasons: int) -> None:
        self.registers["IRQ_STATUS"] |= reasons
        self.registers_changed()
        if self.registers["IRQ_STATUS"]:
            self.context.interrupts.pulse(self._msi, self.name)

    def _work(self, finish: Callable[[], None], *, busy: bool) -> None:
        """Set a timer for work that has begun, or cancel that of work that hasn't."""
        timer = self._timers.get(finish)
        if busy and timer is None:
            clock = self.context.clock
            self._timers[finish] = clock.call_at(clock.now_ns() + WORK_NS, finish)
        elif timer is not None and not busy:
            timer.cancel()
            del self._timers[finish]

    def _compute(self) -> None:
        """Finish a factorial: its low 32 bits."""
        with self.lock:
            number = self.registers["FACTORIAL"]
            result = math.factorial(number) if number < _ALL_ZEROS else 0
            self.registers["FACTORIAL"] = result
            self.registers["STATUS"] &= ~COMPUTING
            self.registers_changed()
            if self.registers["STATUS"] & INTERRUPT_WHEN_COMPUTED:
                self._interrupt(COMPUTED)

    def _move(self) -> None:
        """Finish a transfer."""
        with self.lock:
            self._transfer()
            self.registers["DMA_COMMAND"] &= ~START
            self.registers_changed()
            if self.registers["DMA_COMMAND"] & INTERRUPT_WHEN_MOVED:
                self._interrupt(MOVED)

    def _transfer(self) -> None:
        memory, mask = self.context.memory, self.config.dma_mask
        source, destination = self.registers["DMA_SOURCE"], self.registers["DMA_DESTINATION"]
        count = self.registers["DMA_COUNT"]
        from_buffer = bool(self.registers["DMA_COMMAND"] & FROM_BUFFER)
        first = (source if from_buffer else destination) - BUFFER_BASE
        if not 0 <= first <= BUFFER_SIZE - count:
            return
        with suppress(MemoryNotMapped):
            if from_buffer:
                memory.write(destination & mask, self._buffer[first : first + count])
            else:
                self._buffer[first : first + count] = memory.read(source & mask, count)
