"""What initiators call while somebody watches: the access, and what is done around it.

There are three ways, from the cheapest on. An observer is made anew whenever what is armed
changes, and takes the cheapest that does it:

    taps only        the time before, the access, the time after; the taps get a copy
    in order         the same under the device's lock, for a recording: its events of one
                     device stand in the order in which they happened
    with stages      the access as an object that stages may hold, change or spoil

A tap gets what the device did with what it got, faults included; what somebody changes by
hand in a read that is held comes after that. What a tap or a stage does wrong must not be a guest's
trouble: it is logged, and the access goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TypeAlias

import structlog

from devicehost.access_status import AccessStatus
from devicehost.recording.events import Operation
from devicehost.recording.events import Space as EventSpace
from devicehost_server.debug.pending import PendingAccess, Stage
from devicehost_server.debug.taps import RecordTap, Tap
from devicehost_server.model.address_map import Space, Trap
from devicehost_server.model.device_io import (
    DEVICE_EXCEPTIONS,
    DeviceIoMut,
    ReadableBuffer,
    WritableBuffer,
)
from devicehost_server.model.errors import DeviceHostError
from devicehost_server.model.holds import Holds
from devicehost_server.model.initiator import Calls
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.resources import MmioAddressRange, PioAddressRange

_log = structlog.get_logger(__name__)

UNKNOWN_VCPU = -1
"""How taps are told that it isn't known whose an access is."""

_now = time.monotonic_ns

_RANGES = {Space.PIO: PioAddressRange, Space.MMIO: MmioAddressRange}

Make: TypeAlias = Callable[[], None]


class Observed:
    """An `Observer`, for what is armed at one moment.

    Args:
        io: the bus.
        holds: knows how long an access was held.
        taps: tells who gets a copy of each access. An access that is held finds others when
            it goes on than were there when it came.
        faults: what spoils accesses, if anything does. It doesn't wait after an access.
        breakpoints: what holds accesses, if anything does.
        lock_timeout_s: how long to wait for a device that another thread is in, in seconds.
    """

    def __init__(
        self,
        io: IoManager,
        holds: Holds,
        *,
        taps: Callable[[], tuple[Tap, ...]],
        faults: Stage | None,
        breakpoints: Stage | None,
        lock_timeout_s: float,
    ) -> None:
        self._io = io
        self._holds = holds
        self._present_taps = taps
        self._taps = taps()
        self._faults = faults
        self._breakpoints = breakpoints
        self._lock_timeout_s = lock_timeout_s
        self._places: dict[Trap, tuple[str, int]] = {}

    def around(self, calls: Calls, vcpu: int | None) -> Calls:
        """Return what an initiator calls in place of `calls`."""
        owner = UNKNOWN_VCPU if vcpu is None else vcpu
        mmio_read, mmio_write, pio_read, pio_write = calls
        if self._faults is not None or self._breakpoints is not None:
            return Calls(
                self._staged_read(mmio_read, owner, Space.MMIO),
                self._staged_write(mmio_write, owner, Space.MMIO),
                self._staged_read(pio_read, owner, Space.PIO),
                self._staged_write(pio_write, owner, Space.PIO),
            )
        return Calls(
            self._tapped(mmio_read, owner, Space.MMIO, write=False),
            self._tapped(mmio_write, owner, Space.MMIO, write=True),
            self._tapped(pio_read, owner, Space.PIO, write=False),
            self._tapped(pio_write, owner, Space.PIO, write=True),
        )

    # Taps.

    def _tapped(
        self, make: Callable[..., None], vcpu: int, space: Space, *, write: bool
    ) -> Callable[..., None]:
        tell: Callable[..., None] = self._tell
        pio = space is Space.PIO
        if len(self._taps) == 1:
            tell = self._taps[0].access  # a call less
        now = _now

        def tapped(address: int, data: WritableBuffer | ReadableBuffer, size: int = 0) -> None:
            started = now()
            try:
                if size:
                    make(address, data, size)
                else:
                    make(address, data)
            except DeviceHostError as error:
                took = now() - started
                read = data if write else b""
                size = size or len(data)
                tell(started, took, vcpu, write, pio, address, size, read, status_of(error))
                raise
            took = now() - started
            tell(started, took, vcpu, write, pio, address, size or len(data), data, 0)

        if not _in_order(self._taps):
            return tapped
        find, timeout_s = self._io.find, self._lock_timeout_s

        def tapped_in_order(
            address: int, data: WritableBuffer | ReadableBuffer, size: int = 0
        ) -> None:
            trap = find(space, address)
            if trap is None or not isinstance(trap.device, DeviceIoMut):
                tapped(address, data, size)
                return
            lock = trap.device.lock
            # One that isn't free in time will be refused by the bus as well. By position,
            # as names cost time.
            is_ours = lock.acquire(False) or lock.acquire(True, timeout_s)  # noqa: FBT003
            try:
                tapped(address, data, size)
            finally:
                if is_ours:
                    lock.release()

        return tapped_in_order

    def _tell(  # noqa: PLR0917 # by position, as names cost time
        self,
        started_ns: int,
        took_ns: int,
        vcpu: int,
        write: bool,  # noqa: FBT001 # likewise
        pio: bool,  # noqa: FBT001 # likewise
        address: int,
        size: int,
        data: ReadableBuffer,
        status: int,
    ) -> None:
        for tap in self._taps:
            tap.access(started_ns, took_ns, vcpu, write, pio, address, size, data, status)

    # Stages.

    def _staged_read(
        self, make: Callable[..., None], vcpu: int, space: Space
    ) -> Callable[..., None]:
        def read(address: int, data: WritableBuffer, size: int = 0) -> None:
            access = self._pending(
                vcpu, (space, address), Operation.READ, size=size, data=b"", length=len(data)
            )

            def make_it() -> None:
                make(address, data, size) if size else make(address, data)
                access.data = bytes(data)

            self._pass(access, make_it)
            data[:] = access.data

        return read

    def _staged_write(
        self, make: Callable[..., None], vcpu: int, space: Space
    ) -> Callable[..., None]:
        def write(address: int, data: ReadableBuffer, size: int = 0) -> None:
            written = bytes(data)
            access = self._pending(
                vcpu,
                (space, address),
                Operation.WRITE,
                size=size,
                data=written,
                length=len(written),
            )

            def make_it() -> None:
                make(address, access.data, size) if size else make(address, access.data)

            self._pass(access, make_it)

        return write

    def _pass(self, access: PendingAccess, make: Make) -> None:
        """Take an access through the stages and to its device.

        Raises:
            DeviceHostError: it failed.
        """
        held_ns = self._holds.held_ns()
        failures: list[DeviceHostError] = []
        if self._breakpoints is not None:
            _guarded(self._breakpoints.before, access)
        taps = self._present_taps()
        # A recording is to have what the device did, in its order; nobody may wait in there.
        with self._in_its_device(access) if _in_order(taps) else nullcontext():
            try:
                if self._faults is not None:
                    _guarded(self._faults.before, access)
                make()
            except DeviceHostError as error:
                failures.append(error)
                access.status = AccessStatus(status_of(error))
                if access.operation is Operation.READ:
                    access.data = b""
            if self._faults is not None:
                _guarded(self._faults.after, access)
            took_ns = max(0, _now() - access.time_ns - self._holds.held_ns() + held_ns)
            for tap in taps:
                tap.access(
                    access.time_ns,
                    took_ns,
                    UNKNOWN_VCPU if access.vcpu is None else access.vcpu,
                    access.operation is Operation.WRITE,
                    access.space is EventSpace.PIO,
                    access.address,
                    access.size,
                    access.data,
                    access.status,
                )
        if self._breakpoints is not None:
            _guarded(self._breakpoints.after, access)
        for failure in failures:
            raise failure

    def _pending(
        self,
        vcpu: int,
        where: tuple[Space, int],
        operation: Operation,
        *,
        size: int,
        data: bytes,
        length: int,
    ) -> PendingAccess:
        space, address = where
        device, range_, offset = "", -1, 0
        trap = self._io.find(space, address)
        if trap is not None:
            device, range_ = self._place(trap, space)
            offset = address - trap.base
        return PendingAccess(
            time_ns=_now(),
            vcpu=None if vcpu == UNKNOWN_VCPU else vcpu,
            space=EventSpace(space.value),
            operation=operation,
            address=address,
            size=size or length,
            data=data,
            length=length,
            device=device,
            range=range_,
            offset=offset,
        )

    def _place(self, trap: Trap, space: Space) -> tuple[str, int]:
        """Return whose a trap is, and which of the device's ranges."""
        place = self._places.get(trap)
        if place is None:
            kind = _RANGES[space]
            numbers: list[int] = []
            try:
                numbers += [
                    number
                    for number, each in enumerate(trap.device.get_trapped_io_resources())
                    if each.base == trap.base and isinstance(each, kind)
                ]
            except DEVICE_EXCEPTIONS as error:  # it isn't asked for this in other accesses
                _log.error("ranges_not_told", device=trap.device.name, exc_info=error)
            place = self._places[trap] = (trap.device.name, numbers[0] if numbers else -1)
        return place

    @contextmanager
    def _in_its_device(self, access: PendingAccess) -> Iterator[None]:
        """Hold the lock of the device of an access, if it has one."""
        trap = self._io.find(Space(access.space.value), access.address)
        if trap is None or not isinstance(trap.device, DeviceIoMut):
            yield
            return
        lock = trap.device.lock
        is_ours = lock.acquire(timeout=self._lock_timeout_s)
        try:
            yield
        finally:
            if is_ours:
                lock.release()


def _in_order(taps: Sequence[Tap]) -> bool:
    """Whether one of them is to get a device's accesses in their order."""
    return any(isinstance(tap, RecordTap) for tap in taps)


def status_of(error: DeviceHostError) -> int:
    """The number that stands for a failed access."""
    return AccessStatus.__members__.get(error.reason, AccessStatus.DEVICE_FAULT)


def _guarded(step: Callable[[PendingAccess], None], access: PendingAccess) -> None:
    """Take a step of a stage; what it does wrong is no trouble of the guest's."""
    try:
        step(access)
    except DeviceHostError:
        raise
    except DEVICE_EXCEPTIONS as error:
        _log.error("debug_step_failed", exc_info=error)
