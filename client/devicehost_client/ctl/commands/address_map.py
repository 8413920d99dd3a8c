"""`map`: what traps to which device, like the `info mtree` of QEMU's monitor."""

from __future__ import annotations

from devicehost.v1 import io_service_pb2
from devicehost_client.ctl.command import Context, ExitStatus, Verb
from devicehost_client.ctl.output import Table
from devicehost_client.ctl.shapes import last_address, range_shape, space_name

_DIGITS = {"pio": 4}
_DIGITS_OF_MEMORY = 16


def show_map(context: Context) -> ExitStatus:
    """Show both address spaces."""
    ranges = context.host.ranges()
    # A device that has just been unplugged may be in the one list and not in the other.
    types = {device.id: device.type for device in context.host.hotplug.devices()}
    rows = [
        (space_name(each), _first_to_last(each), each.device_id, types.get(each.device_id, ""))
        for each in ranges
    ]
    context.output.show(
        {"ranges": [range_shape(each, types.get(each.device_id)) for each in ranges]},
        Table(("SPACE", "RANGE", "DEVICE", "TYPE"), rows),
    )
    return ExitStatus.OK


def _first_to_last(trapped: io_service_pb2.ListRangesResponse.Range) -> str:
    width = 2 + _DIGITS.get(space_name(trapped), _DIGITS_OF_MEMORY)
    return f"{trapped.base:#0{width}x}-{last_address(trapped):#0{width}x}"


MAP = Verb(
    "map",
    show_map,
    summary="show the address map: which addresses trap to which device",
    description=(
        "Ports first, then memory, by address; a range is shown by its first and its last\n"
        "address. Addresses in between have no device: a guest reads all ones there."
    ),
    json=(
        '{"ranges": [{"space", "base", "size", "last", "device", "type"}]}; space is "pio" or\n'
        '"mmio", addresses are in 0x form, type is null if the device has just gone'
    ),
    examples=("devicehostctl map",),
)
