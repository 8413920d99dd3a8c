"""Breakpoints: what stops where, and how it goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from devicehost.access_status import AccessStatus
from devicehost.recording import Access, Interrupt, InterruptKind, Operation, Space
from devicehost_server.debug.breakpoint import (
    Breakpoint,
    BreakpointAction,
    BreakpointEvent,
    ResumeAction,
)
from devicehost_server.debug.filters import AccessFilter
from devicehost_server.debug.holds import HeldAccesses, Hit, HoldEnd, HoldEnded, hit_at_access
from devicehost_server.model.errors import (
    BadRequest,
    DeviceFault,
    Draining,
    NoDevice,
    NoSuchBreakpoint,
    NoSuchHit,
    NoSuchRegister,
)
from stagelab import (
    CHIP,
    CHIP_IRQ,
    DEADLINE_S,
    DLAB,
    LEVEL,
    RAISE,
    UART,
    WIDE,
    BreakpointBench,
)

LCR = AccessFilter(registers=("uart0.LCR",))
A_WIDE = AccessFilter(registers=("chip0.WIDE",))
READS = AccessFilter(registers=("chip0.WIDE",), operation=Operation.READ)
LOG = BreakpointAction.LOG
STEP = ResumeAction.STEP


@pytest.fixture
def bench() -> Iterator[BreakpointBench]:
    bench = BreakpointBench()
    yield bench
    bench.close()


def lcr(bench: BreakpointBench) -> int:
    """What the UART has in its LCR, read past all breakpoints."""
    data = bytearray(1)
    bench.io.pio_read(UART + 3, data)
    return data[0]


def test_a_write_to_a_register_is_held_before_the_device_gets_it(bench: BreakpointBench) -> None:
    breakpoint_id = bench.create(filter=LCR)
    access = bench.start(bench.write, UART + 3, 0x83, vcpu=2)
    hit = bench.next_hit()
    assert hit.breakpoint_id == breakpoint_id
    assert (hit.id, hit.held, hit.after, hit.device, hit.offset) == (1, True, False, "uart0", 3)
    event = hit.event
    assert isinstance(event, Access)
    assert (event.vcpu, event.space, event.operation) == (2, Space.PIO, Operation.WRITE)
    assert (event.address, event.size, event.data, event.took_ns) == (UART + 3, 1, b"\x83", 0)
    assert not access.done()
    assert lcr(bench) == 0
    bench.resume(hit)
    access.result(DEADLINE_S)
    assert lcr(bench) == 0x83


def test_other_devices_and_other_vcpus_go_on_while_an_access_is_held(
    bench: BreakpointBench,
) -> None:
    bench.create(filter=LCR)
    access = bench.start(bench.write, UART + 3, 3)
    hit = bench.next_hit()
    bench.write(CHIP + WIDE, 0x12345678, 4, vcpu=1)
    assert bench.read(CHIP + WIDE, 4, vcpu=1) == 0x12345678
    assert bench.read(UART + 7, vcpu=1) == 0
    assert not access.done()
    bench.resume(hit)
    access.result(DEADLINE_S)


def test_several_vcpus_are_held_at_the_same_time_and_go_on_one_by_one(
    bench: BreakpointBench,
) -> None:
    bench.create(filter=A_WIDE)
    accesses = {vcpu: bench.start(bench.write, CHIP + WIDE, vcpu, vcpu=vcpu) for vcpu in range(4)}
    hits = {}
    for _ in accesses:
        hit = bench.next_hit()
        assert isinstance(hit.event, Access)
        hits[hit.event.vcpu] = hit
    assert bench.holds.count == 4
    assert {hit.id for hit in bench.breakpoints.subscribe(lambda _: None)} == {1, 2, 3, 4}
    for vcpu in (2, 0, 3, 1):
        bench.resume(hits[vcpu])
        accesses[vcpu].result(DEADLINE_S)
    assert [data[0] for _, data in bench.chip.written] == [2, 0, 3, 1]
    assert bench.holds.count == 0


def test_a_read_is_held_before_the_device_is_asked_or_when_wanted_after(
    bench: BreakpointBench,
) -> None:
    bench.chip.memory[WIDE] = 0x55
    bench.create(filter=READS)
    bench.create(filter=READS, after=True)
    access = bench.start(bench.read, CHIP + WIDE)
    before = bench.next_hit()
    assert isinstance(before.event, Access)
    assert (before.after, before.event.data, before.event.took_ns) == (False, b"", 0)
    bench.resume(before)
    after = bench.next_hit()
    assert isinstance(after.event, Access)
    assert (after.after, after.event.data) == (True, b"\x55")
    assert after.event.took_ns > 0
    bench.resume(after)
    assert access.result(DEADLINE_S) == 0x55


def test_a_value_stops_a_read_after_and_a_write_before(bench: BreakpointBench) -> None:
    bench.chip.memory[WIDE] = 0x20
    bench.create(filter=AccessFilter(registers=("chip0.WIDE",), value=0x20, mask=0x60))
    bench.write(CHIP + WIDE + 1, 0x40)
    access = bench.start(bench.read, CHIP + WIDE)
    hit = bench.next_hit()
    assert hit.after
    bench.resume(hit)
    assert access.result(DEADLINE_S) == 0x20
    access2 = bench.start(bench.write, CHIP + WIDE, 0x3F)
    hit = bench.next_hit()
    assert not hit.after
    assert bench.chip.memory[WIDE] == 0x20
    bench.resume(hit)
    access2.result(DEADLINE_S)
    assert bench.events.empty()


def test_a_write_that_is_held_can_be_given_other_data(bench: BreakpointBench) -> None:
    bench.create(filter=A_WIDE)
    access = bench.start(bench.write, CHIP + WIDE, 0x11223344, 4)
    bench.resume(bench.next_hit(), data=b"abcd")
    access.result(DEADLINE_S)
    assert bench.chip.memory[WIDE : WIDE + 4] == b"abcd"


def test_a_read_that_is_held_after_can_be_given_other_data(bench: BreakpointBench) -> None:
    bench.create(filter=READS, after=True)
    access = bench.start(bench.read, CHIP + WIDE, 4)
    bench.resume(bench.next_hit(), data=b"\1\2\3\4")
    assert access.result(DEADLINE_S) == 0x04030201
    assert bench.chip.memory[WIDE : WIDE + 4] == bytes(4)


@pytest.mark.parametrize(
    ("operation", "after", "data", "why"),
    [
        (Operation.READ, False, b"\0", "hasn't been read yet"),
        (Operation.WRITE, True, b"\0", "has got what was written"),
        (Operation.WRITE, False, b"\0\0", "it has 2 bytes; allowed: 1"),
        (Operation.READ, True, b"", "it has 0 bytes; allowed: 1"),
    ],
)
def test_data_that_an_access_can_not_have_is_refused_and_it_is_held_on(
    bench: BreakpointBench, *, operation: Operation, after: bool, data: bytes, why: str
) -> None:
    bench.create(filter=A_WIDE, after=after)
    access = bench.start(bench.access, operation, CHIP + WIDE, b"\7")
    hit = bench.next_hit()
    with pytest.raises(BadRequest, match=why) as caught:
        bench.breakpoints.resume(hit.id, data=data)
    assert caught.value.metadata["field"] == "data"
    assert not access.done()
    assert bench.holds.count == 1
    bench.resume(hit)
    access.result(DEADLINE_S)


def test_a_step_holds_the_next_access_of_the_same_vcpu_to_any_device_before_it_is_made(
    bench: BreakpointBench,
) -> None:
    breakpoint_id = bench.create(filter=LCR, limit_ms=60_000)

    def guest() -> None:
        bench.write(UART + 3, 3, vcpu=0)
        bench.write(CHIP + WIDE, 0xAA, vcpu=0)
        bench.write(CHIP + WIDE + 1, 0xBB, vcpu=0)
        bench.write(CHIP + WIDE + 2, 0xCC, vcpu=0)

    run = bench.start(guest)
    first = bench.next_hit()
    assert first.breakpoint_id == breakpoint_id
    bench.resume(first, STEP)
    second = bench.next_hit()
    assert isinstance(second.event, Access)
    assert (second.breakpoint_id, second.held, second.after) == (0, True, False)
    assert (second.event.address, second.event.data) == (CHIP + WIDE, b"\xaa")
    assert second.remaining_ms == 60_000
    assert bench.chip.memory[WIDE] == 0
    bench.write(CHIP + WIDE + 3, 0xDD, vcpu=1)  # another vCPU isn't in it
    bench.resume(second, STEP)
    third = bench.next_hit()
    assert isinstance(third.event, Access)
    assert third.event.address == CHIP + WIDE + 1
    bench.resume(third)
    run.result(DEADLINE_S)
    assert bench.chip.memory[WIDE : WIDE + 4] == b"\xaa\xbb\xcc\xdd"
    assert bench.events.empty()


def test_an_access_of_no_known_vcpu_is_stepped_to_as_one_of_one_vcpu(
    bench: BreakpointBench,
) -> None:
    bench.create(filter=LCR)
    access = bench.start(bench.write, UART + 3, 3, vcpu=None)
    bench.resume(bench.next_hit(), STEP)
    access.result(DEADLINE_S)
    bench.write(CHIP + WIDE, 1, vcpu=0)
    step = bench.start(bench.write, CHIP + WIDE, 2, vcpu=None)
    hit = bench.next_hit()
    bench.write(CHIP + WIDE + 1, 3, vcpu=None)  # the step has its access
    bench.resume(hit)
    step.result(DEADLINE_S)


def test_a_step_ends_at_a_breakpoint_that_holds_the_next_access_anyway(
    bench: BreakpointBench,
) -> None:
    breakpoint_id = bench.create(filter=A_WIDE)

    def guest() -> None:
        for value in (1, 2, 3):
            bench.write(CHIP + WIDE, value)

    run = bench.start(guest)
    for action in (STEP, STEP, ResumeAction.CONTINUE):
        hit = bench.next_hit()
        assert hit.breakpoint_id == breakpoint_id
        bench.resume(hit, action)
    run.result(DEADLINE_S)
    assert bench.events.empty()


def test_an_access_that_two_breakpoints_match_is_held_by_one_after_the_other(
    bench: BreakpointBench,
) -> None:
    first, second = bench.create(filter=A_WIDE), bench.create(filter=A_WIDE)
    access = bench.start(bench.write, CHIP + WIDE, 1)
    hit = bench.next_hit()
    assert hit.breakpoint_id == first
    bench.resume(hit, data=b"\2")
    hit = bench.next_hit()
    assert isinstance(hit.event, Access)
    assert (hit.breakpoint_id, hit.event.data) == (second, b"\2")
    bench.resume(hit)
    access.result(DEADLINE_S)
    assert bench.chip.memory[WIDE] == 2


def test_a_hold_that_nobody_ends_lets_go_at_its_limit(bench: BreakpointBench) -> None:
    bench.create(filter=A_WIDE, limit_ms=20)
    access = bench.start(bench.write, CHIP + WIDE, 1)
    hit = bench.next_hit()
    assert hit.remaining_ms == 20
    access.result(DEADLINE_S)
    assert bench.next_end() == HoldEnded(hit.id, HoldEnd.LIMIT)
    with pytest.raises(NoSuchHit, match=r"hit 1$"):
        bench.breakpoints.resume(hit.id)
    assert bench.holds.count == 0


def test_the_limit_is_30_seconds_if_the_breakpoint_does_not_say(bench: BreakpointBench) -> None:
    bench.create(filter=A_WIDE)
    access = bench.start(bench.write, CHIP + WIDE, 1)
    hit = bench.next_hit()
    assert hit.remaining_ms == 30_000
    (held,) = bench.breakpoints.subscribe(lambda _: None)
    assert held.id == hit.id
    assert 0 < held.remaining_ms <= 30_000
    bench.resume(hit)
    access.result(DEADLINE_S)


def test_a_hit_can_be_resumed_only_once(bench: BreakpointBench) -> None:
    bench.create(filter=A_WIDE)
    access = bench.start(bench.write, CHIP + WIDE, 1)
    hit = bench.next_hit()
    bench.resume(hit)
    with pytest.raises(NoSuchHit):
        bench.breakpoints.resume(hit.id)
    access.result(DEADLINE_S)


def test_to_delete_a_breakpoint_lets_go_of_what_it_holds(bench: BreakpointBench) -> None:
    breakpoint_id = bench.create(filter=A_WIDE)
    other = bench.create(filter=LCR)
    accesses = [bench.start(bench.write, CHIP + WIDE, vcpu, vcpu=vcpu) for vcpu in range(2)]
    held = bench.start(bench.write, UART + 3, 3, vcpu=2)
    hits = [bench.next_hit() for _ in range(3)]
    bench.breakpoints.delete(breakpoint_id)
    for access in accesses:
        access.result(DEADLINE_S)
    ended = {bench.next_end().hit_id for _ in range(2)}
    assert ended == {hit.id for hit in hits if hit.breakpoint_id == breakpoint_id}
    assert not held.done()
    assert [each.id for each in bench.breakpoints.list()] == [other]
    bench.breakpoints.delete(other)
    held.result(DEADLINE_S)
    with pytest.raises(NoSuchBreakpoint):
        bench.breakpoints.delete(other)


def test_a_breakpoint_that_was_deleted_while_another_held_does_not_hold_any_more(
    bench: BreakpointBench,
) -> None:
    bench.create(filter=A_WIDE)
    second = bench.create(filter=A_WIDE)
    access = bench.start(bench.write, CHIP + WIDE, 1)
    hit = bench.next_hit()
    bench.breakpoints.delete(second)
    bench.resume(hit)
    access.result(DEADLINE_S)
    assert bench.events.empty()


def test_the_first_matches_are_ignored_and_counted(bench: BreakpointBench) -> None:
    bench.create(filter=A_WIDE, ignore=2, action=LOG)
    for value in range(5):
        bench.write(CHIP + WIDE, value)
    seen = [bench.next_hit().event for _ in range(3)]
    assert [event.data[0] for event in seen if isinstance(event, Access)] == [2, 3, 4]
    (told,) = bench.breakpoints.list()
    assert (told.matches, told.hits) == (5, 3)


def test_a_breakpoint_is_removed_with_its_last_hit_but_holds_on(bench: BreakpointBench) -> None:
    breakpoint_id = bench.create(filter=A_WIDE, hits_max=1)
    access = bench.start(bench.write, CHIP + WIDE, 1)
    hit = bench.next_hit()
    assert bench.breakpoints.list() == ()
    with pytest.raises(NoSuchBreakpoint):
        bench.breakpoints.delete(breakpoint_id)
    bench.write(CHIP + WIDE, 2, vcpu=1)
    assert not access.done()
    bench.resume(hit)
    access.result(DEADLINE_S)
    assert not bench.breakpoints.is_needed
    assert bench.events.empty()


def test_many_threads_get_exactly_as_many_hits_as_a_breakpoint_has(
    bench: BreakpointBench,
) -> None:
    bench.create(filter=A_WIDE, ignore=10, hits_max=25, action=LOG)
    together = threading.Barrier(8)

    def guest(vcpu: int) -> None:
        together.wait(DEADLINE_S)
        for value in range(20):
            bench.write(CHIP + WIDE, value, vcpu=vcpu)

    for run in [bench.start(guest, vcpu) for vcpu in range(8)]:
        run.result(DEADLINE_S)
    hits = [bench.next_hit() for _ in range(25)]
    assert [hit.id for hit in hits] == list(range(1, 26))
    assert bench.events.empty()


def test_a_hit_that_only_logs_holds_nothing(bench: BreakpointBench) -> None:
    bench.create(filter=A_WIDE, action=LOG)
    bench.write(CHIP + WIDE, 1)
    hit = bench.next_hit()
    assert (hit.held, hit.remaining_ms, hit.states) == (False, 0, "")
    with pytest.raises(NoSuchHit):
        bench.breakpoints.resume(hit.id)


def test_a_hit_can_bring_the_states_of_all_devices(bench: BreakpointBench) -> None:
    bench.create(filter=A_WIDE, action=BreakpointAction.SAVE_STATE)
    bench.states = lambda: f"{len(bench.breakpoints.list())} breakpoint"  # no lock is held
    bench.write(CHIP + WIDE, 1)
    hit = bench.next_hit()
    assert (hit.held, hit.states) == (False, "1 breakpoint")


def test_states_that_can_not_be_saved_are_logged_and_the_access_goes_on(
    bench: BreakpointBench,
) -> None:
    def fail() -> str:
        raise LookupError("on purpose")

    bench.create(filter=A_WIDE, action=BreakpointAction.SAVE_STATE)
    bench.states = fail
    with capture_logs() as logs:
        bench.write(CHIP + WIDE, 1)
    assert bench.next_hit().states == ""
    assert [entry["event"] for entry in logs] == ["breakpoint_action_failed"]
    assert bench.chip.memory[WIDE] == 1


def test_a_hit_can_arm_the_flight_recorder(bench: BreakpointBench) -> None:
    bench.create(filter=A_WIDE, action=BreakpointAction.RECORD)
    bench.write(CHIP + WIDE, 1)
    assert not bench.next_hit().held
    assert bench.recordings == 1


def test_a_breakpoint_on_faults_holds_an_access_in_which_a_device_raised(
    bench: BreakpointBench,
) -> None:
    bench.create(event=BreakpointEvent.FAULT, filter=AccessFilter(devices=frozenset({"chip0"})))
    bench.read(CHIP + WIDE)
    access = bench.start(bench.read, CHIP + RAISE)
    hit = bench.next_hit()
    assert isinstance(hit.event, Access)
    assert (hit.after, hit.event.status) == (True, AccessStatus.DEVICE_FAULT)
    with pytest.raises(BadRequest, match="has failed"):
        bench.breakpoints.resume(hit.id, data=b"\0")
    bench.resume(hit)
    with pytest.raises(DeviceFault):
        access.result(DEADLINE_S)


def test_an_access_without_a_device_is_no_fault_but_a_failed_access(
    bench: BreakpointBench,
) -> None:
    bench.create(event=BreakpointEvent.FAULT, action=LOG)
    failed = bench.create(filter=AccessFilter(failed=True), action=LOG)
    with pytest.raises(NoDevice):
        bench.read(0x9999)
    bench.read(CHIP + WIDE)
    hit = bench.next_hit()
    assert isinstance(hit.event, Access)
    assert (hit.breakpoint_id, hit.after, hit.device) == (failed, True, "")
    assert hit.event.status is AccessStatus.NO_DEVICE
    assert bench.events.empty()


# Interrupts.


def test_an_access_in_which_an_interrupt_was_raised_is_held_at_its_end(
    bench: BreakpointBench,
) -> None:
    breakpoint_id = bench.create(event=BreakpointEvent.INTERRUPT, gsi=CHIP_IRQ)
    access = bench.start(bench.write, CHIP + LEVEL, 1)
    hit = bench.next_hit()
    event = hit.event
    assert isinstance(event, Interrupt)
    assert (event.gsi, event.kind, event.device) == (CHIP_IRQ, InterruptKind.ASSERTED, "chip0")
    assert (hit.breakpoint_id, hit.held, hit.after) == (breakpoint_id, True, True)
    assert bench.chip.memory[LEVEL] == 1
    assert not access.done()
    bench.write(CHIP + WIDE, 1, vcpu=1)
    bench.resume(hit)
    access.result(DEADLINE_S)


def test_after_an_interrupt_outside_of_any_access_the_next_access_is_held(
    bench: BreakpointBench,
) -> None:
    bench.create(event=BreakpointEvent.INTERRUPT)
    bench.chip.line.set_level(asserted=True)
    assert bench.events.empty()
    access = bench.start(bench.write, CHIP + WIDE, 1, vcpu=3)
    hit = bench.next_hit()
    assert isinstance(hit.event, Interrupt)
    assert (hit.held, hit.after) == (True, False)
    assert bench.chip.memory[WIDE] == 0
    bench.write(CHIP + WIDE + 1, 1, vcpu=1)  # it was the next one, only
    bench.resume(hit, data=b"\x77")
    access.result(DEADLINE_S)
    assert bench.chip.memory[WIDE] == 0x77


def test_other_interrupts_hold_nothing(bench: BreakpointBench) -> None:
    bench.create(event=BreakpointEvent.INTERRUPT, gsi=CHIP_IRQ + 1)
    bench.write(CHIP + LEVEL, 1)
    bench.write(CHIP + LEVEL, 0)
    assert bench.events.empty()


def test_an_interrupt_is_reported_at_once_if_nothing_is_to_be_held(
    bench: BreakpointBench,
) -> None:
    bench.create(event=BreakpointEvent.INTERRUPT, action=LOG, hits_max=3)
    bench.chip.line.set_level(asserted=True)
    bench.chip.line.set_level(asserted=False)
    bench.interrupts.pulse(CHIP_IRQ)
    kinds = [bench.next_hit().event for _ in range(3)]
    assert [event.kind for event in kinds if isinstance(event, Interrupt)] == [
        InterruptKind.ASSERTED,
        InterruptKind.DEASSERTED,
        InterruptKind.PULSED,
    ]
    assert bench.breakpoints.list() == ()
    bench.read(CHIP + WIDE)
    assert not bench.breakpoints.is_needed


def test_the_states_are_saved_at_the_end_of_the_access_that_raised_an_interrupt(
    bench: BreakpointBench,
) -> None:
    bench.create(event=BreakpointEvent.INTERRUPT, action=BreakpointAction.SAVE_STATE)
    bench.states = lambda: str(bench.interrupts.asserted())  # takes the controller's lock
    bench.write(CHIP + LEVEL, 1)
    hit = bench.next_hit()
    assert (hit.held, hit.after, hit.states) == (False, True, f"[{CHIP_IRQ}]")


def test_a_deleted_breakpoint_on_interrupts_holds_nothing_any_more(
    bench: BreakpointBench,
) -> None:
    breakpoint_id = bench.create(event=BreakpointEvent.INTERRUPT)
    bench.chip.line.set_level(asserted=True)
    bench.breakpoints.delete(breakpoint_id)
    assert not bench.breakpoints.is_needed
    bench.write(CHIP + WIDE, 1)
    assert bench.events.empty()


# Registers that share a place.


def test_a_breakpoint_on_the_divisor_latch_matches_only_while_dlab_is_set(
    bench: BreakpointBench,
) -> None:
    bench.write(UART + 3, DLAB)  # before anybody looked
    bench.write(UART + 3, 3)
    bench.create(filter=AccessFilter(registers=("uart0.DLL",)), action=LOG)
    bench.write(UART, ord("a"))
    bench.write(UART + 3, DLAB | 3)
    bench.write(UART, 12)
    bench.write(UART + 3, 3)
    bench.write(UART, ord("b"))
    hit = bench.next_hit()
    assert isinstance(hit.event, Access)
    assert hit.event.data == b"\x0c"
    assert bench.events.empty()


def test_what_a_held_write_does_to_the_place_of_registers_counts_when_it_is_done(
    bench: BreakpointBench,
) -> None:
    bench.create(filter=LCR, hits_max=1)
    dll = bench.create(filter=AccessFilter(registers=("uart0.DLL",)), action=LOG)
    access = bench.start(bench.write, UART + 3, DLAB)
    hit = bench.next_hit()
    bench.read(UART, vcpu=1)  # DLAB isn't set yet
    bench.resume(hit, data=b"\x03")  # and never will be
    access.result(DEADLINE_S)
    bench.read(UART)
    assert bench.events.empty()
    bench.write(UART + 3, DLAB)
    bench.read(UART)
    assert bench.next_hit().breakpoint_id == dll


# Arming, watching and the end.


def test_it_is_needed_while_there_is_a_breakpoint_or_a_step(bench: BreakpointBench) -> None:
    assert not bench.breakpoints.is_needed
    breakpoint_id = bench.create(filter=LCR)
    assert bench.armed.is_set()
    access = bench.start(bench.write, UART + 3, 3)
    bench.resume(bench.next_hit(), STEP)
    access.result(DEADLINE_S)
    bench.breakpoints.delete(breakpoint_id)
    assert bench.armed.is_set()  # for the step
    access = bench.start(bench.write, CHIP + WIDE, 1)
    bench.resume(bench.next_hit())
    access.result(DEADLINE_S)
    assert bench.disarmed.wait(DEADLINE_S)


def test_a_thread_knows_how_long_it_was_held(bench: BreakpointBench) -> None:
    bench.create(filter=A_WIDE, limit_ms=30)

    def guest() -> tuple[int, int]:
        before = bench.holds.held_ns()
        bench.write(CHIP + WIDE, 1)
        return before, bench.holds.held_ns()

    before, after = bench.start(guest).result(DEADLINE_S)
    assert before == 0
    assert after >= 30e6
    assert bench.holds.held_ns() == 0


def test_the_time_in_which_an_access_was_held_is_not_time_it_took(bench: BreakpointBench) -> None:
    bench.create(filter=READS, limit_ms=300)
    bench.create(filter=READS, action=LOG, after=True)
    bench.start(bench.read, CHIP + WIDE).result(DEADLINE_S)
    bench.next_hit()
    bench.next_end()
    event = bench.next_hit().event
    assert isinstance(event, Access)
    assert 0 < event.took_ns < 300e6


def test_a_watcher_hears_nothing_after_it_has_unsubscribed(bench: BreakpointBench) -> None:
    heard: list[Any] = []
    bench.breakpoints.subscribe(heard.append)
    bench.create(filter=A_WIDE, action=LOG)
    bench.write(CHIP + WIDE, 1)
    bench.breakpoints.unsubscribe(heard.append)
    bench.write(CHIP + WIDE, 2)
    assert len(heard) == 1


def test_a_watcher_that_comes_while_others_hit_and_resume_misses_nothing(
    bench: BreakpointBench,
) -> None:
    bench.create(filter=A_WIDE, limit_ms=1)

    def guest(vcpu: int) -> None:
        for value in range(20):
            bench.write(CHIP + WIDE, value, vcpu=vcpu)

    runs = [bench.start(guest, vcpu) for vcpu in range(4)]
    while not all(run.done() for run in runs):
        events: list[Hit | HoldEnded] = []
        held = {hit.id for hit in bench.breakpoints.subscribe(events.append)}
        bench.breakpoints.unsubscribe(events.append)
        for event in events:
            if isinstance(event, Hit):
                assert event.id not in held
                held.add(event.id)
            else:
                held.remove(event.hit_id)
        assert len(held) <= 4
    for run in runs:
        run.result(DEADLINE_S)


def test_draining_lets_everything_go_and_holds_nothing_more(bench: BreakpointBench) -> None:
    bench.create(filter=A_WIDE)
    accesses = [bench.start(bench.write, CHIP + WIDE, vcpu, vcpu=vcpu) for vcpu in range(3)]
    for _ in accesses:
        bench.next_hit()
    bench.breakpoints.drain()
    for access in accesses:
        access.result(DEADLINE_S)
    assert {bench.next_end().why for _ in accesses} == {HoldEnd.DRAINING}
    assert not bench.breakpoints.is_needed
    assert bench.breakpoints.list() == ()
    bench.write(CHIP + WIDE, 1)
    with pytest.raises(Draining):
        bench.create(filter=A_WIDE)


def test_what_is_about_to_be_held_when_the_server_drains_is_only_reported(
    bench: BreakpointBench,
) -> None:
    held = HeldAccesses(bench.holds)
    told: list[Hit | HoldEnded] = []
    held.subscribe(told.append)
    held.drain()
    access = bench.pending(Operation.WRITE, CHIP + WIDE, b"\1")
    hit = hit_at_access(0, access, after=False, took_ns=0)
    assert not held.hold(access, hit, 60_000, lambda: True)
    assert told == [replace(hit, id=1, held=False)]


def test_what_is_about_to_be_held_by_a_breakpoint_that_goes_is_not_a_hit(
    bench: BreakpointBench,
) -> None:
    held = HeldAccesses(bench.holds)
    told: list[Hit | HoldEnded] = []
    held.subscribe(told.append)
    access = bench.pending(Operation.WRITE, CHIP + WIDE, b"\1")
    hit = hit_at_access(0, access, after=False, took_ns=0)
    assert not held.hold(access, hit, 60_000, lambda: False)
    assert told == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"gsi": 4}, "gsi"),
        ({"gsi": -1, "event": BreakpointEvent.INTERRUPT}, "gsi"),
        ({"filter": LCR, "event": BreakpointEvent.INTERRUPT}, "filter"),
        ({"ignore": -1}, "ignore"),
        ({"hits_max": -1}, "hits_max"),
        ({"limit_ms": 3_600_001}, "limit_ms"),
        ({"limit_ms": -1}, "limit_ms"),
        ({"filter": AccessFilter(value=1)}, "filter.value"),
    ],
)
def test_a_breakpoint_that_can_not_be_is_refused(
    bench: BreakpointBench, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        bench.create(**fields)
    assert caught.value.metadata["field"] == field
    assert not bench.breakpoints.is_needed


def test_a_breakpoint_on_a_register_that_is_not_there_says_which_are(
    bench: BreakpointBench,
) -> None:
    with pytest.raises(NoSuchRegister) as caught:
        bench.create(filter=AccessFilter(registers=("chip0.WIDTH",)))
    assert caught.value.metadata["register"] == "WIDTH"
    assert "WIDE" in caught.value.metadata["known"]


def test_a_breakpoint_on_a_device_that_can_not_be_looked_into_is_not_made(
    bench: BreakpointBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(_register: str) -> int:
        raise LookupError("on purpose")

    monkeypatch.setattr(bench.chip, "peek", raises)
    with pytest.raises(DeviceFault, match="on purpose"):
        bench.create(filter=AccessFilter(registers=("chip0.B",)))
    assert bench.breakpoints.list() == ()
    assert bench.disarmed.is_set()


def test_numbers_and_counts_of_a_new_breakpoint_are_the_servers(bench: BreakpointBench) -> None:
    made = bench.breakpoints.create(Breakpoint(A_WIDE, id=99, matches=7, hits=7))
    assert (made.id, made.matches, made.hits) == (1, 0, 0)
