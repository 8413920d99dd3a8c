"""Places and conditions as text: which accesses are meant.

    com1.LCR            a register; one of a row as ram.R[3]
    com1                all of a device
    pio:0x3f8-0x3ff     addresses, by the first and the last
    mmio:0xd0000000+16  addresses, by the first and their number
    pio:0x3f8           one address

A name is that of a register if what follows its last dot is in upper case.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

from devicehost_client import DeviceHost
from devicehost_client.ctl.command import Argument, UsageError, argument, checked
from devicehost_client.ctl.numeral import U32_MAX, U64_MAX, number
from devicehost_client.debug import AccessFilter, Operation, Space

WHERE_FORMS = "DEVICE.REGISTER, DEVICE, pio:FIRST-LAST, mmio:FIRST-LAST, pio:FIRST+SIZE"

_DEVICE = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_REGISTER = r"[A-Z_][A-Z0-9_]*(?:\[[0-9]+\])?"
_REGISTER_PATH = re.compile(rf"({_DEVICE})\.({_REGISTER})")
_DEVICE_PATH = re.compile(_DEVICE)
_LAST = {Space.PIO: 0xFFFF, Space.MMIO: U64_MAX}


@dataclass(frozen=True, slots=True)
class RegisterName:
    """A register of a device: `com1.LCR`."""

    device: str
    register: str

    def __str__(self) -> str:
        return f"{self.device}.{self.register}"


def parse_register(text: str) -> RegisterName:
    """Read the name of a register.

    Raises:
        ValueError: it isn't one.
    """
    match = _REGISTER_PATH.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not a register; allowed: DEVICE.REGISTER or DEVICE.REGISTER[N], the"
            " register in upper case"
        )
    return RegisterName(match[1], match[2])


def parse_range(text: str, last: int = U64_MAX) -> tuple[int, int]:
    """Read addresses: FIRST-LAST, FIRST+SIZE or FIRST; return the first, and how many.

    Args:
        text: the addresses.
        last: the last address that there is.

    Raises:
        ValueError: it isn't one.
    """
    first_text, dash, last_text = text.partition("-")
    if dash:
        first = number(first_text, most=last)
        return first, number(last_text, least=first, most=last) - first + 1
    first_text, plus, size_text = text.partition("+")
    first = number(first_text, most=last)
    return first, number(size_text, least=1, most=last - first + 1) if plus else 1


def parse_where(text: str) -> AccessFilter:
    """Read a place.

    Raises:
        ValueError: it isn't one.
    """
    kind, colon, rest = text.partition(":")
    if colon:
        if kind not in [space.value for space in Space]:
            raise ValueError(f"{text!r} is not a place; allowed: {WHERE_FORMS}")
        space = Space(kind)
        base, size = parse_range(rest, _LAST[space])
        return AccessFilter(space=space, base=base, size=size)
    if _REGISTER_PATH.fullmatch(text):
        return AccessFilter(registers=(text,))
    if _DEVICE_PATH.fullmatch(text):
        return AccessFilter(devices=(text,))
    raise ValueError(f"{text!r} is not a place; allowed: {WHERE_FORMS}")


CONDITIONS: tuple[Argument, ...] = (
    argument("--read", action="store_true", help="reads only"),
    argument("--write", action="store_true", help="writes only"),
    argument(
        "--value",
        metavar="V",
        type=checked(number),
        help="accesses that carry this value, little-endian",
    ),
    argument(
        "--mask",
        metavar="M",
        type=checked(partial(number, least=1)),
        help="the bits of --value that count [all]",
    ),
    argument(
        "--vcpu",
        metavar="N",
        dest="vcpus",
        action="append",
        default=[],
        type=checked(partial(number, most=U32_MAX)),
        help="accesses of this vCPU; can be given several times",
    ),
)
"""Arguments that say more about accesses at a place."""

PLACES: tuple[Argument, ...] = (
    argument(
        "--device",
        metavar="ID",
        dest="devices",
        action="append",
        default=[],
        help="accesses to this device; can be given several times, as those below can",
    ),
    argument(
        "--register",
        metavar="DEV.REG",
        dest="registers",
        action="append",
        default=[],
        type=checked(parse_register),
        help="accesses to this register, such as com1.LCR or ram.R[3]",
    ),
    argument(
        "--range",
        metavar="A-B",
        type=checked(parse_range),
        help="accesses that touch an address from A up to and with B; A+SIZE is allowed as well",
    ),
    argument(
        "--space",
        choices=[space.value for space in Space],
        help="accesses to ports, or to memory",
    ),
)
"""Arguments that say where accesses go."""

FAILED = argument("--failed", action="store_true", help="accesses that failed")


def check_conditions(options: argparse.Namespace) -> None:
    """Check that conditions can be met.

    Raises:
        UsageError: they can't.
    """
    if options.read and options.write:
        raise UsageError("argument --write: --read is given as well; allowed: one of them")
    if options.mask is not None and options.value is None:
        raise UsageError("argument --mask: it needs a --value")
    if options.mask is not None and options.value & ~options.mask:
        raise UsageError(
            f"argument --value: {options.value:#x} has bits that --mask {options.mask:#x} leaves"
            " out; nothing would match"
        )


def with_conditions(place: AccessFilter, options: argparse.Namespace) -> AccessFilter:
    """Return the accesses at a place for which `CONDITIONS` hold."""
    operation = Operation.READ if options.read else Operation.WRITE if options.write else None
    has_value = options.value is not None
    return replace(
        place,
        operation=operation,
        value=options.value if has_value else 0,
        mask=(options.mask or U64_MAX) if has_value else 0,
        vcpus=tuple(options.vcpus),
    )


def by_places(options: argparse.Namespace) -> AccessFilter:
    """Return the accesses that `PLACES` and `CONDITIONS` say."""
    base, size = options.range or (0, 0)
    place = AccessFilter(
        devices=tuple(options.devices),
        registers=tuple(map(str, options.registers)),
        space=Space(options.space) if options.space else None,
        base=base,
        size=size & U64_MAX,  # all of them: 0
    )
    return with_conditions(place, options)


def say_who_is_missing(host: DeviceHost, wanted: Iterable[AccessFilter]) -> None:
    """Say on stderr which devices of filters aren't there: they may come, or be misspelt."""
    named = {device for each in wanted for device in each.devices}
    if named:
        there = {device.id for device in host.hotplug.devices()}
        for device in sorted(named - there):
            sys.stderr.write(f"no device {device!r} is there yet; one that comes is meant\n")


def filter_text(wanted: AccessFilter) -> str:
    """Return a filter in a few words: `write com1.LCR value 0x80 mask 0x80`."""
    words = [wanted.operation.value] if wanted.operation else []
    words += [*wanted.registers, *sorted(wanted.devices)]
    if wanted.size:
        first, last = wanted.base, wanted.base + wanted.size - 1
        space = f"{wanted.space.value}:" if wanted.space else ""
        words.append(f"{space}{first:#x}-{last:#x}" if wanted.size > 1 else f"{space}{first:#x}")
    elif wanted.space:
        words.append(wanted.space.value)
    if wanted.mask:
        mask = "" if wanted.mask == U64_MAX else f" mask {wanted.mask:#x}"
        words.append(f"value {wanted.value:#x}{mask}")
    words += [f"vcpu {vcpu}" for vcpu in wanted.vcpus]
    if wanted.failed:
        words.append("failed")
    return " ".join(words) or "any access"
