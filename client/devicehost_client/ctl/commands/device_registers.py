"""`device registers`: what registers a device has, and to give it a map of them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from devicehost.registers import (
    BadRegisterMap,
    Register,
    RegisterMap,
    document,
    from_json,
    from_svd,
    to_json,
    to_svd,
)
from devicehost_client.ctl.command import (
    CommandFailed,
    Context,
    ExitStatus,
    UsageError,
    Verb,
    argument,
)
from devicehost_client.ctl.files import read_text
from devicehost_client.ctl.output import Json, Table, format_table

_ACCESS = {"read-write": "RW", "read-only": "R", "write-only": "W"}


def registers(context: Context) -> ExitStatus:
    """Show the register map of a device or a type; give the device another one first."""
    options = context.options
    debug = context.host.debug
    if options.own:
        debug.set_register_map(options.id, None)
    elif options.file is not None:
        debug.set_register_map(options.id, _read(options.file, options.peripheral))
    if options.type is not None:
        shown = debug.register_map_of_type(options.type)
    else:
        shown = debug.register_map(options.id)
    shape = cast("dict[str, Json]", to_json(shown))
    context.output.show_text(shape, _text(shown, options.format))
    return ExitStatus.OK


def _read(path: Path, peripheral: str | None) -> RegisterMap:
    """Read a register map from a file: SVD, or JSON as this command gives it.

    Raises:
        CommandFailed: it can't be read, or isn't one.
    """
    text = read_text(path)
    try:
        return from_json(json.loads(text)) if _is_json(path) else from_svd(text, peripheral)
    except (BadRegisterMap, json.JSONDecodeError) as error:
        raise CommandFailed(f"can't use {path}: {error}") from error


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json"


def _text(shown: RegisterMap, wanted: str) -> str:
    match wanted:
        case "markdown":
            return document(shown)
        case "svd":
            return to_svd(shown)
        case "json":
            return json.dumps(to_json(shown), indent=2) + "\n"
        case _:
            rows = [row for each in shown for row in _rows(each)]
            columns = ("OFFSET", "REGISTER", "BITS", "FIELD", "ACCESS", "RESET", "HELP")
            return format_table(Table(columns, rows))


def _rows(register: Register) -> Iterator[tuple[str, ...]]:
    """Yield a row for a register, and one for each of its fields."""
    place = f"{register.offset:#04x}"
    if register.range:
        place = f"{register.range}:{place}"
    if register.via is not None:
        place = f"{register.via.data}[{register.offset:#04x}]"
    name = register.name if register.count == 1 else f"{register.name}[{register.count}]"
    reset = "" if register.reset is None else f"{register.reset:#0{2 + 2 * register.size}x}"
    help_text = register.help
    if register.when is not None:
        when = register.when
        help_text += f" (while {when.register}.{when.field} is {when.value})"
    bits = f"{8 * register.size - 1}:0"
    access = _ACCESS[register.access.value]
    yield place, name, bits, "", access, reset, help_text.strip()
    for field in register.fields:
        last = field.lsb + field.width - 1
        bits = f"{last}:{field.lsb}" if field.width > 1 else str(last)
        access = _ACCESS[(field.access or register.access).value]
        meanings = ", ".join(f"{value} {text}" for value, text in sorted(field.values.items()))
        help_text = f"{field.help}: {meanings}" if meanings else field.help
        reset = "" if register.reset is None else hex(field.of(register.reset))
        yield "", "", bits, field.name, access, reset, help_text


def _check(options: argparse.Namespace) -> None:
    changes = options.own or options.file is not None
    if (options.id is None) == (options.type is None):
        raise UsageError("the following arguments are required: ID or --type, one of them")
    if changes and options.id is None:
        raise UsageError("argument --import: a type can't be given a map, only a device ID")
    if options.own and options.file is not None:
        raise UsageError("argument --own: --import is given as well; allowed: one of them")
    if options.peripheral is not None and (options.file is None or _is_json(options.file)):
        raise UsageError("argument --peripheral: it goes with --import FILE.svd")


REGISTERS = Verb(
    "registers",
    registers,
    summary="show the registers and fields of a device, or give it a map of them",
    description=(
        "The map is what traces are decoded with, and where breakpoints and 'peek' have their\n"
        "names from. One that is imported is used from then on, in place of the device's own,\n"
        "until the device is unplugged; --own brings back its own."
    ),
    arguments=(
        argument("id", metavar="ID", nargs="?", help="the device"),
        argument("--type", metavar="TYPE", help="a type of device, as it is by default"),
        argument(
            "--format",
            choices=("table", "markdown", "svd", "json"),
            default="table",
            help="how it is shown: svd is CMSIS-SVD [table]",
        ),
        argument(
            "--import",
            metavar="FILE",
            dest="file",
            type=Path,
            help="give the device this map first: CMSIS-SVD, or FILE.json as --format json has it",
        ),
        argument(
            "--peripheral",
            metavar="NAME",
            help="which one of an SVD file [the only one]",
        ),
        argument("--own", action="store_true", help="give the device its own map again"),
    ),
    check=_check,
    json="the register map; its shape is documented with the Python package devicehost.registers",
    examples=(
        "devicehostctl device registers com1",
        "devicehostctl device registers --type uart16550 --format markdown",
        "devicehostctl device registers pad --import stm32f4.svd --peripheral USART1",
        "devicehostctl device registers pad --own",
    ),
)
