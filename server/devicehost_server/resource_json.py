"""Resources as JSON, as recordings have them: a list of objects, one for each resource.

    {"kind": "pio", "base": 1016, "size": 8}            so do "mmio" and "mem"
    {"kind": "irq", "irq": 4}
    {"kind": "msi", "type": "pci-msix", "first": 24, "count": 2}
    {"kind": "slot", "slot": 3}
    {"kind": "mac", "address": "52:54:00:12:34:56"}

The order is that of the device's constraints, and is kept both ways.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from devicehost_server.model.resources import (
    AddressRange,
    DeviceResources,
    KvmMemSlot,
    LegacyIrq,
    MacAddress,
    MemAddressRange,
    MmioAddressRange,
    MsiIrq,
    MsiType,
    PioAddressRange,
    Resource,
)

ResourceJson: TypeAlias = dict[str, object]

_RANGES: Mapping[str, type[AddressRange]] = {
    "pio": PioAddressRange,
    "mmio": MmioAddressRange,
    "mem": MemAddressRange,
}
_KINDS = {kind: name for name, kind in _RANGES.items()}


def resources_to_json(resources: Iterable[Resource]) -> list[ResourceJson]:
    """Return the resources as JSON.

    Raises:
        TypeError: one is of a kind that has no form.
    """
    return [_to_json(resource) for resource in resources]


def resources_from_json(shapes: object) -> DeviceResources:
    """Return the resources that `resources_to_json` made `shapes` of.

    Raises:
        ValueError: it can't have. The message says which resource, and why.
        BadRange: a range isn't one.
    """
    match shapes:
        case list():
            return DeviceResources(_from_json(number, shape) for number, shape in enumerate(shapes))
    raise ValueError(f"resources are {shapes!r}, allowed: a list")


def _to_json(resource: Resource) -> ResourceJson:
    match resource:
        case AddressRange(base, size):
            return {"kind": _KINDS[type(resource)], "base": base, "size": size}
        case LegacyIrq(irq):
            return {"kind": "irq", "irq": irq}
        case MsiIrq(ty, first, count):
            return {"kind": "msi", "type": ty.value, "first": first, "count": count}
        case KvmMemSlot(slot):
            return {"kind": "slot", "slot": slot}
        case MacAddress(address):
            return {"kind": "mac", "address": address}
    raise TypeError(f"a resource of type {type(resource).__name__} has no form in JSON")


def _from_json(number: int, shape: object) -> Resource:
    match shape:
        case {"kind": "pio" | "mmio" | "mem" as kind, "base": int(base), "size": int(size)}:
            return _RANGES[kind](base, size)
        case {"kind": "irq", "irq": int(irq)}:
            return LegacyIrq(irq)
        case {"kind": "msi", "type": str(ty), "first": int(first), "count": int(count)} if any(
            ty == known.value for known in MsiType
        ):
            return MsiIrq(MsiType(ty), first, count)
        case {"kind": "slot", "slot": int(slot)}:
            return KvmMemSlot(slot)
        case {"kind": "mac", "address": str(address)}:
            return MacAddress(address)
    raise ValueError(f"resource {number} is {shape!r}, which is no resource")
