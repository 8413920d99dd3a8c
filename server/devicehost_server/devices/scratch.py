"""Registers that remember what was written to them: the simplest device there is.

It is here as an example, and to test what talks to devices:

    scratch,size=16,irq=5               bit 0 of the last byte is the level of IRQ 5
    scratch,fault_offset=4              an access that touches byte 4 fails
    scratch,delay_offset=4,delay_ms=50  an access that touches byte 4 takes 50 ms
"""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass, replace
from functools import partial

from devicehost.registers import Register, RegisterMap
from devicehost_server.devices.base import DeviceContext, State
from devicehost_server.devices.config import option
from devicehost_server.devices.peeking import Peekable, View, Views
from devicehost_server.devices.state import StateReader
from devicehost_server.model.device_io import ReadableBuffer, WritableBuffer
from devicehost_server.model.errors import BadConfig
from devicehost_server.model.interrupts import InterruptLine
from devicehost_server.model.resources import (
    LegacyIrq,
    LegacyIrqConstraint,
    MmioAddressConstraint,
    PioAddressConstraint,
    ResourceConstraint,
)

SIZE = 256
"""How many bytes there are, if nothing else is configured."""

BYTES = Register("R", 0, count=SIZE, sizes=(1, 2, 4, 8), help="holds what was written last")
MAP = RegisterMap("scratch", (BYTES,), "registers that remember what was written to them")


class Bus(enum.Enum):
    """Which kind of addresses the registers have."""

    MMIO = "mmio"
    PIO = "pio"


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of a `scratch`."""

    bus: Bus = option(Bus.MMIO, "where it is")  # an Enum is immutable
    base: int | None = option(None, "address of the first byte; none for any", minimum=0)
    size: int = option(SIZE, "how many bytes", minimum=1, maximum=1 << 20)
    irq: int | None = option(None, "legacy IRQ driven by the last byte, bit 0", minimum=0)
    fault_offset: int | None = option(None, "an access to this byte fails", minimum=0)
    delay_offset: int | None = option(None, "an access to this byte is slow", minimum=0)
    delay_ms: int = option(1000, "how slow, in milliseconds", minimum=0)


class Scratch(Peekable[Config]):
    """Registers that remember what was written to them, to try things with.

    Raises:
        BadConfig: `fault_offset` or `delay_offset` lies beyond the last byte.
    """

    type_name = "scratch"
    config_type = Config
    register_map = MAP

    _line: InterruptLine | None = None

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        for field in ("fault_offset", "delay_offset"):
            offset = getattr(config, field)
            if offset is not None and offset >= config.size:
                raise BadConfig(
                    f"device type {self.type_name!r}: field {field!r}: {offset:#x} is beyond the "
                    f"last byte; allowed: at most {config.size - 1:#x}",
                    field=field,
                    type=self.type_name,
                )
        self._registers = bytearray(config.size)

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        """One range of addresses, and an interrupt if it is to have one."""
        base, size = self.config.base, self.config.size
        kind = MmioAddressConstraint if self.config.bus is Bus.MMIO else PioAddressConstraint
        needs: list[ResourceConstraint] = [
            kind(size=size) if base is None else kind.exact(base, size)
        ]
        if self.config.irq is not None:
            needs.append(LegacyIrqConstraint(self.config.irq))
        return needs

    def assign(self, context: DeviceContext) -> None:
        """Take the resources."""
        super().assign(context)
        for irq in context.resources.of_type(LegacyIrq):
            self._line = context.interrupt_line(irq.irq)

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:  # noqa: ARG002 # one range
        """Return what was written last; zeros at first."""
        self._misbehave(offset, len(data))
        data[:] = self._registers[offset : offset + len(data)]

    def write(self, base: int, offset: int, data: ReadableBuffer) -> None:  # noqa: ARG002 # one range
        """Remember `data`."""
        self._misbehave(offset, len(data))
        self._registers[offset : offset + len(data)] = data
        self._drive_line()

    pio_read = read
    pio_write = write

    def get_register_map(self) -> RegisterMap:
        """A row of as many bytes as there are; a single one has no index."""
        return replace(MAP, registers=(replace(BYTES, count=self.config.size),))

    def views(self) -> Views:
        """How to tell and set the bytes."""
        registers = self._registers
        if self.config.size == 1:
            return {BYTES.name: View(lambda: registers[0], partial(registers.__setitem__, 0))}
        return {BYTES.name: View(registers.__getitem__, registers.__setitem__)}

    def registers_changed(self) -> None:
        """Drive the line."""
        self._drive_line()

    def reset(self) -> None:
        """Forget everything."""
        with self.lock:
            self._registers[:] = bytes(self.config.size)
            self._drive_line()

    def save(self) -> State:
        """Return the registers."""
        with self.lock:
            return {"registers": self._registers.hex()}

    def restore(self, state: State) -> None:
        """Take over saved registers.

        Raises:
            BadState: they don't fit; the device is as it was.
        """
        size = self.config.size
        reader = StateReader(self.name, state)
        registers = reader.octets("registers", size_min=size, size_max=size)
        reader.finish()
        with self.lock:
            self._registers[:] = registers
            self._drive_line()

    def close(self) -> None:
        """Let go of the interrupt."""
        if self._line is not None:
            self._line.set_level(asserted=False)

    def _drive_line(self) -> None:
        if self._line is not None:
            self._line.set_level(asserted=bool(self._registers[-1] & 1))

    def _misbehave(self, offset: int, size: int) -> None:
        """Fail or be slow, if the access touches an offset that was chosen for it."""
        touched = range(offset, offset + size)
        if self.config.delay_offset in touched:
            time.sleep(self.config.delay_ms / 1000)
        if self.config.fault_offset in touched:
            raise RuntimeError(f"fault_offset {self.config.fault_offset:#x} was accessed")
