"""Where the allocator differs from dbs-device's on purpose: a test, or some, for each row."""

from __future__ import annotations

import pytest

from devicehost_server.allocation import Allocation, PoolConfig, ResourceManager
from devicehost_server.allocation.pool_config import RESERVED_PORTS
from devicehost_server.model.errors import (
    BadConstraint,
    NoSlot,
    NoSpace,
    NotAllocated,
    RangeTaken,
)
from devicehost_server.model.resources import (
    PIO_SPACE_SIZE,
    AddressConstraint,
    AddressRange,
    KvmMemSlot,
    KvmMemSlotConstraint,
    LegacyIrq,
    LegacyIrqConstraint,
    MacAddress,
    MemAddressConstraint,
    MemAddressRange,
    MmioAddressConstraint,
    MmioAddressRange,
    MsiIrq,
    MsiType,
    PciMsiIrqConstraint,
    PioAddressConstraint,
    PioAddressRange,
    Resource,
    ResourceConstraint,
)

GIB = 1 << 30


def give(manager: ResourceManager, *constraints: ResourceConstraint, to: str = "a") -> Resource:
    """Allocate for `to` and return the first resource."""
    first = manager.allocate(constraints, to)[0]
    assert isinstance(first, Resource)
    return first


def state(manager: ResourceManager) -> object:
    return manager.capacity(), manager.allocations()


@pytest.mark.parametrize("times", [1, 2])
def test_a_double_release_is_not_allocated_and_changes_nothing(
    manager: ResourceManager, times: int
) -> None:
    got = give(manager, PioAddressConstraint(size=8))
    give(manager, PioAddressConstraint(size=8), to="b")
    manager.release([got], "a")
    before = state(manager)
    for _ in range(times):
        with pytest.raises(NotAllocated, match="isn't allocated"):
            manager.release([got], "a")
    assert state(manager) == before


@pytest.mark.parametrize(
    "part",
    [
        MmioAddressRange(0xC000_0000, 0x1000),
        MmioAddressRange(0xC000_1000, 0x1000),
        MmioAddressRange(0xC000_0000, 0x3000),
        MmioAddressRange(0xBFFF_F000, 0x3000),
        MmioAddressRange(0xC000_0000, 0x2001),
        MemAddressRange(0xC000_0000, 0x2000),
    ],
)
def test_a_partial_release_is_not_allocated_and_changes_nothing(
    manager: ResourceManager, part: AddressRange
) -> None:
    give(manager, MmioAddressConstraint(size=0x2000))
    before = state(manager)
    with pytest.raises(NotAllocated, match="isn't allocated"):
        manager.release([part], "a")
    assert state(manager) == before


@pytest.mark.parametrize(
    "constraint",
    [
        PioAddressConstraint(size=8),
        MmioAddressConstraint(size=0x1000),
        MemAddressConstraint(size=0x1000),
        LegacyIrqConstraint(),
        PciMsiIrqConstraint(),
        KvmMemSlotConstraint(),
    ],
)
def test_a_foreign_release_is_not_allocated_and_changes_nothing(
    manager: ResourceManager, constraint: ResourceConstraint
) -> None:
    got = give(manager, constraint, to="a")
    before = state(manager)
    with pytest.raises(NotAllocated, match="belongs to 'a'"):
        manager.release([got], "b")
    assert state(manager) == before


def test_msi_numbers_are_released_as_the_type_they_were_allocated_for(
    manager: ResourceManager,
) -> None:
    give(manager, PciMsiIrqConstraint())
    before = state(manager)
    with pytest.raises(NotAllocated, match="MSI 24 isn't allocated like this: 'a' has MsiIrq"):
        manager.release([MsiIrq(MsiType.PCI_MSIX, 24, 1)], "a")
    assert state(manager) == before


@pytest.mark.parametrize(
    ("base", "size"),
    [(0x3F8, 8), (0x2F8, 8), (0x70, 2), (0x60, 1), (0x64, 1), (0xCF8, 8), (0x80, 1), (0x510, 2)],
)
def test_ports_of_standard_hardware_are_given_to_exact_requests_only(
    manager: ResourceManager, base: int, size: int
) -> None:
    before = state(manager)
    window = PioAddressConstraint(size=1, min=base, max=base + max(size, 2) - 1)
    if size > 1:
        with pytest.raises(NoSpace):
            give(manager, window)
    exact = PioAddressConstraint.exact(base, size)
    got = give(manager, exact)
    assert got == PioAddressRange(base, size)
    with pytest.raises(RangeTaken) as caught:
        give(manager, exact, to="b")
    assert caught.value.metadata["holder"] == "a"
    manager.release([got], "a")
    assert state(manager) == before


def test_any_port_is_never_one_of_standard_hardware(manager: ResourceManager) -> None:
    kept = [port for piece in RESERVED_PORTS for port in range(piece.base, piece.last + 1)]
    anything = [PioAddressConstraint(size=1)] * (PIO_SPACE_SIZE - len(kept))
    given = manager.allocate(anything, "a").get_pio_address_ranges()
    assert not {each.base for each in given} & set(kept)
    with pytest.raises(NoSpace):
        give(manager, PioAddressConstraint(size=1))
    assert give(manager, PioAddressConstraint.exact(0x3F8, 8)) == PioAddressRange(0x3F8, 8)


def test_a_range_that_ends_at_0xffff_can_be_released(manager: ResourceManager) -> None:
    before = state(manager)
    for base, size in ((0xFFF0, 16), (0xFFFF, 1), (0, 0x1_0000)):
        got = give(manager, PioAddressConstraint.exact(base, size))
        assert got == PioAddressRange(base, size)
        manager.release([got], "a")
        assert state(manager) == before


@pytest.mark.parametrize(
    "constraint",
    [
        MemAddressConstraint.exact(3 * GIB - 0x1000, 0x1000),
        MemAddressConstraint.exact((1 << 38) - 0x1000, 0x1000),
        MmioAddressConstraint.exact(4 * GIB - 0x1000, 0x1000),
        MmioAddressConstraint.exact((1 << 39) - 0x1000, 0x1000),
    ],
)
def test_a_range_that_ends_at_the_end_of_memory_can_be_released(
    manager: ResourceManager, constraint: AddressConstraint
) -> None:
    before = state(manager)
    got = give(manager, constraint)
    manager.release([got], "a")
    assert state(manager) == before
    assert give(manager, constraint) == got


def test_several_kvm_slots_in_one_list_are_each_kept(manager: ResourceManager) -> None:
    wanted = [
        KvmMemSlotConstraint(),
        KvmMemSlotConstraint(slot=100),
        KvmMemSlotConstraint(size=3),
        KvmMemSlotConstraint(slot=200, size=2),
    ]
    got = manager.allocate(wanted, "a")
    assert got.get_kvm_mem_slots() == [0, 100, 1, 2, 3, 200, 201]
    assert [each.resource for each in manager.allocations()] == sorted(
        got.of_type(KvmMemSlot), key=lambda each: each.slot
    )
    manager.release([KvmMemSlot(2)], "a")
    assert give(manager, KvmMemSlotConstraint()) == KvmMemSlot(2)


def test_the_bound_of_kvm_slots_is_exact(manager: ResourceManager) -> None:
    assert give(manager, KvmMemSlotConstraint(slot=508)) == KvmMemSlot(508)
    for beyond in (KvmMemSlotConstraint(slot=509), KvmMemSlotConstraint(slot=507, size=3)):
        with pytest.raises(BadConstraint, match="allowed: 0-508") as caught:
            give(manager, beyond)
        assert caught.value.metadata["field"] == "slot"
    manager.allocate([KvmMemSlotConstraint(size=508)], "a")
    with pytest.raises(NoSlot):
        give(manager, KvmMemSlotConstraint())


@pytest.mark.parametrize("count", [1, 32, 32764])
def test_a_configured_number_of_kvm_slots_is_that_number(count: int) -> None:
    manager = ResourceManager(PoolConfig(kvm_slot_count=count))
    assert len(manager.allocate([KvmMemSlotConstraint(size=count)], "a")) == count
    with pytest.raises(NoSlot):
        give(manager, KvmMemSlotConstraint())
    with pytest.raises(BadConstraint):
        give(manager, KvmMemSlotConstraint(slot=count))


@pytest.mark.parametrize(
    ("constraint", "named"),
    [
        (MmioAddressConstraint(size=0x1000, max=0xBFFF_FFFF), "0x1000 in 0x0-0xbfffffff"),
        (MmioAddressConstraint.exact(0xBFFF_F000, 0x2000), "0xbffff000-0xc0000fff"),
        (MmioAddressConstraint(size=0x1000, min=1 << 39), "0x8000000000 and up"),
        (MemAddressConstraint.exact(0xC000_0000, 0x1000), "0x0-0xbfffffff"),
        (MemAddressConstraint(size=0x2000, min=0xBFFF_F000, max=0xFFFF_FFFF), "0xbffff000"),
        (LegacyIrqConstraint(irq=24), "0-15"),
        (KvmMemSlotConstraint(slot=1000), "0-508"),
    ],
)
def test_bad_constraints_do_not_look_like_nothing_available(
    manager: ResourceManager, constraint: ResourceConstraint, named: str
) -> None:
    before = state(manager)
    with pytest.raises(BadConstraint) as caught:
        give(manager, constraint)
    assert named in str(caught.value)
    assert state(manager) == before


def test_a_constraint_of_no_known_kind_is_a_bad_constraint(manager: ResourceManager) -> None:
    with pytest.raises(BadConstraint, match="no pool has anything for"):
        give(manager, ResourceConstraint())


def test_releasing_a_list_does_not_stop_at_the_first_error(manager: ResourceManager) -> None:
    mine = manager.allocate([PioAddressConstraint(size=8), LegacyIrqConstraint(irq=4)], "a")
    its = manager.allocate([PioAddressConstraint(size=8)], "b")
    bad = [its[0], PioAddressRange(0xF000, 4), KvmMemSlot(7)]
    mixed = [bad[0], mine[0], bad[1], bad[2], mine[1]]
    with pytest.raises(NotAllocated) as caught:
        manager.release([each for each in mixed if isinstance(each, Resource)], "a")
    assert manager.allocations() == [Allocation(PioAddressRange(0x2C, 8), "b")]
    failures = caught.value.metadata["failures"].split("; ")
    assert failures == [
        "pio 0x2c-0x33 belongs to 'b'",
        "pio 0xf000-0xf003 isn't allocated",
        "KVM slot 7 isn't allocated",
    ]
    assert all(failure in str(caught.value) for failure in failures)
    assert (caught.value.metadata["failed"], caught.value.metadata["released"]) == ("3", "2")


def test_what_is_twice_in_a_list_is_released_once(manager: ResourceManager) -> None:
    got = give(manager, PioAddressConstraint(size=8))
    with pytest.raises(NotAllocated, match="1 of 2"):
        manager.release([got, got], "a")
    assert manager.allocations() == []


def test_a_mac_address_in_a_list_is_passed_over(manager: ResourceManager) -> None:
    got = give(manager, PioAddressConstraint(size=8))
    manager.release([MacAddress("52:54:00:12:34:56"), got], "a")
    assert manager.allocations() == []


@pytest.mark.parametrize("resource", [Resource(), MsiIrq(MsiType.PCI_MSI, 24, 0), LegacyIrq(-1)])
def test_what_comes_from_no_pool_is_not_allocated(
    manager: ResourceManager, resource: Resource
) -> None:
    got = give(manager, PciMsiIrqConstraint())
    with pytest.raises(NotAllocated):
        manager.release([resource, got], "a")
    assert manager.allocations() == []
