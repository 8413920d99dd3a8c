"""`io`: accesses by hand. Here one that fails is an error, and not all ones."""

from __future__ import annotations

import argparse
from functools import partial

from devicehost_client.ctl.command import (
    Context,
    ExitStatus,
    Noun,
    UsageError,
    Verb,
    argument,
    checked,
)
from devicehost_client.ctl.numeral import U64_MAX, number
from devicehost_client.transports import TOOL_VCPU

TRANSFER_MAX = 1 << 20
"""The most that a command reads or writes, in bytes: what one access may."""

_PIO_LAST = 0xFFFF
_PIO_SIZES = (1, 2, 4)


def read(context: Context) -> ExitStatus:
    """Read, and show the values, a line for each."""
    options = context.options
    size, count = options.size, options.count
    if options.space == "pio":
        data = bytearray(size * count)
        context.host.vcpu(TOOL_VCPU).pio_read_into(options.address, data, size)
        values = [int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size)]
    else:
        addresses = range(options.address, options.address + size * count, size)
        values = [context.host.mmio_read(address, size) for address in addresses]
    shown = [_value_text(value, size) for value in values]
    shape = {**_access_shape(options), "values": shown}
    context.output.show_text(shape, "".join(f"{text}\n" for text in shown))
    return ExitStatus.OK


def write(context: Context) -> ExitStatus:
    """Write; say nothing."""
    options = context.options
    if options.space == "pio":
        context.host.pio_write(options.address, options.size, options.value)
    else:
        context.host.mmio_write(options.address, options.size, options.value)
    shape = {**_access_shape(options), "value": _value_text(options.value, options.size)}
    context.output.show_text(shape, "")
    return ExitStatus.OK


def check_read(options: argparse.Namespace) -> None:
    """Check that a read is one.

    Raises:
        UsageError: it isn't.
    """
    _check_access(options)
    length = options.size * options.count
    if length > TRANSFER_MAX:
        raise UsageError(
            f"argument --count: {options.count} of {options.size} bytes are {length:#x} bytes;"
            f" allowed: at most {TRANSFER_MAX:#x}"
        )
    if options.space == "mmio" and options.address + length - 1 > U64_MAX:
        raise UsageError(
            f"argument ADDRESS: {length:#x} bytes at {options.address:#x} run past the last"
            f" address; allowed: up to {U64_MAX:#x}"
        )


def check_write(options: argparse.Namespace) -> None:
    """Check that a write is one, and that its value fits.

    Raises:
        UsageError: it isn't.
    """
    _check_access(options)
    if options.value >> (8 * options.size):
        raise UsageError(
            f"argument VALUE: {options.value:#x} is too large for SIZE {options.size}; allowed:"
            f" up to {(1 << 8 * options.size) - 1:#x}"
        )


def _check_access(options: argparse.Namespace) -> None:
    if options.space != "pio":
        return
    if options.address > _PIO_LAST:
        raise UsageError(
            f"argument ADDRESS: {options.address:#x} is not a port; allowed: 0 to {_PIO_LAST:#x}"
        )
    if options.size not in _PIO_SIZES:
        raise UsageError(f"argument SIZE: {options.size} is not allowed for pio; allowed: 1, 2, 4")


def _value_text(value: int, size: int) -> str:
    """Show a value with all its digits."""
    return f"{value:#0{2 + 2 * size}x}"


def _access_shape(options: argparse.Namespace) -> dict[str, str]:
    return {
        "space": options.space,
        "address": hex(options.address),
        "size": hex(options.size),
    }


_WHERE = (
    argument("space", metavar="SPACE", choices=("pio", "mmio"), help="pio or mmio"),
    argument("address", metavar="ADDRESS", type=checked(number), help="of the first byte"),
    argument(
        "size",
        metavar="SIZE",
        type=checked(partial(number, least=1, most=TRANSFER_MAX)),
        help="of an access in bytes; pio: 1, 2 or 4",
    ),
)

IO = Noun(
    "io",
    "accesses by hand",
    verbs=(
        Verb(
            "read",
            read,
            summary="read from a device",
            description=(
                "Prints a value on each line, in 0x form with all digits, and no header. Values\n"
                "are little-endian. Mind that a device may change by being read."
            ),
            arguments=(
                *_WHERE,
                argument(
                    "--count",
                    metavar="N",
                    type=checked(partial(number, least=1, most=TRANSFER_MAX)),
                    default=1,
                    help="read N times. pio: the same port, as one string access; mmio:"
                    " one address after the other [1]",
                ),
            ),
            check=check_read,
            json='{"space", "address", "size", "values": [VALUE]}, all in 0x form',
            examples=(
                "devicehostctl io read pio 0x3fd 1",
                "devicehostctl io read mmio 0xd0000000 4 --count 16",
            ),
        ),
        Verb(
            "write",
            write,
            summary="write to a device",
            description="Nothing is printed. Values are little-endian.",
            arguments=(
                *_WHERE,
                argument("value", metavar="VALUE", type=checked(number), help="what to write"),
            ),
            check=check_write,
            json='{"space", "address", "size", "value"}, all in 0x form',
            examples=(
                "devicehostctl io write pio 0x3f8 1 0x41",
                "devicehostctl io write mmio 0xd0000000 4 0xdeadbeef",
            ),
        ),
    ),
)
