"""The MC146818A as a chip: time, alarm and flags. It has no ports, line or timers.

Its owner tells it the wall-clock time by `catch_up` before each access that depends on it,
and asks `next_interrupt_ns` when to look again. How time is kept, and where it differs from
the data sheet, is described in `mc146818`.
"""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from devicehost_server.devices.mc146818_registers import (
    A_AT_POWER_ON,
    A_DIVIDER,
    A_DIVIDER_32KHZ,
    A_RATE,
    A_UIP,
    ALARM_ANY,
    B_24H,
    B_AIE,
    B_DM,
    B_FORMAT,
    B_PIE,
    B_SET,
    B_SQWE,
    B_UIE,
    C_AF,
    C_FLAGS,
    C_IRQF,
    C_PF,
    C_UF,
    CENTURY,
    D_VRT,
    DAY,
    DAY_OF_WEEK,
    HOURS,
    HOURS_ALARM,
    HOURS_PM,
    MINUTES,
    MINUTES_ALARM,
    MONTH,
    PERIODS,
    REG_A,
    REG_B,
    REG_C,
    REG_D,
    SECONDS,
    SECONDS_ALARM,
    TICK_HZ,
    YEAR,
)

SECOND_NS = 1_000_000_000
UPDATE_TICKS = 65  # the update cycle: 1984 us (data sheet, table 6)
UIP_TICKS = UPDATE_TICKS + 8  # and the 244 us before it
UPDATE_NS = UPDATE_TICKS * SECOND_NS // TICK_HZ
UIP_NS = UIP_TICKS * SECOND_NS // TICK_HZ

RELEASE_NS = SECOND_NS // 2 - UPDATE_NS
"""Where in a second the divider leaves reset: the update cycle begins half a second on."""

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


class Mc146818Chip:
    """The chip with its memory.

    Attributes:
        cells: all bytes as they read, but for UIP (register A) and IRQF (register C),
            which are worked out when they are read.
        phase_ns: from the wall clock to the chip's second hand.
        seen_ns: when the cells were right, on the chip's clock.
    """

    def __init__(self, cells: bytearray, phase_ns: int, seen_ns: int) -> None:
        self.cells = cells
        self.phase_ns = phase_ns
        self.seen_ns = seen_ns

    @classmethod
    def at_power_on(cls, memory: bytearray) -> Mc146818Chip:
        """Return a chip that has `memory`, but for its own registers."""
        memory[REG_A] = A_AT_POWER_ON
        memory[REG_B] = B_24H
        memory[REG_D] = D_VRT
        return cls(memory, 0, 0)

    def set_clock(self, wall_ns: int, now: datetime) -> None:
        """Set the time to `now`, which is what it is at `wall_ns`."""
        self.seen_ns = wall_ns
        self._store_date(now)
        self.cells[DAY_OF_WEEK] = now.isoweekday() % 7 + 1

    def at(self, wall_ns: int) -> Mc146818Chip:
        """Return what becomes of this chip by a time, if nothing happens."""
        chip = Mc146818Chip(bytearray(self.cells), self.phase_ns, self.seen_ns)
        chip.catch_up(wall_ns)
        return chip

    def reset(self) -> None:
        """Do what the RESET pin does: no more interrupts. Time and memory stay."""
        self.cells[REG_B] &= ~(B_PIE | B_AIE | B_UIE | B_SQWE)
        self.cells[REG_C] = 0

    @property
    def interrupting(self) -> bool:
        """Whether a flag is set and enabled."""
        return bool(self.cells[REG_C] & self.enabled)

    @property
    def enabled(self) -> int:
        """The flags that interrupt."""
        return self.cells[REG_B] & C_FLAGS

    def value(self, index: int) -> int:
        """Return a register, as it would be read now."""
        value = self.cells[index]
        if index == REG_A:
            in_cycle = self._updating and self.seen_ns % SECOND_NS >= SECOND_NS - UIP_NS
            return value | (A_UIP if in_cycle else 0)
        if index == REG_C:
            return value | (C_IRQF if self.interrupting else 0)
        return value

    def write(self, index: int, value: int) -> None:
        """Write a register."""
        if index == REG_A:
            self._write_a(value)
        elif index == REG_B:
            self._write_b(value)
        elif index not in (REG_C, REG_D):  # they are read-only
            self.cells[index] = value

    def catch_up(self, wall_ns: int) -> None:
        """Bring time registers and flags up to this moment."""
        seen_ns = self.seen_ns
        now_ns = self.seen_ns = wall_ns + self.phase_ns
        if not self._running:
            return
        period = PERIODS[self.cells[REG_A] & A_RATE]
        if period and _periods_until(now_ns, period) > _periods_until(seen_ns, period):
            self.cells[REG_C] |= C_PF
        seconds = now_ns // SECOND_NS - seen_ns // SECOND_NS
        if seconds and self._updating:
            if seconds > 0:  # else the wall clock was set back, and no update happened
                alarm = self._seconds_to_alarm()
                alarmed = alarm is not None and alarm <= seconds
                self.cells[REG_C] |= C_UF | (C_AF if alarmed else 0)
            self._advance(seconds)

    def next_interrupt_ns(self) -> int | None:
        """When the next flag that is enabled will be set, on the chip's clock."""
        enabled = self.cells[REG_B]
        due_ns = []
        period = PERIODS[self.cells[REG_A] & A_RATE]
        if enabled & B_PIE and period and self._running:
            due_ns.append(_end_of_period_ns(self.seen_ns, period))
        if self._updating:
            second = self.seen_ns // SECOND_NS
            if enabled & B_UIE:
                due_ns.append((second + 1) * SECOND_NS)
            if enabled & B_AIE and (alarm := self._seconds_to_alarm()) is not None:
                due_ns.append((second + alarm) * SECOND_NS)
        return min(due_ns, default=None)

    @property
    def _running(self) -> bool:
        """Whether the divider counts."""
        return self.cells[REG_A] & A_DIVIDER <= A_DIVIDER_32KHZ

    @property
    def _updating(self) -> bool:
        """Whether the time is updated once a second."""
        return self._running and not self.cells[REG_B] & B_SET

    def _write_a(self, value: int) -> None:
        was_running = self._running
        self.cells[REG_A] = value & ~A_UIP
        if self._running and not was_running:
            wall_ns = self.seen_ns - self.phase_ns
            self.phase_ns = (RELEASE_NS - wall_ns) % SECOND_NS
            self.seen_ns = wall_ns + self.phase_ns

    def _write_b(self, value: int) -> None:
        before = self.cells[REG_B]
        if value & ~before & B_SET:
            value &= ~B_UIE  # SET going high clears it
        if (before ^ value) & B_FORMAT and not (before | value) & B_SET:
            date = self._date()
            self.cells[REG_B] = value
            self._store_date(date)
        else:
            self.cells[REG_B] = value

    def _seconds_to_alarm(self) -> int | None:
        """How many updates from now the alarm matches, at least 1; None if it never does."""
        mode = self.cells[REG_B] & B_FORMAT
        alarm: list[int | None] = []
        for index, codes in (
            (HOURS_ALARM, _HOUR_CODES[mode]),
            (MINUTES_ALARM, _CODES[mode][:60]),
            (SECONDS_ALARM, _CODES[mode][:60]),
        ):
            code = self.cells[index]
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
        self.cells[DAY_OF_WEEK] = (self._field(DAY_OF_WEEK, 1, 7) - 1 + days) % 7 + 1

    def _date(self) -> datetime:
        """Return what the time registers say."""
        year = self._field(CENTURY, 19, 90) * 100 + self._field(YEAR, 0, 99)
        month = self._field(MONTH, 1, 12)
        day = min(self._field(DAY, 1, 31), calendar.monthrange(year, month)[1])
        hour = max(_HOUR_CODES[self.cells[REG_B] & B_FORMAT].find(self.cells[HOURS]), 0)
        minute, second = self._field(MINUTES, 0, 59), self._field(SECONDS, 0, 59)
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)

    def _field(self, index: int, lowest: int, highest: int) -> int:
        codes = _CODES[self.cells[REG_B] & B_FORMAT]
        return max(codes.find(self.cells[index], lowest, highest + 1), lowest)

    def _store_date(self, date: datetime) -> None:
        mode = self.cells[REG_B] & B_FORMAT
        codes = _CODES[mode]
        cells = self.cells
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
