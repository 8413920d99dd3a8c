"""The I/O bus of one VM: every trapped access finds its device here.

    manager = IoManager()
    manager.register_device_io(uart, [PioAddressRange(0x3F8, 8)])
    data = bytearray(1)
    manager.pio_read(0x3FD, data)

Two address spaces, PIO (16 bits) and MMIO (64 bits), in one immutable map that is
replaced as a whole. An access takes no lock: it sees the old map or the new one, never
half of a change. Changes are made in a transaction, one at a time:

    with manager.begin_tx() as tx:
        tx.unregister_device_io([MmioAddressRange(0x1000_0000, 0x1000)])
        tx.register_device_io(other, [MmioAddressRange(0x1000_0000, 0x1000)])

Leaving the block commits; an exception cancels, and nothing has changed.

Invariants:
    No two registered ranges share a byte.
    An access lies wholly in one range, or its device isn't called.
    When an unregistering returns, no access is in flight on what it removed, unless it
    was called from inside such an access.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from devicehost_server.model.access_errors import (
    bad_extent,
    bad_operand,
    device_fault,
    device_resized,
    no_device,
)
from devicehost_server.model.address_map import AddressMap, Handler, Space, Trap
from devicehost_server.model.counters import AccessCounts
from devicehost_server.model.device_io import (
    DEVICE_EXCEPTIONS,
    DeviceIo,
    ReadableBuffer,
    WritableBuffer,
)
from devicehost_server.model.errors import (
    BadTransaction,
    DeviceBusy,
    DeviceTimeout,
    hex_range,
)
from devicehost_server.model.in_flight import LOOKING_UP, Cells, InFlight, Nested
from devicehost_server.model.initiator import Calls, Initiator, Observer
from devicehost_server.model.io_transaction import IoManagerContext
from devicehost_server.model.live_map import PAGE_SHIFTS, Live, Maps
from devicehost_server.model.resources import Resource

PIO_OPERAND_SIZES = (1, 2, 4)
"""The operands of IN and OUT, in bytes (Intel SDM volume 2, IN, OUT)."""

DRAIN_TIMEOUT_S = 5.0
"""How long an unregistering waits for accesses in flight."""

LOCK_TIMEOUT_S = 5.0
"""How long an access waits for a `DeviceIoMut` that another thread is in."""

_PIO_SHIFT = PAGE_SHIFTS[Space.PIO]
_MMIO_SHIFT = PAGE_SHIFTS[Space.MMIO]
_ZEROS_MAX = 64
_ZEROS = tuple(bytes(size) for size in range(_ZEROS_MAX + 1))


@dataclass(frozen=True, slots=True)
class TrappedRange:
    """A line of the address map, for people: whose the `size` bytes at `base` are."""

    space: Space
    base: int
    size: int
    device: str


class IoManager:
    """The address map of one VM, and the dispatch of accesses to its devices.

    Safe to use from any thread.

    Args:
        drain_timeout_s: how long an unregistering waits for accesses in flight, in seconds.
        lock_timeout_s: how long an access waits for a `DeviceIoMut` in use, in seconds.

    Attributes:
        drain_timeout_s: as it was given.
    """

    def __init__(
        self,
        *,
        drain_timeout_s: float = DRAIN_TIMEOUT_S,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
    ) -> None:
        self.drain_timeout_s = drain_timeout_s
        self._lock_timeout_s = lock_timeout_s
        self._registered = Maps(AddressMap(Space.PIO), AddressMap(Space.MMIO))
        self._live = Live.of(self._registered)
        self._calls = Calls.of(self)
        self._observing = threading.Lock()  # of the next two
        self._observer: Observer | None = None
        self._initiators: weakref.WeakSet[Initiator] = weakref.WeakSet()
        self._counts: dict[str, AccessCounts] = {}
        self._writer = threading.Lock()
        self._writing_thread: int | None = None
        self._cells = Cells()
        self._in_flight = InFlight(self._cells)

    # Accesses. The four look alike on purpose: a shared helper would be a call more.

    def mmio_read(self, address: int, data: WritableBuffer) -> None:
        """Fill `data` from the guest-physical `address`; its length is the access's size.

        Raises:
            NoDevice: no range holds `address`.
            AccessOutOfRange: the access runs past the end of the range.
            BadAccessSize: `data` is empty.
            DeviceFault: the device raised; `data` holds whatever it left.
            DeviceTimeout: the device was in use for too long.
        """
        cell = self._in_flight.cell
        outer = cell.now
        cell.now = LOOKING_UP if outer is None else Nested(LOOKING_UP, outer)
        try:
            bus = self._live.mmio
            trap = bus.pages.get(address >> _MMIO_SHIFT) or bus.find(address)
            size = len(data)
            if trap is None or not trap.base <= address <= trap.last:
                raise no_device("mmio", address, size)
            cell.now = trap if outer is None else Nested(trap, outer)
            if not 0 < size <= trap.last - address + 1:
                raise bad_extent("mmio", trap, address, size)
            data[:] = _ZEROS[size] if size <= _ZEROS_MAX else bytes(size)
            trap.counts.reads += 1
            try:
                trap.read(trap.base, address - trap.base, data)
            except DeviceTimeout:
                trap.counts.faults += 1
                raise
            except DEVICE_EXCEPTIONS as error:
                trap.counts.faults += 1
                raise device_fault(trap, "mmio read", address, error) from error
            if len(data) != size:
                raise device_resized(trap, "mmio", address, size, data)
        finally:
            cell.now = outer

    def mmio_write(self, address: int, data: ReadableBuffer) -> None:
        """Write `data` to the guest-physical `address`; its length is the access's size.

        Raises:
            NoDevice, AccessOutOfRange, BadAccessSize, DeviceFault, DeviceTimeout:
                as for `mmio_read`.
        """
        cell = self._in_flight.cell
        outer = cell.now
        cell.now = LOOKING_UP if outer is None else Nested(LOOKING_UP, outer)
        try:
            bus = self._live.mmio
            trap = bus.pages.get(address >> _MMIO_SHIFT) or bus.find(address)
            size = len(data)
            if trap is None or not trap.base <= address <= trap.last:
                raise no_device("mmio", address, size)
            cell.now = trap if outer is None else Nested(trap, outer)
            if not 0 < size <= trap.last - address + 1:
                raise bad_extent("mmio", trap, address, size)
            trap.counts.writes += 1
            try:
                trap.write(trap.base, address - trap.base, data)
            except DeviceTimeout:
                trap.counts.faults += 1
                raise
            except DEVICE_EXCEPTIONS as error:
                trap.counts.faults += 1
                raise device_fault(trap, "mmio write", address, error) from error
        finally:
            cell.now = outer

    def pio_read(self, port: int, data: WritableBuffer, size: int = 0) -> None:
        """Fill `data` from I/O port `port`, in operands of `size` bytes.

        Args:
            port: the port, 16 bits.
            data: filled; longer than `size` for a string access, which reads the same
                port once for each operand, in order.
            size: 1, 2 or 4; 0 stands for the length of `data`.

        Raises:
            BadAccessSize: the operand size isn't one, or doesn't divide the length.
            NoDevice, AccessOutOfRange, DeviceFault, DeviceTimeout: as for `mmio_read`.
        """
        cell = self._in_flight.cell
        outer = cell.now
        cell.now = LOOKING_UP if outer is None else Nested(LOOKING_UP, outer)
        try:
            bus = self._live.pio
            trap = bus.pages.get(port >> _PIO_SHIFT) or bus.find(port)
            length = len(data)
            size = size or length
            if size not in PIO_OPERAND_SIZES or not length or length % size:
                raise bad_operand(port, length, size)
            if trap is None or not trap.base <= port <= trap.last:
                raise no_device("pio", port, size)
            cell.now = trap if outer is None else Nested(trap, outer)
            if size > trap.last - port + 1:
                raise bad_extent("pio", trap, port, size)
            data[:] = _ZEROS[length] if length <= _ZEROS_MAX else bytes(length)
            trap.counts.reads += length // size
            try:
                if length == size:
                    trap.read(trap.base, port - trap.base, data)
                else:
                    _each_operand(trap.read, trap.base, port - trap.base, data, size)
            except DeviceTimeout:
                trap.counts.faults += 1
                raise
            except DEVICE_EXCEPTIONS as error:
                trap.counts.faults += 1
                raise device_fault(trap, "pio read", port, error) from error
            if len(data) != length:
                raise device_resized(trap, "pio", port, length, data)
        finally:
            cell.now = outer

    def pio_write(self, port: int, data: ReadableBuffer, size: int = 0) -> None:
        """Write `data` to I/O port `port`, in operands of `size` bytes.

        Args:
            port: the port, 16 bits.
            data: longer than `size` for a string access, which writes the same port once
                for each operand, in order. A device that raises ends it there.
            size: 1, 2 or 4; 0 stands for the length of `data`.

        Raises:
            BadAccessSize, NoDevice, AccessOutOfRange, DeviceFault, DeviceTimeout:
                as for `pio_read`.
        """
        cell = self._in_flight.cell
        outer = cell.now
        cell.now = LOOKING_UP if outer is None else Nested(LOOKING_UP, outer)
        try:
            bus = self._live.pio
            trap = bus.pages.get(port >> _PIO_SHIFT) or bus.find(port)
            length = len(data)
            size = size or length
            if size not in PIO_OPERAND_SIZES or not length or length % size:
                raise bad_operand(port, length, size)
            if trap is None or not trap.base <= port <= trap.last:
                raise no_device("pio", port, size)
            cell.now = trap if outer is None else Nested(trap, outer)
            if size > trap.last - port + 1:
                raise bad_extent("pio", trap, port, size)
            trap.counts.writes += length // size
            try:
                if length == size:
                    trap.write(trap.base, port - trap.base, data)
                else:
                    _each_operand(trap.write, trap.base, port - trap.base, data, size)
            except DeviceTimeout:
                trap.counts.faults += 1
                raise
            except DEVICE_EXCEPTIONS as error:
                trap.counts.faults += 1
                raise device_fault(trap, "pio write", port, error) from error
        finally:
            cell.now = outer

    # Changes to the map.

    def register_device_io(self, device: DeviceIo, resources: Iterable[Resource]) -> None:
        """Route the PIO and MMIO ranges in `resources` to `device`, all or none.

        Resources of other kinds are skipped. A `DeviceIoMut` is entered by one thread at
        a time from here on.

        Raises:
            DeviceOverlap: a range shares a byte with a registered one, or with another of
                `resources`; nothing has changed.
            BadTransaction: this thread has a transaction open; use that.
        """
        with self.begin_tx() as tx:
            tx.register_device_io(device, resources)

    def unregister_device_io(self, resources: Iterable[Resource]) -> None:
        """Stop routing the PIO and MMIO ranges in `resources`, all or none.

        It returns when no access is in flight on them any more. Called from inside an
        access it does not wait for that access's device: `wait_until_idle` does, from
        elsewhere.

        Raises:
            NoDevice: a range isn't registered in exactly this shape; nothing has changed.
            DeviceBusy: an access in flight did not end in time. The ranges are
                unregistered, but the device is still in use.
            BadTransaction: this thread has a transaction open; use that.
        """
        with self.begin_tx() as tx:
            tx.unregister_device_io(resources)

    def begin_tx(self) -> IoManagerContext:
        """Begin a transaction, once the one before it has ended.

        Raises:
            BadTransaction: this thread has a transaction open already.
        """
        if self._writing_thread == threading.get_ident():
            raise BadTransaction("this thread has a transaction open: commit or cancel it first")
        self._writer.acquire()
        self._writing_thread = threading.get_ident()
        return IoManagerContext(self, *self._registered, self._lock_timeout_s)

    def commit_tx(self, tx: IoManagerContext, *, wait: bool = True) -> None:
        """Publish the changes of `tx`, as one.

        Args:
            tx: the transaction; it ends here.
            wait: whether to wait for accesses in flight on what it removed. Who doesn't
                calls `wait_until_idle` with `tx.removed` before a device is destroyed.

        Raises:
            BadTransaction: `tx` belongs to another manager, or has ended.
            DeviceBusy: as for `unregister_device_io`; the changes are published.
        """
        self._end(tx)
        self._publish(Maps(tx.pio, tx.mmio))
        if wait:
            self.wait_until_idle(tx.removed)

    def cancel_tx(self, tx: IoManagerContext) -> None:
        """Drop the changes of `tx`.

        Raises:
            BadTransaction: `tx` belongs to another manager, or has ended.
        """
        self._end(tx)
        self._release_writer()

    def wait_until_idle(self, removed: Sequence[Trap], *, timeout_s: float | None = None) -> None:
        """Wait until no access is in flight on traps that were unregistered.

        Args:
            removed: the traps, as `IoManagerContext.removed` has them.
            timeout_s: how long to wait, in seconds, if not the manager's own time.

        Raises:
            DeviceBusy: there still is one when the time is up; it names the device.
        """
        # Who else is in a device that this thread is in may wait for the lock that it holds.
        removed = [trap for trap in removed if not self.is_inside(trap.device)]
        if not removed:
            return
        if timeout_s is None:
            timeout_s = self.drain_timeout_s
        own = self._in_flight.cell
        busy = self._cells.wait_until_out_of(removed, but=own, timeout_s=timeout_s)
        if busy is not None:
            raise DeviceBusy(
                f"device {busy.device.name!r} is unregistered, but an access in flight on it"
                f" did not end within {timeout_s:g} s",
                device=busy.device.name,
                range=hex_range(busy.base, busy.size),
            )

    def is_inside(self, device: DeviceIo) -> bool:
        """Whether the calling thread is in an access of `device`, however deep."""
        return any(trap.device is device for trap in self._in_flight.cell.traps())

    # Who makes accesses, and who looks on.

    def initiator(self, vcpu: int | None = None) -> Initiator:
        """Return what makes the accesses of a vCPU, or of nobody in particular.

        They can be observed. Accesses that are made on the manager itself can't.
        """
        initiator = Initiator(self._calls, vcpu)
        with self._observing:
            self._initiators.add(initiator)
            self._bind(initiator)
        return initiator

    def observe(self, observer: Observer | None) -> None:
        """Show the accesses of all initiators to `observer` from now on; None to nobody."""
        with self._observing:
            self._observer = observer
            for initiator in self._initiators:
                self._bind(initiator)

    def wait_for_accesses(self, timeout_s: float) -> None:
        """Wait until each access in flight has ended, or another one is, but not for longer."""
        traps = [trap for bus in self._registered for trap in bus]
        if traps:
            self._cells.wait_until_out_of(traps, but=self._in_flight.cell, timeout_s=timeout_s)

    def _bind(self, initiator: Initiator) -> None:
        observer = self._observer
        calls = self._calls
        initiator.bind(calls if observer is None else observer.around(calls, initiator.vcpu))

    # For people and for tools.

    def counts(self, device: str) -> AccessCounts:
        """How often a device was accessed since it was first on the bus, by its name."""
        return self._counts.setdefault(device, AccessCounts())

    def forget_counts(self, device: str) -> None:
        """Drop the counts of a device: one that comes later, of that name, begins at zero."""
        self._counts.pop(device, None)

    def find(self, space: Space, address: int) -> Trap | None:
        """Return the trap that an access at `address` finds."""
        if space is Space.MMIO:
            bus = self._live.mmio
            trap = bus.pages.get(address >> _MMIO_SHIFT) or bus.find(address)
        else:
            bus = self._live.pio
            trap = bus.pages.get(address >> _PIO_SHIFT) or bus.find(address)
        return trap if trap is not None and trap.base <= address <= trap.last else None

    def ranges(self) -> list[TrappedRange]:
        """List what is registered: PIO first, then MMIO, by address."""
        return [
            TrappedRange(bus.space, trap.base, trap.size, trap.device.name)
            for bus in self._registered
            for trap in bus
        ]

    def clone(self) -> IoManager:
        """Return a new manager with the same ranges; from here on each goes its way."""
        other = IoManager(drain_timeout_s=self.drain_timeout_s, lock_timeout_s=self._lock_timeout_s)
        other._registered = self._registered
        other._live = Live.of(self._registered)
        return other

    def __eq__(self, other: object) -> bool:
        """Whether the same ranges belong to the same devices, by base and size."""
        if not isinstance(other, IoManager):
            return NotImplemented
        return self._owners() == other._owners()

    __hash__ = None  # type: ignore[assignment] # it changes

    def _owners(self) -> list[tuple[Space, int, int, DeviceIo]]:
        return [(bus.space, t.base, t.last, t.device) for bus in self._registered for t in bus]

    def _publish(self, maps: Maps) -> None:
        """Replace the map that accesses see, and let the next transaction begin."""
        try:
            self._registered, self._live = maps, Live.of(maps)
        finally:
            self._release_writer()

    def _end(self, tx: IoManagerContext) -> None:
        if tx.manager is not self:
            raise BadTransaction("the transaction belongs to another IoManager")
        tx.end()

    def _release_writer(self) -> None:
        self._writing_thread = None
        self._writer.release()


def _each_operand(
    call: Handler, base: int, offset: int, data: WritableBuffer | ReadableBuffer, size: int
) -> None:
    """Call for each operand of a string access; each is a window on `data`."""
    string = memoryview(data)
    for at in range(0, len(data), size):
        call(base, offset, string[at : at + size])
