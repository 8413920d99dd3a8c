"""Where the model differs from dbs-device on purpose: one test for each difference.

Each is a defect that was seen when the original was run. The differences of the resource
manager are tested with it.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from devicehost_server.model.device_io import (
    DeviceIo,
    DeviceIoMut,
    ReadableBuffer,
    WritableBuffer,
)
from devicehost_server.model.errors import (
    AccessOutOfRange,
    BadAccessSize,
    BadConstraint,
    BadRange,
    BadTransaction,
    DeviceFault,
    DeviceHostError,
    DeviceOverlap,
    NoDevice,
)
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.resources import (
    GenericIrqConstraint,
    KvmMemSlotConstraint,
    LegacyIrqConstraint,
    MemAddressConstraint,
    MmioAddressConstraint,
    MmioAddressRange,
    PciMsiIrqConstraint,
    PciMsixIrqConstraint,
    PioAddressConstraint,
    PioAddressRange,
    Resource,
)

LOW, HIGH = 0x100, 0x200
KINDS = [PioAddressRange, MmioAddressRange]
SPACES = {PioAddressRange: 1 << 16, MmioAddressRange: 1 << 64}
ALL_OPERATIONS = ["mmio_read", "mmio_write", "pio_read", "pio_write"]


class Counter(DeviceIoMut):
    """Counts accesses; a read tells which one it was. The `faulty`-th raises."""

    def __init__(self, faulty: int = 0) -> None:
        self.count = 0
        self.faulty = faulty

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:
        self.write(base, offset, data)
        data[0] = self.count

    def write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        self.count += 1
        if self.count == self.faulty:
            raise RuntimeError("panicked")

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:
        self.read(base, offset, data)

    def pio_write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        self.write(base, offset, data)


def manager_of(device: DeviceIo, resources: Iterable[Resource]) -> IoManager:
    manager = IoManager()
    manager.register_device_io(device, resources)
    return manager


def both(base: int, size: int) -> list[Resource]:
    return [PioAddressRange(base, size), MmioAddressRange(base, size)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("base", "size"),
    [
        (0x100, 0x10),  # the same
        (0x100, 1),  # the same base
        (0x104, 4),  # inside
        (0x10F, 1),  # the last byte
        (0x0F0, 0x30),  # around
        (0x0FF, 2),  # over the first byte
        (0x10F, 2),  # over the last byte
    ],
)
def test_overlap_by_any_byte_is_device_overlap_and_changes_nothing(
    kind: type[PioAddressRange | MmioAddressRange], base: int, size: int
) -> None:
    victim, newcomer = Counter(), Counter()
    manager = manager_of(victim, [kind(0x100, 0x10)])
    before = manager.ranges()
    with pytest.raises(DeviceOverlap):
        manager.register_device_io(newcomer, [kind(base, size)])
    assert manager.ranges() == before
    read = manager.pio_read if kind is PioAddressRange else manager.mmio_read
    for address in range(0x100, 0x110):
        read(address, bytearray(1))
    assert (victim.count, newcomer.count) == (0x10, 0)


def test_a_failed_registration_changes_nothing_not_even_the_earlier_ranges_of_its_list() -> None:
    victim, newcomer = Counter(), Counter()
    manager = manager_of(victim, both(HIGH, 0x10))
    manager.register_device_io(newcomer, [MmioAddressRange(0x1000, 8)])
    before = manager.ranges()
    for overlapping in both(HIGH + 8, 0x10):
        with pytest.raises(DeviceOverlap):
            manager.register_device_io(newcomer, [*both(LOW, 0x10), overlapping, *both(0x300, 1)])
    assert manager.ranges() == before
    manager.pio_read(HIGH, bytearray(1))
    manager.mmio_read(HIGH, bytearray(1))
    manager.mmio_read(0x1000, bytearray(1))  # its own earlier range
    assert (victim.count, newcomer.count) == (2, 1)
    manager.register_device_io(newcomer, both(LOW, 0x10))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("base", "size"),
    [
        (LOW, 0x0F),  # too short
        (LOW, 0x11),  # too long
        (LOW + 1, 0x0F),  # the rest of it
        (LOW, 0x20),  # it and its neighbour
        (LOW + 8, 0x10),  # half of each
        (HIGH, 0x10),  # absent
    ],
)
def test_unregister_must_name_a_registered_range_exactly_else_no_device_and_nothing_changes(
    kind: type[PioAddressRange | MmioAddressRange], base: int, size: int
) -> None:
    manager = manager_of(Counter(), [*both(LOW, 0x10), *both(0x300, 8)])
    manager.register_device_io(Counter(), both(LOW + 0x10, 0x10))
    before = manager.ranges()
    with pytest.raises(NoDevice, match=f"exactly {kind.space_name} {base:#x}-{base + size - 1:#x}"):
        manager.unregister_device_io([*both(0x300, 8), kind(base, size)])
    assert manager.ranges() == before


def test_unregister_on_one_bus_leaves_the_same_range_on_the_other() -> None:
    manager = manager_of(Counter(), [PioAddressRange(LOW, 0x10)])
    with pytest.raises(NoDevice):
        manager.unregister_device_io([MmioAddressRange(LOW, 0x10)])
    assert len(manager.ranges()) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_empty_ranges_and_ranges_past_the_end_of_their_space_are_rejected_with_the_reason(
    kind: type[PioAddressRange | MmioAddressRange],
) -> None:
    end = SPACES[kind]
    with pytest.raises(BadRange, match=rf"{kind.space_name} range at 0x10 of 0x0 bytes is empty"):
        kind(0x10, 0)
    for base, size in ((end - 8, 9), (end, 1), (0, end + 1), (end - 1, end)):
        with pytest.raises(BadRange, match=f"at {base:#x} of {size:#x} bytes runs past the last"):
            kind(base, size)


@pytest.mark.parametrize("operation", ALL_OPERATIONS)
@pytest.mark.parametrize(
    ("offset", "size", "error"),
    [
        (3, 2, AccessOutOfRange),  # straddles the end
        (0, 8, (AccessOutOfRange, BadAccessSize)),  # longer than the range
        (0, 0, BadAccessSize),  # empty
        (3, 0, BadAccessSize),
    ],
)
def test_an_access_that_straddles_or_is_empty_or_too_long_does_not_reach_the_device(
    operation: str, offset: int, size: int, error: type[DeviceHostError]
) -> None:
    device = Counter()
    manager = manager_of(device, both(LOW, 4))
    with pytest.raises(error):
        getattr(manager, operation)(LOW + offset, bytearray(size))
    assert device.count == 0


@pytest.mark.parametrize("operation", ["mmio_read", "pio_read"])
def test_an_unmapped_read_is_an_error(operation: str) -> None:
    manager = manager_of(Counter(), both(LOW, 4))
    for address in (LOW - 1, LOW + 4):
        with pytest.raises(NoDevice, match=f"{address:#x}"):
            getattr(manager, operation)(address, bytearray(1))


@pytest.mark.parametrize("operation", ALL_OPERATIONS)
def test_an_exception_is_device_fault_for_that_access_and_the_next_access_works(
    operation: str,
) -> None:
    device = Counter(faulty=2)
    access = getattr(manager_of(device, both(LOW, 4)), operation)
    access(LOW, bytearray(1))
    with pytest.raises(DeviceFault, match=r"'Counter' raised RuntimeError .*: panicked"):
        access(LOW, bytearray(1))
    access(LOW, bytearray(1))
    assert device.count == 3


@pytest.mark.parametrize("operation", ["mmio_read", "pio_read"])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_buffer_of_a_read_is_zeros_before_the_device_is_called_or_is_filled_by_it(
    operation: str, size: int
) -> None:
    manager = manager_of(DeviceIo(), both(LOW, 8))
    manager.register_device_io(Counter(), both(HIGH, 8))
    for address, expected in ((LOW, bytes(size)), (HIGH, b"\1" + bytes(size - 1))):
        data = bytearray(b"\xee" * size)
        getattr(manager, operation)(address, data)
        assert data == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_range_that_ends_at_the_end_of_its_space_can_be_unregistered(
    kind: type[PioAddressRange | MmioAddressRange],
) -> None:
    end = SPACES[kind]
    for base in (end - 1, end - 0x10, 0):
        held = kind(base, end - base)
        manager = manager_of(Counter(), [held])
        manager.unregister_device_io([held])
        assert manager.ranges() == []


def test_bad_constraints_are_bad_constraint_when_they_are_made() -> None:
    for address in (PioAddressConstraint, MmioAddressConstraint, MemAddressConstraint):
        for nonsense in (
            {"size": 0},
            {"size": 8, "align": 0},
            {"size": 8, "align": 12},
            {"size": 8, "min": 0x20, "max": 0x10},
            {"size": 8, "min": 0x10, "max": 0x16},
            {"size": 8, "min": address.space_size},
            {"size": address.space_size + 1},
            {"size": 8, "min": 0x11, "max": 0x1F, "align": 0x10},
        ):
            with pytest.raises(BadConstraint):
                address(**nonsense)
    for msi in (PciMsiIrqConstraint, PciMsixIrqConstraint, GenericIrqConstraint):
        with pytest.raises(BadConstraint):
            msi(size=0)
    with pytest.raises(BadConstraint):
        LegacyIrqConstraint(irq=-1)
    with pytest.raises(BadConstraint):
        KvmMemSlotConstraint(slot=-1)


def test_a_transaction_of_one_manager_is_refused_by_another_and_goes_on_at_its_own() -> None:
    manager, other = IoManager(), IoManager()
    other_tx = other.begin_tx()
    tx = manager.begin_tx()
    tx.register_device_io(Counter(), both(LOW, 4))
    with pytest.raises(BadTransaction, match="belongs to another IoManager"):
        other.commit_tx(tx)
    with pytest.raises(BadTransaction, match="belongs to another IoManager"):
        other.cancel_tx(tx)
    other.cancel_tx(other_tx)
    assert other.ranges() == []
    manager.commit_tx(tx)
    assert len(manager.ranges()) == 2


def test_managers_and_ranges_compare_equal_by_base_and_size() -> None:
    for kind in KINDS:
        assert kind(LOW, 8) == kind(LOW, 8)
        assert kind(LOW, 8) != kind(LOW, 9)
        assert kind(LOW, 8) != kind(HIGH, 8)
    device = DeviceIo()
    manager = manager_of(device, both(LOW, 8))
    assert manager == manager_of(device, both(LOW, 8))
    assert manager != manager_of(device, both(LOW, 9))
    assert manager != manager_of(device, both(HIGH, 8))
    assert manager != manager_of(device, [MmioAddressRange(LOW, 8)])
    assert manager != manager_of(DeviceIo(), both(LOW, 8))
