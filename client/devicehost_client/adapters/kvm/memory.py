"""Guest memory: regions of host memory, and the slots that show them to the guest.

A `MemoryRegion` is a memfd, so that its memory can be handed to another process. A
`MemorySlot` maps a part of a region to guest-physical addresses; the same part may be
mapped more than once, as firmware is below 1 MiB and below 4 GiB.

Invariants:
    A region's memory never shrinks: the memfd is sealed, whoever else holds it.
    Slots don't overlap.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from dataclasses import dataclass
from typing import Final

from devicehost_client.adapters.kvm.errors import BadVmArgument
from devicehost_client.adapters.kvm.ioctl import (
    MEM_READONLY,
    MEMORY_REGION,
    PAGE_SIZE,
    Call,
    call,
)

PHYSICAL_ADDRESS_BITS: Final = 52
"""The architecture's limit; most processors have fewer."""

RESERVED_BASE: Final = 0xFEFF_C000
"""Where KVM keeps four pages of its own, which real mode needs on some Intel processors."""
RESERVED_SIZE: Final = 4 * PAGE_SIZE


class MemoryRegion:
    """A piece of host memory for the guest, zeroed at first.

    Attributes:
        name: What it is for; shown in /proc/PID/maps.
        size: In bytes.
        fd: The memfd, closed on exec. It belongs to the region; dup it to keep it longer.
        view: The memory, writable, for as long as the region is open.
        host_address: Where it is in this process.
    """

    def __init__(self, name: str, size: int) -> None:
        if size <= 0 or size % PAGE_SIZE:
            raise BadVmArgument(
                f"memory '{name}': its size {size:#x} must be a positive multiple of {PAGE_SIZE:#x}"
            )
        self.name = name
        self.size = size
        self.fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, size)
            # A peer that gets the fd and cuts the file would kill us with SIGBUS.
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self._map = mmap.mmap(self.fd, size)
        except BaseException:
            os.close(self.fd)
            raise
        self.view = memoryview(self._map)
        self.host_address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def __repr__(self) -> str:
        return f"MemoryRegion({self.name!r}, size={self.size:#x})"

    def close(self) -> None:
        """Unmap the memory and close the memfd.

        Slices of `view` that somebody still holds stay valid: the mapping lives as long as
        the last of them.
        """
        if self.fd < 0:
            return
        self.view.release()
        del self._map  # unmaps it, unless there are such slices
        os.close(self.fd)
        self.fd = -1


@dataclass(frozen=True, slots=True)
class MemorySlot:
    """Guest-physical addresses that a part of a region answers.

    Attributes:
        number: KVM's number of the slot.
        base: The first guest-physical address.
        size: In bytes.
        region: The memory.
        offset: Where in the region the slot begins.
        read_only: Whether a write of the guest is an MMIO exit instead.
    """

    number: int
    base: int
    size: int
    region: MemoryRegion
    offset: int
    read_only: bool

    @property
    def last(self) -> int:
        """The last guest-physical address, inclusive."""
        return self.base + self.size - 1

    def __str__(self) -> str:
        return f"{self.base:#x}-{self.last:#x} ({self.region.name})"


class GuestMemory:
    """The guest-physical memory of a VM: its regions and slots.

    A PC with firmware has RAM on both sides of the hole at 640 KiB, and the firmware below
    1 MiB, where it may write, and below 4 GiB, where it may not:

        ram = memory.create("ram", ram_size)
        memory.map(ram, 0, size=0xA0000)
        memory.map(ram, 0xC0000, offset=0xC0000)
        memory.load((1 << 20) - len(image), image)
        memory.add_rom((1 << 32) - len(image), image)
    """

    def __init__(self, vm_fd: int) -> None:
        self._vm_fd = vm_fd
        self._regions: list[MemoryRegion] = []
        self._slots: list[MemorySlot] = []

    @property
    def slots(self) -> tuple[MemorySlot, ...]:
        """All slots, in the order in which they were mapped."""
        return tuple(self._slots)

    def create(self, name: str, size: int) -> MemoryRegion:
        """Make a region of `size` bytes that no guest address shows yet.

        Raises:
            BadVmArgument: `size` isn't a positive number of whole pages.
        """
        region = MemoryRegion(name, size)
        self._regions.append(region)
        return region

    def map(
        self,
        region: MemoryRegion,
        base: int,
        *,
        offset: int = 0,
        size: int | None = None,
        read_only: bool = False,
    ) -> MemorySlot:
        """Show `size` bytes of `region`, from `offset` on, at guest-physical `base`.

        Without `size`, all of the region from `offset` on. A part of a region may be shown
        at several addresses.

        Raises:
            BadVmArgument: The range isn't made of whole pages, isn't in the region,
                overlaps a slot or the pages that KVM needs, or has too high addresses.
            KvmCallFailed: The kernel refused.
        """
        size = region.size - offset if size is None else size
        slot = MemorySlot(len(self._slots), base, size, region, offset, read_only)
        self._check(slot)
        flags = MEM_READONLY if read_only else 0
        host_address = region.host_address + offset
        call(
            self._vm_fd,
            Call.KVM_SET_USER_MEMORY_REGION,
            MEMORY_REGION.pack(slot.number, flags, base, size, host_address),
            about=f"memory slot {slot}",
        )
        self._slots.append(slot)
        return slot

    def add_ram(self, base: int, size: int, name: str = "ram") -> MemoryRegion:
        """Make a region of `size` bytes and show all of it at guest-physical `base`.

        Raises:
            BadVmArgument: As `create` and `map` do.
        """
        return self._add(MemoryRegion(name, size), base, read_only=False)

    def add_rom(self, base: int, image: bytes, name: str = "rom") -> MemoryRegion:
        """Make a region that holds `image`, whole pages, and show it read-only at `base`.

        The guest's writes to it go to the access port.

        Raises:
            BadVmArgument: As `create` and `map` do.
        """
        region = MemoryRegion(name, len(image))
        region.view[:] = image
        return self._add(region, base, read_only=True)

    def view(self, address: int, size: int) -> memoryview:
        """Give a window of `size` bytes on the memory at guest-physical `address`.

        It is writable even where the guest may only read.

        Raises:
            BadVmArgument: No single slot holds the whole range.
        """
        for slot in self._slots:
            if slot.base <= address and address + size <= slot.base + slot.size:
                start = slot.offset + address - slot.base
                return slot.region.view[start : start + size]
        raise BadVmArgument(
            f"no memory slot holds all {size:#x} bytes at {address:#x}; "
            f"the slots are {self._listed()}"
        )

    def load(self, address: int, data: bytes) -> None:
        """Copy `data` to guest-physical `address`; the slot may be read-only.

        Raises:
            BadVmArgument: No single slot holds the whole range.
        """
        self.view(address, len(data))[:] = data

    def close(self) -> None:
        """Give all memory back; the VM must have been closed."""
        self._vm_fd = -1
        self._slots.clear()
        while self._regions:
            self._regions.pop().close()

    def _add(self, region: MemoryRegion, base: int, *, read_only: bool) -> MemoryRegion:
        try:
            self.map(region, base, read_only=read_only)
        except BaseException:
            region.close()
            raise
        self._regions.append(region)
        return region

    def _check(self, new: MemorySlot) -> None:
        if new.base % PAGE_SIZE or new.offset % PAGE_SIZE or new.size % PAGE_SIZE:
            raise BadVmArgument(
                f"memory slot {new}: base, offset {new.offset:#x} and size {new.size:#x} must "
                f"be multiples of {PAGE_SIZE:#x}"
            )
        if new.size <= 0 or new.offset < 0 or new.offset + new.size > new.region.size:
            raise BadVmArgument(
                f"memory slot {new}: offset {new.offset:#x} and size {new.size:#x} are outside "
                f"of the region's {new.region.size:#x} bytes"
            )
        if new.base < 0 or new.last >= 1 << PHYSICAL_ADDRESS_BITS:
            raise BadVmArgument(
                f"memory slot {new}: addresses have at most {PHYSICAL_ADDRESS_BITS} bits"
            )
        if new.base < RESERVED_BASE + RESERVED_SIZE and new.last >= RESERVED_BASE:
            raise BadVmArgument(
                f"memory slot {new} overlaps the {RESERVED_SIZE:#x} bytes at "
                f"{RESERVED_BASE:#x}, which KVM needs for itself"
            )
        for slot in self._slots:
            if new.base <= slot.last and slot.base <= new.last:
                raise BadVmArgument(f"memory slot {new} overlaps slot {slot}")

    def _listed(self) -> str:
        return ", ".join(map(str, self._slots)) or "none"
