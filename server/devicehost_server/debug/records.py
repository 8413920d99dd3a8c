"""Devices, as recordings and traces describe them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, cast

from devicehost.recording import DeviceRecord, Space
from devicehost.registers import Decoder, to_json
from devicehost_server.debug.registers import RegisterMaps
from devicehost_server.debug.taps import Span
from devicehost_server.device_info import DeviceInfo
from devicehost_server.device_manager import DeviceManager
from devicehost_server.devices.base import Hosted, State
from devicehost_server.model.errors import DebugError, DeviceHostError
from devicehost_server.model.resources import PioAddressRange
from devicehost_server.resource_json import resources_to_json


class DeviceRecords:
    """Describes devices.

    Args:
        devices: the devices.
        registers: what their registers are called, and hold.
    """

    def __init__(self, devices: DeviceManager, registers: RegisterMaps) -> None:
        self._devices = devices
        self._registers = registers

    def infos(self) -> list[DeviceInfo]:
        """All devices that are on the bus, by id."""
        return self._devices.devices()[1]

    def hosted(self, device_id: str) -> Hosted[Any]:
        """Return a device itself.

        Raises:
            NoSuchDevice: there is none of this id.
        """
        return cast("Hosted[Any]", self._devices.device(device_id))

    def of(self, info: DeviceInfo, state: State | None = None) -> DeviceRecord:
        """Describe a device as it is now.

        Raises:
            DeviceHostError: it is gone, or can't be asked.
        """
        registers, values = None, {}
        with suppress(DebugError):  # it has no map
            found = self._registers.of(info.id)
            registers = to_json(found)
            for name in Decoder(found).follows:
                with suppress(DebugError):  # it can't tell
                    values[name] = self._registers.peek(info.id, name).value
        return DeviceRecord(
            info.id,
            info.type,
            dict(info.config),
            tuple(resources_to_json(info.resources)),
            self._ranges(info),
            registers,
            state,
            values,
        )

    def all(self) -> list[DeviceRecord]:
        """Describe all devices, but those that go, or can't be asked, just now."""
        records = []
        for info in self.infos():
            with suppress(DeviceHostError):
                records.append(self.of(info))
        return records

    def spans(self, info: DeviceInfo) -> tuple[Span, ...]:
        """Where the accesses of a device are."""
        return tuple(
            Span(space is Space.PIO, base, base + size - 1)
            for space, base, size in self._ranges(info)
        )

    def _ranges(self, info: DeviceInfo) -> tuple[tuple[Space, int, int], ...]:
        return tuple(
            (
                Space.PIO if isinstance(each, PioAddressRange) else Space.MMIO,
                each.base,
                each.size,
            )
            for each in info.resources.trapped()
        )
