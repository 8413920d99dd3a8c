"""A transaction on the address map: all of its changes, or none.

It works on copies. Accesses go on with the map as it was until the commit publishes the
new one, as a whole. While a transaction is open no other can begin.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from devicehost_server.model.address_map import AddressMap, Handler, Trap
from devicehost_server.model.device_io import (
    DeviceIo,
    DeviceIoMut,
    ReadableBuffer,
    WritableBuffer,
)
from devicehost_server.model.errors import BadTransaction, DeviceTimeout
from devicehost_server.model.resources import MmioAddressRange, PioAddressRange, Resource

if TYPE_CHECKING:
    from devicehost_server.model.io_manager import IoManager


class TxState(enum.Enum):
    """Where a transaction stands."""

    OPEN = "open"
    ENDED = "ended"


class IoManagerContext:
    """One transaction of one `IoManager`; `IoManager.begin_tx` makes it.

    As a `with` block it commits at the end, and cancels if an exception leaves the block.
    A method that raises has changed nothing, and the transaction goes on.

    Attributes:
        manager: whose transaction it is.
        removed: the traps that it unregistered, in order.
    """

    def __init__(
        self, manager: IoManager, pio: AddressMap, mmio: AddressMap, lock_timeout_s: float
    ) -> None:
        self.manager = manager
        self.pio = pio
        self.mmio = mmio
        self.removed: list[Trap] = []
        self._lock_timeout_s = lock_timeout_s
        self._state = TxState.OPEN

    def register_device_io(self, device: DeviceIo, resources: Iterable[Resource]) -> None:
        """Route the PIO and MMIO ranges in `resources` to `device`, all or none.

        Raises:
            DeviceOverlap: a range shares a byte with another one.
            BadTransaction: the transaction has ended.
        """
        self._require_open()
        pio, mmio = self.pio, self.mmio
        counts = self.manager.counts(device.name)
        # The same for all ranges: a large map that shares them stays in the cache.
        pio_handlers = self._handlers(device, device.pio_read, device.pio_write)
        mmio_handlers = self._handlers(device, device.read, device.write)
        for resource in resources:
            match resource:
                case PioAddressRange():
                    trap = Trap(resource.base, resource.last, device, *pio_handlers, counts)
                    pio = pio.with_trap(trap)
                case MmioAddressRange():
                    trap = Trap(resource.base, resource.last, device, *mmio_handlers, counts)
                    mmio = mmio.with_trap(trap)
        self.pio, self.mmio = pio, mmio

    def unregister_device_io(self, resources: Iterable[Resource]) -> None:
        """Stop routing the PIO and MMIO ranges in `resources`, all or none.

        Raises:
            NoDevice: a range isn't registered in exactly this shape.
            BadTransaction: the transaction has ended.
        """
        self._require_open()
        pio, mmio = self.pio, self.mmio
        removed = []
        for resource in resources:
            match resource:
                case PioAddressRange(base, size):
                    pio, trap = pio.without(base, size)
                    removed.append(trap)
                case MmioAddressRange(base, size):
                    mmio, trap = mmio.without(base, size)
                    removed.append(trap)
        self.pio, self.mmio = pio, mmio
        self.removed += removed

    def end(self) -> None:
        """Mark the transaction as ended; its manager calls this.

        Raises:
            BadTransaction: it has ended before.
        """
        self._require_open()
        self._state = TxState.ENDED

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._state is TxState.ENDED:
            return  # the block committed or cancelled by itself
        if error is None:
            self.manager.commit_tx(self)
        else:
            self.manager.cancel_tx(self)

    def _require_open(self) -> None:
        if self._state is not TxState.OPEN:
            raise BadTransaction("the transaction has ended: begin another one")

    def _handlers(self, device: DeviceIo, read: Handler, write: Handler) -> tuple[Handler, Handler]:
        if not isinstance(device, DeviceIoMut):
            return read, write
        timeout_s = self._lock_timeout_s
        return _exclusive(device, read, timeout_s), _exclusive(device, write, timeout_s)


def _exclusive(device: DeviceIoMut, call: Handler, timeout_s: float) -> Handler:
    """Let one thread at a time into `call`; one that waits too long is turned away."""
    acquire, release = device.lock.acquire, device.lock.release

    def exclusive(base: int, offset: int, data: WritableBuffer | ReadableBuffer) -> None:
        # Free most of the time, and positional: keywords would double what a lock costs.
        if not acquire(False) and not acquire(True, timeout_s):  # noqa: FBT003 # as said
            raise DeviceTimeout(
                f"device {device.name!r} was in use for longer than {timeout_s:g} s",
                device=device.name,
                timeout_s=f"{timeout_s:g}",
            )
        try:
            call(base, offset, data)
        finally:
            release()

    return exclusive
