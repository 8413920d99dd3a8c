"""Filters: which accesses meet their conditions, while they pass and when they are over."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devicehost.access_status import AccessStatus
from devicehost.recording import (
    Access,
    Annotator,
    DeviceRecord,
    Interrupt,
    InterruptKind,
    Operation,
    Space,
)
from devicehost.registers import Decoder, RegisterMap, to_json
from devicehost_server.debug.filters import AccessFilter, check_filter
from devicehost_server.debug.matching import AccessMatcher, Matcher
from devicehost_server.debug.pending import PendingAccess
from devicehost_server.model.errors import (
    BadRequest,
    DeviceHostError,
    NoRegisterMap,
    NoSuchDevice,
    NoSuchRegister,
)
from stagelab import (
    BANK,
    CHIP,
    DEADLINE_S,
    DLAB,
    RAISE,
    ROW,
    RTC,
    SHARED,
    SPARSE,
    STATUS,
    UART,
    WIDE,
    Chip,
    StageBench,
)

READ, WRITE = Operation.READ, Operation.WRITE
CHIP_SIZE = 32
NOBODY = 0x5F0


class Watch:
    """A stage that asks a matcher of each access, and keeps the answers."""

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self.before_: list[bool] = []
        self.after_: list[bool] = []
        self.seen: list[PendingAccess] = []

    def before(self, access: PendingAccess) -> None:
        self.before_.append(self.matcher.before(access))

    def after(self, access: PendingAccess) -> None:
        self.after_.append(self.matcher.after(access))
        self.matcher.follow(access)
        self.seen.append(access)


@pytest.fixture(scope="module")
def bench() -> Iterator[StageBench]:
    bench = StageBench()
    yield bench
    bench.close()


@pytest.fixture(autouse=True)
def _as_new(bench: StageBench) -> None:
    bench.stages = []
    bench.chip.memory[:] = bytes(CHIP_SIZE)
    bench.registers.set("uart0", bench.registers.of("uart0"))
    bench.write(UART + 3, 0)


def watch(bench: StageBench, **conditions: Any) -> Watch:
    """Ask a matcher of all accesses from here on."""
    watch = Watch(Matcher(AccessFilter(**conditions), bench.registers))
    bench.stages = [watch]
    watch.matcher.learn()
    return watch


# Against a naive model.


def name_at(offset: int, operation: Operation, bank: int) -> str:
    """The register at a byte of the chip, as its data sheet would say."""
    if WIDE <= offset < WIDE + 4:
        return "WIDE"
    if ROW <= offset < ROW + 8:
        return f"ROW[{(offset - ROW) // 2}]"
    if SPARSE <= offset < SPARSE + 8:
        return f"SPARSE[{(offset - SPARSE) // 2}]" if offset % 2 == 0 else ""
    alone = {BANK: "BANK", 0x18: "LEVEL", RAISE: "RAISE"}
    if offset == SHARED:
        return "AB"[bank & 1]
    if offset == STATUS:
        return "STATUS" if operation is READ else "COMMAND"
    return alone.get(offset, "")


def carries(access: PendingAccess, wanted: AccessFilter) -> bool:
    if not wanted.mask:
        return True
    found = False
    for at in range(0, len(access.data), access.size):
        value = sum(byte << 8 * n for n, byte in enumerate(access.data[at : at + access.size]))
        found |= value & wanted.mask == wanted.value & wanted.mask
    return found


def naive(wanted: AccessFilter, access: PendingAccess, bank: int, *, after: bool) -> bool:
    """Whether an access meets the conditions, said in the longest way."""
    touched = set(range(access.address, access.address + access.size))
    offsets = range(access.offset, access.offset + access.size)
    names: set[str] = set()
    if access.device == "chip0":
        names = {f"chip0.{name_at(offset, access.operation, bank)}" for offset in offsets}
        names |= {name.partition("[")[0] for name in names}
    conditions = [
        not wanted.devices or access.device in wanted.devices,
        not wanted.registers or bool(names & set(wanted.registers)),
        wanted.space is None or access.space is wanted.space,
        not wanted.size or bool(touched & set(range(wanted.base, wanted.base + wanted.size))),
        wanted.operation is None or access.operation is wanted.operation,
        not wanted.vcpus or access.vcpu in wanted.vcpus,
    ]
    if after or access.operation is WRITE:
        conditions.append(carries(access, wanted))
    if after:
        conditions.append(not wanted.failed or access.status is not AccessStatus.OK)
    return all(conditions)


NAMES = ("BANK", "A", "B", "STATUS", "COMMAND", "WIDE", "ROW", "ROW[2]", "SPARSE", "SPARSE[1]")
BYTES = st.integers(0, 255)


@st.composite
def filters(draw: st.DrawFn) -> AccessFilter:
    mask = draw(st.sampled_from([0, 0, 0x01, 0xF0, 0xFF00, 0xFFFF]))
    registers = draw(st.just([]) | st.lists(st.sampled_from(NAMES), min_size=1, max_size=3))
    devices = st.sampled_from([frozenset[str](), frozenset({"chip0"}), frozenset({"chip0", "x"})])
    size = draw(st.sampled_from([0, 0, 1, 3]))
    return AccessFilter(
        devices=draw(devices),
        registers=tuple(f"chip0.{name}" for name in registers),
        space=draw(st.sampled_from([None, None, Space.PIO, Space.MMIO])),
        base=draw(st.integers(CHIP - 1, CHIP + 12)) if size else 0,
        size=size,
        operation=draw(st.sampled_from([None, None, READ, WRITE])),
        value=draw(BYTES) & mask,
        mask=mask,
        vcpus=draw(st.sampled_from([frozenset[int](), frozenset({0}), frozenset({1, 2})])),
        failed=draw(st.sampled_from([False, False, False, True])),
    )


ACCESSES = st.tuples(
    st.sampled_from([READ, WRITE]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([*range(26), 31, NOBODY - CHIP]),
    st.lists(BYTES, min_size=4, max_size=4),
    st.sampled_from([0, 1, None]),
    st.sampled_from([1, 1, 1, 3]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(filters(), st.lists(ACCESSES, min_size=1, max_size=12))
def test_a_matcher_finds_what_a_naive_model_finds(
    bench: StageBench,
    wanted: AccessFilter,
    accesses: list[tuple[Operation, int, int, list[int], int | None, int]],
) -> None:
    bench.chip.memory[:] = bytes(CHIP_SIZE)
    watch = Watch(Matcher(wanted, bench.registers))
    watch.matcher.learn()
    of_the_past = AccessMatcher(wanted, bench.registers)
    annotator = Annotator([record(bench)])
    bench.stages = [watch]
    for operation, size, offset, data, vcpu, count in accesses:
        bank = bench.chip.memory[BANK]
        call = partial(bench.access, operation, CHIP + offset, bytes(data[:size]) * count)
        try:
            call(size=size, vcpu=vcpu)
        except DeviceHostError:
            assert offset in {RAISE, 31, NOBODY - CHIP} or offset + size > RAISE
        access = watch.seen[-1]
        asked = replace_data(access) if operation is READ else access
        assert watch.before_[-1] == naive(wanted, asked, bank, after=False)
        assert watch.after_[-1] == naive(wanted, access, bank, after=True)
        annotated = annotator.annotate(ended(access))
        if offset + size <= RAISE and not (wanted.registers and offset == BANK and size > 1):
            # What writes the bank and what is in it at once, or fails, is a matter of its own.
            assert of_the_past.matches(annotated) == watch.after_[-1]


def record(bench: StageBench) -> DeviceRecord:
    return DeviceRecord(
        "chip0",
        "chip",
        ranges=((Space.PIO, CHIP, CHIP_SIZE),),
        registers=to_json(bench.registers.of("chip0")),
    )


def ended(access: PendingAccess) -> Access:
    return Access(
        access.time_ns,
        0,
        access.vcpu,
        access.space,
        access.operation,
        access.address,
        access.size,
        access.data,
        access.status,
    )


def replace_data(access: PendingAccess) -> PendingAccess:
    """A read, as it was before the device was asked."""
    return PendingAccess(
        time_ns=access.time_ns,
        vcpu=access.vcpu,
        space=access.space,
        operation=access.operation,
        address=access.address,
        size=access.size,
        data=b"",
        length=access.length,
        device=access.device,
        range=access.range,
        offset=access.offset,
    )


# Registers that share a place.


def test_the_divisor_latch_is_there_only_while_dlab_is_set(bench: StageBench) -> None:
    seen = watch(bench, registers=("uart0.DLL",))
    for value in (0, DLAB, 0):
        bench.write(UART + 3, value)
        bench.read(UART)
        bench.write(UART, 1)
    assert seen.before_ == seen.after_
    assert seen.after_ == [False, False, False, False, True, True, False, False, False]


def test_a_register_of_the_clock_is_there_only_while_the_index_says_so(bench: StageBench) -> None:
    seen = watch(bench, registers=("rtc0.REG_C", "rtc0.RAM[2]"))
    for index in (0x0B, 0x0C, 0x8C, 0x41, 0x42):  # bit 7 of the index isn't one of the number
        bench.write(RTC, index)
        bench.read(RTC + 1)
    assert seen.before_ == seen.after_
    assert seen.after_[1::2] == [False, True, True, False, True]
    assert not any(seen.after_[::2])


def test_registers_that_are_read_and_written_at_one_place_are_told_apart(
    bench: StageBench,
) -> None:
    status = watch(bench, registers=("chip0.STATUS",))
    bench.read(CHIP + STATUS)
    bench.write(CHIP + STATUS, 1)
    assert status.after_ == [True, False]
    command = watch(bench, registers=("chip0.COMMAND",))
    bench.read(CHIP + STATUS)
    bench.write(CHIP + STATUS, 1)
    assert command.before_ == [False, True]


def test_the_data_register_is_accessed_while_nothing_is_behind_it(bench: StageBench) -> None:
    seen = watch(bench, registers=("rtc0.DATA",))
    for index in (0x0C, 0x0D):
        bench.write(RTC, index)
        bench.read(RTC + 1)
    assert seen.before_[1::2] == seen.after_[1::2] == [False, True]


def test_a_gap_in_a_row_is_none_of_the_row(bench: StageBench) -> None:
    seen = watch(bench, registers=("chip0.SPARSE",))
    for offset, size in ((0, 1), (1, 1), (1, 2), (6, 1), (7, 1)):
        bench.read(CHIP + SPARSE + offset, size)
    assert seen.before_ == seen.after_ == [True, False, True, True, False]


def test_an_access_has_to_touch_a_byte_of_the_register(bench: StageBench) -> None:
    seen = watch(bench, registers=("chip0.WIDE",))
    for offset, size in ((-1, 1), (-1, 2), (0, 1), (3, 1), (3, 2), (4, 1), (-2, 4)):
        bench.read(CHIP + WIDE + offset, size)
    assert seen.before_ == seen.after_ == [False, True, True, True, True, False, True]


def test_an_access_has_to_touch_a_byte_of_the_addresses(bench: StageBench) -> None:
    seen = watch(bench, base=CHIP + 4, size=2)
    for offset, size in ((3, 1), (3, 2), (4, 1), (5, 1), (5, 2), (6, 1), (2, 4)):
        bench.read(CHIP + offset, size)
    assert seen.before_ == seen.after_ == [False, True, True, True, True, False, True]


def test_a_write_to_a_register_that_can_only_be_read_is_one_to_it(bench: StageBench) -> None:
    seen = watch(bench, registers=("uart0.LSR",))
    bench.write(UART + 5, 0)
    assert seen.before_ == seen.after_ == [True]


def test_what_is_where_is_learned_from_the_device_when_a_filter_is_made(
    bench: StageBench,
) -> None:
    bench.write(CHIP + BANK, 1)
    seen = watch(bench, registers=("chip0.B",))
    bench.read(CHIP + SHARED)
    assert seen.before_ == [True]


def test_a_device_that_changed_without_an_access_can_be_looked_into_again(
    bench: StageBench,
) -> None:
    seen = watch(bench, registers=("chip0.B",))
    bench.chip.memory[BANK] = 1
    bench.read(CHIP + SHARED)
    seen.matcher.learn_again("chip0")
    seen.matcher.learn_again("rtc0")  # none of its concern
    bench.read(CHIP + SHARED)
    assert seen.before_ == [False, True]


def test_what_is_accessed_while_a_device_is_looked_into_is_made_up_for(bench: StageBench) -> None:
    """A write that the device gets after it was peeked, and before the decoder is in use."""

    class Slow:
        def of(self, device_id: str) -> RegisterMap:
            return bench.registers.of(device_id)

        def decoder(self, device_id: str) -> Decoder | None:
            decoder = bench.registers.decoder(device_id)
            peeked.set()
            assert written.wait(DEADLINE_S)
            return decoder

    peeked, written = threading.Event(), threading.Event()
    seen = Watch(Matcher(AccessFilter(registers=("chip0.B",)), Slow()))
    bench.stages = [seen]
    learning = bench.start(seen.matcher.learn)
    assert peeked.wait(DEADLINE_S)
    bench.write(CHIP + BANK, 1)
    bench.read(CHIP + SHARED)
    written.set()
    learning.result(DEADLINE_S)
    bench.read(CHIP + SHARED)
    assert seen.before_ == [False, False, True]


def test_a_failed_write_does_not_change_what_is_where(bench: StageBench) -> None:
    seen = watch(bench, registers=("chip0.B",))
    access = bench.pending(WRITE, CHIP + BANK, b"\1")
    access.status = AccessStatus.DEVICE_FAULT
    seen.matcher.follow(access)
    bench.read(CHIP + SHARED)
    assert seen.before_ == [False]


def test_a_device_that_is_plugged_again_is_found_again(bench: StageBench) -> None:
    seen = watch(bench, registers=("chip0.B", "chip0.WIDE"))
    bench.write(CHIP + BANK, 1)
    bench.devices.unplug("chip0")
    seen.matcher.learn_again("chip0")
    bench.devices.plug("chip", {}, device_id="chip0")
    seen.matcher.learn_again("chip0")
    bench.read(CHIP + SHARED)
    bench.write(CHIP + BANK, 1)
    bench.read(CHIP + SHARED)
    bench.read(CHIP + WIDE)
    assert seen.before_ == [False, False, False, True, True]


def test_a_device_that_comes_again_without_the_register_is_not_found(bench: StageBench) -> None:
    seen = watch(bench, registers=("chip0.WIDE",))
    without = replace(
        Chip.register_map,
        registers=tuple(each for each in Chip.register_map if each.name != "WIDE"),
    )
    bench.registers.set("chip0", without)
    seen.matcher.learn_again("chip0")
    bench.read(CHIP + WIDE)
    bench.registers.set("chip0", None)
    seen.matcher.learn_again("chip0")
    bench.read(CHIP + WIDE)
    assert seen.before_ == [False, True]


# What has ended.


def test_an_event_that_is_no_access_has_to_be_of_one_of_the_devices(bench: StageBench) -> None:
    annotated = Annotator([]).annotate(Interrupt(1, 4, InterruptKind.PULSED, "uart0"))
    for devices, expected in ((set[str](), True), ({"uart0"}, True), ({"rtc0"}, False)):
        matcher = AccessMatcher(AccessFilter(devices=frozenset(devices)), bench.registers)
        assert matcher.matches(annotated) is expected


def test_a_failed_access_is_one_to_each_register_at_its_place(bench: StageBench) -> None:
    access = bench.pending(READ, CHIP + SHARED, b"\0")
    access.status = AccessStatus.DEVICE_FAULT
    annotated = Annotator([record(bench)]).annotate(ended(access))
    for name, expected in (("A", True), ("B", True), ("WIDE", False)):
        wanted = AccessFilter(registers=(f"chip0.{name}",), failed=True)
        assert AccessMatcher(wanted, bench.registers).matches(annotated) is expected


# What can't be.


@pytest.mark.parametrize(
    ("conditions", "field"),
    [
        ({"registers": ("LCR",)}, "filter.registers"),
        ({"registers": (".LCR",)}, "filter.registers"),
        ({"registers": ("uart0.",)}, "filter.registers"),
        ({"registers": ("uart0.LCR",), "devices": frozenset({"rtc0"})}, "filter.registers"),
        ({"devices": frozenset({""})}, "filter.device_ids"),
        ({"base": 0x3F8}, "filter.size"),
        ({"base": -1, "size": 1}, "filter.base"),
        ({"size": -1}, "filter.size"),
        ({"base": 0xFFFF, "size": 2, "space": Space.PIO}, "filter.size"),
        ({"base": 1 << 63, "size": (1 << 63) + 1}, "filter.size"),
        ({"value": 1}, "filter.value"),
        ({"value": 0x10, "mask": 0x0F}, "filter.value"),
        ({"mask": 1 << 64}, "filter.mask"),
        ({"vcpus": frozenset({-1})}, "filter.vcpus"),
    ],
)
def test_conditions_that_no_access_can_meet_are_refused(
    bench: StageBench, conditions: dict[str, Any], field: str
) -> None:
    with pytest.raises(BadRequest, match="allowed: ") as caught:
        Matcher(AccessFilter(**conditions), bench.registers)
    assert caught.value.metadata["field"] == field


@pytest.mark.parametrize(
    "conditions",
    [
        {"base": 0xFFFF, "size": 1, "space": Space.PIO},
        {"base": 0, "size": 1 << 64, "space": Space.MMIO},
        {"value": (1 << 64) - 1, "mask": (1 << 64) - 1},
    ],
)
def test_conditions_may_go_to_the_very_end(conditions: dict[str, Any]) -> None:
    check_filter(AccessFilter(**conditions))


def test_a_register_of_a_device_that_is_not_there_is_refused(bench: StageBench) -> None:
    with pytest.raises(NoSuchDevice):
        Matcher(AccessFilter(registers=("uart9.LCR",)), bench.registers)


def test_a_device_that_is_not_there_yet_may_be_named(bench: StageBench) -> None:
    seen = watch(bench, devices=frozenset({"chip7"}))
    bench.devices.plug("chip", {"base": "0x700"}, device_id="chip7")
    bench.read(0x700)
    bench.devices.unplug("chip7")
    assert seen.before_ == [True]


def test_a_register_of_a_device_without_a_map_is_refused() -> None:
    class NoMaps:
        def of(self, device_id: str) -> RegisterMap:
            raise NoRegisterMap(f"device {device_id!r} has no register map", device=device_id)

        def decoder(self, _device_id: str) -> Decoder | None:
            return None

    with pytest.raises(NoRegisterMap):
        Matcher(AccessFilter(registers=("chip0.WIDE",)), NoMaps())


@pytest.mark.parametrize("name", ["wide", "WIDTH", "ROW[4]", "WIDE[0]", "ROW[-1]"])
def test_a_register_that_is_not_in_the_map_is_refused(bench: StageBench, name: str) -> None:
    with pytest.raises(NoSuchRegister) as caught:
        Matcher(AccessFilter(registers=(f"chip0.{name}",)), bench.registers)
    metadata = caught.value.metadata
    assert (metadata["device"], metadata["register"]) == ("chip0", name)
    assert metadata["known"].startswith("BANK, A, B")


def test_a_device_may_have_dots_in_its_id(bench: StageBench) -> None:
    bench.devices.plug("chip", {"base": "0x700"}, device_id="board.chip-1")
    seen = watch(bench, registers=("board.chip-1.WIDE",))
    bench.read(0x700 + WIDE)
    bench.devices.unplug("board.chip-1")
    assert seen.before_ == [True]
