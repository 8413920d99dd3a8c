"""Which devices there are: for whoever looks, and for who hears of each change.

Each change gets the next generation number, and listeners hear of it in that order. A
caller that read generation G may ask for a change "if it still is G".

Here one only looks. `device_manager.DeviceManager` plugs and unplugs.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from devicehost_server.device_info import DeviceEvent, DeviceInfo, DeviceListener
from devicehost_server.devices.base import Hosted
from devicehost_server.functions import FunctionSocket
from devicehost_server.model.address_map import Trap
from devicehost_server.model.device_io import DeviceIo
from devicehost_server.model.errors import GenerationMismatch, NoSuchDevice
from devicehost_server.model.resources import DeviceResources, Resource
from devicehost_server.new_device import NewDevice
from devicehost_server.pci.function import PciFunction


@dataclass(slots=True, eq=False)
class Record:
    """A device with what it takes to unplug it.

    Attributes:
        info: how it is known; replaced with each change.
        new: the device, and its place.
        owner: whom its resources are allocated to.
        allocated: these, as the resource manager knows them.
        trapped: its ranges on the bus.
        removed: these, once it is off the bus.
        unplugging: held by who unplugs it.
    """

    info: DeviceInfo
    new: NewDevice
    owner: str
    allocated: DeviceResources
    trapped: Sequence[Resource]
    removed: Sequence[Trap] = ()
    unplugging: threading.Lock = field(default_factory=threading.Lock)

    @property
    def id(self) -> str:
        """What the device is called."""
        return self.info.id

    @property
    def device(self) -> DeviceIo:
        """The device, as the bus has it."""
        return self.new.device

    @property
    def hosted(self) -> Hosted[Any]:
        """The device, by the steps of its life."""
        return self.new.hosted

    @property
    def socket(self) -> FunctionSocket | None:
        """Where clients get at it, if it is a PCI function."""
        return self.new.socket


class PluggedDevices:
    """The devices of one VM. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._generation = 0
        self._records: dict[str, Record | None] = {}  # None: the id is being plugged
        self._listeners: list[DeviceListener] = []

    @property
    def generation(self) -> int:
        """The number of the last change; 0 before the first."""
        return self._generation

    def devices(self) -> tuple[int, list[DeviceInfo]]:
        """Return the generation, and all devices of that moment by id."""
        with self._lock:
            return self._generation, self._infos()

    def get(self, device_id: str) -> DeviceInfo:
        """Return one device.

        Raises:
            NoSuchDevice: there is none of this id.
        """
        with self._lock:
            return self._find(device_id).info

    def device(self, device_id: str) -> DeviceIo:
        """Return the device itself, for code that lives in the same process.

        Raises:
            NoSuchDevice: there is none of this id.
        """
        with self._lock:
            return self._find(device_id).device

    def function(self, device_id: str) -> PciFunction | None:
        """Return a device as a PCI function; None if it is on the bus.

        Raises:
            NoSuchDevice: there is none of this id.
        """
        with self._lock:
            return self._find(device_id).new.function

    def subscribe(self, listener: DeviceListener) -> tuple[int, list[DeviceInfo]]:
        """Tell `listener` each change from now on.

        Returns:
            The generation, and all devices of this moment by id; the first event follows.
        """
        with self._lock:
            self._listeners.append(listener)
            return self._generation, self._infos()

    def unsubscribe(self, listener: DeviceListener) -> None:
        """Tell `listener` nothing more."""
        with self._lock:
            self._listeners.remove(listener)

    # Under the lock.

    def _infos(self) -> list[DeviceInfo]:
        records = (self._records[device_id] for device_id in sorted(self._records))
        return [record.info for record in records if record is not None]

    def _find(self, device_id: str) -> Record:
        record = self._records.get(device_id)
        if record is None:
            raise NoSuchDevice(f"there is no device {device_id!r}", device=device_id)
        return record

    def _require(self, generation: int | None) -> None:
        if generation is not None and generation != self._generation:
            raise GenerationMismatch(
                f"the devices are at generation {self._generation}, not {generation}",
                generation=self._generation,
                expected=generation,
            )

    def _announce(self, info: DeviceInfo) -> None:
        """A device changed, and now is as `info` says."""
        self._generation += 1
        event = DeviceEvent(self._generation, info)
        for listener in self._listeners:
            listener(event)
