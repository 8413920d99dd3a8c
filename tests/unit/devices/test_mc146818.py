"""The PC's RTC: what a guest sees of time, flags, interrupts and CMOS memory."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devicehost_server.devices.base import DeviceContext
from devicehost_server.devices.config import parse
from devicehost_server.devices.mc146818 import Mc146818, Mc146818Config
from devicehost_server.devices.mc146818_chip import seconds_to_match
from devicehost_server.model.clock import ManualClock, SystemClock
from devicehost_server.model.errors import BadConfig, BadState
from devicehost_server.model.interrupts import InterruptEvent, InterruptKind
from devicelab import Lab, pio_in, pio_out

US = 1_000
MS = 1_000_000
SECOND = 1_000_000_000
DAY = 86_400 * SECOND

INDEX, DATA, IRQ = 0x70, 0x71, 8
SEC, SEC_ALARM, MIN, MIN_ALARM, HOUR, HOUR_ALARM, WEEKDAY, DATE, MONTH, YEAR = range(10)
A, B, C, D, CENTURY = 0x0A, 0x0B, 0x0C, 0x0D, 0x32
UIP = 0x80
SET, PIE, AIE, UIE, SQWE, BINARY, H24, DSE = 0x80, 0x40, 0x20, 0x10, 0x08, 0x04, 0x02, 0x01
IRQF, PF, AF, UF = 0x80, 0x40, 0x20, 0x10
ANY = 0xFF
DIVIDER_RESET = 0x70
FORMATS = [0, H24, BINARY, BINARY | H24]

NOON = datetime(2024, 2, 28, 12, 0, 0, tzinfo=UTC)  # a Wednesday
UPDATE_NS = 65 * SECOND // 32768  # 1984 us
UIP_NS = 73 * SECOND // 32768  # 244 us more


def wall_ns(moment: datetime) -> int:
    return round(moment.timestamp()) * SECOND


def lab_at(moment: datetime) -> Lab:
    return Lab(wall_ns(moment))


def hosted(lab: Lab, **config: str) -> Mc146818:
    return lab.host(Mc146818(parse("mc146818", Mc146818Config, config)))


def peek(rtc: Mc146818, index: int) -> int:
    pio_out(rtc, INDEX, index)
    return pio_in(rtc, DATA)


def poke(rtc: Mc146818, index: int, value: int) -> None:
    pio_out(rtc, INDEX, index)
    pio_out(rtc, DATA, value)


def time_bytes(rtc: Mc146818) -> list[int]:
    return [peek(rtc, index) for index in (CENTURY, YEAR, MONTH, DATE, HOUR, MIN, SEC)]


def encode(number: int, mode: int) -> int:
    return number if mode & BINARY else int(str(number), 16)


def decode(byte: int, mode: int) -> int:
    return byte if mode & BINARY else int(f"{byte:x}")


def set_time(rtc: Mc146818, moment: datetime, mode: int = H24) -> None:
    """What a program does: SET, the ten bytes, SET off."""
    poke(rtc, B, SET | mode)
    poke(rtc, CENTURY, encode(moment.year // 100, mode))
    poke(rtc, YEAR, encode(moment.year % 100, mode))
    poke(rtc, MONTH, encode(moment.month, mode))
    poke(rtc, DATE, encode(moment.day, mode))
    poke(rtc, WEEKDAY, moment.isoweekday() % 7 + 1)
    hour, pm = moment.hour, 0
    if not mode & H24:
        hour, pm = moment.hour % 12 or 12, 0x80 if moment.hour >= 12 else 0
    poke(rtc, HOUR, encode(hour, mode) | pm)
    poke(rtc, MIN, encode(moment.minute, mode))
    poke(rtc, SEC, encode(moment.second, mode))
    poke(rtc, B, mode)


def get_time(rtc: Mc146818) -> datetime:
    """What a program does to read the time."""
    mode = peek(rtc, B)
    century, year, month, day, hour, minute, second = time_bytes(rtc)
    pm = 0
    if not mode & H24:
        pm, hour = hour & 0x80, hour & 0x7F
    hour = decode(hour, mode)
    if not mode & H24:
        hour = hour % 12 + (12 if pm else 0)
    return datetime(
        decode(century, mode) * 100 + decode(year, mode),
        decode(month, mode),
        decode(day, mode),
        hour,
        decode(minute, mode),
        decode(second, mode),
        tzinfo=UTC,
    )


def set_alarm(rtc: Mc146818, hour: int, minute: int, second: int) -> None:
    poke(rtc, HOUR_ALARM, hour)
    poke(rtc, MIN_ALARM, minute)
    poke(rtc, SEC_ALARM, second)


def next_timer(lab: Lab) -> int | None:
    """When the clock will next call the device."""
    return lab.clock._timers.next_deadline_ns()


def assertions(lab: Lab) -> list[InterruptKind]:
    """A list that grows as the line changes."""
    kinds: list[InterruptKind] = []
    lab.interrupts.subscribe(lambda event: kinds.append(event.kind))
    return kinds


@pytest.fixture
def lab() -> Lab:
    return lab_at(NOON)


@pytest.fixture
def rtc(lab: Lab) -> Mc146818:
    return hosted(lab)


class SteppingClock(ManualClock):
    """A clock whose wall time can be set, as a machine's can."""

    def step_wall(self, duration_ns: int) -> None:
        self._wall_offset_ns += duration_ns


@pytest.fixture
def stepping(lab: Lab) -> SteppingClock:
    """Put before `rtc` in a test's parameters, so that the device gets this clock."""
    clock = SteppingClock(wall_ns(NOON))
    lab.clock = clock
    return clock


class TestPorts:
    def test_the_index_port_reads_as_ones(self, rtc: Mc146818) -> None:
        pio_out(rtc, INDEX, 0x0D)

        assert pio_in(rtc, INDEX) == 0xFF

    def test_bit_7_of_the_index_is_not_part_of_it(self, rtc: Mc146818) -> None:
        pio_out(rtc, INDEX, 0x80 | D)

        assert pio_in(rtc, DATA) == 0x80

    def test_a_word_written_to_the_index_port_is_an_index_and_its_data(self, rtc: Mc146818) -> None:
        pio_out(rtc, INDEX, 0xA540, size=2)

        assert peek(rtc, 0x40) == 0xA5

    def test_a_word_read_from_the_index_port_has_the_data_in_its_high_byte(
        self, rtc: Mc146818
    ) -> None:
        poke(rtc, 0x40, 0xA5)

        assert pio_in(rtc, INDEX, size=2) == 0xA5FF

    def test_the_index_stays_for_several_accesses(self, rtc: Mc146818) -> None:
        poke(rtc, 0x40, 0x11)
        pio_out(rtc, DATA, 0x22)

        assert [pio_in(rtc, DATA), pio_in(rtc, DATA)] == [0x22, 0x22]

    def test_every_byte_of_memory_holds_what_is_written(self, rtc: Mc146818) -> None:
        indexes = [index for index in range(0x0E, 0x80) if index != CENTURY]
        for index in indexes:
            poke(rtc, index, index ^ 0xFF)

        assert [peek(rtc, index) for index in indexes] == [index ^ 0xFF for index in indexes]

    def test_the_ports_and_the_irq_can_be_others(self) -> None:
        lab = lab_at(NOON)
        rtc = hosted(lab, base="0x170", irq="9")
        pio_out(rtc, 0x170, D)

        assert pio_in(rtc, 0x171) == 0x80
        assert rtc.get_assigned_resources().get_legacy_irq() == 9

    def test_after_power_on_it_has_the_pcs_mode_and_rate(self, rtc: Mc146818) -> None:
        assert [peek(rtc, index) for index in (A, B, C, D)] == [0x26, H24, 0x00, 0x80]

    @pytest.mark.parametrize("index", [C, D])
    def test_registers_c_and_d_are_read_only(self, rtc: Mc146818, index: int) -> None:
        before = peek(rtc, index)
        poke(rtc, index, 0xFF ^ before)

        assert peek(rtc, index) == before

    def test_uip_is_read_only(self, rtc: Mc146818) -> None:
        poke(rtc, A, UIP | 0x2F)

        assert peek(rtc, A) == 0x2F


class TestTime:
    def test_it_starts_with_the_wall_clock_in_utc(self, rtc: Mc146818) -> None:
        assert time_bytes(rtc) == [0x20, 0x24, 0x02, 0x28, 0x12, 0x00, 0x00]
        assert peek(rtc, WEEKDAY) == 4

    def test_it_can_start_with_the_hosts_local_time(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TZ", "UTC-14")  # Line Islands: 14 hours ahead
        time.tzset()
        try:
            rtc = hosted(lab, localtime="yes")
        finally:
            monkeypatch.undo()
            time.tzset()

        assert get_time(rtc) == datetime(2024, 2, 29, 2, 0, 0, tzinfo=UTC)
        assert peek(rtc, WEEKDAY) == 5

    @pytest.mark.parametrize(
        ("mode", "hour", "byte"),
        [
            (0, 0, 0x12),
            (0, 1, 0x01),
            (0, 11, 0x11),
            (0, 12, 0x92),
            (0, 13, 0x81),
            (0, 23, 0x91),
            (BINARY, 0, 0x0C),
            (BINARY, 12, 0x8C),
            (BINARY, 23, 0x8B),
            (H24, 0, 0x00),
            (H24, 23, 0x23),
            (BINARY | H24, 23, 0x17),
        ],
    )
    def test_the_hour_byte_is_as_the_data_sheet_has_it(
        self, rtc: Mc146818, mode: int, hour: int, byte: int
    ) -> None:
        set_time(rtc, NOON.replace(hour=hour), H24)
        poke(rtc, B, mode)

        assert peek(rtc, HOUR) == byte

    def test_a_second_carries_up_to_the_century(self, lab: Lab, rtc: Mc146818) -> None:
        set_time(rtc, datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC))
        lab.clock.advance(SECOND)

        assert time_bytes(rtc) == [0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00]
        assert peek(rtc, WEEKDAY) == 7

    @pytest.mark.parametrize(
        ("year", "month", "day"), [(2024, 2, 29), (2023, 2, 28), (2000, 2, 29), (2024, 4, 30)]
    )
    def test_months_end_when_they_end(
        self, lab: Lab, rtc: Mc146818, year: int, month: int, day: int
    ) -> None:
        set_time(rtc, datetime(year, month, day, 23, 59, 59, tzinfo=UTC))
        lab.clock.advance(SECOND)

        assert get_time(rtc) == datetime(year, month + 1, 1, tzinfo=UTC)

    @given(
        moment=st.datetimes(datetime(1970, 1, 1), datetime(2099, 12, 31)),  # noqa: DTZ001 # made UTC
        later=st.timedeltas(timedelta(0), timedelta(days=4000)),
        mode=st.sampled_from(FORMATS),
    )
    def test_any_date_in_any_format_goes_on_from_where_it_was_set(
        self, moment: datetime, later: timedelta, mode: int
    ) -> None:
        moment = moment.replace(microsecond=0, tzinfo=UTC)
        lab = lab_at(NOON)
        rtc = hosted(lab)
        set_time(rtc, moment, mode)
        assert get_time(rtc) == moment

        seconds = later // timedelta(seconds=1)
        lab.clock.advance(seconds * SECOND)

        expected = moment + timedelta(seconds=seconds)
        assert get_time(rtc) == expected
        assert peek(rtc, WEEKDAY) == expected.isoweekday() % 7 + 1

    @given(
        moment=st.datetimes(datetime(1970, 1, 1), datetime(2099, 12, 31)),  # noqa: DTZ001 # made UTC
        before=st.sampled_from(FORMATS),
        after=st.sampled_from(FORMATS),
    )
    def test_a_change_of_format_converts_the_time_that_runs(
        self, moment: datetime, before: int, after: int
    ) -> None:
        moment = moment.replace(microsecond=0, tzinfo=UTC)
        rtc = hosted(lab_at(NOON))
        set_time(rtc, moment, before)
        poke(rtc, B, after)

        assert get_time(rtc) == moment

    def test_a_time_that_was_set_follows_steps_of_the_wall_clock(
        self, stepping: SteppingClock, rtc: Mc146818
    ) -> None:
        birthday = datetime(1990, 5, 17, 6, 0, 0, tzinfo=UTC)
        set_time(rtc, birthday)
        stepping.step_wall(40 * DAY)
        assert get_time(rtc) == birthday + timedelta(days=40)

        stepping.step_wall(-41 * DAY)
        assert get_time(rtc) == birthday - timedelta(days=1)

    def test_a_wall_clock_that_is_set_back_ends_no_update(
        self, stepping: SteppingClock, rtc: Mc146818
    ) -> None:
        set_alarm(rtc, ANY, ANY, ANY)
        stepping.step_wall(-3600 * SECOND)

        assert peek(rtc, C) == 0

    def test_set_stops_the_time(self, lab: Lab, rtc: Mc146818) -> None:
        poke(rtc, B, SET | H24)
        lab.clock.advance(100 * SECOND)
        assert get_time(rtc) == NOON

        poke(rtc, B, H24)
        lab.clock.advance(SECOND)
        assert get_time(rtc) == NOON + timedelta(seconds=1)

    def test_set_keeps_the_time_of_the_moment_when_it_was_set(
        self, lab: Lab, rtc: Mc146818
    ) -> None:
        lab.clock.advance(5 * SECOND)
        poke(rtc, B, SET | H24)

        assert get_time(rtc) == NOON + timedelta(seconds=5)

    def test_while_set_the_bytes_read_as_they_were_written(self, lab: Lab, rtc: Mc146818) -> None:
        poke(rtc, B, SET | H24)
        indexes = [SEC, MIN, HOUR, WEEKDAY, DATE, MONTH, YEAR, CENTURY]
        for index in indexes:
            poke(rtc, index, 0xEE)
        lab.clock.advance(SECOND)

        assert [peek(rtc, index) for index in indexes] == [0xEE] * len(indexes)

    def test_what_is_set_is_in_the_format_that_holds_when_set_ends(
        self, lab: Lab, rtc: Mc146818
    ) -> None:
        poke(rtc, B, SET | H24)
        poke(rtc, SEC, 0x30)  # 48 in binary, 30 in BCD
        poke(rtc, B, BINARY | H24)
        lab.clock.advance(SECOND)

        assert peek(rtc, SEC) == 49

    def test_a_date_may_be_written_byte_by_byte_within_a_second_without_set(
        self, lab: Lab, rtc: Mc146818
    ) -> None:
        poke(rtc, DATE, 0x31)  # there is no such day in February, yet
        poke(rtc, MONTH, 0x03)
        lab.clock.advance(SECOND)

        assert get_time(rtc) == datetime(2024, 3, 31, 12, 0, 1, tzinfo=UTC)

    @pytest.mark.parametrize(
        ("index", "value", "becomes"),
        [
            (SEC, 0x7A, datetime(2024, 2, 28, 12, 0, 1, tzinfo=UTC)),
            (SEC, 0x60, datetime(2024, 2, 28, 12, 0, 1, tzinfo=UTC)),
            (MIN, 0xFF, datetime(2024, 2, 28, 12, 0, 1, tzinfo=UTC)),
            (HOUR, 0x24, datetime(2024, 2, 28, 0, 0, 1, tzinfo=UTC)),
            (DATE, 0x00, datetime(2024, 2, 1, 12, 0, 1, tzinfo=UTC)),
            (DATE, 0x31, datetime(2024, 2, 29, 12, 0, 1, tzinfo=UTC)),
            (MONTH, 0x13, datetime(2024, 1, 28, 12, 0, 1, tzinfo=UTC)),
            (YEAR, 0xAA, datetime(2000, 2, 28, 12, 0, 1, tzinfo=UTC)),
            (CENTURY, 0x00, datetime(1924, 2, 28, 12, 0, 1, tzinfo=UTC)),
        ],
    )
    def test_a_byte_that_is_no_value_of_its_field_becomes_one_with_the_next_second(
        self, lab: Lab, rtc: Mc146818, index: int, value: int, becomes: datetime
    ) -> None:
        poke(rtc, index, value)
        assert peek(rtc, index) == value

        lab.clock.advance(SECOND)
        assert get_time(rtc) == becomes

    def test_the_day_of_week_counts_days_whatever_the_date_is(
        self, lab: Lab, rtc: Mc146818
    ) -> None:
        poke(rtc, WEEKDAY, 7)
        lab.clock.advance(DAY)
        assert peek(rtc, WEEKDAY) == 1

        poke(rtc, WEEKDAY, 0)
        lab.clock.advance(2 * DAY)
        assert peek(rtc, WEEKDAY) == 3

    def test_daylight_saving_is_a_bit_without_an_effect(self, lab: Lab, rtc: Mc146818) -> None:
        forward = datetime(2024, 4, 28, 1, 59, 59, tzinfo=UTC)  # the last Sunday in April
        set_time(rtc, forward, H24 | DSE)
        lab.clock.advance(SECOND)

        assert get_time(rtc) == forward + timedelta(seconds=1)
        assert peek(rtc, B) == H24 | DSE


class TestUpdateCycle:
    def test_uip_warns_244_us_before_the_1984_us_of_an_update(
        self, lab: Lab, rtc: Mc146818
    ) -> None:
        assert UIP_NS // US == 2227
        lab.clock.advance(SECOND - UIP_NS - 1)
        assert not peek(rtc, A) & UIP

        lab.clock.advance(1)
        assert peek(rtc, A) & UIP

        lab.clock.advance(UIP_NS - 1)
        assert peek(rtc, A) & UIP
        assert peek(rtc, SEC) == 0
        assert not peek(rtc, C) & UF

        lab.clock.advance(1)
        assert not peek(rtc, A) & UIP
        assert peek(rtc, SEC) == 1
        assert peek(rtc, C) & UF

    def test_with_uip_clear_the_time_stays_for_244_us_at_least(
        self, lab: Lab, rtc: Mc146818
    ) -> None:
        for _ in range(300):
            lab.clock.advance(7 * MS + 1)
            if not peek(rtc, A) & UIP:
                before = time_bytes(rtc)
                lab.clock.advance(244 * US)
                assert time_bytes(rtc) == before

    @pytest.mark.parametrize(("index", "value"), [(B, SET | H24), (A, DIVIDER_RESET), (A, 0x36)])
    def test_without_updates_uip_stays_clear(
        self, lab: Lab, rtc: Mc146818, index: int, value: int
    ) -> None:
        poke(rtc, index, value)
        for _ in range(1000):
            lab.clock.advance(MS)
            assert not peek(rtc, A) & UIP

    def test_set_aborts_an_update_in_progress(self, lab: Lab, rtc: Mc146818) -> None:
        lab.clock.advance(SECOND - MS)
        assert peek(rtc, A) & UIP

        poke(rtc, B, SET | H24)
        lab.clock.advance(MS)
        assert not peek(rtc, A) & UIP
        assert peek(rtc, SEC) == 0
        assert not peek(rtc, C) & UF

    @pytest.mark.parametrize("held", [0x30, 0x40, 0x50, 0x60, 0x70])
    def test_the_first_update_begins_half_a_second_after_the_divider_is_released(
        self, lab: Lab, rtc: Mc146818, held: int
    ) -> None:
        poke(rtc, A, held | 6)
        lab.clock.advance(10 * SECOND + 123 * MS)
        assert peek(rtc, SEC) == 0

        poke(rtc, A, 0x26)
        lab.clock.advance(SECOND // 2 + UPDATE_NS - 1)
        assert peek(rtc, A) & UIP
        assert peek(rtc, SEC) == 0
        lab.clock.advance(1)
        assert peek(rtc, SEC) == 1
        lab.clock.advance(SECOND - 1)
        assert peek(rtc, SEC) == 1
        lab.clock.advance(1)
        assert peek(rtc, SEC) == 2

    def test_other_time_bases_run_like_that_of_the_crystal(self, lab: Lab, rtc: Mc146818) -> None:
        for time_base in (0x00, 0x10):
            poke(rtc, A, time_base)
            lab.clock.advance(SECOND)

        assert peek(rtc, SEC) == 2

    def test_setting_the_time_leaves_the_beginning_of_the_second_where_it_is(
        self, lab: Lab, rtc: Mc146818
    ) -> None:
        lab.clock.advance(900 * MS)
        set_time(rtc, NOON)
        lab.clock.advance(100 * MS - 1)
        assert peek(rtc, SEC) == 0

        lab.clock.advance(1)
        assert peek(rtc, SEC) == 1


class TestFlags:
    def test_a_read_of_c_clears_it(self, lab: Lab, rtc: Mc146818) -> None:
        lab.clock.advance(SECOND)

        assert peek(rtc, C) == PF | UF
        assert peek(rtc, C) == 0

    def test_flags_are_set_without_any_interrupt_enabled_and_without_a_timer(
        self, lab: Lab, rtc: Mc146818
    ) -> None:
        set_alarm(rtc, 0x12, 0x30, 0x00)
        lab.clock.advance(1800 * SECOND - 1)
        assert peek(rtc, C) == PF | UF

        lab.clock.advance(1)
        assert peek(rtc, C) & (UF | AF) == UF | AF
        assert next_timer(lab) is None
        assert not lab.asserted(IRQ)

    def test_without_a_rate_there_is_no_periodic_flag(self, lab: Lab, rtc: Mc146818) -> None:
        poke(rtc, A, 0x20)
        poke(rtc, B, PIE | H24)
        lab.clock.advance(10 * SECOND)

        assert peek(rtc, C) == UF
        assert next_timer(lab) is None

    @pytest.mark.parametrize(
        ("rate", "hertz"),
        [(1, 256), (2, 128), *((rate, 65536 >> rate) for rate in range(3, 16))],
    )
    def test_the_periodic_flag_polled_comes_at_its_rate(
        self, lab: Lab, rtc: Mc146818, rate: int, hertz: int
    ) -> None:
        poke(rtc, A, 0x20 | rate)
        peek(rtc, C)
        step = SECOND // hertz // 4
        seen = 0
        elapsed = 0
        for _ in range(64):
            lab.clock.advance(step)
            elapsed += step
            seen += bool(peek(rtc, C) & PF)

        assert seen == pytest.approx(elapsed * hertz / SECOND, abs=1)

    @pytest.mark.parametrize(
        ("rate", "hertz"),
        [(1, 256), (2, 128), *((rate, 65536 >> rate) for rate in range(3, 16))],
    )
    def test_the_periodic_interrupt_comes_at_its_rate(
        self, lab: Lab, rtc: Mc146818, rate: int, hertz: int
    ) -> None:
        poke(rtc, A, 0x20 | rate)
        poke(rtc, B, PIE | H24)
        peek(rtc, C)
        count = 0
        end = lab.clock.now_ns() + SECOND
        while (due := next_timer(lab)) is not None and due <= end:
            lab.clock.advance(due - lab.clock.now_ns())
            assert lab.asserted(IRQ)
            assert peek(rtc, C) & (IRQF | PF) == IRQF | PF
            assert not lab.asserted(IRQ)
            count += 1

        assert count == hertz

    def test_a_periodic_interrupt_leaves_half_a_period_and_244_us_to_read_the_time(
        self, lab: Lab, rtc: Mc146818
    ) -> None:
        poke(rtc, A, 0x2B)  # 32 Hz
        poke(rtc, B, PIE | H24)
        left = []
        for _ in range(32):
            lab.clock.advance((next_timer(lab) or 0) - lab.clock.now_ns())
            left.append(SECOND - UPDATE_NS - lab.clock.now_ns() % SECOND)
            peek(rtc, C)

        assert min(time for time in left if time > 0) == pytest.approx(
            SECOND / 32 / 2 + 244 * US, abs=US
        )

    def test_with_the_divider_held_no_flag_is_set(self, lab: Lab, rtc: Mc146818) -> None:
        set_alarm(rtc, ANY, ANY, ANY)
        poke(rtc, A, DIVIDER_RESET | 6)
        lab.clock.advance(10 * SECOND)

        assert peek(rtc, C) == 0

    def test_with_set_only_the_periodic_flag_is_set(self, lab: Lab, rtc: Mc146818) -> None:
        set_alarm(rtc, ANY, ANY, ANY)
        poke(rtc, B, SET | H24)
        lab.clock.advance(10 * SECOND)

        assert peek(rtc, C) == PF


class TestAlarm:
    @pytest.mark.parametrize(
        ("alarm", "first", "second"),
        [
            ((0x13, 0x14, 0x15), timedelta(hours=1, minutes=14, seconds=15), timedelta(days=1)),
            ((0xC0, 0x14, 0x15), timedelta(minutes=14, seconds=15), timedelta(hours=1)),
            ((0xFF, 0xC0, 0x15), timedelta(seconds=15), timedelta(minutes=1)),
            ((0xC0, 0xFF, 0xE7), timedelta(seconds=1), timedelta(seconds=1)),
            ((0x13, 0xFF, 0x00), timedelta(hours=1), timedelta(minutes=1)),
            ((0x13, 0x30, 0xFF), timedelta(hours=1, minutes=30), timedelta(seconds=1)),
            ((0x12, 0x00, 0x00), timedelta(days=1), timedelta(days=1)),
        ],
    )
    def test_it_comes_when_each_byte_matches_or_does_not_care(
        self,
        lab: Lab,
        rtc: Mc146818,
        alarm: tuple[int, int, int],
        first: timedelta,
        second: timedelta,
    ) -> None:
        set_alarm(rtc, *alarm)
        poke(rtc, B, AIE | H24)
        for interval in (first, second):
            lab.clock.advance(interval // timedelta(microseconds=1) * US - 1)
            assert not lab.asserted(IRQ)
            lab.clock.advance(1)
            assert lab.asserted(IRQ)
            assert peek(rtc, C) & (IRQF | AF) == IRQF | AF

    def test_in_12_hour_mode_the_pm_bit_counts(self, lab: Lab, rtc: Mc146818) -> None:
        poke(rtc, B, 0)
        set_alarm(rtc, 0x01, 0x00, 0x00)
        lab.clock.advance(6 * 3600 * SECOND)
        assert not peek(rtc, C) & AF

        lab.clock.advance(7 * 3600 * SECOND)
        assert peek(rtc, C) & AF

    @pytest.mark.parametrize("alarm", [(0x24, ANY, ANY), (ANY, 0x60, ANY), (ANY, ANY, 0x0A)])
    def test_one_that_no_time_matches_never_comes(
        self, lab: Lab, rtc: Mc146818, alarm: tuple[int, int, int]
    ) -> None:
        set_alarm(rtc, *alarm)
        poke(rtc, B, AIE | H24)
        assert next_timer(lab) is None

        lab.clock.advance(2 * DAY)
        assert not peek(rtc, C) & AF

    def test_the_time_being_set_to_the_alarm_is_no_match_until_the_next_day(
        self, lab: Lab, rtc: Mc146818
    ) -> None:
        set_alarm(rtc, 0x15, 0x00, 0x00)
        set_time(rtc, NOON.replace(hour=15))
        lab.clock.advance(SECOND)
        assert not peek(rtc, C) & AF

        lab.clock.advance(DAY)
        assert peek(rtc, C) & AF

    def test_a_time_set_to_just_before_the_alarm_brings_it_near(
        self, lab: Lab, rtc: Mc146818
    ) -> None:
        set_alarm(rtc, 0x15, 0x00, 0x00)
        poke(rtc, B, AIE | H24)
        poke(rtc, HOUR, 0x14)
        poke(rtc, MIN, 0x59)
        poke(rtc, SEC, 0x58)
        lab.clock.advance(2 * SECOND)

        assert lab.asserted(IRQ)

    def test_one_that_a_step_of_the_wall_clock_passes_over_comes_within_a_minute(
        self, lab: Lab, stepping: SteppingClock, rtc: Mc146818
    ) -> None:
        set_alarm(rtc, 0x15, 0x00, 0x00)
        poke(rtc, B, AIE | H24)
        stepping.step_wall(4 * 3600 * SECOND)
        lab.clock.advance(60 * SECOND)

        assert lab.asserted(IRQ)

    @settings(max_examples=30)
    @given(
        now=st.integers(0, 86_399),
        hour=st.none() | st.integers(0, 23),
        minute=st.none() | st.integers(0, 59),
        second=st.none() | st.integers(0, 59),
    )
    def test_the_next_match_is_the_first_second_that_matches(
        self, now: int, hour: int | None, minute: int | None, second: int | None
    ) -> None:
        def matches(at: int) -> bool:
            return (
                hour in (None, at // 3600 % 24)
                and minute in (None, at // 60 % 60)
                and second in (None, at % 60)
            )

        first = next(after for after in range(1, 86_401) if matches(now + after))
        assert seconds_to_match(now, (hour, minute, second)) == first


class TestInterrupts:
    def test_an_idle_chip_needs_no_timer(self, lab: Lab, rtc: Mc146818) -> None:
        for _ in range(10):
            lab.clock.advance(SECOND)
            peek(rtc, A)
            peek(rtc, C)
            get_time(rtc)

        assert next_timer(lab) is None

    def test_without_an_irq_the_flags_work_and_no_timer_is_set(self) -> None:
        lab = lab_at(NOON)
        rtc = hosted(lab, irq="none")
        poke(rtc, B, PIE | AIE | UIE | H24)
        assert next_timer(lab) is None

        lab.clock.advance(SECOND)
        assert peek(rtc, C) == IRQF | PF | UF

    def test_the_update_ended_interrupt_comes_at_each_second(self, lab: Lab, rtc: Mc146818) -> None:
        poke(rtc, B, UIE | H24)
        for second in (1, 2, 3):
            lab.clock.advance(SECOND - 1)
            assert not lab.asserted(IRQ)
            lab.clock.advance(1)
            assert lab.asserted(IRQ)
            assert peek(rtc, C) & (IRQF | UF) == IRQF | UF
            assert peek(rtc, SEC) == second

    def test_one_that_nobody_acknowledges_stays_and_needs_no_timer(
        self, lab: Lab, rtc: Mc146818
    ) -> None:
        changes = assertions(lab)
        poke(rtc, A, 0x23)  # 8192 Hz
        poke(rtc, B, PIE | UIE | H24)
        lab.clock.advance(MS)
        assert next_timer(lab) is None

        lab.clock.advance(100 * SECOND)
        assert changes == [InterruptKind.ASSERTED]

        assert peek(rtc, C) == IRQF | PF | UF
        assert changes == [InterruptKind.ASSERTED, InterruptKind.DEASSERTED]
        lab.clock.advance(MS)
        assert lab.asserted(IRQ)

    def test_enabling_a_flag_that_is_set_interrupts_at_once(self, lab: Lab, rtc: Mc146818) -> None:
        lab.clock.advance(SECOND)
        poke(rtc, B, UIE | H24)

        assert lab.asserted(IRQ)

    def test_disabling_the_flag_that_interrupts_ends_the_interrupt_but_not_the_flag(
        self, lab: Lab, rtc: Mc146818
    ) -> None:
        poke(rtc, B, UIE | H24)
        lab.clock.advance(SECOND)
        poke(rtc, B, H24)

        assert not lab.asserted(IRQ)
        assert peek(rtc, C) & (IRQF | UF) == UF

    def test_irqf_is_clear_while_only_flags_that_are_not_enabled_are_set(
        self, lab: Lab, rtc: Mc146818
    ) -> None:
        set_alarm(rtc, 0x18, 0x00, 0x00)
        poke(rtc, B, AIE | H24)
        lab.clock.advance(SECOND)

        assert peek(rtc, C) == PF | UF

    def test_set_going_high_clears_the_update_ended_enable(self, lab: Lab, rtc: Mc146818) -> None:
        poke(rtc, B, UIE | PIE | H24)
        poke(rtc, B, SET | UIE | PIE | H24)
        assert peek(rtc, B) == SET | PIE | H24

        poke(rtc, B, UIE | H24)
        lab.clock.advance(SECOND)
        assert lab.asserted(IRQ)

    def test_what_cannot_come_needs_no_timer(self, lab: Lab, rtc: Mc146818) -> None:
        set_alarm(rtc, ANY, ANY, ANY)
        poke(rtc, A, DIVIDER_RESET | 6)
        poke(rtc, B, PIE | AIE | UIE | H24)
        assert next_timer(lab) is None

        poke(rtc, B, SET | H24)
        poke(rtc, B, SET | AIE | UIE | H24)
        poke(rtc, A, 0x26)
        assert next_timer(lab) is None

    def test_a_faster_rate_counts_from_now_on(self, lab: Lab, rtc: Mc146818) -> None:
        poke(rtc, A, 0x2F)  # 2 Hz
        poke(rtc, B, PIE | H24)
        poke(rtc, A, 0x26)  # 1024 Hz
        lab.clock.advance(SECOND // 1024 + 1)

        assert lab.asserted(IRQ)

    def test_it_comes_on_the_machines_clock_too(self) -> None:
        errors: list[BaseException] = []
        clock = SystemClock(errors.append)
        lab = Lab()
        rtc = Mc146818(Mc146818Config())
        resources = hosted(Lab()).get_assigned_resources()
        rtc.assign(DeviceContext("rtc", resources, clock, lab.interrupts, lab.memory))
        asserted = threading.Event()

        def listener(event: InterruptEvent) -> None:
            if event.kind is InterruptKind.ASSERTED:
                asserted.set()

        lab.interrupts.subscribe(listener)
        try:
            with rtc.lock:
                poke(rtc, B, PIE | H24)  # 1024 Hz
            for _ in range(5):
                assert asserted.wait(timeout=10)
                asserted.clear()
                with rtc.lock:
                    assert peek(rtc, C) & (IRQF | PF) == IRQF | PF
        finally:
            rtc.close()
            clock.close()
        assert errors == []


class TestLife:
    def test_reset_ends_interrupts_and_leaves_time_and_memory(
        self, lab: Lab, rtc: Mc146818
    ) -> None:
        set_time(rtc, datetime(1990, 5, 17, 6, 0, 0, tzinfo=UTC), BINARY | H24)
        poke(rtc, 0x40, 0xA5)
        poke(rtc, A, 0x23)
        poke(rtc, B, PIE | AIE | UIE | SQWE | BINARY | H24 | DSE)
        lab.clock.advance(SECOND)
        assert lab.asserted(IRQ)

        rtc.reset()
        assert not lab.asserted(IRQ)
        assert pio_in(rtc, DATA) == peek(rtc, SEC)
        assert [peek(rtc, index) for index in (A, B, C)] == [0x23, BINARY | H24 | DSE, 0]
        assert peek(rtc, 0x40) == 0xA5
        assert get_time(rtc) == datetime(1990, 5, 17, 6, 0, 1, tzinfo=UTC)

        lab.clock.advance(10 * SECOND)
        assert not lab.asserted(IRQ)

    def test_close_lets_go_of_the_line(self, lab: Lab, rtc: Mc146818) -> None:
        poke(rtc, B, PIE | H24)
        lab.clock.advance(SECOND)
        assert lab.asserted(IRQ)

        rtc.close()
        assert not lab.asserted(IRQ)

    def test_after_close_no_timer_is_due(self, lab: Lab, rtc: Mc146818) -> None:
        poke(rtc, B, PIE | H24)
        rtc.close()

        assert next_timer(lab) is None

    def test_a_timer_that_has_begun_when_it_is_closed_sets_no_other(
        self, lab: Lab, rtc: Mc146818
    ) -> None:
        poke(rtc, B, PIE | H24)
        assert rtc._timer is not None
        callback = rtc._timer.callback
        rtc.close()
        assert callback is not None
        callback()

        assert next_timer(lab) is None
        assert not lab.asserted(IRQ)

    def test_a_device_that_was_never_started_can_be_closed(self, lab: Lab) -> None:
        rtc = Mc146818(Mc146818Config())
        rtc.assign(hosted(lab).context)

        rtc.close()

    def test_a_restored_clock_has_gone_on_in_the_meantime(self, lab: Lab, rtc: Mc146818) -> None:
        birthday = datetime(1990, 5, 17, 6, 0, 0, tzinfo=UTC)
        set_time(rtc, birthday)
        lab.clock.advance(SECOND // 4)
        state = json.loads(json.dumps(rtc.save()))
        later = Lab(wall_ns(NOON) + 3 * DAY)
        restored = hosted(later, memory="1G")
        restored.restore(state)

        assert get_time(restored) == birthday + timedelta(days=3)

    def test_an_interrupt_that_waited_is_asserted_again_by_restore(
        self, lab: Lab, rtc: Mc146818
    ) -> None:
        poke(rtc, B, UIE | H24)
        lab.clock.advance(SECOND)
        state = rtc.save()
        later = Lab(lab.clock.wall_ns())
        restored = hosted(later)
        restored.restore(state)
        assert later.asserted(IRQ)

        restored.restore({**state, "cells": hosted(Lab()).save()["cells"]})
        assert not later.asserted(IRQ)

    def test_an_interrupt_that_came_due_in_the_meantime_is_asserted_by_restore(
        self, rtc: Mc146818
    ) -> None:
        poke(rtc, B, UIE | H24)
        later = Lab(wall_ns(NOON) + SECOND)
        restored = hosted(later)
        restored.restore(rtc.save())

        assert later.asserted(IRQ)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("index", 0x80),
            ("index", None),
            ("cells", "00" * 127),
            ("cells", "00" * 129),
            ("cells", "zz"),
            ("phase_ns", SECOND),
            ("phase_ns", -1),
            ("seen_ns", -1),
            ("seen_ns", 1 << 63),
            ("seen_ns", "soon"),
            ("surplus", 1),
        ],
    )
    def test_a_bad_state_is_refused_and_changes_nothing(
        self, rtc: Mc146818, field: str, value: object
    ) -> None:
        poke(rtc, 0x40, 0xA5)
        before = rtc.save()
        with pytest.raises(BadState) as error:
            rtc.restore({**before, field: value})

        assert error.value.metadata["field"] == field
        assert rtc.save() == before

    @pytest.mark.parametrize("field", ["index", "cells", "phase_ns", "seen_ns"])
    def test_a_state_without_one_of_its_fields_is_refused(self, rtc: Mc146818, field: str) -> None:
        state = rtc.save()
        del state[field]
        with pytest.raises(BadState, match=field):
            rtc.restore(state)

    @pytest.mark.parametrize(("index", "value"), [(A, 0xA6), (C, 0x80), (C, 0x01), (D, 0x00)])
    def test_a_state_with_impossible_registers_is_refused(
        self, rtc: Mc146818, index: int, value: int
    ) -> None:
        state = rtc.save()
        cells = bytearray.fromhex(state["cells"])
        cells[index] = value
        with pytest.raises(BadState, match="registers A to D"):
            rtc.restore({**state, "cells": cells.hex()})


class TestFirmware:
    """What a PC's firmware reads of the machine."""

    @staticmethod
    def word(rtc: Mc146818, index: int, size: int = 2) -> int:
        return sum(peek(rtc, index + at) << 8 * at for at in range(size))

    @pytest.mark.parametrize(
        ("memory", "base", "extended", "above_16m", "above_4g"),
        [
            ("0", 0, 0, 0, 0),
            ("512K", 512, 0, 0, 0),
            ("1M", 640, 0, 0, 0),
            ("16M", 640, 15 << 10, 0, 0),
            ("64M", 640, 63 << 10, 48 << 4, 0),
            ("512M", 640, 0xFFFF, 496 << 4, 0),
            ("3G", 640, 0xFFFF, 0xBF00, 0),
            ("8G", 640, 0xFFFF, 0xBF00, 5 << 14),
            ("2T", 640, 0xFFFF, 0xBF00, 0xFFFFFF),  # as much as fits
        ],
    )
    def test_the_size_of_memory_is_in_its_bytes(
        self, memory: str, base: int, extended: int, above_16m: int, above_4g: int
    ) -> None:
        rtc = hosted(lab_at(NOON), memory=memory)

        assert self.word(rtc, 0x15) == base
        assert self.word(rtc, 0x17) == extended
        assert self.word(rtc, 0x30) == extended
        assert self.word(rtc, 0x34) == above_16m
        assert self.word(rtc, 0x5B, size=3) == above_4g

    def test_the_split_at_4_gib_can_be_moved(self) -> None:
        rtc = hosted(lab_at(NOON), memory="4G", memory_below_4g="2G")

        assert self.word(rtc, 0x34) == (2048 - 16) << 4
        assert self.word(rtc, 0x5B, size=3) == 2048 << 4

    @pytest.mark.parametrize(
        ("boot", "first_two", "third"),
        [("cd", 0x32, 0x00), ("n", 0x04, 0x00), ("dca", 0x23, 0x10), ("", 0x00, 0x00)],
    )
    def test_the_boot_order_is_in_nibbles(self, boot: str, first_two: int, third: int) -> None:
        rtc = hosted(lab_at(NOON), boot=boot)

        assert [peek(rtc, 0x3D), peek(rtc, 0x38)] == [first_two, third]

    def test_the_floppy_check_can_be_turned_off(self) -> None:
        rtc = hosted(lab_at(NOON), boot="cda", floppy_check="no")

        assert peek(rtc, 0x38) == 0x11

    @pytest.mark.parametrize("boot", ["x", "cdna", "C"])
    def test_a_boot_order_that_is_none_is_refused(self, boot: str) -> None:
        with pytest.raises(BadConfig, match="'boot'") as error:
            hosted(lab_at(NOON), boot=boot)

        assert error.value.metadata["field"] == "boot"

    def test_processors_and_equipment_are_in_their_bytes(self) -> None:
        rtc = hosted(lab_at(NOON), cpus="4", equipment="0x2")

        assert [peek(rtc, 0x5F), peek(rtc, 0x14)] == [3, 0x02]

    def test_the_checksum_is_right(self) -> None:
        rtc = hosted(lab_at(NOON), memory="8G")
        total = sum(peek(rtc, index) for index in range(0x10, 0x2E))

        assert (peek(rtc, 0x2E) << 8) + peek(rtc, 0x2F) == total


# A program that does anything: (what, and how).
INDEXES = st.sampled_from([*range(14), CENTURY]) | st.integers(0, 0xFF)
WAITS = (
    st.sampled_from([1, US, 244 * US, MS, UPDATE_NS, UIP_NS, SECOND // 2, SECOND, 61 * SECOND, DAY])
    | st.integers(0, 3 * SECOND)
    | st.integers(0, 40 * 365 * DAY)
)
STEPS = st.one_of(
    st.tuples(st.just("poke"), INDEXES, st.integers(0, 0xFF)),
    st.tuples(st.just("poke"), st.just(B), st.integers(0, 0xFF)),
    st.tuples(st.just("poke"), st.just(A), st.integers(0x20, 0x2F)),
    st.tuples(st.just("peek"), INDEXES, st.just(0)),
    st.tuples(st.just("wait"), WAITS, st.just(0)),
    st.tuples(st.just("word"), st.integers(0, 0xFFFF), st.just(0)),
    st.tuples(st.just("reset"), st.just(0), st.just(0)),
)
Step = tuple[str, int, int]


def perform(lab: Lab, rtc: Mc146818, step: Step) -> Any:
    """Do one step and return all that the guest can see of its result."""
    what, first, second = step
    seen = 0
    if what == "poke":
        poke(rtc, first, second)
    elif what == "peek":
        seen = peek(rtc, first)
    elif what == "wait":
        lab.clock.advance(first)
    elif what == "word":
        pio_out(rtc, INDEX, first, size=2)
        seen = pio_in(rtc, INDEX, size=2)
    else:
        rtc.reset()
    return seen, lab.asserted(IRQ)


class TestAnything:
    @given(past=st.lists(STEPS, max_size=30), future=st.lists(STEPS, max_size=30))
    def test_a_restored_device_has_the_same_future(
        self, past: list[Step], future: list[Step]
    ) -> None:
        lab = lab_at(NOON)
        rtc = hosted(lab)
        for step in past:
            perform(lab, rtc, step)
        other_lab = Lab(lab.clock.wall_ns())
        other = hosted(other_lab, memory="1G", boot="n")
        other.restore(json.loads(json.dumps(rtc.save())))
        changes, other_changes = assertions(lab), assertions(other_lab)

        for step in [*future, *(("peek", index, 0) for index in range(0x80))]:
            assert perform(other_lab, other, step) == perform(lab, rtc, step)
        assert other_changes == changes

    @given(st.lists(STEPS | st.tuples(st.just("step"), st.integers(-DAY, DAY), st.just(0))))
    def test_no_sequence_of_accesses_and_times_raises(self, steps: list[Step]) -> None:
        lab = lab_at(NOON)
        lab.clock = clock = SteppingClock(wall_ns(NOON))
        rtc = hosted(lab)
        for step in steps:
            if step[0] == "step":
                clock.step_wall(step[1])
            else:
                perform(lab, rtc, step)
            state = rtc.save()
            rtc.restore(state)
            assert rtc.save() == state
