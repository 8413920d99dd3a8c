"""What one client is attached to, as far as the bus and a PCI function are alike in it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from devicehost.vfio_user import (
    DeviceReset,
    DmaMap,
    DmaUnmap,
    DmaUnmapped,
    Done,
    RegionData,
    RegionRead,
    RegionWrite,
    RegionWriteMulti,
    RegionWritesDone,
    RegionWritten,
    RequestPayload,
    SetIrqs,
)
from devicehost_server.endpoints.dma import SharedMemory
from devicehost_server.endpoints.endpoint import Answer


class Irqs(Protocol):
    """What a client has connected to interrupts."""

    def apply(self, request: SetIrqs, fds: tuple[int, ...]) -> bool:
        """Do what is asked; return whether `fds` are ours now, to close."""


class AttachedDevice(ABC):
    """Does what a client asks, by what differs: most of an `Attached`.

    Args:
        irqs: what the client has connected to interrupts.
        memory: what it shares.
    """

    def __init__(self, irqs: Irqs, memory: SharedMemory) -> None:
        self._apply = irqs.apply
        self._shared = memory

    @abstractmethod
    def read(self, region: int, offset: int, data: memoryview) -> None:
        """Fill `data` from a region; see `Attached.read`."""

    @abstractmethod
    def write(self, region: int, offset: int, data: bytes | memoryview) -> None:
        """Write `data` to a region; see `Attached.write`."""

    @abstractmethod
    def reset(self) -> None:
        """Reset the device.

        Raises:
            Refused: it can't be done.
            DeviceHostError: it failed.
        """

    @abstractmethod
    def describe(self, request: RequestPayload) -> Answer:
        """Say what the device is: its regions and interrupts.

        Raises:
            Refused: there is no such thing.
        """

    def serve(self, request: RequestPayload, fds: tuple[int, ...]) -> Answer:
        """Do what the client asks; see `Attached.serve`."""
        match request:
            case RegionRead(region, offset, count):
                data = bytearray(count)
                self.read(region, offset, memoryview(data))
                return Answer(RegionData(bytes(data)))
            case RegionWrite(region, offset, data):
                self.write(region, offset, data)
                return Answer(RegionWritten(len(data)))
            case RegionWriteMulti(writes):
                for write in writes:
                    self.write(write.region, write.offset, write.data)
                return Answer(RegionWritesDone(len(writes)))
            case SetIrqs():
                kept = self._apply(request, fds)
                return Answer(Done(), kept=kept)
            case DmaMap():
                self._shared.map(request, fds)
                return Answer(Done())
            case DmaUnmap():
                self._shared.unmap(request)
                return Answer(DmaUnmapped())
            case DeviceReset():
                self.reset()
                return Answer(Done())
        return self.describe(request)
