"""`device`: what is plugged, and what could be."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from devicehost.v1 import hotplug_service_pb2 as pb
from devicehost_client.ctl.command import (
    CommandFailed,
    Context,
    ExitStatus,
    Noun,
    UsageError,
    Verb,
    argument,
    checked,
)
from devicehost_client.ctl.commands.device_registers import REGISTERS
from devicehost_client.ctl.debug_shapes import REGISTER_HELP, register_shape
from devicehost_client.ctl.numeral import number
from devicehost_client.ctl.output import Table
from devicehost_client.ctl.resource_text import format_resource
from devicehost_client.ctl.shapes import (
    DEVICE_HELP,
    DEVICE_TYPE_HELP,
    device_shape,
    device_type_shape,
    state_name,
)
from devicehost_client.ctl.watching import end_with_its_reader
from devicehost_client.debug import RegisterValue

_WATCH_COLUMNS = {"GENERATION": 10, "EVENT": 10, "ID": 16, "TYPE": 12, "RESOURCES": 0}


def list_devices(context: Context) -> ExitStatus:
    """Show all devices."""
    devices = context.host.hotplug.devices()
    rows = [(d.id, d.type, state_name(d), _resources(d)) for d in devices]
    context.output.show(
        {"devices": [device_shape(device) for device in devices]},
        Table(("ID", "TYPE", "STATE", "RESOURCES"), rows),
    )
    return ExitStatus.OK


def show(context: Context) -> ExitStatus:
    """Show one device, and maybe what its registers hold."""
    device = context.host.hotplug.get(context.options.id)
    found = context.host.debug.peek_all(device.id) if context.options.registers else None
    _show(context, device, found)
    return ExitStatus.OK


def plug(context: Context) -> ExitStatus:
    """Plug a device, and show it."""
    options = context.options
    device = context.host.hotplug.plug(
        options.type,
        dict(options.config),
        device_id=options.id,
        expected_generation=options.if_generation,
    )
    _show(context, device)
    return ExitStatus.OK


def unplug(context: Context) -> ExitStatus:
    """Unplug a device, and show the generation without it."""
    options = context.options
    generation = context.host.hotplug.unplug(options.id, expected_generation=options.if_generation)
    context.output.show(
        {"id": options.id, "generation": generation},
        Table(("ID", "STATE", "GENERATION"), [(options.id, "unplugged", str(generation))]),
    )
    return ExitStatus.OK


def types(context: Context) -> ExitStatus:
    """Show all types of devices, or the options of one."""
    found = context.host.hotplug.types()
    name = context.options.type
    if name is None:
        context.output.show(
            {"types": [device_type_shape(each) for each in found]},
            Table(("TYPE", "SUMMARY"), [(each.name, each.summary) for each in found]),
        )
        return ExitStatus.OK
    wanted = next((each for each in found if each.name == name), None)
    if wanted is None:
        known = ", ".join(each.name for each in found)
        raise CommandFailed(f"no device type {name!r}; known: {known}")
    rows = [(each.name, _default(each), each.allowed, each.help) for each in wanted.options]
    context.output.show(
        device_type_shape(wanted), Table(("OPTION", "DEFAULT", "ALLOWED", "HELP"), rows)
    )
    return ExitStatus.OK


def watch(context: Context) -> ExitStatus:
    """Show all devices, then each change."""
    end_with_its_reader()
    output = context.output.stream(_WATCH_COLUMNS)
    for response in context.host.hotplug.watch():
        generation = response.generation
        if response.HasField("snapshot"):
            devices, event = list(response.snapshot.devices), "present"
            shapes = [device_shape(device) for device in devices]
            output.json({"event": event, "generation": generation, "devices": shapes})
        else:
            devices, event = [response.changed], state_name(response.changed)
            shape = device_shape(response.changed)
            output.json({"event": event, "generation": generation, "device": shape})
        for device in devices:
            output.row(str(generation), event, device.id, device.type, _resources(device))
    return ExitStatus.OK


def _show(
    context: Context, device: pb.Device, registers: Sequence[RegisterValue] | None = None
) -> None:
    """Show a device as fields, one below the other, and its registers likewise."""
    rows = [
        ("id", device.id),
        ("type", device.type),
        ("state", state_name(device)),
        ("generation", str(device.generation)),
        *(("config", f"{key}={value}") for key, value in sorted(device.config.items())),
        *(("resource", format_resource(resource)) for resource in device.resources),
    ]
    if device.HasField("accesses"):
        counts = device.accesses
        rows += [("reads", str(counts.reads)), ("writes", str(counts.writes))]
        rows += [("faults", str(counts.faults))]
    rows += [(each.name, str(each).partition(" = ")[2]) for each in registers or ()]
    shape = device_shape(device)
    if registers is not None:
        shape["registers"] = [register_shape(each) for each in registers]
    context.output.show(shape, Table(("FIELD", "VALUE"), rows))


def _resources(device: pb.Device) -> str:
    return " ".join(format_resource(resource) for resource in device.resources)


def _default(option: pb.DeviceOption) -> str:
    return "(required)" if option.required else option.default_value


def _key_and_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ValueError(f"{text!r} is not allowed; allowed: key=value")
    return key, value


def _check_config(options: argparse.Namespace) -> None:
    """Refuse a key that comes twice."""
    seen: set[str] = set()
    for key, _ in options.config:
        if key in seen:
            raise UsageError(f"argument key=value: {key!r} is given twice")
        seen.add(key)


_ID = argument("id", metavar="ID", help="the device")
_IF_GENERATION = argument(
    "--if-generation",
    metavar="N",
    type=checked(number),
    help="only if the devices have not changed since generation N",
)

DEVICE = Noun(
    "device",
    "devices: what is plugged, and what could be",
    verbs=(
        Verb(
            "list",
            list_devices,
            summary="list the devices",
            json=f'{{"devices": [DEVICE]}}\n\n{DEVICE_HELP}',
            examples=(
                "devicehostctl device list",
                "devicehostctl -o json device list | jq -r '.devices[].id'",
            ),
        ),
        Verb(
            "show",
            show,
            summary="show a device: its configuration, resources and access counts",
            arguments=(
                _ID,
                argument(
                    "--registers",
                    action="store_true",
                    help="and what its registers hold, as 'peek' does",
                ),
            ),
            json=(
                'DEVICE, with --registers and "registers": [REGISTER]\n\n'
                f"{DEVICE_HELP}\n{REGISTER_HELP}"
            ),
            examples=(
                "devicehostctl device show com1",
                "devicehostctl device show com1 --registers",
            ),
        ),
        Verb(
            "plug",
            plug,
            summary="plug a device, and show it",
            description=(
                "All of it or nothing: when it fails, nothing has changed. Paths in a\n"
                "configuration are paths of the server's host.\n\n"
                "With pci-socket=PATH a device of any type is a PCI function, on a socket of its\n"
                "own, where QEMU's vfio-user-pci or another vfio-user client attaches. What else\n"
                "can be said of a function: 'devicehostd --help' has the keys."
            ),
            arguments=(
                argument("type", metavar="TYPE", help="its type, see 'device types'"),
                argument(
                    "config",
                    metavar="key=value",
                    nargs="*",
                    default=[],
                    type=checked(_key_and_value),
                    help="its configuration, see 'device types TYPE'",
                ),
                argument("--id", metavar="ID", default="", help="its name [one is made]"),
                _IF_GENERATION,
            ),
            check=_check_config,
            json=f"DEVICE\n\n{DEVICE_HELP}",
            examples=(
                "devicehostctl device plug uart16550 chardev=file:/tmp/com1.log --id com1",
                "devicehostctl device plug scratch base=0xd0000000 size=4096 irq=5",
                "devicehostctl device plug virtio-blk file=more.img pci-socket=more.sock --id more",
            ),
        ),
        Verb(
            "unplug",
            unplug,
            summary="unplug a device, and show the generation without it",
            description=(
                "The device is off the bus at once. The command returns when the accesses that\n"
                "were in flight have ended, and what the device had is free.\n\n"
                "The client of a PCI function is asked to leave before that, if it has connected\n"
                "the request interrupt of VFIO. QEMU 11 hasn't, and is cut off: the guest has to\n"
                "let the device go first, by device_del."
            ),
            arguments=(_ID, _IF_GENERATION),
            json='{"id", "generation"}',
            examples=(
                "devicehostctl device unplug com1",
                "devicehostctl device unplug com1 --if-generation 7",
            ),
        ),
        Verb(
            "types",
            types,
            summary="list the types of devices, or the options of one type",
            description=(
                "A device of any type can be a PCI function as well: see 'device plug --help'."
            ),
            arguments=(
                argument("type", metavar="TYPE", nargs="?", help="show the options of this type"),
            ),
            json=f'{{"types": [TYPE]}}, or TYPE if one is named\n\n{DEVICE_TYPE_HELP}',
            examples=("devicehostctl device types", "devicehostctl device types uart16550"),
        ),
        REGISTERS,
        Verb(
            "watch",
            watch,
            summary="show the devices, then each change as it happens",
            description=(
                "One line for each change. The event is 'present' for the devices that are there\n"
                "at first, then 'plugged', 'unplugging' (off the bus, but an access in flight\n"
                "still uses it) or 'unplugged'. The generation is the number of the last change."
            ),
            json=(
                "one object on each line, the first for all devices that are there:\n"
                '{"event": "present", "generation", "devices": [DEVICE]}\n'
                '{"event": "plugged", "generation", "device": DEVICE}\n\n'
                f"{DEVICE_HELP}"
            ),
            statuses={ExitStatus.OK: "ended by SIGINT (Ctrl-C), or its reader is gone"},
            examples=(
                "devicehostctl device watch",
                "devicehostctl -o json device watch | jq -c '[.event, .device.id]'",
            ),
        ),
    ),
)
