"""The pools of a VM: what is given, in which order, what is refused and why."""

from __future__ import annotations

import pytest

from devicehost_server.allocation import Allocation, PoolConfig, Reserved, ResourceManager
from devicehost_server.model.errors import (
    AllocationError,
    BadConstraint,
    NoIrq,
    NoMsi,
    NoSlot,
    NoSpace,
    NotAllocated,
    RangeTaken,
)
from devicehost_server.model.resources import (
    GenericIrqConstraint,
    KvmMemSlot,
    KvmMemSlotConstraint,
    LegacyIrq,
    LegacyIrqConstraint,
    MemAddressConstraint,
    MemAddressRange,
    MmioAddressConstraint,
    MmioAddressRange,
    MsiIrq,
    MsiType,
    PciMsiIrqConstraint,
    PciMsixIrqConstraint,
    PioAddressConstraint,
    PioAddressRange,
    Resource,
    ResourceConstraint,
)

MIB = 1 << 20
GIB = 1 << 30
LAST_39 = (1 << 39) - 1

EXCLUSIVE_IRQS = [6, 7, 9, 10, 11, 13, 14, 15]


def give(manager: ResourceManager, *constraints: ResourceConstraint, to: str = "a") -> Resource:
    """Allocate for `to` and return the first resource."""
    first = manager.allocate(constraints, to)[0]
    assert isinstance(first, Resource)
    return first


def state(manager: ResourceManager) -> object:
    return manager.capacity(), manager.allocations()


# What is given.


def test_resources_come_in_the_order_of_the_constraints(manager: ResourceManager) -> None:
    got = manager.allocate(
        [
            KvmMemSlotConstraint(),
            MmioAddressConstraint(size=0x1000),
            LegacyIrqConstraint(irq=4),
            PciMsixIrqConstraint(size=3),
            PioAddressConstraint.exact(0x3F8, 8),
            MemAddressConstraint(size=0x2000),
            MmioAddressConstraint(size=0x1000),
        ],
        "a",
    )
    assert list(got) == [
        KvmMemSlot(0),
        MmioAddressRange(0xC000_0000, 0x1000),
        LegacyIrq(4),
        MsiIrq(MsiType.PCI_MSIX, 24, 3),
        PioAddressRange(0x3F8, 8),
        MemAddressRange(0, 0x2000),
        MmioAddressRange(0xC000_1000, 0x1000),
    ]


def test_no_constraints_give_no_resources(manager: ResourceManager) -> None:
    assert list(manager.allocate([], "a")) == []


def test_the_lowest_address_that_fits_is_given(manager: ResourceManager) -> None:
    for base in (0xC000_0000, 0xC000_4000):
        give(manager, MmioAddressConstraint.exact(base, 0x1000))
    assert give(manager, MmioAddressConstraint(size=0x4000)) == MmioAddressRange(
        0xC000_5000, 0x4000
    )
    assert give(manager, MmioAddressConstraint(size=0x3000)) == MmioAddressRange(
        0xC000_1000, 0x3000
    )


def test_a_released_range_is_given_again(manager: ResourceManager) -> None:
    got = give(manager, MmioAddressConstraint(size=0x1000))
    give(manager, MmioAddressConstraint(size=0x1000))
    manager.release([got], "a")
    assert give(manager, MmioAddressConstraint(size=0x1000)) == got


def test_mmio_is_given_below_4_gib_first_and_then_above(manager: ResourceManager) -> None:
    bases = []
    for _ in range(4):
        got = give(manager, MmioAddressConstraint(size=256 * MIB, align=256 * MIB))
        assert isinstance(got, MmioAddressRange)
        bases.append(got.base)
    assert bases == [0xC000_0000, 0xD000_0000, 0xE000_0000, 0x40_0000_0000]


def test_a_window_chooses_mmio_above_4_gib(manager: ResourceManager) -> None:
    got = give(manager, MmioAddressConstraint(size=0x1000, min=4 * GIB))
    assert got == MmioAddressRange(0x40_0000_0000, 0x1000)


def test_guest_memory_is_given_below_3_gib_and_from_4_gib(manager: ResourceManager) -> None:
    assert give(manager, MemAddressConstraint(size=3 * GIB)) == MemAddressRange(0, 3 * GIB)
    assert give(manager, MemAddressConstraint(size=GIB)) == MemAddressRange(4 * GIB, GIB)


def test_the_top_64_mib_below_4_gib_are_given_to_exact_requests_only(
    manager: ResourceManager,
) -> None:
    low = MmioAddressConstraint(size=64 * MIB, min=0xF800_0000, max=0xFFFF_FFFF, align=64 * MIB)
    assert give(manager, low) == MmioAddressRange(0xF800_0000, 64 * MIB)
    with pytest.raises(NoSpace, match="exact request gets what is reserved: IOAPIC"):
        give(manager, low)
    hpet = MmioAddressConstraint.exact(0xFED0_0000, 0x400)
    assert give(manager, hpet) == MmioAddressRange(0xFED0_0000, 0x400)


def test_msi_numbers_are_consecutive_and_aligned_when_asked(manager: ResourceManager) -> None:
    assert give(manager, PciMsixIrqConstraint(size=3)) == MsiIrq(MsiType.PCI_MSIX, 24, 3)
    assert give(manager, PciMsiIrqConstraint(size=8, align=8)) == MsiIrq(MsiType.PCI_MSI, 32, 8)
    assert give(manager, GenericIrqConstraint(size=5)) == MsiIrq(MsiType.GENERIC_MSI, 27, 5)
    assert give(manager, GenericIrqConstraint(size=2)) == MsiIrq(MsiType.GENERIC_MSI, 40, 2)


def test_msi_numbers_are_24_to_1023(manager: ResourceManager) -> None:
    assert give(manager, GenericIrqConstraint(size=1000)) == MsiIrq(MsiType.GENERIC_MSI, 24, 1000)
    with pytest.raises(NoMsi):
        give(manager, GenericIrqConstraint())


# 39-bit hosts, and other sizes.


def test_on_a_39_bit_host_the_last_address_is_given_and_none_beyond() -> None:
    manager = ResourceManager(PoolConfig(physical_address_bits=39))
    last = MmioAddressConstraint.exact(LAST_39 - 0xFFF, 0x1000)
    assert give(manager, last) == MmioAddressRange(LAST_39 - 0xFFF, 0x1000)
    with pytest.raises(BadConstraint):
        give(manager, MmioAddressConstraint.exact(LAST_39 + 1, 0x1000))
    with pytest.raises(BadConstraint):
        give(manager, MmioAddressConstraint(size=0x1000, min=LAST_39 + 1))


def test_on_a_39_bit_host_any_mmio_is_within_39_bits() -> None:
    manager = ResourceManager(PoolConfig(physical_address_bits=39))
    given = [give(manager, MmioAddressConstraint(size=64 * GIB)) for _ in range(4)]
    assert given[-1] == MmioAddressRange(LAST_39 + 1 - 64 * GIB, 64 * GIB)
    with pytest.raises(NoSpace):
        give(manager, MmioAddressConstraint(size=64 * GIB))


def test_a_host_without_addresses_above_4_gib_has_pools_below_only() -> None:
    manager = ResourceManager(PoolConfig(physical_address_bits=32))
    names = [pool.name for pool in manager.capacity()]
    assert "mmio-below-4g" in names
    assert "memory-below-4g" in names
    assert "mmio-above-4g" not in names
    assert "memory-above-4g" not in names


def test_mmio_begins_where_the_configured_memory_ends() -> None:
    manager = ResourceManager(PoolConfig(memory_last=6 * GIB - 1))
    above = MmioAddressConstraint(size=0x1000, min=4 * GIB)
    assert give(manager, above) == MmioAddressRange(6 * GIB, 0x1000)
    with pytest.raises(BadConstraint):
        give(manager, MemAddressConstraint.exact(6 * GIB, 0x1000))
    memory = MemAddressConstraint.exact(6 * GIB - 0x1000, 0x1000)
    assert give(manager, memory) == MemAddressRange(6 * GIB - 0x1000, 0x1000)


# Legacy IRQs.


def test_an_irq_without_a_number_is_an_exclusive_one(manager: ResourceManager) -> None:
    given = [give(manager, LegacyIrqConstraint()) for _ in EXCLUSIVE_IRQS]
    assert given == [LegacyIrq(irq) for irq in EXCLUSIVE_IRQS]
    with pytest.raises(NoIrq) as caught:
        give(manager, LegacyIrqConstraint())
    assert caught.value.metadata["largest_free"] == "0"


@pytest.mark.parametrize("irq", [0, 1, 2, 3, 4, 8, 12])
def test_a_reserved_irq_is_given_to_an_exact_request_once(
    manager: ResourceManager, irq: int
) -> None:
    assert give(manager, LegacyIrqConstraint(irq=irq), to="a") == LegacyIrq(irq)
    with pytest.raises(RangeTaken) as caught:
        give(manager, LegacyIrqConstraint(irq=irq), to="b")
    assert caught.value.metadata["holder"] == "a"


def test_a_shared_irq_is_given_to_all_who_name_it_and_released_by_each(
    manager: ResourceManager,
) -> None:
    for owner in ("a", "b", "b"):
        assert give(manager, LegacyIrqConstraint(irq=5), to=owner) == LegacyIrq(5)
    uses = [Allocation(LegacyIrq(5), owner) for owner in ("a", "b", "b")]
    assert manager.allocations() == uses
    manager.release([LegacyIrq(5), LegacyIrq(5)], "b")
    assert manager.allocations() == uses[:1]
    for owner in ("b", "c"):
        with pytest.raises(NotAllocated, match="legacy IRQ 5 is shared"):
            manager.release([LegacyIrq(5)], owner)
    assert manager.allocations() == uses[:1]
    manager.release([LegacyIrq(5)], "a")
    assert not manager._sharers[5]  # nobody who had it is remembered


def test_an_irq_beyond_the_last_is_a_bad_constraint(manager: ResourceManager) -> None:
    with pytest.raises(BadConstraint, match="legacy IRQ constraint: 16: no pool has") as caught:
        give(manager, LegacyIrqConstraint(irq=16))
    assert caught.value.metadata == {
        "field": "irq",
        "value": "16",
        "size": "1",
        "allowed": "0-15",
    }


# All or nothing, and the errors.


def test_a_list_that_can_not_be_met_as_a_whole_gives_nothing(manager: ResourceManager) -> None:
    give(manager, LegacyIrqConstraint(irq=4), to="other")
    before = state(manager)
    with pytest.raises(RangeTaken):
        manager.allocate(
            [
                PioAddressConstraint.exact(0x3F8, 8),
                MmioAddressConstraint(size=0x1000),
                KvmMemSlotConstraint(size=5),
                LegacyIrqConstraint(irq=5),
                PciMsiIrqConstraint(size=4),
                LegacyIrqConstraint(irq=4),
            ],
            "a",
        )
    assert state(manager) == before


def test_a_taken_range_is_told_with_the_first_holder(manager: ResourceManager) -> None:
    give(manager, PioAddressConstraint.exact(0x1010, 8), to="first")
    give(manager, PioAddressConstraint.exact(0x1020, 8), to="second")
    with pytest.raises(RangeTaken) as caught:
        give(manager, PioAddressConstraint.exact(0x1000, 0x40))
    assert str(caught.value) == ("pio 0x1000-0x103f is taken: 'first' has pio 0x1010-0x1017")
    assert caught.value.metadata == {
        "pool": "pio",
        "range": "0x1000-0x103f",
        "holder": "first",
        "held": "0x1010-0x1017",
    }


@pytest.mark.parametrize(
    ("constraint", "error", "requested", "largest_free"),
    [
        (MmioAddressConstraint(size=1 << 40), NoSpace, "0x10000000000", "0x4000000000"),
        (MemAddressConstraint(size=1 << 40), NoSpace, "0x10000000000", "0x3f00000000"),
        (PioAddressConstraint(size=0xFFFF), NoSpace, "0xffff", "0xf300"),
        (PioAddressConstraint(size=9, min=0x3F0, max=0x3FF), NoSpace, "0x9", "0xf300"),
        (GenericIrqConstraint(size=1001), NoMsi, "1001", "1000"),
        (PciMsiIrqConstraint(size=512, align=1024), NoMsi, "512", "1000"),
        (KvmMemSlotConstraint(size=510), NoSlot, "510", "509"),
    ],
)
def test_what_is_too_large_is_told_with_the_largest_free_piece(
    manager: ResourceManager,
    constraint: ResourceConstraint,
    error: type[AllocationError],
    requested: str,
    largest_free: str,
) -> None:
    before = state(manager)
    with pytest.raises(error) as caught:
        give(manager, constraint)
    assert caught.value.metadata["requested"] == requested
    assert caught.value.metadata["largest_free"] == largest_free
    assert caught.value.metadata["pool"] in str(caught.value)
    assert state(manager) == before


# What there is.


def test_the_capacity_of_the_default_pools(manager: ResourceManager) -> None:
    assert {pool.name: (pool.total, pool.free) for pool in manager.capacity()} == {
        "pio": (0x1_0000, 0x1_0000),
        "mmio-below-4g": (GIB, GIB),
        "mmio-above-4g": (256 * GIB, 256 * GIB),
        "memory-below-4g": (3 * GIB, 3 * GIB),
        "memory-above-4g": (252 * GIB, 252 * GIB),
        "legacy-irq": (16, 16),
        "msi": (1000, 1000),
        "kvm-slot": (509, 509),
    }
    reserved = {pool.name: pool.reserved for pool in manager.capacity() if pool.reserved}
    assert reserved == {
        "pio": sum(piece.size for piece in PoolConfig().reserved_ports),
        "mmio-below-4g": 64 * MIB,
        "legacy-irq": 8,
    }


def test_the_capacity_falls_with_what_is_given(manager: ResourceManager) -> None:
    give(manager, MmioAddressConstraint.exact(0xD000_0000, 0x1000))
    pool = next(pool for pool in manager.capacity() if pool.name == "mmio-below-4g")
    assert (pool.free, pool.largest_free) == (GIB - 0x1000, GIB - 64 * MIB - 256 * MIB - 0x1000)


def test_allocations_are_listed_by_kind_and_number(manager: ResourceManager) -> None:
    manager.allocate([KvmMemSlotConstraint(), LegacyIrqConstraint(irq=9)], "b")
    manager.allocate([LegacyIrqConstraint(irq=5), MmioAddressConstraint(size=1)], "c")
    manager.allocate([LegacyIrqConstraint(irq=4), PioAddressConstraint.exact(0x3F8, 8)], "a")
    manager.allocate([PioAddressConstraint.exact(0x2F8, 8), MemAddressConstraint(size=1)], "d")
    assert manager.allocations() == [
        Allocation(PioAddressRange(0x2F8, 8), "d"),
        Allocation(PioAddressRange(0x3F8, 8), "a"),
        Allocation(MmioAddressRange(0xC000_0000, 1), "c"),
        Allocation(MemAddressRange(0, 1), "d"),
        Allocation(LegacyIrq(4), "a"),
        Allocation(LegacyIrq(5), "c"),
        Allocation(LegacyIrq(9), "b"),
        Allocation(KvmMemSlot(0), "b"),
    ]


def test_another_machine_has_other_reserved_numbers() -> None:
    config = PoolConfig(
        mmio_base=0x0800_0000,
        reserved_ports=(),
        reserved_irqs=(Reserved("timer", 0, 1),),
        reserved_mmio=(Reserved("GIC", 0x0800_0000, 0x2_0000),),
        shared_irqs=(),
    )
    manager = ResourceManager(config)
    assert give(manager, PioAddressConstraint(size=8)) == PioAddressRange(0, 8)
    assert give(manager, LegacyIrqConstraint()) == LegacyIrq(1)
    assert give(manager, LegacyIrqConstraint(irq=5)) == LegacyIrq(5)
    with pytest.raises(RangeTaken):
        give(manager, LegacyIrqConstraint(irq=5))
    uart = MmioAddressConstraint.exact(0x0900_0000, 0x1000)
    assert give(manager, uart) == MmioAddressRange(0x0900_0000, 0x1000)
    assert give(manager, MmioAddressConstraint(size=0x1000)) == MmioAddressRange(
        0x0802_0000, 0x1000
    )
