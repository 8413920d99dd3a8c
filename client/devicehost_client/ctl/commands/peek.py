"""`peek` and `poke`: registers without the effects that an access has."""

from __future__ import annotations

from collections.abc import Iterable

from devicehost_client.ctl.command import Context, ExitStatus, Verb, argument, checked
from devicehost_client.ctl.debug_shapes import REGISTER_HELP, register_shape
from devicehost_client.ctl.numeral import number
from devicehost_client.ctl.output import Table
from devicehost_client.ctl.where import RegisterName, parse_register, parse_where
from devicehost_client.debug import Debug, RegisterValue
from devicehost_client.debug.events import whole_bytes


def peek(context: Context) -> ExitStatus:
    """Show registers of one device or several."""
    debug = context.host.debug
    found = [pair for place in context.options.places for pair in _peek(debug, place)]
    context.output.show(
        {
            "registers": [
                {"device": device, **register_shape(register)} for device, register in found
            ]
        },
        Table(("REGISTER", "VALUE", "FIELDS"), list(register_rows(found))),
    )
    return ExitStatus.OK


def poke(context: Context) -> ExitStatus:
    """Set a register; say nothing."""
    place: RegisterName = context.options.register
    value = context.options.value
    context.host.debug.poke(place.device, place.register, value)
    shape = {"device": place.device, "register": place.register, "value": hex(value)}
    context.output.show_text(shape, "")
    return ExitStatus.OK


def register_rows(found: Iterable[tuple[str, RegisterValue]]) -> Iterable[tuple[str, str, str]]:
    """Yield the cells of a table: name, value and fields of registers, by their devices."""
    for device, register in found:
        yield f"{device}.{register.name}", whole_bytes(register.value), register.details


def _peek(debug: Debug, place: RegisterName | str) -> list[tuple[str, RegisterValue]]:
    if isinstance(place, RegisterName):
        return [(place.device, debug.peek(place.device, place.register))]
    return [(place, register) for register in debug.peek_all(place)]


def _place(text: str) -> RegisterName | str:
    """Read the name of a register, or of a device."""
    wanted = parse_where(text)
    if wanted.registers:
        return parse_register(text)
    if wanted.devices:
        return text
    raise ValueError(f"{text!r} is not allowed; allowed: DEVICE.REGISTER or DEVICE")


PEEK = Verb(
    "peek",
    peek,
    summary="show registers, without the effects that a read has",
    description=(
        "A device that is being accessed isn't disturbed, and its guest sees nothing of it. To\n"
        "make a real access, see 'io read'. Fields that are 0 aren't shown, unless that means\n"
        "something."
    ),
    arguments=(
        argument(
            "places",
            metavar="PLACE",
            nargs="+",
            type=checked(_place),
            help="DEVICE.REGISTER, DEVICE.REGISTER[N], or DEVICE for all that it can tell",
        ),
    ),
    json=(
        '{"registers": [{"device", ...}]}, where all but the device is REGISTER\n\n'
        f"{REGISTER_HELP}"
    ),
    examples=(
        "devicehostctl peek com1.LSR com1.IER",
        "devicehostctl peek com1",
        "devicehostctl -o json peek com1.LSR | jq -r '.registers[0].value'",
    ),
)

POKE = Verb(
    "poke",
    poke,
    summary="set a register, without the effects that a write has",
    description="Nothing is printed. To make a real access, see 'io write'.",
    arguments=(
        argument(
            "register",
            metavar="DEVICE.REGISTER",
            type=checked(parse_register),
            help="the register; one of a row as ram.R[3]",
        ),
        argument("value", metavar="VALUE", type=checked(number), help="what it is to hold"),
    ),
    json='{"device", "register", "value"}',
    examples=("devicehostctl poke com1.SCR 0x5a",),
)
