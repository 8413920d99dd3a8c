"""A bench for virtio devices: one on a bus, guest memory, and a driver for it in Python.

    with VirtioLab(VirtioRng(RngConfig()), Way.MMIO) as lab:
        driver = lab.driver
        driver.start()
        request = driver.queues[0].add(writable=[32])
        driver.queues[0].kick()
        request.wait()
        assert request.written == 32
        assert len(request.data) == 32

Whoever waits for a request is woken by interrupts and nothing else, so one that is lost is
a test that fails.
"""

from __future__ import annotations

import enum
import mmap
import os
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from devicehost_server.allocation import ResourceManager
from devicehost_server.devices.base import DeviceContext
from devicehost_server.devices.doors import Doors
from devicehost_server.devices.virtio.device import VirtioDevice
from devicehost_server.devices.virtio.features import (
    EVENT_IDX,
    INDIRECT_DESC,
    RING_RESET,
    VERSION_1,
    Status,
)
from devicehost_server.model.clock import SystemClock
from devicehost_server.model.device_io import ReadableBuffer
from devicehost_server.model.guest_memory import Backing, GuestMemory, MappedBacking, MemoryBlock
from devicehost_server.model.interrupts import InterruptController, InterruptEvent, InterruptKind
from devicehost_server.model.io_manager import IoManager

DEADLINE_S = 20.0
"""How long a test waits for what must come."""

MEMORY_BASE = 0x4000_0000
MEMORY_SIZE = 16 << 20

NEXT, WRITE, INDIRECT = 1, 2, 4
NO_INTERRUPT, NO_NOTIFY = 1, 1
DESCRIPTOR = struct.Struct("<QIHH")

EVERYTHING = VERSION_1 | EVENT_IDX | INDIRECT_DESC | RING_RESET


class Way(enum.Enum):
    """How the driver reaches the device, and the device the driver."""

    MMIO = "mmio"
    PCI = "pci"
    PCI_INTX = "pci-intx"


class CopiedBacking:
    """Memory that can't be looked at, only copied from and to, as if by messages."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self._memory[offset : offset + size])

    def write(self, offset: int, data: ReadableBuffer) -> None:
        self._memory[offset : offset + len(data)] = data

    def view(self, offset: int, size: int) -> None:
        return None


class GuestRam:
    """Guest memory in a memfd, as the guest sees it, with an allocator."""

    def __init__(
        self, base: int = MEMORY_BASE, size: int = MEMORY_SIZE, fd: int | None = None
    ) -> None:
        self.base = base
        self.size = size
        if fd is None:
            fd = os.memfd_create("guest", os.MFD_CLOEXEC)
            os.ftruncate(fd, size)
        self.fd = fd
        self.view = memoryview(mmap.mmap(fd, size))
        self._free: dict[int, list[int]] = defaultdict(list)
        self._next = base

    def block(self, *, mapped: bool = True, writable: bool = True) -> MemoryBlock:
        """Map it anew, as a client's memory is."""
        view = memoryview(mmap.mmap(self.fd, self.size))
        backing: Backing = MappedBacking(view) if mapped else CopiedBacking(view)
        return MemoryBlock(self.base, self.size, True, writable, backing)  # noqa: FBT003 # a record

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.view[address - self.base : address - self.base + size])

    def write(self, address: int, data: bytes) -> None:
        self.view[address - self.base : address - self.base + len(data)] = data

    def shorts(self, address: int, count: int) -> memoryview:
        offset = address - self.base
        return self.view[offset : offset + 2 * count].cast("H")

    def allocate(self, size: int) -> int:
        """Return the address of so many bytes, with what was there before."""
        size = max(16, 1 << (size - 1).bit_length())
        if self._free[size]:
            return self._free[size].pop()
        address = (self._next + min(size, 4096) - 1) & -min(size, 4096)
        if address + size > self.base + self.size:
            raise MemoryError(f"the guest has no {size:#x} bytes left")
        self._next = address + size
        return address

    def free(self, address: int, size: int) -> None:
        self._free[max(16, 1 << (size - 1).bit_length())].append(address)

    def close(self) -> None:
        os.close(self.fd)


class Guest(Protocol):
    """What a driver runs on.

    Attributes:
        way: how it reaches its device.
        ram: its memory.
        interrupted: set by each interrupt.
    """

    way: Way
    ram: GuestRam
    interrupted: threading.Event

    def read(self, offset: int, size: int = 4) -> int:
        """Read a register."""

    def write(self, offset: int, value: int, size: int = 4) -> None:
        """Write a register."""


class VirtioLab:
    """A device on a bus of its own, with guest memory and a driver.

    Args:
        device: made, and not assigned.
        way: the transport.
        mapped: whether the device can look at guest memory, or has to copy.
        doors: what it sees the world through.
        with_memory: whether there is memory from the beginning; else `share`.
        ram: the guest's memory; None for one of its own.
        device_id: what the device is called.
        beside: another one, with whom it shares the guest.

    Attributes:
        driver: drives it.
        ram: the guest's memory, from inside.
        memory: the same, as shared with the device.
        pulses: how often each GSI was pulsed.
    """

    def __init__(
        self,
        device: VirtioDevice[Any],
        way: Way = Way.MMIO,
        *,
        mapped: bool = True,
        doors: Doors | None = None,
        with_memory: bool = True,
        ram: GuestRam | None = None,
        device_id: str = "dut",
        beside: VirtioLab | None = None,
    ) -> None:
        self.device = device
        self.way = way
        self.errors: list[BaseException] = []
        self.doors = doors or Doors()
        self.mapped = mapped
        self._beside = beside
        self._owns_ram = beside is None and ram is None
        if beside is None:
            self.clock = SystemClock(self.errors.append)
            self.io = IoManager()
            self.interrupts = InterruptController()
            self.memory = GuestMemory()
            self.pools = ResourceManager()
            self.ram = ram or GuestRam()
        else:
            self.clock, self.io, self.interrupts = beside.clock, beside.io, beside.interrupts
            self.memory, self.pools, self.ram = beside.memory, beside.pools, beside.ram
        self.pulses: dict[int, int] = defaultdict(int)
        self.interrupted = threading.Event()
        self.interrupts.subscribe(self._on_interrupt)
        if with_memory and beside is None:
            self.share()
        if way is not Way.MMIO:
            self.description = device.describe_function()
        resources = self.pools.allocate(list(device.get_resource_constraints()), device_id)
        context = DeviceContext(
            device_id, resources, self.clock, self.interrupts, self.memory, dma=self.memory
        )
        self.resources = resources
        self.base = resources.get_mmio_address_ranges()[0].base
        try:
            device.assign(self.doors.context(device, context))
            device.start()
        except BaseException:
            self.close()
            raise
        self.io.register_device_io(device, device.get_trapped_io_resources())
        self.driver = Driver(self)

    def share(self) -> None:
        """Have the device see the guest's memory."""
        self.memory.add(self.ram.block(mapped=self.mapped))

    def unshare(self) -> None:
        """Take the guest's memory away, as when a client goes."""
        self.memory.clear()

    def close(self) -> None:
        """End the device."""
        self.device.close()
        if self._beside is None:
            self.clock.close()
        if self._owns_ram:
            self.ram.close()
        assert self.errors == []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def read(self, offset: int, size: int = 4) -> int:
        """Read a register."""
        data = bytearray(size)
        self.io.mmio_read(self.base + offset, data)
        return int.from_bytes(data, "little")

    def write(self, offset: int, value: int, size: int = 4) -> None:
        """Write a register."""
        self.io.mmio_write(self.base + offset, value.to_bytes(size, "little"))

    def asserted(self) -> bool:
        """Whether its line is."""
        return self.resources.get_legacy_irq() in self.interrupts.asserted()

    def wait_until(self, condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
        """Wait for what no interrupt tells."""
        deadline = time.monotonic() + deadline_s
        while not condition():
            assert time.monotonic() < deadline, "it didn't come"
            time.sleep(0.001)

    def _on_interrupt(self, event: InterruptEvent) -> None:
        if event.kind is not InterruptKind.DEASSERTED:
            self.pulses[event.gsi] += 1
            self.interrupted.set()


class MmioRegisters:
    """The registers of virtio-mmio, by what they are for (VIRTIO 1.2, 4.2.2)."""

    config = 0x100

    def __init__(self, lab: Guest) -> None:
        self._lab = lab

    def status(self) -> int:
        return self._lab.read(0x70)

    def set_status(self, value: int) -> None:
        self._lab.write(0x70, value)

    def offered(self, select: int) -> int:
        self._lab.write(0x14, select)
        return self._lab.read(0x10)

    def accept(self, select: int, value: int) -> None:
        self._lab.write(0x24, select)
        self._lab.write(0x20, value)

    def generation(self) -> int:
        return self._lab.read(0xFC)

    def select(self, queue: int) -> None:
        self._lab.write(0x30, queue)

    def size_max(self) -> int:
        return self._lab.read(0x34)

    def set_size(self, size: int) -> None:
        self._lab.write(0x38, size)

    def set_addresses(self, table: int, driver: int, device: int) -> None:
        for offset, address in ((0x80, table), (0x90, driver), (0xA0, device)):
            self._lab.write(offset, address & 0xFFFF_FFFF)
            self._lab.write(offset + 4, address >> 32)

    def enable(self) -> None:
        self._lab.write(0x44, 1)

    def enabled(self) -> bool:
        return bool(self._lab.read(0x44))

    def reset_queue(self) -> None:
        self._lab.write(0xC0, 1)

    def set_vectors(self) -> None:
        pass

    def notify(self, queue: int) -> None:
        self._lab.write(0x50, queue)

    def acknowledge(self) -> int:
        """Read the interrupt status, and clear it."""
        isr = self._lab.read(0x60)
        self._lab.write(0x64, isr)
        return isr


class PciRegisters:
    """The registers of virtio-pci in BAR 0 (VIRTIO 1.2, 4.1.4)."""

    config = 0x2000

    def __init__(self, lab: Guest) -> None:
        self._lab = lab

    def status(self) -> int:
        return self._lab.read(0x14, 1)

    def set_status(self, value: int) -> None:
        self._lab.write(0x14, value, 1)

    def offered(self, select: int) -> int:
        self._lab.write(0x00, select)
        return self._lab.read(0x04)

    def accept(self, select: int, value: int) -> None:
        self._lab.write(0x08, select)
        self._lab.write(0x0C, value)

    def generation(self) -> int:
        return self._lab.read(0x15, 1)

    def select(self, queue: int) -> None:
        self._lab.write(0x16, queue, 2)

    def size_max(self) -> int:
        return self._lab.read(0x18, 2)

    def set_size(self, size: int) -> None:
        self._lab.write(0x18, size, 2)

    def set_addresses(self, table: int, driver: int, device: int) -> None:
        self._lab.write(0x20, table & 0xFFFF_FFFF)  # in halves, as Linux does
        self._lab.write(0x24, table >> 32)
        self._lab.write(0x28, driver, 8)
        self._lab.write(0x30, device, 8)

    def enable(self) -> None:
        self._lab.write(0x1C, 1, 2)

    def enabled(self) -> bool:
        return bool(self._lab.read(0x1C, 2))

    def reset_queue(self) -> None:
        self._lab.write(0x3A, 1, 2)

    def set_vectors(self) -> None:
        """Give the selected queue, and the configuration, vectors."""
        if self._lab.way is Way.PCI:
            queue = self._lab.read(0x16, 2)
            self._lab.write(0x10, 0, 2)
            self._lab.write(0x1A, 1 + queue, 2)

    def notify(self, queue: int) -> None:
        self._lab.write(0x3000 + 4 * queue, queue, 2)

    def acknowledge(self) -> int:
        """Read the interrupt status, which clears it."""
        return self._lab.read(0x1000, 1)


class Driver:
    """The driver of a virtio device, whatever the device does.

    Attributes:
        registers: those of the transport.
        features: what was negotiated.
        queues: those that `start` set up.
    """

    def __init__(self, lab: Guest) -> None:
        self.lab = lab
        self.registers = MmioRegisters(lab) if lab.way is Way.MMIO else PciRegisters(lab)
        self.features = 0
        self.queues: list[QueueDriver] = []

    def offered(self) -> int:
        return self.registers.offered(0) | self.registers.offered(1) << 32

    def reset(self) -> None:
        """Reset the device; what was in its queues is forgotten."""
        self.registers.set_status(0)
        assert self.registers.status() == 0
        self.queues = []

    def negotiate(self, features: int = EVERYTHING) -> bool:
        """Accept those of `features` that are offered; return whether the device agrees."""
        self.features = features & self.offered()
        return self.accept(self.features)

    def accept(self, features: int) -> bool:
        """Accept exactly these features; return whether the device agrees."""
        registers = self.registers
        registers.set_status(Status.ACKNOWLEDGE)
        registers.set_status(Status.ACKNOWLEDGE | Status.DRIVER)
        registers.accept(0, features & 0xFFFF_FFFF)
        registers.accept(1, features >> 32)
        registers.set_status(Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK)
        return bool(registers.status() & Status.FEATURES_OK)

    def set_up_queue(self, index: int, size: int | None = None) -> QueueDriver:
        """Allocate a queue, and enable it."""
        registers = self.registers
        registers.select(index)
        most = registers.size_max()
        queue = QueueDriver(self, index, min(most, size or most))
        registers.set_size(queue.size)
        registers.set_addresses(queue.table, queue.avail_address, queue.used_address)
        registers.set_vectors()
        registers.enable()
        return queue

    def start(self, features: int = EVERYTHING, size: int | None = None) -> None:
        """Do all that it takes until requests can be made, with queues of at most `size`."""
        self.reset()
        assert self.negotiate(features)
        self.registers.select(0)
        while self.registers.size_max():
            self.queues.append(self.set_up_queue(len(self.queues), size))
            self.registers.select(len(self.queues))
        self.ready()

    def ready(self) -> None:
        """Set DRIVER_OK."""
        self.registers.set_status(
            Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK | Status.DRIVER_OK
        )

    def config(self, offset: int, size: int) -> bytes:
        """Read the device's configuration."""
        first = self.registers.config + offset
        return bytes(self.lab.read(first + at, 1) for at in range(size))

    def needs_reset(self) -> bool:
        return bool(self.registers.status() & Status.NEEDS_RESET)


class Request:
    """A chain that was added to a queue.

    Attributes:
        head: its first descriptor.
        written: how much the device says that it wrote; None until it is back.
        data: what is in the writable part then, one after the other, up to `written`.
    """

    def __init__(self, queue: QueueDriver, head: int) -> None:
        self.queue = queue
        self.head = head
        self.written: int | None = None
        self.data = b""
        self.descriptors: list[int] = []
        self.buffers: list[tuple[int, int, bool]] = []  # address, size, writable
        self.table: tuple[int, int] | None = None

    def wait(self, deadline_s: float = DEADLINE_S) -> bytes:
        """Wait for it to come back, by interrupts; return `data`."""
        self.queue.wait(lambda: self.written is not None, deadline_s)
        return self.data


class QueueDriver:
    """The driver's side of one queue.

    Attributes:
        requests: those that aren't back yet, by their heads.
        kicks: how often the device was notified.
        kicks_saved: how often it didn't want that.
    """

    def __init__(self, driver: Driver, index: int, size: int) -> None:
        self.driver = driver
        self.index = index
        self.size = size
        self.lab = driver.lab
        ram = self.lab.ram
        self.table = ram.allocate(16 * size)
        self.avail_address = ram.allocate(6 + 2 * size)
        self.used_address = ram.allocate(6 + 8 * size)
        self.avail = ram.shorts(self.avail_address, 3 + size)
        self.used = ram.shorts(self.used_address, 3 + 4 * size)
        self.avail[0] = self.avail[1] = self.avail[2 + size] = 0
        self.used[0] = self.used[1] = self.used[2 + 4 * size] = 0
        self.free = list(range(size))
        self.requests: dict[int, Request] = {}
        self.next_avail = 0
        self.next_used = 0
        self.kicked = 0  # the available index at the last kick
        self.kicks = self.kicks_saved = 0
        self._barrier = threading.Lock()

    @property
    def event_index(self) -> bool:
        return bool(self.driver.features & EVENT_IDX)

    def describe(self, number: int, address: int, size: int, flags: int, following: int) -> None:
        """Write a descriptor of the table."""
        self.lab.ram.write(
            self.table + 16 * number, DESCRIPTOR.pack(address, size, flags, following)
        )

    def add(
        self,
        readable: Sequence[bytes] = (),
        writable: Sequence[int] = (),
        *,
        indirect: bool = False,
    ) -> Request:
        """Make a chain available: buffers with these bytes, and ones of these sizes."""
        ram = self.lab.ram
        count = len(readable) + len(writable)
        taken = [self.free.pop() for _ in range(1 if indirect else count)]
        request = Request(self, taken[0])
        request.descriptors = taken
        for data in readable:
            address = ram.allocate(len(data))
            ram.write(address, data)
            request.buffers.append((address, len(data), False))
        for size in writable:
            request.buffers.append((ram.allocate(size), size, True))
        if indirect:
            table = ram.allocate(16 * count)
            request.table = table, 16 * count
            self.describe(taken[0], table, 16 * count, INDIRECT, 0)
            numbers = list(range(count))
        else:
            table, numbers = self.table, taken
        for place, (address, size, is_writable) in enumerate(request.buffers):
            last = place == count - 1
            flags = (0 if last else NEXT) | (WRITE if is_writable else 0)
            following = 0 if last else numbers[place + 1]
            ram.write(table + 16 * numbers[place], DESCRIPTOR.pack(address, size, flags, following))
        self.requests[request.head] = request
        self.publish(request.head)
        return request

    def publish(self, head: int) -> None:
        """Put a head into the available ring."""
        self.avail[2 + self.next_avail % self.size] = head
        self.next_avail = (self.next_avail + 1) & 0xFFFF
        self.avail[1] = self.next_avail

    def kick(self, *, always: bool = False) -> bool:
        """Notify the device, if it wants that; return whether it did."""
        with self._barrier:
            old, new = self.kicked, self.next_avail
            self.kicked = new
            if self.event_index:
                event = self.used[2 + 4 * self.size]
                wanted = (new - event - 1) & 0xFFFF < (new - old) & 0xFFFF
            else:
                wanted = not self.used[0] & NO_NOTIFY
        if wanted or always:
            self.kicks += 1
            self.driver.registers.notify(self.index)
        else:
            self.kicks_saved += 1
        return wanted or always

    def collect(self) -> list[Request]:
        """Take what is back, without waiting."""
        done = []
        ram = self.lab.ram
        while self.next_used != self.used[1]:
            place = self.used_address + 4 + 8 * (self.next_used % self.size)
            head, written = struct.unpack("<II", ram.read(place, 8))
            self.next_used = (self.next_used + 1) & 0xFFFF
            request = self.requests.pop(head)
            left, pieces = written, []
            for address, size, is_writable in request.buffers:
                if is_writable:
                    pieces.append(ram.read(address, min(left, size)))
                    left -= len(pieces[-1])
                ram.free(address, size)
            assert left == 0, f"{written} bytes don't fit"
            if request.table is not None:
                ram.free(*request.table)
            self.free += request.descriptors
            request.data = b"".join(pieces)
            request.written = written
            done.append(request)
        return done

    def ask_for_interrupt(self) -> None:
        """Want an interrupt for the next request that comes back."""
        if self.event_index:
            self.avail[2 + self.size] = self.next_used
        else:
            self.avail[0] = 0
        with self._barrier:
            pass

    def wait(self, condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
        """Collect until something is so. Only interrupts make it look again."""
        deadline = time.monotonic() + deadline_s
        interrupted = self.lab.interrupted
        while True:
            interrupted.clear()
            if self.lab.way is not Way.PCI:
                self.driver.registers.acknowledge()
            self.ask_for_interrupt()
            more = bool(self.collect())
            if condition():
                return
            if not more:  # else the interrupt has to be asked for anew
                left = deadline - time.monotonic()
                assert interrupted.wait(left), f"queue {self.index}: no interrupt came"

    def wait_all(self, deadline_s: float = DEADLINE_S) -> None:
        """Wait until nothing is in the device any more."""
        self.wait(lambda: not self.requests, deadline_s)
