"""Faults: devices that are slow, stuck, gone or broken, the same way each time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devicehost.recording import Operation, Space
from devicehost_server.debug.faults import (
    DELAY_MAX_US,
    Delay,
    Failing,
    Fault,
    FaultKind,
    Gone,
    StuckAtOne,
    StuckAtZero,
)
from devicehost_server.debug.filters import AccessFilter
from devicehost_server.model.errors import (
    BadRequest,
    DeviceFault,
    Draining,
    NoDevice,
    NoSuchFault,
    NoSuchRegister,
)
from stagelab import (
    BANK,
    CHIP,
    DEADLINE_S,
    RAISE,
    ROW,
    RTC,
    SHARED,
    UART,
    WIDE,
    FaultBench,
)

A_WIDE = AccessFilter(registers=("chip0.WIDE",))
WRITES = AccessFilter(registers=("chip0.WIDE",), operation=Operation.WRITE)
THE_CHIP = AccessFilter(devices=frozenset({"chip0"}))


@pytest.fixture
def bench() -> Iterator[FaultBench]:
    bench = FaultBench()
    yield bench
    bench.close()


# Stuck bits.


def test_a_bit_of_a_register_is_stuck_at_one_and_the_device_does_not_know(
    bench: FaultBench,
) -> None:
    fault = bench.create(StuckAtOne(0x80), filter=AccessFilter(registers=("uart0.SCR",)))
    bench.write(UART + 7, 0x12)
    assert bench.read(UART + 7) == 0x92
    data = bytearray(1)
    bench.io.pio_read(UART + 7, data)
    assert data == b"\x12"
    assert bench.count(fault) == 1


def test_a_bit_is_stuck_at_zero(bench: FaultBench) -> None:
    bench.chip.memory[WIDE : WIDE + 4] = b"\xff\xff\xff\xff"
    bench.create(StuckAtZero(0x00FF0001), filter=A_WIDE)
    assert bench.read(CHIP + WIDE, 4) == 0xFF00FFFE


def test_a_read_whose_bits_were_so_already_is_not_counted(bench: FaultBench) -> None:
    fault = bench.create(StuckAtOne(0x01), filter=A_WIDE)
    bench.chip.memory[WIDE] = 0x01
    bench.read(CHIP + WIDE)
    assert bench.count(fault) == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bits=st.integers(1, (1 << 32) - 1),
    begin=st.integers(0, 8),
    size=st.sampled_from([1, 2, 4]),
    memory=st.binary(min_size=12, max_size=12),
    at_one=st.booleans(),
)
def test_each_part_of_a_register_has_its_part_of_the_stuck_bits(
    bench: FaultBench, *, bits: int, begin: int, size: int, memory: bytes, at_one: bool
) -> None:
    """Whatever bytes are read, each is as it is in the register with its bits stuck."""
    bench.chip.memory[: len(memory)] = memory
    stuck = bytearray(memory)
    for byte in range(4):
        of_byte = bits >> 8 * byte & 0xFF
        if at_one:
            stuck[WIDE + byte] |= of_byte
        else:
            stuck[WIDE + byte] &= ~of_byte
    kind = StuckAtOne(bits) if at_one else StuckAtZero(bits)
    fault = bench.create(kind, filter=A_WIDE)
    assert bench.read(CHIP + begin, size) == int.from_bytes(stuck[begin : begin + size], "little")
    assert bench.count(fault) == (stuck[begin : begin + size] != memory[begin : begin + size])
    bench.faults.delete(fault)


def test_bits_are_stuck_in_each_register_of_a_row(bench: FaultBench) -> None:
    bench.create(StuckAtOne(0x0180), filter=AccessFilter(registers=("chip0.ROW",)))
    assert bench.read(CHIP + ROW, 4) == 0x01800180
    assert bench.read(CHIP + ROW + 3) == 0x01
    assert bench.read(CHIP + ROW + 5, 2) == 0x8001
    assert bench.read(CHIP + ROW - 2, 4) == 0x01800000
    assert bench.read(CHIP + ROW + 6, 4) == 0x00000180


def test_bits_are_stuck_in_one_register_of_a_row_only(bench: FaultBench) -> None:
    bench.create(StuckAtOne(0x0180), filter=AccessFilter(registers=("chip0.ROW[1]",)))
    assert bench.read(CHIP + ROW, 4) == 0x01800000
    assert bench.read(CHIP + ROW + 4, 4) == 0


def test_without_a_register_the_bits_are_those_of_the_access(bench: FaultBench) -> None:
    bench.create(StuckAtOne(0x0180), filter=THE_CHIP)
    assert bench.read(CHIP + WIDE + 1, 2) == 0x0180
    assert bench.read(CHIP + WIDE) == 0x80


def test_with_several_registers_the_bits_are_those_of_the_access(bench: FaultBench) -> None:
    both = AccessFilter(registers=("chip0.WIDE", "chip0.BANK"))
    bench.create(StuckAtOne(0x01), filter=both)
    assert bench.read(CHIP + WIDE + 1) == 1
    assert bench.read(CHIP + BANK) == 1


def test_each_operand_of_a_string_access_has_stuck_bits(bench: FaultBench) -> None:
    bench.create(StuckAtOne(0x01), filter=A_WIDE)
    assert bench.access(Operation.READ, CHIP + WIDE, bytes(6), size=2) == b"\1\0\1\0\1\0"


def test_only_a_register_that_is_there_has_stuck_bits(bench: FaultBench) -> None:
    bench.create(StuckAtOne(0x40), filter=AccessFilter(registers=("chip0.B",)))
    assert bench.read(CHIP + SHARED) == 0
    bench.write(CHIP + BANK, 1)
    assert bench.read(CHIP + SHARED) == 0x40


def test_stuck_bits_that_a_guest_reads_do_not_change_what_is_where(bench: FaultBench) -> None:
    bench.create(StuckAtOne(0x01), filter=AccessFilter(registers=("chip0.BANK",)))
    bench.create(StuckAtOne(0x40), filter=AccessFilter(registers=("chip0.B",)))
    assert bench.read(CHIP + BANK) == 1
    assert bench.read(CHIP + SHARED) == 0


def test_a_register_behind_an_index_has_stuck_bits(bench: FaultBench) -> None:
    bench.create(StuckAtOne(0x80), filter=AccessFilter(registers=("rtc0.RAM[3]",)))
    bench.write(RTC, 0x42)
    assert bench.read(RTC + 1) & 0x80 == 0
    bench.write(RTC, 0x43)
    assert bench.read(RTC + 1) & 0x80


def test_a_value_is_that_which_the_device_said(bench: FaultBench) -> None:
    bench.chip.memory[WIDE] = 0x02
    bench.create(
        StuckAtOne(0x10), filter=AccessFilter(devices=THE_CHIP.devices, value=2, mask=0x1F)
    )
    assert bench.read(CHIP + WIDE) == 0x12
    bench.chip.memory[WIDE] = 0x03
    assert bench.read(CHIP + WIDE) == 0x03


# Gone, failing, slow.


def test_a_device_that_is_gone_answers_as_if_it_were_not_there(bench: FaultBench) -> None:
    fault = bench.create(Gone(), filter=THE_CHIP)
    with pytest.raises(NoDevice) as gone:
        bench.write(CHIP + WIDE, 1, 4)
    with pytest.raises(NoDevice) as not_there:
        bench.io.pio_write(0x5F0, b"\1\0\0\0", 4)
    assert str(gone.value) == str(not_there.value).replace("0x5f0", hex(CHIP + WIDE))
    assert gone.value.metadata.keys() == not_there.value.metadata.keys()
    assert bench.chip.written == []
    assert bench.read(UART + 7) == 0
    assert bench.count(fault) == 1


def test_a_device_that_fails_says_that_it_was_made_to(bench: FaultBench) -> None:
    fault = bench.create(Failing(), filter=WRITES)
    with pytest.raises(DeviceFault, match=r"fault 1 makes it fail") as caught:
        bench.write(CHIP + WIDE, 1)
    assert caught.value.metadata == {
        "device": "chip0",
        "exception": "MadeToFail",
        "address": hex(CHIP + WIDE),
    }
    assert caught.value.__cause__ is not None
    assert bench.read(CHIP + WIDE) == 0
    assert bench.count(fault) == 1


def test_only_a_device_that_is_there_can_be_gone_or_fail(bench: FaultBench) -> None:
    faults = [bench.create(kind) for kind in (Gone(), Failing())]
    with pytest.raises(NoDevice):
        bench.read(0x5F0, space=Space.MMIO)
    assert [bench.count(fault) for fault in faults] == [0, 0]


def test_a_slow_device_takes_its_time_at_least(bench: FaultBench) -> None:
    fault = bench.create(Delay(20_000), filter=A_WIDE)
    begun = time.monotonic()
    bench.write(CHIP + WIDE, 1)
    assert time.monotonic() - begun >= 0.02
    assert bench.chip.memory[WIDE] == 1
    assert bench.count(fault) == 1


def test_what_a_fault_delays_goes_on_when_the_fault_ends(bench: FaultBench) -> None:
    fault = bench.create(Delay(DELAY_MAX_US), filter=A_WIDE)
    begun = time.monotonic()
    access = bench.start(bench.write, CHIP + WIDE, 1)
    while not bench.count(fault):
        assert time.monotonic() - begun < DEADLINE_S
    bench.faults.delete(fault)
    access.result(DEADLINE_S)
    assert time.monotonic() - begun < DELAY_MAX_US / 1e6


def test_faults_of_one_access_add_up(bench: FaultBench) -> None:
    bench.create(StuckAtOne(0x0F), filter=A_WIDE)
    bench.create(StuckAtZero(0x03), filter=A_WIDE)
    assert bench.read(CHIP + WIDE) == 0x0C


def test_a_read_that_failed_has_no_stuck_bits(bench: FaultBench) -> None:
    fault = bench.create(StuckAtOne(0x01), filter=THE_CHIP)
    with pytest.raises(DeviceFault, match="on purpose"):
        bench.read(CHIP + RAISE)
    assert bench.count(fault) == 0


# Chance.


def chosen(bench: FaultBench, percent: int, seed: int, accesses: int = 300) -> list[bool]:
    """Which of many accesses a fault spoils."""
    fault = bench.create(StuckAtOne(1), filter=A_WIDE, percent=percent, seed=seed)
    found = [bool(bench.read(CHIP + WIDE)) for _ in range(accesses)]
    bench.faults.delete(fault)
    return found


@pytest.mark.parametrize("percent", [1, 30, 99])
def test_so_many_of_each_hundred_accesses_are_spoiled(bench: FaultBench, percent: int) -> None:
    found = chosen(bench, percent, seed=7)
    assert [sum(found[at : at + 100]) for at in (0, 100, 200)] == [percent] * 3


@pytest.mark.parametrize("percent", [0, 100])
def test_0_and_100_percent_are_all_accesses(bench: FaultBench, percent: int) -> None:
    assert all(chosen(bench, percent, seed=7))


def test_the_same_seed_makes_the_same_choices_and_another_one_others(bench: FaultBench) -> None:
    first = chosen(bench, 30, seed=7)
    assert chosen(bench, 30, seed=7) == first
    assert chosen(bench, 30, seed=8) != first


def test_accesses_that_a_fault_does_not_concern_do_not_use_up_chance(bench: FaultBench) -> None:
    first = chosen(bench, 30, seed=7, accesses=100)
    fault = bench.create(StuckAtOne(1), filter=THE_CHIP, percent=30, seed=7)
    found = []
    for _ in first:
        bench.read(UART + 7)
        with pytest.raises(DeviceFault):
            bench.read(CHIP + RAISE)
        bench.write(CHIP + WIDE, 0)
        found.append(bool(bench.read(CHIP + WIDE)))
    assert found == first
    assert bench.count(fault) == 30


def test_many_threads_share_the_chance_of_a_fault(bench: FaultBench) -> None:
    fault = bench.create(StuckAtOne(1), filter=A_WIDE, percent=25, seed=1)

    def guest(vcpu: int) -> int:
        return sum(bench.read(CHIP + WIDE, vcpu=vcpu) for _ in range(50))

    runs = [bench.start(guest, vcpu) for vcpu in range(8)]
    assert sum(run.result(DEADLINE_S) for run in runs) == bench.count(fault) == 100


# What there is, and what can't be.


def test_it_is_needed_while_there_is_a_fault(bench: FaultBench) -> None:
    assert bench.stages == []
    first, second = (bench.create(Gone(), filter=THE_CHIP) for _ in range(2))
    assert (first, second) == (1, 2)
    assert bench.stages == [bench.faults]
    bench.faults.delete(first)
    assert [each.id for each in bench.faults.list()] == [second]
    assert bench.stages == [bench.faults]
    bench.faults.delete(second)
    assert bench.stages == []
    with pytest.raises(NoSuchFault, match="no fault 2"):
        bench.faults.delete(second)


def test_a_device_that_changed_without_an_access_can_be_looked_into_again(
    bench: FaultBench,
) -> None:
    bench.create(StuckAtOne(0x40), filter=AccessFilter(registers=("chip0.B",)))
    bench.chip.memory[BANK] = 1
    bench.faults.learn_again("chip0")
    assert bench.read(CHIP + SHARED) == 0x40


def test_what_a_fault_delays_goes_on_when_the_server_drains(bench: FaultBench) -> None:
    fault = bench.create(Delay(DELAY_MAX_US), filter=A_WIDE)
    begun = time.monotonic()
    access = bench.start(bench.write, CHIP + WIDE, 1)
    while not bench.count(fault):
        assert time.monotonic() - begun < DEADLINE_S
    bench.faults.drain()
    access.result(DEADLINE_S)
    assert time.monotonic() - begun < DELAY_MAX_US / 1e6


def test_draining_ends_all_faults(bench: FaultBench) -> None:
    bench.create(Gone(), filter=THE_CHIP)
    bench.faults.drain()
    assert bench.faults.list() == ()
    assert bench.stages == []
    bench.read(CHIP)
    with pytest.raises(Draining):
        bench.create(Gone())


@pytest.mark.parametrize(
    ("kind", "fields", "field"),
    [
        (Gone(), {"percent": 101}, "percent"),
        (Gone(), {"percent": -1}, "percent"),
        (Gone(), {"seed": -1}, "seed"),
        (Gone(), {"seed": 1 << 64}, "seed"),
        (Gone(), {"filter": AccessFilter(failed=True)}, "filter.failed"),
        (Gone(), {"filter": AccessFilter(mask=1)}, "filter.mask"),
        (Delay(0), {}, "delay_us"),
        (Delay(DELAY_MAX_US + 1), {}, "delay_us"),
        (StuckAtOne(0), {}, "stuck_at_one"),
        (StuckAtZero(1 << 64), {}, "stuck_at_zero"),
        (StuckAtOne(1), {"filter": WRITES}, "filter.operation"),
        (StuckAtOne(0x10000), {"filter": AccessFilter(registers=("chip0.ROW",))}, "stuck_at_one"),
        (Gone(), {"filter": AccessFilter(base=1)}, "filter.size"),
    ],
)
def test_a_fault_that_can_not_be_is_refused(
    bench: FaultBench, kind: FaultKind, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(BadRequest, match="allowed: ") as caught:
        bench.create(kind, **fields)
    assert caught.value.metadata["field"] == field
    assert not bench.faults.is_needed


def test_a_fault_of_a_register_that_is_not_there_is_refused(bench: FaultBench) -> None:
    with pytest.raises(NoSuchRegister):
        bench.create(Gone(), filter=AccessFilter(registers=("chip0.NONE",)))


def test_numbers_and_counts_of_a_new_fault_are_the_servers(bench: FaultBench) -> None:
    made = bench.faults.create(Fault(Gone(), THE_CHIP, id=99, count=7))
    assert (made.id, made.count) == (1, 0)
