"""What `-o json` says about each thing, and how `--help` explains it.

Shapes are stable: fields are added, but none changes or goes. Addresses, sizes in bytes
and values are strings in 0x form, as JSON's numbers are exact up to 2^53 only. Counts,
interrupts and generations are numbers.
"""

from __future__ import annotations

from devicehost.v1 import (
    hotplug_service_pb2,
    io_service_pb2,
    resource_pb2,
    resource_service_pb2,
)
from devicehost_client.ctl.output import Json
from devicehost_client.ctl.resource_text import MSI_TYPE_NAMES, format_resource

RESOURCE_HELP = """\
RESOURCE is {"text", "kind", ...}; the text is as in a table, and the rest is by kind:
  pio, mmio, mem   "base", "size"
  irq              "irq"
  msi              "type", "first", "count"
  slot             "slot"
  mac              "address"
"""
DEVICE_HELP = f"""\
DEVICE is {{"id", "type", "state", "generation", "config": {{KEY: TEXT}},
"resources": [RESOURCE], "accesses": {{"reads", "writes", "faults"}}}}; accesses are null
where nobody counts them.
{RESOURCE_HELP}"""
DEVICE_TYPE_HELP = """\
TYPE is {"name", "summary", "options": [{"name", "type", "required", "default", "allowed",
"help"}]}; the default is null if there is none.
"""

_STATES = {
    hotplug_service_pb2.DEVICE_STATE_PLUGGED: "plugged",
    hotplug_service_pb2.DEVICE_STATE_UNPLUGGING: "unplugging",
    hotplug_service_pb2.DEVICE_STATE_UNPLUGGED: "unplugged",
}
_SPACES = {io_service_pb2.SPACE_PIO: "pio", io_service_pb2.SPACE_MMIO: "mmio"}

_SPACE_SIZE = 1 << 64


def state_name(device: hotplug_service_pb2.Device) -> str:
    """Where a device stands, in a word."""
    return _STATES.get(device.state, "unknown")


def space_name(trapped: io_service_pb2.ListRangesResponse.Range) -> str:
    """The address space of a range: `pio`, `mmio`."""
    return _SPACES.get(trapped.space, "unknown")


def last_address(trapped: io_service_pb2.ListRangesResponse.Range) -> int:
    """The address of a range's last byte."""
    return trapped.base + (trapped.size or _SPACE_SIZE) - 1


def resource_shape(resource: resource_pb2.Resource) -> dict[str, Json]:
    """A resource."""
    text = format_resource(resource)
    shape: dict[str, Json] = {"text": text, "kind": text.partition(":")[0]}
    match resource.WhichOneof("kind"):
        case "pio" | "mmio" | "mem" as kind:
            addresses: resource_pb2.AddressRange = getattr(resource, kind)
            shape |= {"base": hex(addresses.base), "size": hex(addresses.size)}
        case "legacy_irq":
            shape |= {"irq": resource.legacy_irq}
        case "msi":
            msi = resource.msi
            name = MSI_TYPE_NAMES.get(msi.type, "unknown")
            shape |= {"type": name, "first": msi.base, "count": msi.size}
        case "kvm_mem_slot":
            shape |= {"slot": resource.kvm_mem_slot}
        case "mac_address":
            shape |= {"address": resource.mac_address}
    return shape


def device_shape(device: hotplug_service_pb2.Device) -> dict[str, Json]:
    """A device."""
    counts = device.accesses if device.HasField("accesses") else None
    return {
        "id": device.id,
        "type": device.type,
        "state": state_name(device),
        "generation": device.generation,
        "config": dict(sorted(device.config.items())),
        "resources": [resource_shape(resource) for resource in device.resources],
        "accesses": counts
        and {"reads": counts.reads, "writes": counts.writes, "faults": counts.faults},
    }


def device_type_shape(device_type: hotplug_service_pb2.DeviceType) -> dict[str, Json]:
    """A type of devices."""
    return {
        "name": device_type.name,
        "summary": device_type.summary,
        "options": [
            {
                "name": option.name,
                "type": option.type,
                "required": option.required,
                "default": None if option.required else option.default_value,
                "allowed": option.allowed,
                "help": option.help,
            }
            for option in device_type.options
        ],
    }


def pool_shape(pool: resource_service_pb2.GetCapacityResponse.Pool) -> dict[str, Json]:
    """A pool of resources."""
    return {
        "name": pool.name,
        "total": hex(pool.total),
        "free": hex(pool.free),
        "largest_free": hex(pool.largest_free),
    }


def range_shape(
    trapped: io_service_pb2.ListRangesResponse.Range, device_type: str | None
) -> dict[str, Json]:
    """A range of the address map."""
    return {
        "space": space_name(trapped),
        "base": hex(trapped.base),
        "size": hex(trapped.size or _SPACE_SIZE),
        "last": hex(last_address(trapped)),
        "device": trapped.device_id,
        "type": device_type,
    }
