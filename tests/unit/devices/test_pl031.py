"""The PL031: what a guest sees of the counter, the match and the registers."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_server.devices.base import DeviceContext
from devicehost_server.devices.config import parse
from devicehost_server.devices.pl031 import Pl031, Pl031Config
from devicehost_server.model.clock import ManualClock, SystemClock
from devicehost_server.model.errors import BadState
from devicehost_server.model.interrupts import InterruptEvent, InterruptKind
from devicelab import FREE_BASE, Lab, mmio_in, mmio_out

SECOND = 1_000_000_000
NOW = 1_700_000_000  # seconds since 1970
WRAP = 1 << 32

IRQ = 2
DR, MR, LR, CR, IMSC, RIS, MIS, ICR = range(0, 0x20, 4)
ALL = [DR, MR, LR, CR, IMSC, RIS, MIS, ICR]


def hosted(lab: Lab, **config: str) -> Pl031:
    return lab.host(Pl031(parse("pl031", Pl031Config, {"irq": str(IRQ), **config})))


def peek(rtc: Pl031, offset: int, size: int = 4) -> int:
    return mmio_in(rtc, FREE_BASE + offset, size)


def poke(rtc: Pl031, offset: int, value: int, size: int = 4) -> None:
    mmio_out(rtc, FREE_BASE + offset, value, size)


def next_timer(lab: Lab) -> int | None:
    """When the clock will next call the device."""
    return lab.clock._timers.next_deadline_ns()


def changes(lab: Lab) -> list[InterruptKind]:
    """A list that grows as the line changes."""
    kinds: list[InterruptKind] = []
    lab.interrupts.subscribe(lambda event: kinds.append(event.kind))
    return kinds


class SteppingClock(ManualClock):
    """A clock whose wall time can be set, as a machine's can."""

    def step_wall(self, duration_ns: int) -> None:
        self._wall_offset_ns += duration_ns


@pytest.fixture
def lab() -> Lab:
    return Lab(NOW * SECOND)


@pytest.fixture
def stepping(lab: Lab) -> SteppingClock:
    """Put before `rtc` in a test's parameters, so that the device gets this clock."""
    clock = SteppingClock(NOW * SECOND)
    lab.clock = clock
    return clock


@pytest.fixture
def rtc(lab: Lab) -> Pl031:
    return hosted(lab)


class TestRegisters:
    def test_a_driver_finds_a_primecell_and_its_part_number(self, rtc: Pl031) -> None:
        ids = [peek(rtc, offset) for offset in range(0xFE0, 0x1000, 4)]

        assert ids == [0x31, 0x10, 0x04, 0x00, 0x0D, 0xF0, 0x05, 0xB1]

    def test_after_power_on_the_clock_runs_and_the_rest_is_zero(self, rtc: Pl031) -> None:
        assert [peek(rtc, offset) for offset in ALL] == [NOW, 0, 0, 1, 0, 0, 0, 0]

    @pytest.mark.parametrize("value", [0, 1, 0xFFFF_FFFE])
    def test_a_running_clock_cannot_be_stopped(self, lab: Lab, rtc: Pl031, value: int) -> None:
        poke(rtc, CR, value)
        lab.clock.advance(SECOND)

        assert peek(rtc, CR) == 1
        assert peek(rtc, DR) == NOW + 1

    @pytest.mark.parametrize("offset", [MR, LR])
    def test_match_and_load_read_as_they_were_written(self, rtc: Pl031, offset: int) -> None:
        poke(rtc, offset, 0x1234_5678)

        assert peek(rtc, offset) == 0x1234_5678

    def test_the_mask_has_one_bit(self, rtc: Pl031) -> None:
        poke(rtc, IMSC, 0xFFFF_FFFF)

        assert peek(rtc, IMSC) == 1

    @pytest.mark.parametrize("offset", [DR, RIS, MIS, 0x20, 0xFDC, 0xFE0, 0xFFC])
    def test_other_registers_are_read_only(self, rtc: Pl031, offset: int) -> None:
        before = peek(rtc, offset)
        poke(rtc, offset, 0xFFFF_FFFF)

        assert peek(rtc, offset) == before
        assert peek(rtc, MIS) == 0

    @pytest.mark.parametrize("offset", [0x20, 0x100, 0xFDC])
    def test_reserved_offsets_read_as_zeros(self, rtc: Pl031, offset: int) -> None:
        assert peek(rtc, offset) == 0

    def test_base_and_irq_can_be_given_or_left_open(self) -> None:
        resources = hosted(Lab(), base="0x9010000", irq="34").get_assigned_resources()
        assert resources.get_mmio_address_ranges()[0].base == 0x0901_0000
        assert resources.get_mmio_address_ranges()[0].size == 0x1000
        assert resources.get_legacy_irq() == 34

        assert hosted(Lab(), irq="none").get_assigned_resources().get_legacy_irq() is None


class TestWidths:
    def test_a_narrow_read_returns_its_bytes_of_the_register(self, rtc: Pl031) -> None:
        poke(rtc, MR, 0x4433_2211)

        assert [peek(rtc, MR + at, size=1) for at in range(4)] == [0x11, 0x22, 0x33, 0x44]
        assert peek(rtc, MR + 2, size=2) == 0x4433

    def test_a_wide_read_returns_several_registers(self, rtc: Pl031) -> None:
        poke(rtc, MR, 0x1111_1111)
        poke(rtc, LR, 0x2222_2222)

        assert peek(rtc, MR, size=8) == 0x2222_2222_1111_1111
        assert peek(rtc, MR + 2, size=4) == 0x2222_1111
        assert peek(rtc, DR, size=0x1000).to_bytes(0x1000, "little")[0xFE0] == 0x31

    @pytest.mark.parametrize(("at", "size"), [(0, 1), (3, 1), (0, 2), (2, 2), (0, 3), (2, 4)])
    def test_a_write_of_a_part_of_a_register_is_dropped(
        self, rtc: Pl031, at: int, size: int
    ) -> None:
        poke(rtc, MR, 0x1234_5678)
        poke(rtc, MR + at, 0, size)

        assert peek(rtc, MR) == 0x1234_5678
        assert peek(rtc, LR) == 0

    def test_a_wide_write_acts_on_each_register_that_it_covers(self, rtc: Pl031) -> None:
        poke(rtc, MR, 0x2222_2222_1111_1111, size=8)

        assert [peek(rtc, MR), peek(rtc, LR)] == [0x1111_1111, 0x2222_2222]

    def test_an_unaligned_wide_write_acts_on_the_registers_within_it(self, rtc: Pl031) -> None:
        poke(rtc, DR + 2, 0xAAAA_2222_2222_BBBB, size=8)

        assert [peek(rtc, MR), peek(rtc, LR)] == [0x2222_2222, 0]


class TestCounter:
    def test_it_counts_the_seconds_of_the_wall_clock(self, lab: Lab, rtc: Pl031) -> None:
        lab.clock.advance(SECOND - 1)
        assert peek(rtc, DR) == NOW

        lab.clock.advance(1)
        assert peek(rtc, DR) == NOW + 1

    def test_a_load_sets_it_at_once_and_leaves_where_the_second_begins(
        self, lab: Lab, rtc: Pl031
    ) -> None:
        lab.clock.advance(3 * SECOND // 4)
        poke(rtc, LR, 1000)
        assert peek(rtc, DR) == 1000

        lab.clock.advance(SECOND // 4)
        assert peek(rtc, DR) == 1001

    @given(load=st.integers(0, WRAP - 1), seconds=st.integers(0, 1 << 34))
    def test_it_counts_on_from_any_load_and_wraps(self, load: int, seconds: int) -> None:
        lab = Lab(NOW * SECOND)
        rtc = hosted(lab)
        poke(rtc, LR, load)
        lab.clock.advance(seconds * SECOND)

        assert peek(rtc, DR) == (load + seconds) % WRAP
        assert peek(rtc, LR) == load

    def test_a_wall_clock_past_2106_wraps(self) -> None:
        rtc = hosted(Lab((WRAP + 5) * SECOND))

        assert peek(rtc, DR) == 5

    def test_a_loaded_time_follows_steps_of_the_wall_clock(
        self, stepping: SteppingClock, rtc: Pl031
    ) -> None:
        poke(rtc, LR, 1000)
        stepping.step_wall(500 * SECOND)
        assert peek(rtc, DR) == 1500

        stepping.step_wall(-600 * SECOND)
        assert peek(rtc, DR) == 900


class TestMatch:
    def test_it_interrupts_when_the_counter_arrives(self, lab: Lab, rtc: Pl031) -> None:
        poke(rtc, IMSC, 1)
        poke(rtc, MR, NOW + 200)
        lab.clock.advance(200 * SECOND - 1)
        assert not lab.asserted(IRQ)

        lab.clock.advance(1)
        assert lab.asserted(IRQ)
        assert [peek(rtc, RIS), peek(rtc, MIS)] == [1, 1]

    def test_the_raw_status_is_set_without_the_mask_and_without_a_timer(
        self, lab: Lab, rtc: Pl031
    ) -> None:
        poke(rtc, MR, NOW + 200)
        assert next_timer(lab) is None

        lab.clock.advance(1000 * SECOND)
        assert [peek(rtc, RIS), peek(rtc, MIS)] == [1, 0]
        assert not lab.asserted(IRQ)

    def test_unmasking_a_match_that_was_interrupts_at_once(self, lab: Lab, rtc: Pl031) -> None:
        poke(rtc, MR, NOW + 1)
        lab.clock.advance(SECOND)
        poke(rtc, IMSC, 1)
        assert lab.asserted(IRQ)

        poke(rtc, IMSC, 0)
        assert not lab.asserted(IRQ)
        assert peek(rtc, RIS) == 1

    def test_the_interrupt_stays_until_it_is_cleared(self, lab: Lab, rtc: Pl031) -> None:
        kinds = changes(lab)
        poke(rtc, IMSC, 1)
        poke(rtc, MR, NOW + 1)
        lab.clock.advance(100 * SECOND)
        assert next_timer(lab) is None
        poke(rtc, ICR, 0xFFFF_FFFE)
        assert kinds == [InterruptKind.ASSERTED]

        poke(rtc, ICR, 1)
        assert kinds == [InterruptKind.ASSERTED, InterruptKind.DEASSERTED]
        assert [peek(rtc, RIS), peek(rtc, MIS)] == [0, 0]

    def test_one_that_was_cleared_does_not_come_again_in_the_same_second(
        self, lab: Lab, rtc: Pl031
    ) -> None:
        poke(rtc, IMSC, 1)
        poke(rtc, MR, NOW + 1)
        lab.clock.advance(SECOND)
        poke(rtc, ICR, 1)
        lab.clock.advance(SECOND - 1)

        assert not lab.asserted(IRQ)

    @pytest.mark.parametrize(("offset", "value"), [(MR, NOW), (LR, 0)])
    def test_a_write_that_makes_counter_and_match_equal_matches(
        self, lab: Lab, rtc: Pl031, offset: int, value: int
    ) -> None:
        poke(rtc, IMSC, 1)
        poke(rtc, offset, value)

        assert lab.asserted(IRQ)

    def test_a_match_in_the_past_waits_for_the_counter_to_wrap(self, lab: Lab, rtc: Pl031) -> None:
        poke(rtc, MR, NOW - 1)
        lab.clock.advance((WRAP - 2) * SECOND)
        assert peek(rtc, RIS) == 0

        lab.clock.advance(SECOND)
        assert peek(rtc, RIS) == 1

    def test_a_load_moves_the_counter_nearer_to_the_match(self, lab: Lab, rtc: Pl031) -> None:
        poke(rtc, IMSC, 1)
        poke(rtc, MR, NOW + 10_000)
        poke(rtc, LR, NOW + 9_998)
        lab.clock.advance(2 * SECOND - 1)
        assert not lab.asserted(IRQ)

        lab.clock.advance(1)
        assert lab.asserted(IRQ)

    def test_a_load_past_the_match_is_no_match(self, lab: Lab, rtc: Pl031) -> None:
        poke(rtc, MR, NOW + 10)
        poke(rtc, LR, NOW + 20)
        lab.clock.advance(SECOND)

        assert peek(rtc, RIS) == 0

    def test_one_that_a_step_of_the_wall_clock_passes_over_comes_within_a_minute(
        self, lab: Lab, stepping: SteppingClock, rtc: Pl031
    ) -> None:
        poke(rtc, IMSC, 1)
        poke(rtc, MR, NOW + 10_000)
        stepping.step_wall(20_000 * SECOND)
        lab.clock.advance(60 * SECOND)

        assert lab.asserted(IRQ)

    def test_a_wall_clock_that_is_set_back_matches_nothing(
        self, lab: Lab, stepping: SteppingClock, rtc: Pl031
    ) -> None:
        poke(rtc, IMSC, 1)
        poke(rtc, MR, NOW - 5)
        stepping.step_wall(-10 * SECOND)
        assert peek(rtc, RIS) == 0

        lab.clock.advance(5 * SECOND)
        assert peek(rtc, RIS) == 1

    @given(load=st.integers(0, WRAP - 1), ahead=st.integers(1, 10_000))
    def test_from_any_load_it_comes_after_as_many_seconds_as_it_is_ahead(
        self, load: int, ahead: int
    ) -> None:
        lab = Lab(NOW * SECOND + 1)
        rtc = hosted(lab)
        poke(rtc, LR, load)
        poke(rtc, ICR, 1)
        poke(rtc, MR, (load + ahead) % WRAP)
        poke(rtc, IMSC, 1)
        lab.clock.advance(ahead * SECOND - 2)
        assert not lab.asserted(IRQ)

        lab.clock.advance(1)
        assert lab.asserted(IRQ)

    def test_without_an_irq_the_status_works_and_no_timer_is_set(self) -> None:
        lab = Lab(NOW * SECOND)
        rtc = hosted(lab, irq="none")
        poke(rtc, IMSC, 1)
        poke(rtc, MR, NOW + 1)
        assert next_timer(lab) is None

        lab.clock.advance(SECOND)
        assert peek(rtc, MIS) == 1

    def test_it_comes_on_the_machines_clock_too(self) -> None:
        errors: list[BaseException] = []
        clock = SystemClock(errors.append)
        lab = Lab()
        rtc = Pl031(Pl031Config(irq=IRQ))
        resources = hosted(Lab()).get_assigned_resources()
        rtc.assign(DeviceContext("rtc", resources, clock, lab.interrupts, lab.memory))
        asserted = threading.Event()

        def listener(event: InterruptEvent) -> None:
            if event.kind is InterruptKind.ASSERTED:
                asserted.set()

        lab.interrupts.subscribe(listener)
        try:
            with rtc.lock:
                poke(rtc, IMSC, 1)
                poke(rtc, MR, peek(rtc, DR) + 1)
            assert asserted.wait(timeout=10)
            with rtc.lock:
                assert peek(rtc, DR) >= peek(rtc, MR)
        finally:
            rtc.close()
            clock.close()
        assert errors == []


class TestLife:
    def test_reset_clears_registers_and_interrupt_and_leaves_the_time(
        self, lab: Lab, rtc: Pl031
    ) -> None:
        poke(rtc, LR, 1000)
        poke(rtc, MR, 1001)
        poke(rtc, IMSC, 1)
        lab.clock.advance(SECOND)
        assert lab.asserted(IRQ)

        rtc.reset()
        assert not lab.asserted(IRQ)
        assert [peek(rtc, offset) for offset in ALL] == [1001, 0, 0, 1, 0, 0, 0, 0]

    def test_close_lets_go_of_the_line_and_the_timer(self, lab: Lab, rtc: Pl031) -> None:
        poke(rtc, IMSC, 1)
        poke(rtc, MR, NOW + 1)
        assert next_timer(lab) is not None
        lab.clock.advance(SECOND)
        poke(rtc, ICR, 1)
        poke(rtc, MR, NOW + 1)
        assert lab.asserted(IRQ)

        rtc.close()
        assert not lab.asserted(IRQ)
        assert next_timer(lab) is None

    def test_a_closed_device_sets_no_timer(self, lab: Lab, rtc: Pl031) -> None:
        poke(rtc, IMSC, 1)
        poke(rtc, MR, NOW + 1)
        assert rtc._timer is not None
        callback = rtc._timer.callback
        rtc.close()
        assert next_timer(lab) is None

        assert callback is not None
        callback()  # one that had begun, and waited for the lock
        assert next_timer(lab) is None

    def test_a_restored_clock_has_gone_on_and_notices_the_match_in_the_meantime(
        self, rtc: Pl031
    ) -> None:
        poke(rtc, LR, 1000)
        poke(rtc, MR, 1500)
        poke(rtc, IMSC, 1)
        state = json.loads(json.dumps(rtc.save()))
        later = Lab((NOW + 2000) * SECOND)
        restored = hosted(later)
        restored.restore(state)

        assert peek(restored, DR) == 3000
        assert later.asserted(IRQ)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("offset", WRAP),
            ("offset", -1),
            ("seen", -1),
            ("seen", 1 << 63),
            ("match", WRAP),
            ("load", WRAP),
            ("mask", 2),
            ("raw", 2),
            ("raw", True),
            ("surplus", 0),
        ],
    )
    def test_a_bad_state_is_refused_and_changes_nothing(
        self, rtc: Pl031, field: str, value: object
    ) -> None:
        poke(rtc, MR, 77)
        before = rtc.save()
        with pytest.raises(BadState) as error:
            rtc.restore({**before, field: value})

        assert error.value.metadata["field"] == field
        assert rtc.save() == before

    @pytest.mark.parametrize("field", ["offset", "seen", "match", "load", "mask", "raw"])
    def test_a_state_without_one_of_its_fields_is_refused(self, rtc: Pl031, field: str) -> None:
        state = rtc.save()
        del state[field]
        with pytest.raises(BadState, match=field):
            rtc.restore(state)


# A program that does anything: (what, offset or time, value or size).
NEAR = st.integers(NOW - 3, NOW + 3) | st.integers(0, WRAP - 1)
STEPS = st.one_of(
    st.tuples(st.just("poke"), st.sampled_from(ALL), NEAR | st.sampled_from([0, 1])),
    st.tuples(st.just("peek"), st.integers(0, 0xFF0), st.integers(1, 16)),
    st.tuples(st.just("splash"), st.integers(0, 0xFF0), st.integers(1, 16)),
    st.tuples(st.just("wait"), st.integers(0, 3 * SECOND), st.just(0)),
    st.tuples(st.just("wait"), st.integers(0, 200 * 365 * 86_400 * SECOND), st.just(0)),
    st.tuples(st.just("reset"), st.just(0), st.just(0)),
)
Step = tuple[str, int, int]


def perform(lab: Lab, rtc: Pl031, step: Step) -> Any:
    """Do one step and return all that the guest can see of its result."""
    what, first, second = step
    seen = 0
    if what == "poke":
        poke(rtc, first, second)
    elif what == "peek":
        seen = peek(rtc, first, second)
    elif what == "splash":
        poke(rtc, first, (1 << 8 * second) - 1, second)
    elif what == "wait":
        if peek(rtc, IMSC) and first > 3 * SECOND:
            poke(rtc, IMSC, 0)  # else the test runs a timer for each minute of the years
        lab.clock.advance(first)
    else:
        rtc.reset()
    return seen, lab.asserted(IRQ)


class TestAnything:
    @given(past=st.lists(STEPS, max_size=30), future=st.lists(STEPS, max_size=30))
    def test_a_restored_device_has_the_same_future(
        self, past: list[Step], future: list[Step]
    ) -> None:
        lab = Lab(NOW * SECOND)
        rtc = hosted(lab)
        for step in past:
            perform(lab, rtc, step)
        other_lab = Lab(lab.clock.wall_ns())
        other = hosted(other_lab)
        other.restore(json.loads(json.dumps(rtc.save())))
        kinds, other_kinds = changes(lab), changes(other_lab)

        for step in [*future, *(("peek", offset, 4) for offset in ALL)]:
            assert perform(other_lab, other, step) == perform(lab, rtc, step)
        assert other_kinds == kinds

    @given(
        st.lists(STEPS | st.tuples(st.just("step"), st.integers(-(10**15), 10**15), st.just(0))),
    )
    def test_no_sequence_of_accesses_and_times_raises(self, steps: list[Step]) -> None:
        lab = Lab(NOW * SECOND)
        lab.clock = clock = SteppingClock(NOW * SECOND)
        rtc = hosted(lab)
        for step in steps:
            if step[0] == "step":
                clock.step_wall(step[1])
            else:
                perform(lab, rtc, step)
            state = rtc.save()
            rtc.restore(state)
            assert rtc.save() == state
