"""Ranges and constraints that can't be nonsense, and the getters of DeviceResources."""

from __future__ import annotations

import dataclasses

import pytest

from devicehost_server.model.errors import BadConstraint, BadRange
from devicehost_server.model.resources import (
    AddressConstraint,
    AddressRange,
    DeviceResources,
    GenericIrqConstraint,
    KvmMemSlot,
    KvmMemSlotConstraint,
    LegacyIrq,
    LegacyIrqConstraint,
    MacAddress,
    MemAddressConstraint,
    MemAddressRange,
    MmioAddressConstraint,
    MmioAddressRange,
    MsiConstraint,
    MsiIrq,
    MsiType,
    PciMsiIrqConstraint,
    PciMsixIrqConstraint,
    PioAddressConstraint,
    PioAddressRange,
    Resource,
)

TOP = 1 << 64
RANGES = [
    (PioAddressRange, 1 << 16),
    (MmioAddressRange, TOP),
    (MemAddressRange, TOP),
]
ADDRESSES = [PioAddressConstraint, MmioAddressConstraint, MemAddressConstraint]
MSIS = [PciMsiIrqConstraint, PciMsixIrqConstraint, GenericIrqConstraint]


# Ranges.


@pytest.mark.parametrize(("kind", "space_size"), RANGES)
def test_a_range_may_be_the_whole_space(kind: type[AddressRange], space_size: int) -> None:
    assert kind(0, space_size).last == space_size - 1


@pytest.mark.parametrize(("kind", "space_size"), RANGES)
def test_a_range_may_be_the_last_byte_of_the_space(
    kind: type[AddressRange], space_size: int
) -> None:
    assert kind(space_size - 1, 1).last == space_size - 1


@pytest.mark.parametrize(("kind", "space_size"), RANGES)
def test_a_range_one_byte_past_the_space_is_refused_with_the_last_address(
    kind: type[AddressRange], space_size: int
) -> None:
    with pytest.raises(BadRange, match=f"runs past the last address {space_size - 1:#x}"):
        kind(space_size - 1, 2)
    with pytest.raises(BadRange, match="runs past"):
        kind(space_size, 1)


@pytest.mark.parametrize(("kind", "_space_size"), RANGES)
@pytest.mark.parametrize("size", [0, -1])
def test_an_empty_range_is_refused(kind: type[AddressRange], _space_size: int, size: int) -> None:
    with pytest.raises(BadRange, match="is empty: the size must be at least 1"):
        kind(0x10, size)


@pytest.mark.parametrize(("kind", "_space_size"), RANGES)
def test_a_negative_base_is_refused(kind: type[AddressRange], _space_size: int) -> None:
    with pytest.raises(BadRange, match=r"-0x1"):
        kind(-1, 2)


def test_a_bad_range_tells_programs_its_base_and_size() -> None:
    with pytest.raises(BadRange) as caught:
        PioAddressRange(0xFFFF, 2)
    assert caught.value.metadata == {"base": "0xffff", "size": "0x2"}


def test_ranges_are_equal_by_kind_base_and_size() -> None:
    same, shorter, higher = (MmioAddressRange(*at) for at in ((0, 8), (0, 4), (8, 8)))
    of_another_kind: Resource = MemAddressRange(0, 8)
    assert MmioAddressRange(0, 8) == same
    assert MmioAddressRange(0, 8) not in (shorter, higher, of_another_kind)
    assert len({PioAddressRange(0, 1), PioAddressRange(0, 1), MmioAddressRange(0, 1)}) == 2


def test_a_range_prints_its_space_and_both_ends() -> None:
    assert str(PioAddressRange(0x3F8, 8)) == "pio 0x3f8-0x3ff"
    assert str(MmioAddressRange(0xFEE0_0000, 0x1000)) == "mmio 0xfee00000-0xfee00fff"
    assert str(MemAddressRange(0, 1)) == "memory 0x0-0x0"


def test_a_resource_is_frozen() -> None:
    held = PioAddressRange(0x3F8, 8)
    with pytest.raises(dataclasses.FrozenInstanceError):
        held.base = 0  # type: ignore[misc] # that is the test


# Constraints.


def test_default_alignment_is_a_port_for_pio_and_a_page_for_the_rest() -> None:
    assert PioAddressConstraint(8).align == 1
    assert MmioAddressConstraint(8).align == 0x1000
    assert MemAddressConstraint(8).align == 0x1000


@pytest.mark.parametrize("kind", ADDRESSES)
@pytest.mark.parametrize("size", [0, -8])
def test_a_constraint_of_no_size_is_nonsense(kind: type[AddressConstraint], size: int) -> None:
    with pytest.raises(BadConstraint, match=r"size is .*, allowed: at least 1"):
        kind(size)


@pytest.mark.parametrize("kind", ADDRESSES)
@pytest.mark.parametrize("align", [0, -1, 3, 0x1800])
def test_an_alignment_is_a_power_of_two(kind: type[AddressConstraint], align: int) -> None:
    with pytest.raises(BadConstraint, match=r"align is .*, allowed: a power of two"):
        kind(8, align=align)


@pytest.mark.parametrize("kind", ADDRESSES)
def test_a_window_upside_down_is_nonsense(kind: type[AddressConstraint]) -> None:
    with pytest.raises(BadConstraint, match=r"max is 0x1fff, allowed: 0x2000 \(min\)"):
        kind(8, min=0x2000, max=0x1FFF)


@pytest.mark.parametrize("kind", ADDRESSES)
def test_a_window_outside_of_the_space_is_nonsense(kind: type[AddressConstraint]) -> None:
    with pytest.raises(BadConstraint, match="max is "):
        kind(8, max=kind.space_size)
    with pytest.raises(BadConstraint, match="min is "):
        kind(8, min=kind.space_size)
    with pytest.raises(BadConstraint, match="min is -0x1"):
        kind(8, min=-1)


@pytest.mark.parametrize("kind", ADDRESSES)
def test_a_window_smaller_than_the_size_is_nonsense(kind: type[AddressConstraint]) -> None:
    with pytest.raises(BadConstraint, match="size is 0x11, allowed: at most the window, 0x10"):
        kind(0x11, min=0x1000, max=0x100F, align=1)
    with pytest.raises(BadConstraint, match="at most the window"):
        kind(kind.space_size + 1)


@pytest.mark.parametrize("kind", ADDRESSES)
def test_a_window_without_an_aligned_place_for_the_size_is_nonsense(
    kind: type[AddressConstraint],
) -> None:
    with pytest.raises(BadConstraint, match=r"align is 0x100, allowed: .* in 0x101 to 0x1f8"):
        kind(8, min=0x101, max=0x1FF, align=0x100)
    with pytest.raises(BadConstraint, match=r"align is 0x10, allowed: .* in 0x1001 to 0x1001"):
        kind(8, min=0x1001, max=0x1008, align=0x10)


@pytest.mark.parametrize("kind", ADDRESSES)
def test_a_window_with_one_aligned_place_is_fine(kind: type[AddressConstraint]) -> None:
    assert kind(8, min=0x101, max=0x207, align=0x100).align == 0x100
    assert kind(0x1000, min=0x1000, max=0x1FFF, align=0x1000).is_exact


def test_a_bad_constraint_tells_programs_the_field_and_its_value() -> None:
    with pytest.raises(BadConstraint) as caught:
        PioAddressConstraint(8, align=3)
    assert caught.value.metadata == {"field": "align", "value": "0x3"}


@pytest.mark.parametrize("kind", ADDRESSES)
def test_an_exact_constraint_leaves_no_choice_at_any_alignment(
    kind: type[AddressConstraint],
) -> None:
    exact = kind.exact(0x3F9, 7)
    assert exact.is_exact
    assert (exact.min, exact.max, exact.size) == (0x3F9, 0x3FF, 7)


@pytest.mark.parametrize("kind", ADDRESSES)
def test_an_exact_constraint_reaches_the_end_of_its_space_and_no_further(
    kind: type[AddressConstraint],
) -> None:
    assert kind.exact(kind.space_size - 2, 2).is_exact
    assert kind.exact(0, kind.space_size).is_exact
    with pytest.raises(BadConstraint):
        kind.exact(kind.space_size - 1, 2)
    with pytest.raises(BadConstraint):
        kind.exact(0x10, 0)


def test_a_window_or_half_of_one_is_not_exact() -> None:
    assert not PioAddressConstraint(8).is_exact
    assert not PioAddressConstraint(8, min=0x10, max=0x18).is_exact
    assert not PioAddressConstraint(8, max=7).is_exact
    assert not PioAddressConstraint(8, min=0xFFF8).is_exact


def test_a_legacy_irq_is_any_or_one_that_is_not_negative() -> None:
    assert LegacyIrqConstraint().irq is None
    assert LegacyIrqConstraint(0).irq == 0
    with pytest.raises(BadConstraint, match="irq is -1, allowed: 0 and up"):
        LegacyIrqConstraint(-1)


@pytest.mark.parametrize("kind", MSIS)
def test_msi_constraints_need_a_size_and_a_power_of_two(kind: type[MsiConstraint]) -> None:
    assert kind(32, 32).align == 32
    with pytest.raises(BadConstraint, match="size is 0, allowed: at least 1"):
        kind(0)
    with pytest.raises(BadConstraint, match="align is 6, allowed: a power of two"):
        kind(1, 6)
    with pytest.raises(BadConstraint, match="align is 0, allowed: a power of two"):
        kind(1, 0)


def test_each_msi_constraint_says_whom_its_numbers_are_for() -> None:
    assert [kind.ty for kind in MSIS] == [MsiType.PCI_MSI, MsiType.PCI_MSIX, MsiType.GENERIC_MSI]


def test_kvm_slots_need_a_size_and_no_negative_number() -> None:
    assert KvmMemSlotConstraint().slot is None
    assert KvmMemSlotConstraint(slot=0, size=2).size == 2
    with pytest.raises(BadConstraint, match="size is 0, allowed: at least 1"):
        KvmMemSlotConstraint(size=0)
    with pytest.raises(BadConstraint, match="slot is -1, allowed: 0 and up"):
        KvmMemSlotConstraint(slot=-1)


# DeviceResources.

PORTS = [PioAddressRange(0x3F8, 8), PioAddressRange(0x60, 1)]
REGISTERS = [MmioAddressRange(0xD000_0000, 0x1000), MmioAddressRange(0xC000_0000, 0x1000)]
MEMORY = [MemAddressRange(0x1_0000_0000, 0x1000), MemAddressRange(0, 0x1000)]
MSI, OTHER_MSI = MsiIrq(MsiType.PCI_MSI, 24, 4), MsiIrq(MsiType.PCI_MSI, 28, 4)
MSIX, OTHER_MSIX = MsiIrq(MsiType.PCI_MSIX, 32, 2), MsiIrq(MsiType.PCI_MSIX, 34, 2)
GENERIC, OTHER_GENERIC = MsiIrq(MsiType.GENERIC_MSI, 40, 1), MsiIrq(MsiType.GENERIC_MSI, 41, 1)


@pytest.fixture
def full() -> DeviceResources:
    """Two of each kind, and the kinds mixed."""
    first: list[Resource] = [
        *(PORTS[0], REGISTERS[0], MEMORY[0], KvmMemSlot(7), LegacyIrq(9)),
        *(GENERIC, MSIX, MSI, MacAddress("52:54:00:12:34:56")),
    ]
    second: list[Resource] = [
        *(MacAddress("52:54:00:00:00:01"), OTHER_MSI, OTHER_MSIX, OTHER_GENERIC),
        *(LegacyIrq(4), KvmMemSlot(3), MEMORY[1], REGISTERS[1], PORTS[1]),
    ]
    return DeviceResources(first + second)


def test_the_getters_of_ranges_and_slots_return_all_in_order(full: DeviceResources) -> None:
    assert full.get_pio_address_ranges() == PORTS
    assert full.get_mmio_address_ranges() == REGISTERS
    assert full.get_mem_address_ranges() == MEMORY
    assert full.get_kvm_mem_slots() == [7, 3]


def test_the_getters_of_interrupts_and_mac_return_the_first(full: DeviceResources) -> None:
    assert full.get_legacy_irq() == 9
    assert full.get_pci_msi_irqs() == MSI
    assert full.get_pci_msix_irqs() == MSIX
    assert full.get_generic_msi_irqs() == GENERIC
    assert full.get_mac_address() == "52:54:00:12:34:56"


def test_the_getters_of_an_empty_list_return_nothing() -> None:
    empty = DeviceResources()
    assert empty.get_pio_address_ranges() == []
    assert empty.get_mmio_address_ranges() == []
    assert empty.get_mem_address_ranges() == []
    assert empty.get_kvm_mem_slots() == []
    assert empty.get_legacy_irq() is None
    assert empty.get_pci_msi_irqs() is None
    assert empty.get_pci_msix_irqs() is None
    assert empty.get_generic_msi_irqs() is None
    assert empty.get_mac_address() is None


def test_interrupt_zero_and_slot_zero_are_not_mistaken_for_none() -> None:
    resources = DeviceResources([LegacyIrq(0), KvmMemSlot(0)])
    assert resources.get_legacy_irq() == 0
    assert resources.get_kvm_mem_slots() == [0]


def test_the_trapped_are_the_pio_and_mmio_ranges_in_their_common_order(
    full: DeviceResources,
) -> None:
    assert full.trapped() == [PORTS[0], REGISTERS[0], REGISTERS[1], PORTS[1]]


def test_append_adds_at_the_end() -> None:
    resources = DeviceResources([LegacyIrq(4)])
    resources.append(LegacyIrq(5))
    assert list(resources) == [LegacyIrq(4), LegacyIrq(5)]


def test_device_resources_are_a_sequence_of_their_own(full: DeviceResources) -> None:
    assert len(full) == 18
    assert full[-1] == PORTS[1]
    assert full[:2] == DeviceResources([PORTS[0], REGISTERS[0]])
    assert MSIX in full
    assert full != list(full)


def test_device_resources_do_not_share_the_list_they_were_made_from() -> None:
    made_from: list[Resource] = [LegacyIrq(4)]
    resources = DeviceResources(made_from)
    made_from.append(LegacyIrq(5))
    assert len(resources) == 1
