"""Resources: what a device asks for, and what it gets.

A device states `ResourceConstraint`s. The resource manager turns each into a `Resource`,
in the same order, and the device receives them as its `DeviceResources`.

    >>> wanted = [PioAddressConstraint.exact(0x3F8, 8), LegacyIrqConstraint(irq=4)]
    >>> got = DeviceResources([PioAddressRange(0x3F8, 8), LegacyIrq(4)])
    >>> got.get_legacy_irq()
    4

Invariants:
    A constraint that exists makes sense: nonsense raises `BadConstraint` when it is made.
    A range that exists is not empty and lies within its address space (`BadRange`).
    Sizes and alignments are in bytes; a window is [min, max], both inclusive. A PIO
    range may be the whole 64 KiB space.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self, TypeVar

from devicehost_server.model.errors import BadConstraint, BadRange, hex_address

PIO_SPACE_SIZE = 1 << 16
"""Bytes of the port-I/O space: 16-bit addresses."""

MMIO_SPACE_SIZE = 1 << 64
"""Bytes of the memory space: 64-bit guest-physical addresses."""

PAGE_SIZE = 0x1000
"""The default alignment of MMIO and memory ranges, in bytes."""


class MsiType(enum.Enum):
    """Who the interrupt numbers of an `MsiIrq` are for."""

    PCI_MSI = "pci-msi"
    PCI_MSIX = "pci-msix"
    GENERIC_MSI = "generic-msi"


class Resource:
    """Anything that is handed out to one device: a range of addresses, interrupts, a slot."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class AddressRange(Resource):
    """`size` bytes of an address space, starting at `base`.

    Raises:
        BadRange: the range is empty or runs past the end of its space.
    """

    space_size: ClassVar[int] = MMIO_SPACE_SIZE
    space_name: ClassVar[str] = "memory"

    base: int
    size: int

    def __post_init__(self) -> None:
        facts = {"base": hex_address(self.base), "size": hex_address(self.size)}
        what = f"{self.space_name} range at {self.base:#x} of {self.size:#x} bytes"
        if self.size <= 0:
            raise BadRange(f"{what} is empty: the size must be at least 1", **facts)
        if self.base < 0 or self.base + self.size > self.space_size:
            raise BadRange(f"{what} runs past the last address {self.space_size - 1:#x}", **facts)

    @property
    def last(self) -> int:
        """The address of the last byte."""
        return self.base + self.size - 1

    def __str__(self) -> str:
        return f"{self.space_name} {self.base:#x}-{self.last:#x}"


@dataclass(frozen=True, slots=True)
class PioAddressRange(AddressRange):
    """I/O ports that trap to a device."""

    space_size: ClassVar[int] = PIO_SPACE_SIZE
    space_name: ClassVar[str] = "pio"


@dataclass(frozen=True, slots=True)
class MmioAddressRange(AddressRange):
    """Guest-physical addresses that trap to a device."""

    space_name: ClassVar[str] = "mmio"


@dataclass(frozen=True, slots=True)
class MemAddressRange(AddressRange):
    """Guest-physical addresses backed by memory; they don't trap."""


@dataclass(frozen=True, slots=True)
class LegacyIrq(Resource):
    """A pin of the interrupt controller, by its global system interrupt number."""

    irq: int


@dataclass(frozen=True, slots=True)
class MsiIrq(Resource):
    """`size` consecutive message-signalled interrupts, the first being number `base`."""

    ty: MsiType
    base: int
    size: int


@dataclass(frozen=True, slots=True)
class MacAddress(Resource):
    """A network card's address, as `aa:bb:cc:dd:ee:ff`."""

    address: str


@dataclass(frozen=True, slots=True)
class KvmMemSlot(Resource):
    """A slot of KVM's memory map."""

    slot: int


class ResourceConstraint:
    """What a device needs, before anybody knows which one it will get."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class AddressConstraint(ResourceConstraint):
    """`size` bytes of an address space, aligned to `align`, within [min, max].

    Attributes:
        size: in bytes, at least 1.
        min: the lowest address allowed, inclusive; None for the pool's own.
        max: the highest address allowed, inclusive; None for the pool's own.
        align: a power of two, in bytes.

    Raises:
        BadConstraint: an empty size, an alignment that isn't a power of two, a window
            upside down, outside the space or smaller than `size`, or one in which no
            aligned range fits.
    """

    space_size: ClassVar[int] = MMIO_SPACE_SIZE
    space_name: ClassVar[str] = "memory"

    size: int
    min: int | None = None
    max: int | None = None
    align: int = PAGE_SIZE

    def __post_init__(self) -> None:
        highest = self.space_size - 1
        low = 0 if self.min is None else self.min
        high = highest if self.max is None else self.max
        if self.size <= 0:
            raise self._nonsense("size", self.size, "at least 1")
        if self.align <= 0 or self.align & (self.align - 1):
            raise self._nonsense("align", self.align, "a power of two")
        if not 0 <= low <= highest:
            raise self._nonsense("min", low, f"0 to {highest:#x}")
        if not low <= high <= highest:
            raise self._nonsense("max", high, f"{low:#x} (min) to {highest:#x}")
        if self.size > high - low + 1:
            raise self._nonsense("size", self.size, f"at most the window, {high - low + 1:#x}")
        last_base = high - self.size + 1
        if last_base // self.align * self.align < low:
            bases = f"{low:#x} to {last_base:#x}"
            raise self._nonsense("align", self.align, f"one with a multiple in {bases}")

    def _nonsense(self, field: str, value: int, allowed: str) -> BadConstraint:
        return BadConstraint(
            f"{self.space_name} constraint: {field} is {value:#x}, allowed: {allowed}",
            field=field,
            value=hex_address(value),
        )

    @classmethod
    def exact(cls, base: int, size: int) -> Self:
        """The range of `size` bytes at `base` and no other. Only this gets reserved ports."""
        return cls(size=size, min=base, max=base + size - 1, align=1)

    @property
    def is_exact(self) -> bool:
        """Whether the window leaves no choice."""
        return (
            self.min is not None and self.max is not None and self.max - self.min + 1 == self.size
        )


@dataclass(frozen=True, slots=True)
class PioAddressConstraint(AddressConstraint):
    """I/O ports."""

    space_size: ClassVar[int] = PIO_SPACE_SIZE
    space_name: ClassVar[str] = "pio"

    align: int = 1


@dataclass(frozen=True, slots=True)
class MmioAddressConstraint(AddressConstraint):
    """Guest-physical addresses that trap."""

    space_name: ClassVar[str] = "mmio"


@dataclass(frozen=True, slots=True)
class MemAddressConstraint(AddressConstraint):
    """Guest-physical addresses for memory."""


@dataclass(frozen=True, slots=True)
class LegacyIrqConstraint(ResourceConstraint):
    """One legacy IRQ: this `irq`, or any exclusive one.

    Raises:
        BadConstraint: `irq` is negative.
    """

    irq: int | None = None

    def __post_init__(self) -> None:
        if self.irq is not None and self.irq < 0:
            raise BadConstraint(
                f"legacy IRQ constraint: irq is {self.irq}, allowed: 0 and up",
                field="irq",
                value=self.irq,
            )


@dataclass(frozen=True, slots=True)
class MsiConstraint(ResourceConstraint):
    """`size` consecutive MSI numbers, the first a multiple of `align`; or `base`, if given.

    Raises:
        BadConstraint: `size` is less than 1, `align` isn't a power of two, or `base` is
            negative.
    """

    ty: ClassVar[MsiType]

    size: int = 1
    align: int = 1
    base: int | None = None

    def __post_init__(self) -> None:
        if self.size <= 0:
            raise BadConstraint(
                f"{self.ty.value} constraint: size is {self.size}, allowed: at least 1",
                field="size",
                value=self.size,
            )
        if self.align <= 0 or self.align & (self.align - 1):
            raise BadConstraint(
                f"{self.ty.value} constraint: align is {self.align}, allowed: a power of two",
                field="align",
                value=self.align,
            )
        if self.base is not None and self.base < 0:
            raise BadConstraint(
                f"{self.ty.value} constraint: base is {self.base}, allowed: 0 and up",
                field="base",
                value=self.base,
            )


@dataclass(frozen=True, slots=True)
class PciMsiIrqConstraint(MsiConstraint):
    """PCI MSI: a function with several vectors needs them aligned to their number."""

    ty: ClassVar[MsiType] = MsiType.PCI_MSI


@dataclass(frozen=True, slots=True)
class PciMsixIrqConstraint(MsiConstraint):
    """PCI MSI-X."""

    ty: ClassVar[MsiType] = MsiType.PCI_MSIX


@dataclass(frozen=True, slots=True)
class GenericIrqConstraint(MsiConstraint):
    """Message-signalled interrupts of a device that isn't on PCI."""

    ty: ClassVar[MsiType] = MsiType.GENERIC_MSI


@dataclass(frozen=True, slots=True)
class KvmMemSlotConstraint(ResourceConstraint):
    """`size` KVM memory slots, consecutive; from `slot` on, if it is given.

    Raises:
        BadConstraint: `size` is less than 1, or `slot` is negative.
    """

    slot: int | None = None
    size: int = 1

    def __post_init__(self) -> None:
        if self.size <= 0:
            raise BadConstraint(
                f"KVM slot constraint: size is {self.size}, allowed: at least 1",
                field="size",
                value=self.size,
            )
        if self.slot is not None and self.slot < 0:
            raise BadConstraint(
                f"KVM slot constraint: slot is {self.slot}, allowed: 0 and up",
                field="slot",
                value=self.slot,
            )


_R = TypeVar("_R", bound=Resource)


class DeviceResources(Sequence[Resource]):
    """The resources of one device, in the order in which it asked for them."""

    __slots__ = ("_resources",)

    def __init__(self, resources: Iterable[Resource] = ()) -> None:
        self._resources = list(resources)

    def append(self, resource: Resource) -> None:
        """Add `resource` at the end."""
        self._resources.append(resource)

    def __getitem__(self, index: int | slice) -> Resource | DeviceResources:  # type: ignore[override] # a slice is of the same type
        if isinstance(index, slice):
            return DeviceResources(self._resources[index])
        return self._resources[index]

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._resources)

    def __len__(self) -> int:
        return len(self._resources)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DeviceResources):
            return self._resources == other._resources
        return NotImplemented

    __hash__ = None  # type: ignore[assignment] # it can grow

    def __repr__(self) -> str:
        return f"DeviceResources({self._resources!r})"

    def of_type(self, kind: type[_R]) -> list[_R]:
        """All resources of one kind, in order."""
        return [resource for resource in self._resources if isinstance(resource, kind)]

    def get_pio_address_ranges(self) -> list[PioAddressRange]:
        """All PIO ranges, in order."""
        return self.of_type(PioAddressRange)

    def get_mmio_address_ranges(self) -> list[MmioAddressRange]:
        """All MMIO ranges, in order."""
        return self.of_type(MmioAddressRange)

    def get_mem_address_ranges(self) -> list[MemAddressRange]:
        """All memory ranges, in order."""
        return self.of_type(MemAddressRange)

    def get_kvm_mem_slots(self) -> list[int]:
        """All KVM slot numbers, in order."""
        return [resource.slot for resource in self.of_type(KvmMemSlot)]

    def get_legacy_irq(self) -> int | None:
        """The first legacy IRQ's number, or None."""
        return next((resource.irq for resource in self.of_type(LegacyIrq)), None)

    def get_pci_msi_irqs(self) -> MsiIrq | None:
        """The first block of PCI MSI numbers, or None."""
        return self._first_msi(MsiType.PCI_MSI)

    def get_pci_msix_irqs(self) -> MsiIrq | None:
        """The first block of PCI MSI-X numbers, or None."""
        return self._first_msi(MsiType.PCI_MSIX)

    def get_generic_msi_irqs(self) -> MsiIrq | None:
        """The first block of generic MSI numbers, or None."""
        return self._first_msi(MsiType.GENERIC_MSI)

    def get_mac_address(self) -> str | None:
        """The first MAC address, or None."""
        return next((resource.address for resource in self.of_type(MacAddress)), None)

    def trapped(self) -> list[PioAddressRange | MmioAddressRange]:
        """The ranges that trap to the device, PIO and MMIO, in order."""
        return [r for r in self._resources if isinstance(r, PioAddressRange | MmioAddressRange)]

    def _first_msi(self, ty: MsiType) -> MsiIrq | None:
        return next((irq for irq in self.of_type(MsiIrq) if irq.ty is ty), None)
