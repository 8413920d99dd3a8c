"""What is to be seen of devices, the bus, interrupts, resources, memory and threads.

Each function here returns a branch for `Inspection.add`.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, cast

from devicehost.registers import Decoded
from devicehost_server.allocation import ResourceManager
from devicehost_server.debug.inspection import Branch, Look, Provider
from devicehost_server.debug.registers import RegisterMaps
from devicehost_server.debug.states import States
from devicehost_server.device_info import DeviceInfo
from devicehost_server.device_manager import DeviceManager
from devicehost_server.devices.base import Hosted
from devicehost_server.model import resources as model
from devicehost_server.model.address_map import Space
from devicehost_server.model.errors import hex_range
from devicehost_server.model.guest_memory import GuestMemory
from devicehost_server.model.interrupts import InterruptController
from devicehost_server.model.io_manager import IoManager


@dataclass(frozen=True, slots=True)
class DevicesView:
    """All devices, by id: what they are, have, and hold. It is a `Provider`.

    Attributes:
        devices: the devices.
        io: the bus that they are on.
        registers: what their registers are called.
        states: tells their state.
        clients: returns the clients of those that are PCI functions, by device.
    """

    devices: DeviceManager
    io: IoManager
    registers: RegisterMaps
    states: States
    clients: Callable[[], Mapping[str, Look]] = dict

    def __call__(self) -> Look:
        """Return all devices."""
        return {
            info.id: Branch(info.type, self._device(info)) for info in self.devices.devices()[1]
        }

    def _device(self, info: DeviceInfo) -> Mapping[str, Look]:
        shown: dict[str, Look] = {
            "type": info.type,
            "state": info.state.value,
            "generation": info.generation,
            "config": dict(info.config),
            "resources": _numbered([_resource(each) for each in info.resources]),
            "ranges": lambda: self._ranges(info.id),
            "counts": lambda: self._counts(info.id),
            "registers": lambda: self._registers(info.id),
            "inside": lambda: self._inside(info.id),
            "saved": lambda: self._saved(info.id),
        }
        if "pci-socket" in info.config:
            shown["pci"] = lambda: self._function(info.id)
        return shown

    def _ranges(self, device_id: str) -> Look:
        return {
            f"{each.space.value} {hex_range(each.base, each.size)}": None
            for each in self.io.ranges()
            if each.device == device_id
        }

    def _counts(self, device_id: str) -> Look:
        counts = self.io.counts(device_id)
        return {"reads": counts.reads, "writes": counts.writes, "faults": counts.faults}

    def _registers(self, device_id: str) -> Look:
        return {each.register: _register(each) for each in self.registers.peek_all(device_id)}

    def _inside(self, device_id: str) -> Look:
        return _json(cast("Hosted[Any]", self.devices.device(device_id)).view())

    def _saved(self, device_id: str) -> Look:
        return _json(self.states.save([device_id])[device_id]["state"])

    def _function(self, device_id: str) -> Look:
        """The device as a PCI function, its guest's memory, and its client, if it has one."""
        function = self.devices.function(device_id)
        if function is None:
            return None
        memory, client = memory_view(function.memory), self.clients().get(device_id)
        return {**function.view(), "memory": memory, "client": client}


def ranges_view(io: IoManager) -> Provider:
    """The address map: whose the trapped ranges are, by space and address."""

    def look() -> Look:
        ranges = io.ranges()
        return {
            space.value: {
                hex_range(each.base, each.size): each.device
                for each in ranges
                if each.space is space
            }
            for space in Space
        }

    return look


def interrupts_view(interrupts: InterruptController, resources: ResourceManager) -> Provider:
    """The interrupts: those that are asserted, and by GSI who has a line to it."""

    def look() -> Look:
        asserted = interrupts.asserted()
        owners: dict[int, list[str]] = {gsi: [] for gsi in asserted}
        for allocation in resources.allocations():
            match allocation.resource:
                case model.LegacyIrq(irq):
                    owners.setdefault(irq, []).append(allocation.owner)
                case model.MsiIrq(_, base, size):
                    for gsi in range(base, base + size):
                        owners.setdefault(gsi, []).append(allocation.owner)
        return {
            "generation": interrupts.generation,
            "asserted": ", ".join(map(str, asserted)),
            "gsi": {
                str(gsi): Branch(
                    "asserted" if gsi in asserted else "deasserted", {"owners": ", ".join(who)}
                )
                for gsi, who in sorted(owners.items())
            },
        }

    return look


def resources_view(resources: ResourceManager) -> Provider:
    """The pools, how much each has left, and who has what."""

    def pools() -> Look:
        return {
            pool.name: {
                "total": pool.total,
                "used": pool.total - pool.free,
                "free": pool.free,
                "reserved": pool.reserved,
                "largest_free": pool.largest_free,
            }
            for pool in resources.capacity()
        }

    def owners() -> Look:
        had: dict[str, list[str]] = {}
        for allocation in resources.allocations():
            had.setdefault(allocation.owner, []).append(_resource(allocation.resource))
        return {owner: _numbered(texts) for owner, texts in had.items()}

    return lambda: {"pools": pools, "owners": owners}


def memory_view(memory: GuestMemory) -> Provider:
    """The blocks of guest memory that the VMM has shared, by guest-physical address."""

    def look() -> Look:
        return {
            hex_range(block.base, block.size): {
                "size": block.size,
                "readable": block.readable,
                "writable": block.writable,
            }
            for block in memory.blocks()
        }

    return look


def threads_view() -> Look:
    """The threads of the process, by their numbers, and where in the code each is now."""
    frames = sys._current_frames()  # noqa: SLF001 # documented, and there is no other way
    found: dict[str, Look] = {}
    for thread in threading.enumerate():
        details: dict[str, Look] = {"daemon": thread.daemon}
        if thread.ident in frames:
            code = frames[thread.ident].f_code
            file = PurePath(code.co_filename).name
            details["at"] = f"{file}:{frames[thread.ident].f_lineno} {code.co_qualname}"
        found[str(thread.native_id)] = Branch(thread.name, details)
    return found


def _register(decoded: Decoded) -> Look:
    size = decoded.declared.size if decoded.declared else 0
    fields: dict[str, Look] = {
        each.name: f"{each.value:#x} {each.meaning}".rstrip() for each in decoded.fields
    }
    if decoded.reserved:
        fields["(reserved)"] = f"{decoded.reserved:#x}"
    return Branch(f"0x{decoded.value:0{2 * size}x}", fields)


def _resource(resource: model.Resource) -> str:
    """A resource for people: `pio 0x3f8-0x3ff`, `irq 4`."""
    match resource:
        case model.PioAddressRange(base, size):
            return f"pio {hex_range(base, size)}"
        case model.MmioAddressRange(base, size):
            return f"mmio {hex_range(base, size)}"
        case model.MemAddressRange(base, size):
            return f"memory {hex_range(base, size)}"
        case model.LegacyIrq(irq):
            return f"irq {irq}"
        case model.MsiIrq(ty, base, size):
            return f"{ty.value} {base}-{base + size - 1}"
        case model.KvmMemSlot(slot):
            return f"kvm slot {slot}"
        case model.MacAddress(address):
            return f"mac {address}"
    raise TypeError(f"no text for {resource!r}")


def _json(value: Any) -> Look:
    """A value of JSON: objects, and lists of them, become nodes; other lists are values."""
    if isinstance(value, Mapping):
        return {name: _json(each) for name, each in value.items()}
    if isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
        return {str(index): _json(each) for index, each in enumerate(value)}
    return value if isinstance(value, str | int) else json.dumps(value)


def _numbered(texts: list[str]) -> Mapping[str, Look]:
    return {str(index): text for index, text in enumerate(texts)}
