"""The PC's real-time clock and CMOS memory: a Motorola MC146818A at ports 0x70 and 0x71.

Sources: Motorola, "MC146818A Real-Time Clock plus RAM (RTC)", Advance Information; the
PC's use of the 128 bytes after what SeaBIOS reads (src/hw/rtc.h, src/fw/paravirt.c).

The chip is in `mc146818_chip`, its registers are in `mc146818_registers`. What is here are
the ports, the interrupt line and the timer.

How time is kept. The chip's second hand is the wall clock, shifted by `phase_ns`: a
second begins, by the chip, when their sum is a whole second. The time registers hold the
date as of `seen_ns`. Each access and each timer first catches up: it advances the
registers by the seconds that have passed since then, and sets the flags of what has
happened. So a time that the guest set keeps its distance from the wall clock, over steps
of the wall clock and over save and restore too, and an idle chip needs no timer. One is
set only while a flag that isn't set yet could raise an interrupt; while an interrupt
waits for its acknowledgement, none is.

The last 2228 us of a second are the update cycle (1984 us), and the 244 us before it in
which UIP warns of it. The new time, UF and AF come at its end. The data sheet leaves open
what a read during the cycle returns: here it is the time before.

Where the data sheet leaves a choice, or the PC differs:
    - The crystal is the PC's, of 32.768 kHz; the time bases for others (DV 000 and 001)
      run like the one for it (DV 010).
    - What isn't a valid value for its field counts as the lowest one when the next second
      begins, and a day past the end of its month as the month's last.
    - Changing the data mode or the 12/24 hour mode while SET is clear converts the time.
    - The day of the week only counts days, as on the chip: setting the date doesn't set it.
    - The century (0x32) is part of the date. Years are Gregorian, from 1900 to 9099.
    - Daylight saving (DSE) and the square wave (SQWE) are bits without an effect.
    - The index port reads as 0xFF. Its bit 7, which masks the NMI, is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from devicehost_server.devices.base import DeviceContext, State
from devicehost_server.devices.cmos import CMOS_SIZE, firmware_bytes
from devicehost_server.devices.config import option
from devicehost_server.devices.mc146818_chip import SECOND_NS, Mc146818Chip
from devicehost_server.devices.mc146818_registers import (
    A_UIP,
    C_FLAGS,
    CENTURY,
    D_VRT,
    MAP,
    REG_A,
    REG_C,
    REG_D,
)
from devicehost_server.devices.peeking import Peekable, View, Views
from devicehost_server.devices.state import StateReader
from devicehost_server.model.clock import Timer
from devicehost_server.model.device_io import ReadableBuffer, WritableBuffer
from devicehost_server.model.errors import BadState
from devicehost_server.model.interrupts import InterruptLine
from devicehost_server.model.resources import (
    LegacyIrqConstraint,
    PioAddressConstraint,
    ResourceConstraint,
)

LOOK_AGAIN_NS = 60 * SECOND_NS
"""The longest that a timer is set for: the wall clock may be stepped meanwhile."""


@dataclass(frozen=True, slots=True)
class Mc146818Config:
    """Where it is, what time it starts with, and what it tells the firmware."""

    base: int = option(0x70, "index port; the data port follows it", minimum=0, maximum=0xFFFE)
    irq: int | None = option(8, "legacy IRQ; none to have no interrupt", minimum=0)
    localtime: bool = option(default=False, help="start with the host's local time, not UTC")
    memory: int = option(0, "guest RAM that the firmware is told of, in bytes", minimum=0)
    memory_below_4g: int = option(
        3 << 30, "most of it that is below 4 GiB, in bytes", minimum=1 << 20, maximum=1 << 32
    )
    cpus: int = option(1, "number of processors", minimum=1, maximum=256)
    boot: str = option("cd", "boot order, up to three of a (floppy), c (disk), d (CD), n (net)")
    floppy_check: bool = option(default=True, help="boot a floppy only if it has a signature")
    equipment: int = option(
        0x06, "equipment byte: 0x02 is an FPU, 0x04 a PS/2 mouse", minimum=0, maximum=0xFF
    )


class Mc146818(Peekable[Mc146818Config]):
    """MC146818 RTC with CMOS memory."""

    type_name = "mc146818"
    config_type = Mc146818Config
    register_map = MAP

    _line: InterruptLine | None = None
    _timer: Timer | None = None

    def __init__(self, config: Mc146818Config) -> None:
        super().__init__(config)
        self._chip = Mc146818Chip.at_power_on(
            firmware_bytes(
                memory=config.memory,
                memory_below_4g=config.memory_below_4g,
                cpus=config.cpus,
                boot=config.boot,
                floppy_check=config.floppy_check,
                equipment=config.equipment,
            )
        )
        self._index = 0

    def get_resource_constraints(self) -> Sequence[ResourceConstraint]:
        """Two ports, and the interrupt if there is one."""
        ports = PioAddressConstraint.exact(self.config.base, 2)
        if self.config.irq is None:
            return [ports]
        return [ports, LegacyIrqConstraint(self.config.irq)]

    def assign(self, context: DeviceContext) -> None:
        """Take the resources and set the clock by the wall clock."""
        super().assign(context)
        irq = context.resources.get_legacy_irq()
        if irq is not None:
            self._line = context.interrupt_line(irq)
        wall_ns = context.clock.wall_ns()
        now = datetime.fromtimestamp(wall_ns // SECOND_NS, UTC)
        if self.config.localtime:
            now = now.astimezone()
        self._chip.set_clock(wall_ns, now)

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:  # noqa: ARG002 # one range
        """Read the index port (0xFF), the data port, or one after the other."""
        for at in range(len(data)):
            data[at] = self._read_data() if offset + at else 0xFF

    def pio_write(self, base: int, offset: int, data: ReadableBuffer) -> None:  # noqa: ARG002 # one range
        """Write the index port, the data port, or one after the other."""
        for port, value in enumerate(data, offset):
            if port:
                self._write_data(value)
            else:
                self._index = value % CMOS_SIZE

    def reset(self) -> None:
        """Do what the chip's RESET pin does: no more interrupts. Time and memory stay."""
        with self.lock:
            self._catch_up()
            self._index = 0
            self._chip.reset()
            self._settle()

    def save(self) -> State:
        """Return the bytes, and the wall-clock time at which they were right."""
        with self.lock:
            self._catch_up()
            self._settle()  # the state is as of now, and so are the line and the timer
            return {
                "index": self._index,
                "cells": self._chip.cells.hex(),
                "phase_ns": self._chip.phase_ns,
                "seen_ns": self._chip.seen_ns,
            }

    def restore(self, state: State) -> None:
        """Take over a state; the wall-clock time that has passed since then has passed here."""
        reader = StateReader(self.name, state)
        index = reader.integer("index", maximum=CMOS_SIZE - 1)
        cells = bytearray(reader.octets("cells", size_min=CMOS_SIZE, size_max=CMOS_SIZE))
        phase_ns = reader.integer("phase_ns", maximum=SECOND_NS - 1)
        seen_ns = reader.integer("seen_ns", maximum=(1 << 63) - 1)
        reader.finish()
        if cells[REG_A] & A_UIP or cells[REG_C] & ~C_FLAGS or cells[REG_D] != D_VRT:
            registers = cells[REG_A : REG_D + 1].hex(" ")
            raise BadState(
                f"state of device {self.name!r}: field 'cells' has registers A to D {registers}, "
                "allowed: bit 7 of A clear, no other bits of C than 70, and D 80",
                device=self.name,
                field="cells",
            )
        with self.lock:
            self._index = index
            self._chip = Mc146818Chip(cells, phase_ns, seen_ns)
            self._catch_up()
            self._settle()

    def close(self) -> None:
        """Cancel the timer, and let go of the line."""
        with self.lock:
            if self._timer is not None:
                self._timer.cancel()
            if self._line is not None:
                self._line.set_level(asserted=False)
                self._line = None

    def views(self) -> Views:
        """How to tell and set the registers; time is told as it is, though nobody has looked.

        A poke of REG_B leaves the time in the format that it is in. REG_D can't be set.
        """
        views = {
            "INDEX": View(lambda: self._index, self._poke_index),
            "DATA": View(lambda: self._peek_cell(self._index), self._poke_data),
        }
        for each in MAP:
            if each.via and each.count == 1:
                views[each.name] = View(
                    partial(self._peek_cell, each.offset), partial(self._poke_cell, each.offset)
                )
            elif each.via:
                views[each.name] = View(
                    partial(self._peek_row, each.offset), partial(self._poke_row, each.offset)
                )
        return {**views, "REG_D": View(views["REG_D"].get)}

    def registers_changed(self) -> None:
        """Drive the line, and set the timer anew."""
        self._settle()

    def _peek_cell(self, index: int) -> int:
        return self._chip.at(self.context.clock.wall_ns()).value(index)

    def _peek_row(self, first: int, index: int) -> int:
        return self._peek_cell(first + index)

    def _poke_cell(self, index: int, value: int) -> None:
        self._catch_up()
        settable = {REG_A: ~A_UIP, REG_C: C_FLAGS}
        self._chip.cells[index] = value & settable.get(index, -1)

    def _poke_row(self, first: int, index: int, value: int) -> None:
        self._poke_cell(first + index, value)

    def _poke_index(self, value: int) -> None:
        self._index = value % CMOS_SIZE

    def _poke_data(self, value: int) -> None:
        if self._index != REG_D:
            self._poke_cell(self._index, value)

    def _read_data(self) -> int:
        index, chip = self._index, self._chip
        if index > REG_D and index != CENTURY:
            return chip.cells[index]
        self._catch_up()
        value = chip.value(index)
        if index == REG_C:
            chip.cells[REG_C] = 0
            self._settle()
        return value

    def _write_data(self, value: int) -> None:
        index, chip = self._index, self._chip
        if index > REG_D and index != CENTURY:
            chip.cells[index] = value
            return
        self._catch_up()
        chip.write(index, value)
        self._settle()

    def _catch_up(self) -> None:
        self._chip.catch_up(self.context.clock.wall_ns())

    def _settle(self) -> None:
        """Drive the line; have a timer look again by the time that it could be asserted."""
        if self._line is None:
            return
        chip = self._chip
        self._line.set_level(asserted=chip.interrupting)
        if chip.interrupting or not chip.enabled or (due_ns := chip.next_interrupt_ns()) is None:
            return
        clock = self.context.clock
        deadline_ns = clock.now_ns() + min(due_ns - chip.seen_ns, LOOK_AGAIN_NS)
        # A timer that runs too early does no harm, so an earlier one may stay.
        if self._timer is None or deadline_ns < self._timer.deadline_ns:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = clock.call_at(deadline_ns, self._on_timer)

    def _on_timer(self) -> None:
        with self.lock:
            self._timer = None
            self._catch_up()
            self._settle()
