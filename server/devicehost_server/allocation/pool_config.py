"""How large the pools of a VM are, and what in them is kept for whoever asks exactly.

    >>> PoolConfig(physical_address_bits=46, memory_last=(8 << 30) - 1).mmio_above_4g_base
    8589934592

The defaults are an x86 PC's, as Dragonball lays it out:

    legacy IRQ      0 to 15: 5 is shared, 6 to 15 exclusive, below 5 reserved
    MSI             24 to 1023, behind the 24 pins of an IOAPIC
    PIO             0 to 0xFFFF
    MMIO            3 GiB to 4 GiB, the top 64 MiB reserved; and all above guest memory
    guest memory    below 3 GiB, and from 4 GiB up to `memory_last`
    KVM slots       0 to 508: the 509 that a kernel has at least (KVM_USER_MEM_SLOTS)

Guest-physical addresses have 39 bits unless the configuration says more. That is what
client processors have, and a guest can't reach an address beyond what its CPUID promises.
Only the VMM knows that number.

Reserved numbers are the ones that software expects standard hardware at. They are free,
but only an exact request gets them: the UART that asks for 0x3F8 and IRQ 4 does, the
device that takes any port or any IRQ never lands there. Two of the exclusive IRQs are
among them, for the same reason: 8 is the clock's, and 12 the mouse's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from devicehost_server.allocation.range_pool import Reserved
from devicehost_server.model.errors import BadConfig, hex_address
from devicehost_server.model.resources import PIO_SPACE_SIZE

FOUR_GIB = 1 << 32

PHYSICAL_ADDRESS_BITS_MIN = 32
PHYSICAL_ADDRESS_BITS_MAX = 52  # Intel SDM volume 3A, 4.1.4: MAXPHYADDR is at most 52

# The ports of a PC/AT and its successors, and what QEMU's machines add to them: the VBE
# registers, both debug consoles and fw_cfg (with its DMA register).
RESERVED_PORTS = (
    Reserved("DMA controller 1", 0x000, 0x20),
    Reserved("PIC 1", 0x020, 2),
    Reserved("IMCR", 0x022, 2),
    Reserved("PIT", 0x040, 4),
    Reserved("i8042 data", 0x060, 1),
    Reserved("system control B", 0x061, 1),
    Reserved("embedded controller data", 0x062, 1),
    Reserved("i8042 command", 0x064, 1),
    Reserved("embedded controller command", 0x066, 1),
    Reserved("CMOS", 0x070, 2),
    Reserved("CMOS, extended", 0x072, 2),
    Reserved("POST", 0x080, 1),
    Reserved("DMA pages", 0x081, 0x0F),
    Reserved("system control A", 0x092, 1),
    Reserved("PIC 2", 0x0A0, 2),
    Reserved("power management", 0x0B2, 2),
    Reserved("DMA controller 2", 0x0C0, 0x20),
    Reserved("debug console", 0x0E9, 1),
    Reserved("FPU", 0x0F0, 2),
    Reserved("IDE 2", 0x170, 8),
    Reserved("VBE", 0x1CE, 2),
    Reserved("IDE 1", 0x1F0, 8),
    Reserved("LPT2", 0x278, 8),
    Reserved("COM4", 0x2E8, 8),
    Reserved("COM2", 0x2F8, 8),
    Reserved("IDE 2 control", 0x376, 1),
    Reserved("LPT1", 0x378, 8),
    Reserved("VGA", 0x3B0, 0x30),
    Reserved("COM3", 0x3E8, 8),
    Reserved("floppy", 0x3F0, 6),
    Reserved("IDE 1 control", 0x3F6, 1),
    Reserved("floppy, input", 0x3F7, 1),
    Reserved("COM1", 0x3F8, 8),
    Reserved("firmware debug console", 0x402, 1),
    Reserved("ELCR", 0x4D0, 2),
    Reserved("fw_cfg", 0x510, 0x0C),
    Reserved("PCI configuration", 0xCF8, 8),
)

RESERVED_IRQS = (
    Reserved("PIT", 0, 1),
    Reserved("keyboard", 1, 1),
    Reserved("cascade", 2, 1),
    Reserved("COM2", 3, 1),
    Reserved("COM1", 4, 1),
    Reserved("RTC", 8, 1),
    Reserved("mouse", 12, 1),
)

RESERVED_MMIO = (Reserved("IOAPIC, LAPIC and firmware", FOUR_GIB - (64 << 20), 64 << 20),)


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """The pools of one VM.

    Attributes:
        physical_address_bits: how wide a guest-physical address is, 32 to 52.
        memory_last: the last address that guest memory may have; MMIO above 4 GiB begins
            behind it. None for half of the address space. With less than 4 GiB of
            address left, there is no MMIO above 4 GiB.
        mmio_base: where memory below 4 GiB ends and MMIO begins.
        irq_count: legacy IRQs are the numbers from 0 to one less than this.
        shared_irqs: legacy IRQs that any number of devices get, by number.
        msi_base: the first MSI number.
        msi_last: the last MSI number.
        kvm_slot_count: KVM slots are the numbers from 0 to one less than this.
        reserved_ports: ports that only an exact request gets.
        reserved_irqs: legacy IRQs that only an exact request gets.
        reserved_mmio: addresses from `mmio_base` to 4 GiB that only an exact request gets.

    Raises:
        BadConfig: a number that makes no sense, alone or with the others.
    """

    physical_address_bits: int = 39
    memory_last: int | None = None
    mmio_base: int = 0xC000_0000
    irq_count: int = 16
    shared_irqs: tuple[int, ...] = (5,)
    msi_base: int = 24
    msi_last: int = 1023
    kvm_slot_count: int = 509
    reserved_ports: tuple[Reserved, ...] = RESERVED_PORTS
    reserved_irqs: tuple[Reserved, ...] = RESERVED_IRQS
    reserved_mmio: tuple[Reserved, ...] = RESERVED_MMIO

    def __post_init__(self) -> None:
        bits = self.physical_address_bits
        _check("physical_address_bits", bits, PHYSICAL_ADDRESS_BITS_MIN, PHYSICAL_ADDRESS_BITS_MAX)
        _check("mmio_base", self.mmio_base, 1, FOUR_GIB - 1)
        _check("irq_count", self.irq_count, 1, self.msi_base)
        _check("msi_last", self.msi_last, self.msi_base, None)
        _check("kvm_slot_count", self.kvm_slot_count, 1, None)
        for irq in self.shared_irqs:
            _check("shared_irqs", irq, 0, self.irq_count - 1)
        if self.memory_last is not None:
            _check("memory_last", self.memory_last, 0, self.last_address)
            if self.mmio_base <= self.memory_last < FOUR_GIB:
                raise _bad("memory_last", self.memory_last, "not an address that MMIO has")
        _check_reserved("reserved_ports", self.reserved_ports, 0, PIO_SPACE_SIZE - 1)
        _check_reserved("reserved_irqs", self.irqs_kept, 0, self.irq_count - 1)
        _check_reserved("reserved_mmio", self.reserved_mmio, self.mmio_base, FOUR_GIB - 1)

    @property
    def last_address(self) -> int:
        """The last guest-physical address."""
        return (1 << self.physical_address_bits) - 1

    @property
    def last_memory_address(self) -> int:
        """The last address that guest memory may have."""
        if self.memory_last is not None:
            return self.memory_last
        half = self.last_address >> 1
        return half if half >= FOUR_GIB else min(half, self.mmio_base - 1)

    @property
    def mmio_above_4g_base(self) -> int:
        """Where MMIO above 4 GiB begins, if it is below the last address."""
        return max(FOUR_GIB, self.last_memory_address + 1)

    @property
    def irqs_kept(self) -> tuple[Reserved, ...]:
        """The legacy IRQs that a request without a number doesn't get."""
        shared = (Reserved("shared", irq, 1) for irq in self.shared_irqs)
        return (*self.reserved_irqs, *shared)


def _bad(field: str, value: int, allowed: str) -> BadConfig:
    return BadConfig(
        f"pools: {field} is {value:#x}, allowed: {allowed}", field=field, value=hex_address(value)
    )


def _check(field: str, value: int, low: int, high: int | None) -> None:
    if value < low or (high is not None and value > high):
        raise _bad(field, value, f"{low:#x} and up" if high is None else f"{low:#x} to {high:#x}")


def _check_reserved(field: str, pieces: Iterable[Reserved], low: int, high: int) -> None:
    """Check that reserved ranges aren't empty, lie within [low, high] and don't overlap."""
    for piece in sorted(pieces, key=lambda piece: piece.base):
        if piece.size < 1:
            raise _bad(field, piece.size, f"at least 1 as the size of {piece.name!r}")
        _check(field, piece.base, low, high)
        _check(field, piece.last, piece.base, high)
        low = piece.last + 1
