"""The PC's real-time clock and CMOS memory: a Motorola MC146818A at ports 0x70 and 0x71.

Sources: Motorola, "MC146818A Real-Time Clock plus RAM (RTC)", Advance Information; the
PC's use of the 128 bytes after what SeaBIOS reads (src/hw/rtc.h, src/fw/paravirt.c).

How time is kept. The chip's second hand is the wall clock, shifted by `_phase_ns`: a
second begins, by the chip, when their sum is a whole second. The time registers hold the
date as of `_seen_ns`. Each access and each timer first catches up: it advances the
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

import calendar
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from devicehost_server.devices.base import Device, DeviceContext, State
from devicehost_server.devices.cmos import CMOS_SIZE, firmware_bytes
from devicehost_server.devices.config import option
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

# Time, calendar and alarm bytes (data sheet, "Time, calendar, and alarm locations").
SECONDS = 0x00  # 0 to 59
SECONDS_ALARM = 0x01
MINUTES = 0x02  # 0 to 59
MINUTES_ALARM = 0x03
HOURS = 0x04  # 0 to 23; or 1 to 12, with bit 7 for PM
HOURS_ALARM = 0x05
DAY_OF_WEEK = 0x06  # 1 to 7, Sunday is 1
DAY = 0x07  # 1 to 31
MONTH = 0x08  # 1 to 12
YEAR = 0x09  # 0 to 99
CENTURY = 0x32  # not the chip's: a byte of the PC's

HOURS_PM = 0x80
ALARM_ANY = 0xC0  # an alarm byte from here on matches any value

# Registers (data sheet, "Registers").
REG_A = 0x0A
REG_B = 0x0B
REG_C = 0x0C
REG_D = 0x0D

A_UIP = 0x80  # update in progress, or about to be; read-only
A_DIVIDER = 0x70  # DV2 to DV0: 000, 001 and 010 are time bases; others hold the divider
A_DIVIDER_32KHZ = 0x20
A_RATE = 0x0F  # RS3 to RS0: how often the periodic flag is set

B_SET = 0x80  # no updates: the program sets the time
B_PIE = 0x40  # the periodic flag interrupts
B_AIE = 0x20  # the alarm flag interrupts
B_UIE = 0x10  # the update-ended flag interrupts
B_SQWE = 0x08  # square wave
B_DM = 0x04  # data mode: binary, else BCD
B_24H = 0x02  # hours from 0 to 23, else 1 to 12
B_DSE = 0x01  # daylight saving
B_FORMAT = B_DM | B_24H

C_IRQF = 0x80  # a flag is set and enabled: the interrupt line is asserted
C_PF = 0x40  # periodic; each flag has the bit of its enable in register B
C_AF = 0x20  # alarm
C_UF = 0x10  # update ended
C_FLAGS = C_PF | C_AF | C_UF

D_VRT = 0x80  # time and memory are valid: the battery is good

SECOND_NS = 1_000_000_000
TICK_HZ = 32_768
UPDATE_TICKS = 65  # the update cycle: 1984 us (data sheet, table 6)
UIP_TICKS = UPDATE_TICKS + 8  # and the 244 us before it
UPDATE_NS = UPDATE_TICKS * SECOND_NS // TICK_HZ
UIP_NS = UIP_TICKS * SECOND_NS // TICK_HZ

RELEASE_NS = SECOND_NS // 2 - UPDATE_NS
"""Where in a second the divider leaves reset: the update cycle begins half a second on."""

PERIODS = (0, 128, 256, *(4 << n for n in range(13)))
"""Ticks from one periodic flag to the next, by rate: 256, 128, 8192, 4096, ... 2 Hz."""

LOOK_AGAIN_NS = 60 * SECOND_NS
"""The longest that a timer is set for: the wall clock may be stepped meanwhile."""

_BINARY = bytes(range(100))
_BCD = bytes(n // 10 << 4 | n % 10 for n in range(100))


def _hour_codes(codes: bytes, *, hours_24: bool) -> bytes:
    if hours_24:
        return codes[:24]
    return bytes(codes[(hour + 11) % 12 + 1] | hour // 12 * HOURS_PM for hour in range(24))


_CODES = {0: _BCD, B_24H: _BCD, B_DM: _BINARY, B_DM | B_24H: _BINARY}
_HOUR_CODES = {
    mode: _hour_codes(codes, hours_24=bool(mode & B_24H)) for mode, codes in _CODES.items()
}
"""For each format of register B, the byte that stands for a number, and for an hour."""


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


class Mc146818(Device[Mc146818Config]):
    """MC146818 RTC with CMOS memory."""

    type_name = "mc146818"
    config_type = Mc146818Config

    _line: InterruptLine | None = None
    _timer: Timer | None = None

    def __init__(self, config: Mc146818Config) -> None:
        super().__init__(config)
        # All bytes as they read, but for UIP (register A) and IRQF (register C), which
        # are worked out when they are read.
        self._cells = firmware_bytes(
            memory=config.memory,
            memory_below_4g=config.memory_below_4g,
            cpus=config.cpus,
            boot=config.boot,
            floppy_check=config.floppy_check,
            equipment=config.equipment,
        )
        self._cells[REG_A] = A_DIVIDER_32KHZ | 6  # 1024 Hz
        self._cells[REG_B] = B_24H
        self._cells[REG_D] = D_VRT
        self._index = 0
        self._phase_ns = 0
        self._seen_ns = 0

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
        self._seen_ns = context.clock.wall_ns()
        now = datetime.fromtimestamp(self._seen_ns // SECOND_NS, UTC)
        if self.config.localtime:
            now = now.astimezone()
        self._store_date(now)
        self._cells[DAY_OF_WEEK] = now.isoweekday() % 7 + 1

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
            self._cells[REG_B] &= ~(B_PIE | B_AIE | B_UIE | B_SQWE)
            self._cells[REG_C] = 0
            self._settle()

    def save(self) -> State:
        """Return the bytes, and the wall-clock time at which they were right."""
        with self.lock:
            self._catch_up()
            return {
                "index": self._index,
                "cells": self._cells.hex(),
                "phase_ns": self._phase_ns,
                "seen_ns": self._seen_ns,
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
            self._index, self._cells = index, cells
            self._phase_ns, self._seen_ns = phase_ns, seen_ns
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

    @property
    def _running(self) -> bool:
        """Whether the divider counts."""
        return self._cells[REG_A] & A_DIVIDER <= A_DIVIDER_32KHZ

    @property
    def _updating(self) -> bool:
        """Whether the time is updated once a second."""
        return self._running and not self._cells[REG_B] & B_SET

    def _read_data(self) -> int:
        index = self._index
        cells = self._cells
        if index > REG_D and index != CENTURY:
            return cells[index]
        self._catch_up()
        if index == REG_A:
            in_cycle = self._updating and self._seen_ns % SECOND_NS >= SECOND_NS - UIP_NS
            return cells[REG_A] | (A_UIP if in_cycle else 0)
        if index == REG_C:
            flags = cells[REG_C]
            cells[REG_C] = 0
            self._settle()
            return flags | (C_IRQF if flags & cells[REG_B] else 0)
        return cells[index]

    def _write_data(self, value: int) -> None:
        index = self._index
        if index > REG_D and index != CENTURY:
            self._cells[index] = value
            return
        if index in (REG_C, REG_D):
            return  # read-only
        self._catch_up()
        if index == REG_A:
            self._write_a(value)
        elif index == REG_B:
            self._write_b(value)
        else:
            self._cells[index] = value
        self._settle()

    def _write_a(self, value: int) -> None:
        was_running = self._running
        self._cells[REG_A] = value & ~A_UIP
        if self._running and not was_running:
            wall_ns = self._seen_ns - self._phase_ns
            self._phase_ns = (RELEASE_NS - wall_ns) % SECOND_NS
            self._seen_ns = wall_ns + self._phase_ns

    def _write_b(self, value: int) -> None:
        before = self._cells[REG_B]
        if value & ~before & B_SET:
            value &= ~B_UIE  # SET going high clears it
        if (before ^ value) & B_FORMAT and not (before | value) & B_SET:
            date = self._date()
            self._cells[REG_B] = value
            self._store_date(date)
        else:
            self._cells[REG_B] = value

    def _catch_up(self) -> None:
        """Bring time registers and flags up to this moment."""
        seen_ns = self._seen_ns
        now_ns = self._seen_ns = self.context.clock.wall_ns() + self._phase_ns
        if not self._running:
            return
        period = PERIODS[self._cells[REG_A] & A_RATE]
        if period and _periods_until(now_ns, period) > _periods_until(seen_ns, period):
            self._cells[REG_C] |= C_PF
        seconds = now_ns // SECOND_NS - seen_ns // SECOND_NS
        if seconds and self._updating:
            if seconds > 0:  # else the wall clock was set back, and no update happened
                alarm = self._seconds_to_alarm()
                alarmed = alarm is not None and alarm <= seconds
                self._cells[REG_C] |= C_UF | (C_AF if alarmed else 0)
            self._advance(seconds)

    def _settle(self) -> None:
        """Drive the line; have a timer look again by the time that it could be asserted."""
        if self._line is None:
            return
        enabled = self._cells[REG_B] & C_FLAGS
        asserted = bool(self._cells[REG_C] & enabled)
        self._line.set_level(asserted=asserted)
        if asserted or not enabled or (due_ns := self._next_interrupt_ns()) is None:
            return
        clock = self.context.clock
        deadline_ns = clock.now_ns() + min(due_ns - self._seen_ns, LOOK_AGAIN_NS)
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

    def _next_interrupt_ns(self) -> int | None:
        """When the next flag that is enabled will be set, on the chip's clock."""
        enabled = self._cells[REG_B]
        due_ns = []
        period = PERIODS[self._cells[REG_A] & A_RATE]
        if enabled & B_PIE and period and self._running:
            due_ns.append(_end_of_period_ns(self._seen_ns, period))
        if self._updating:
            second = self._seen_ns // SECOND_NS
            if enabled & B_UIE:
                due_ns.append((second + 1) * SECOND_NS)
            if enabled & B_AIE and (alarm := self._seconds_to_alarm()) is not None:
                due_ns.append((second + alarm) * SECOND_NS)
        return min(due_ns, default=None)

    def _seconds_to_alarm(self) -> int | None:
        """How many updates from now the alarm matches, at least 1; None if it never does."""
        mode = self._cells[REG_B] & B_FORMAT
        alarm: list[int | None] = []
        for index, codes in (
            (HOURS_ALARM, _HOUR_CODES[mode]),
            (MINUTES_ALARM, _CODES[mode][:60]),
            (SECONDS_ALARM, _CODES[mode][:60]),
        ):
            code = self._cells[index]
            number = codes.find(code)
            if number < 0 and code < ALARM_ANY:
                return None
            alarm.append(number if number >= 0 else None)
        date = self._date()
        return seconds_to_match(date.hour * 3600 + date.minute * 60 + date.second, alarm)

    def _advance(self, seconds: int) -> None:
        before = self._date()
        after = before + timedelta(seconds=seconds)
        days = after.toordinal() - before.toordinal()
        self._store_date(after)
        self._cells[DAY_OF_WEEK] = (self._field(DAY_OF_WEEK, 1, 7) - 1 + days) % 7 + 1

    def _date(self) -> datetime:
        """Return what the time registers say."""
        year = self._field(CENTURY, 19, 90) * 100 + self._field(YEAR, 0, 99)
        month = self._field(MONTH, 1, 12)
        day = min(self._field(DAY, 1, 31), calendar.monthrange(year, month)[1])
        hour = max(_HOUR_CODES[self._cells[REG_B] & B_FORMAT].find(self._cells[HOURS]), 0)
        minute, second = self._field(MINUTES, 0, 59), self._field(SECONDS, 0, 59)
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)

    def _field(self, index: int, lowest: int, highest: int) -> int:
        codes = _CODES[self._cells[REG_B] & B_FORMAT]
        return max(codes.find(self._cells[index], lowest, highest + 1), lowest)

    def _store_date(self, date: datetime) -> None:
        mode = self._cells[REG_B] & B_FORMAT
        codes = _CODES[mode]
        cells = self._cells
        cells[SECONDS] = codes[date.second]
        cells[MINUTES] = codes[date.minute]
        cells[HOURS] = _HOUR_CODES[mode][date.hour]
        cells[DAY] = codes[date.day]
        cells[MONTH] = codes[date.month]
        cells[YEAR] = codes[date.year % 100]
        cells[CENTURY] = codes[date.year // 100]


def seconds_to_match(now: int, alarm: Sequence[int | None]) -> int:
    """Return how many seconds after `now` the time of day next matches `alarm`.

    Args:
        now: seconds since midnight.
        alarm: hour, minute and second; None matches any.

    Returns:
        1 to 86400.
    """
    at = now + 1
    fields = list(zip((3600, 60, 1), (24, 60, 60), alarm, strict=True))
    while True:
        for unit, count, wanted in fields:
            behind = 0 if wanted is None else (wanted - at // unit) % count
            if behind:
                at = (at // unit + behind) * unit
                break
        else:
            return at - now


def _periods_until(time_ns: int, period: int) -> int:
    """Count the ends of periods until then.

    UIP rises halfway from one end to the next, so that a program has half a period and
    244 us from the periodic interrupt to read the time (data sheet, "Update cycle").
    """
    return (time_ns * TICK_HZ // SECOND_NS + UIP_TICKS + period // 2) // period


def _end_of_period_ns(time_ns: int, period: int) -> int:
    """Return when the next period after `time_ns` ends."""
    tick = (_periods_until(time_ns, period) + 1) * period - period // 2 - UIP_TICKS
    return -(-tick * SECOND_NS // TICK_HZ)
