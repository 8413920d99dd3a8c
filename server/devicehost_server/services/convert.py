"""Between messages and the model's values, both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from devicehost.v1 import hotplug_service_pb2 as hotplug_pb
from devicehost.v1 import resource_pb2 as resource_pb
from devicehost_server.device_info import DeviceInfo, DeviceState
from devicehost_server.devices.registry import DeviceTypeInfo
from devicehost_server.model import resources as model
from devicehost_server.model.counters import AccessCounts
from devicehost_server.model.errors import BadConstraint, BadRequest

_MSI_TYPES = {
    model.MsiType.PCI_MSI: resource_pb.MSI_TYPE_PCI_MSI,
    model.MsiType.PCI_MSIX: resource_pb.MSI_TYPE_PCI_MSIX,
    model.MsiType.GENERIC_MSI: resource_pb.MSI_TYPE_GENERIC_MSI,
}
_MSI_TYPES_BACK = {number: ty for ty, number in _MSI_TYPES.items()}

_MSI_CONSTRAINTS: dict[int, type[model.MsiConstraint]] = {
    resource_pb.MSI_TYPE_PCI_MSI: model.PciMsiIrqConstraint,
    resource_pb.MSI_TYPE_PCI_MSIX: model.PciMsixIrqConstraint,
    resource_pb.MSI_TYPE_GENERIC_MSI: model.GenericIrqConstraint,
}

_DEVICE_STATES = {
    DeviceState.PLUGGED: hotplug_pb.DEVICE_STATE_PLUGGED,
    DeviceState.UNPLUGGING: hotplug_pb.DEVICE_STATE_UNPLUGGING,
    DeviceState.UNPLUGGED: hotplug_pb.DEVICE_STATE_UNPLUGGED,
}


def resource_to_message(resource: model.Resource) -> resource_pb.Resource:
    """Turn a resource into its message."""
    match resource:
        case model.PioAddressRange(base, size):
            return resource_pb.Resource(pio=resource_pb.AddressRange(base=base, size=size))
        case model.MmioAddressRange(base, size):
            return resource_pb.Resource(mmio=resource_pb.AddressRange(base=base, size=size))
        case model.MemAddressRange(base, size):
            return resource_pb.Resource(mem=resource_pb.AddressRange(base=base, size=size))
        case model.LegacyIrq(irq):
            return resource_pb.Resource(legacy_irq=irq)
        case model.MsiIrq(ty, base, size):
            msi = resource_pb.MsiRange(type=_MSI_TYPES[ty], base=base, size=size)
            return resource_pb.Resource(msi=msi)
        case model.KvmMemSlot(slot):
            return resource_pb.Resource(kvm_mem_slot=slot)
        case model.MacAddress(address):
            return resource_pb.Resource(mac_address=address)
    raise TypeError(f"no message for {resource!r}")


def resource_from_message(message: resource_pb.Resource) -> model.Resource:
    """Turn a message into its resource.

    Raises:
        BadRequest: nothing is set in it, or an MSI type is unknown.
        BadRange: a range is empty or past the end of its space.
    """
    match message.WhichOneof("kind"):
        case "pio":
            return model.PioAddressRange(message.pio.base, message.pio.size)
        case "mmio":
            return model.MmioAddressRange(message.mmio.base, message.mmio.size)
        case "mem":
            return model.MemAddressRange(message.mem.base, message.mem.size)
        case "legacy_irq":
            return model.LegacyIrq(message.legacy_irq)
        case "msi":
            ty = _MSI_TYPES_BACK.get(message.msi.type)
            if ty is None:
                raise BadRequest(f"MSI type {message.msi.type} is unknown", field="msi.type")
            return model.MsiIrq(ty, message.msi.base, message.msi.size)
        case "kvm_mem_slot":
            return model.KvmMemSlot(message.kvm_mem_slot)
        case "mac_address":
            return model.MacAddress(message.mac_address)
        case _:
            raise BadRequest("a resource of no kind", field="resources")


def constraint_from_message(message: resource_pb.ResourceConstraint) -> model.ResourceConstraint:
    """Turn a message into its constraint.

    Raises:
        BadConstraint: it is nonsense, or nothing is set in it.
    """
    match message.WhichOneof("kind"):
        case "pio":
            return model.PioAddressConstraint(**_address_fields(message.pio))
        case "mmio":
            return model.MmioAddressConstraint(**_address_fields(message.mmio))
        case "mem":
            return model.MemAddressConstraint(**_address_fields(message.mem))
        case "legacy_irq":
            return model.LegacyIrqConstraint(_optional(message.legacy_irq, "irq"))
        case "msi":
            kind = _MSI_CONSTRAINTS.get(message.msi.type)
            if kind is None:
                raise BadConstraint(f"MSI type {message.msi.type} is unknown", field="type")
            align = message.msi.align if message.msi.HasField("align") else 1
            return kind(message.msi.size, align)
        case "kvm_mem_slot":
            slot = _optional(message.kvm_mem_slot, "slot")
            return model.KvmMemSlotConstraint(slot, message.kvm_mem_slot.size)
        case _:
            raise BadConstraint("a constraint of no kind", field="constraints")


def device_to_message(
    info: DeviceInfo, counts_of: Callable[[str], AccessCounts]
) -> hotplug_pb.Device:
    """Turn a device into its message, with its counts if there are any yet, or still."""
    message = hotplug_pb.Device(
        id=info.id,
        type=info.type,
        state=_DEVICE_STATES[info.state],
        config=info.config,
        resources=resources_to_messages(info.resources),
        generation=info.generation,
    )
    if info.state is not DeviceState.UNPLUGGED:
        counts = counts_of(info.id)
        message.accesses.reads = counts.reads
        message.accesses.writes = counts.writes
        message.accesses.faults = counts.faults
    return message


def device_type_to_message(info: DeviceTypeInfo) -> hotplug_pb.DeviceType:
    """Turn a device type into its message."""
    options = (
        hotplug_pb.DeviceOption(
            name=option.name,
            type=option.type,
            required=option.required,
            default_value=option.default,
            help=option.help,
            allowed=option.allowed,
        )
        for option in info.options
    )
    return hotplug_pb.DeviceType(name=info.name, summary=info.summary, options=options)


def resources_to_messages(resources: Iterable[model.Resource]) -> list[resource_pb.Resource]:
    """Turn resources into their messages, in order."""
    return [resource_to_message(resource) for resource in resources]


def _address_fields(message: resource_pb.AddressConstraint) -> dict[str, Any]:
    """The fields that are present; the model knows the defaults of the others."""
    fields: dict[str, Any] = {"size": message.size}
    for name in ("min", "max", "align"):
        if message.HasField(name):
            fields[name] = getattr(message, name)
    return fields


def _optional(message: Any, field: str) -> int | None:
    value: int = getattr(message, field)
    return value if message.HasField(field) else None
