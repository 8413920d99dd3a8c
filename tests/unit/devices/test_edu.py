"""The teaching device: what a driver sees of it."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost.registers import check
from devicehost_server.allocation import ResourceManager
from devicehost_server.devices.base import DeviceContext
from devicehost_server.devices.config import parse
from devicehost_server.devices.edu import BUFFER_BASE, BUFFER_SIZE, MAP, WORK_NS, Edu, EduConfig
from devicehost_server.model.clock import ManualClock
from devicehost_server.model.errors import BadState
from devicehost_server.model.guest_memory import GuestMemory, MappedBacking, MemoryBlock
from devicehost_server.model.interrupts import InterruptController, InterruptEvent, InterruptKind
from devicehost_server.model.resources import (
    LegacyIrqConstraint,
    MmioAddressConstraint,
    PciMsiIrqConstraint,
)

ID, LIVENESS, FACTORIAL, STATUS, IRQ_STATUS, RAISE, ACK = 0, 4, 8, 0x20, 0x24, 0x60, 0x64
SOURCE, DESTINATION, COUNT, COMMAND = 0x80, 0x88, 0x90, 0x98
RAM_BASE, RAM_SIZE = 0x10_0000, 0x4000


class Board:
    """A guest with memory, and the device in it."""

    def __init__(self, **config: str) -> None:
        self.clock = ManualClock()
        self.interrupts = InterruptController()
        self.messages: list[int] = []
        self.interrupts.subscribe(self._changed)
        self.ram = bytearray(RAM_SIZE)
        self.memory = GuestMemory()
        backing = MappedBacking(memoryview(self.ram))
        self.memory.add(MemoryBlock(RAM_BASE, RAM_SIZE, True, True, backing))  # noqa: FBT003 # both may
        self.edu = Edu(parse("edu", EduConfig, config))
        resources = ResourceManager().allocate(self.edu.get_resource_constraints(), "edu0")
        context = DeviceContext("edu0", resources, self.clock, self.interrupts, self.memory)
        self.edu.assign(context)
        self.edu.start()
        self.base = resources.get_mmio_address_ranges()[0].base

    def _changed(self, event: InterruptEvent) -> None:
        if event.kind is InterruptKind.PULSED:
            self.messages.append(event.gsi)

    @property
    def asserted(self) -> bool:
        return bool(self.interrupts.asserted())

    def read(self, offset: int, size: int = 4) -> int:
        data = bytearray(size)
        self.edu.read(self.base, offset, data)
        return int.from_bytes(data, "little")

    def write(self, offset: int, value: int, size: int = 4) -> None:
        self.edu.write(self.base, offset, value.to_bytes(size, "little"))

    def dma(self, source: int, destination: int, count: int, command: int) -> None:
        for offset, value in (
            (SOURCE, source),
            (DESTINATION, destination),
            (COUNT, count),
            (COMMAND, command),
        ):
            self.write(offset, value, 8)


@pytest.fixture
def board() -> Board:
    return Board()


def test_its_register_map_is_sound() -> None:
    check(MAP)


def test_it_needs_a_megabyte_a_line_and_a_message() -> None:
    needs = Edu(EduConfig(base=0xFEA0_0000, irq=11)).get_resource_constraints()

    assert needs == [
        MmioAddressConstraint.exact(0xFEA0_0000, 0x10_0000),
        LegacyIrqConstraint(11),
        PciMsiIrqConstraint(1),
    ]


def test_a_driver_knows_it_by_its_numbers(board: Board) -> None:
    identity = board.edu.describe_function().identity

    assert (identity.vendor_id, identity.device_id) == (0x1234, 0x11E8)
    assert identity.class_code == 0x00FF00
    assert board.read(ID) == 0x0100_00ED


def test_it_is_alive(board: Board) -> None:
    board.write(LIVENESS, 0x1234_5678)

    assert board.read(LIVENESS) == 0xEDCB_A987


class TestFactorial:
    def test_it_takes_a_while(self, board: Board) -> None:
        board.write(FACTORIAL, 10)
        assert board.read(STATUS) == 0x01
        board.clock.advance(WORK_NS - 1)
        assert board.read(STATUS) == 0x01

        board.clock.advance(1)
        assert board.read(STATUS) == 0
        assert board.read(FACTORIAL) == 3_628_800
        assert not board.asserted

    def test_a_number_that_comes_meanwhile_is_ignored(self, board: Board) -> None:
        board.write(FACTORIAL, 3)
        board.write(FACTORIAL, 9)
        board.clock.advance(WORK_NS)

        assert board.read(FACTORIAL) == 6

    def test_it_interrupts_if_asked(self, board: Board) -> None:
        board.write(STATUS, 0xFF)
        assert board.read(STATUS) == 0x80
        board.write(FACTORIAL, 4)
        board.clock.advance(WORK_NS)

        assert board.read(IRQ_STATUS) == 0x1
        assert board.asserted
        assert len(board.messages) == 1

    @given(st.integers(0, 0xFFFF_FFFF))
    def test_any_number_has_one(self, number: int) -> None:
        board = Board()
        board.write(FACTORIAL, number)
        board.clock.advance(WORK_NS)

        assert board.read(FACTORIAL) == math.factorial(min(number, 50)) & 0xFFFF_FFFF


class TestInterrupts:
    def test_the_line_is_asserted_until_all_reasons_are_acknowledged(self, board: Board) -> None:
        board.write(RAISE, 0x5)
        assert board.read(IRQ_STATUS) == 0x5
        board.write(ACK, 0x4)
        assert board.asserted

        board.write(ACK, 0x1)
        assert board.read(IRQ_STATUS) == 0
        assert not board.asserted

    def test_each_reason_sends_a_message(self, board: Board) -> None:
        board.write(RAISE, 0x1)
        board.write(RAISE, 0x2)
        msi = board.edu.get_assigned_resources().get_pci_msi_irqs()
        assert msi is not None

        assert board.messages == [msi.base] * 2

    def test_no_reason_is_no_interrupt(self, board: Board) -> None:
        board.write(RAISE, 0)

        assert not board.asserted
        assert board.messages == []


class TestDma:
    def test_it_goes_into_the_buffer_and_out_again(self, board: Board) -> None:
        board.ram[:100] = bytes(range(100))
        board.dma(RAM_BASE, BUFFER_BASE + 8, 100, 0x1)
        assert board.read(COMMAND) & 1
        board.clock.advance(WORK_NS)
        assert board.read(COMMAND) == 0
        board.dma(BUFFER_BASE + 8, RAM_BASE + 0x1000, 100, 0x7)
        board.clock.advance(WORK_NS)

        assert board.ram[0x1000:0x1064] == bytes(range(100))
        assert board.read(COMMAND) == 0x6
        assert board.read(IRQ_STATUS) == 0x100
        assert board.asserted

    def test_addresses_may_be_written_in_halves(self, board: Board) -> None:
        board.write(SOURCE, 0x1234_5678)
        board.write(SOURCE + 4, 0x9ABC)

        assert board.read(SOURCE, 8) == 0x9ABC_1234_5678

    def test_it_sees_the_bits_of_its_mask_only(self) -> None:
        board = Board(dma_mask="0x1fffff")
        board.ram[0] = 0xAA
        board.dma(0xF000_0000 | RAM_BASE, BUFFER_BASE, 1, 0x1)
        board.clock.advance(WORK_NS)
        board.dma(BUFFER_BASE, RAM_BASE + 1, 1, 0x3)
        board.clock.advance(WORK_NS)

        assert board.ram[1] == 0xAA

    @pytest.mark.parametrize(
        ("address", "at", "count"),
        [
            (RAM_BASE, BUFFER_BASE - 1, 4),
            (RAM_BASE, BUFFER_BASE, BUFFER_SIZE + 1),
            (RAM_BASE, BUFFER_BASE, 0xFFFF_FFFF_FFFF_FFFF),
            (RAM_BASE, BUFFER_BASE + BUFFER_SIZE - 3, 4),
            (RAM_BASE, 0xFFFF_FFFF_FFFF_FFFF, 4),
            (RAM_BASE + RAM_SIZE - 3, BUFFER_BASE, 4),
            (0, BUFFER_BASE, 4),
            (RAM_BASE, BUFFER_BASE, 0),
        ],
    )
    @pytest.mark.parametrize("from_buffer", [False, True])
    def test_one_that_does_not_fit_moves_nothing_and_ends(
        self, board: Board, address: int, at: int, count: int, *, from_buffer: bool
    ) -> None:
        board.ram[:] = b"\xaa" * RAM_SIZE
        source, destination = (at, address) if from_buffer else (address, at)
        board.dma(source, destination, count, 0x3 if from_buffer else 0x1)
        board.clock.advance(WORK_NS)

        assert not board.read(COMMAND) & 1
        assert board.ram == b"\xaa" * RAM_SIZE
        assert bytes.fromhex(board.edu.save()["buffer"]) == bytes(BUFFER_SIZE)

    def test_a_command_that_starts_nothing_is_ignored(self, board: Board) -> None:
        board.write(COMMAND, 0x6)

        assert board.read(COMMAND) == 0

    def test_a_command_that_comes_meanwhile_is_ignored(self, board: Board) -> None:
        board.dma(RAM_BASE, BUFFER_BASE, 4, 0x1)
        board.write(COMMAND, 0x7)
        board.clock.advance(WORK_NS)

        assert board.read(COMMAND) == 0
        assert not board.asserted


class TestLife:
    def test_a_state_goes_on_elsewhere(self, board: Board) -> None:
        board.ram[0] = 0x55
        board.write(RAISE, 0x8)
        board.dma(RAM_BASE, BUFFER_BASE, 1, 0x1)
        board.clock.advance(WORK_NS)
        board.write(FACTORIAL, 5)
        other = Board()
        other.edu.restore(json.loads(json.dumps(board.edu.save())))
        assert other.edu.save() == board.edu.save()
        assert other.asserted

        other.clock.advance(WORK_NS)
        assert other.read(FACTORIAL) == 120
        assert other.edu.save()["buffer"].startswith("55")

    @pytest.mark.parametrize("buffer", ["", "zz", "00" * (BUFFER_SIZE + 1)])
    def test_a_bad_state_changes_nothing(self, board: Board, buffer: str) -> None:
        board.write(LIVENESS, 1)
        before = board.edu.save()
        with pytest.raises(BadState, match="buffer"):
            board.edu.restore({**Board().edu.save(), "buffer": buffer})

        assert board.edu.save() == before

    def test_a_reset_stops_what_goes_on(self, board: Board) -> None:
        board.write(STATUS, 0x80)
        board.write(FACTORIAL, 5)
        board.write(RAISE, 1)
        board.edu.reset()
        assert not board.asserted
        assert board.edu.save() == Board().edu.save()

        board.clock.advance(WORK_NS)
        assert board.read(FACTORIAL) == 0

    def test_work_that_begins_after_a_reset_takes_its_whole_time(self, board: Board) -> None:
        board.write(FACTORIAL, 5)
        board.clock.advance(WORK_NS // 2)
        board.edu.reset()
        board.write(FACTORIAL, 6)
        board.clock.advance(WORK_NS // 2)
        assert board.read(STATUS) == 1

        board.clock.advance(WORK_NS)
        assert board.read(FACTORIAL) == 720

    def test_after_the_end_nothing_is_asserted_and_no_timer_does_anything(
        self, board: Board
    ) -> None:
        board.write(STATUS, 0x80)
        board.write(FACTORIAL, 5)
        board.write(RAISE, 1)
        board.edu.close()
        board.clock.advance(WORK_NS)

        assert not board.asserted
        assert len(board.messages) == 1

    def test_it_can_be_looked_at_and_changed(self, board: Board) -> None:
        board.edu.poke("IRQ_STATUS", 2)
        assert board.asserted
        board.edu.poke("FACTORIAL", 3)
        board.edu.poke("STATUS", 1)
        board.clock.advance(WORK_NS)

        assert board.edu.peek("FACTORIAL") == 6
        assert board.edu.peek("STATUS") == 0


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 0x110), st.binary(min_size=1, max_size=16)),
        max_size=30,
    )
)
def test_no_access_is_too_strange(accesses: list[tuple[bool, int, bytes]]) -> None:
    board = Board()
    for is_write, offset, data in accesses:
        if is_write:
            board.edu.write(board.base, offset, data)
        else:
            board.edu.read(board.base, offset, bytearray(len(data)))
        board.clock.advance(WORK_NS // 3)
    board.clock.advance(WORK_NS)

    assert board.read(ID) == 0x0100_00ED
    assert not board.read(STATUS) & 1
    assert not board.read(COMMAND) & 1
    Board().edu.restore(board.edu.save())
