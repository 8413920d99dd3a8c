"""What a device is to the bus: two ways to take accesses.

`DeviceIo` handles its own concurrency: several vCPUs may be in it at once.
`DeviceIoMut` is entered by one thread at a time: `IoManager.register_device_io` puts a
lock of the device's own around its four methods.

Both take the same calls. `base` is the start of the trapped range that was hit, and
`offset` the distance of the access from it, in bytes, so that a device with several
ranges can tell them apart. `data` is as long as the access. Numbers in it are
little-endian. A read fills `data` in place, since it may be a window on shared memory;
it is all zeros when the device is called.

    >>> class Answer(DeviceIo):
    ...     def read(self, base: int, offset: int, data: WritableBuffer) -> None:
    ...         data[:] = (42).to_bytes(len(data), "little")

A device may raise anything: the access fails as a `DeviceFault`, and the next one works.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Self, TypeAlias

from devicehost_server.model.resources import DeviceResources, MmioAddressRange, PioAddressRange

WritableBuffer: TypeAlias = bytearray | memoryview
"""The bytes that a read fills; a memoryview is contiguous, of format 'B'."""

ReadableBuffer: TypeAlias = bytes | bytearray | memoryview
"""The bytes that a write brings. They are valid only during the call: copy to keep."""

DEVICE_EXCEPTIONS = (Exception, SystemExit, GeneratorExit)
"""What a device may leave in the air without harm to others: all but KeyboardInterrupt."""


class DeviceIo:
    """A device that handles its own concurrency. By default it ignores every access."""

    @property
    def name(self) -> str:
        """How errors and listings call the device."""
        return type(self).__name__

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:
        """Fill `data` from the MMIO range at `base`, starting `offset` bytes into it."""

    def write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        """Take `data` to the MMIO range at `base`, starting `offset` bytes into it."""

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:
        """Fill `data` from the port `offset` ports after `base`."""

    def pio_write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        """Take `data` to the port `offset` ports after `base`."""

    def get_assigned_resources(self) -> DeviceResources:
        """All resources that the device was given; none by default."""
        return DeviceResources()

    def get_trapped_io_resources(self) -> Sequence[PioAddressRange | MmioAddressRange]:
        """The ranges that trap to the device: the PIO and MMIO ones of the assigned."""
        return self.get_assigned_resources().trapped()


class DeviceIoMut(DeviceIo):
    """A device that is entered by one thread at a time.

    The bus holds `lock` during each access. A device that also does work outside of
    accesses (a timer, input that arrives) takes it there by itself:

        with self.lock:
            self._received.append(byte)

    The lock is re-entrant, so that an access which reaches its own device again does not
    wait for itself. It belongs to the device, not to a registration: a device on two
    buses, or with many ranges, still has one.
    """

    lock: threading.RLock

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        """Make the lock here, so that a device need not call `__init__` of its base."""
        self = super().__new__(cls)
        self.lock = threading.RLock()
        return self
