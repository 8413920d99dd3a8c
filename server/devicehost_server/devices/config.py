"""The configuration of a device type: a frozen dataclass, whose fields are its schema.

    @dataclass(frozen=True, slots=True)
    class Config:
        base: int = option(0x3F8, "first port", maximum=0xFFFF)
        irq: int | None = option(4, "legacy IRQ; none to have no interrupt")

Configurations come as text, from a command line (`--device uart16550,base=0x2f8`), from
TOML or over the wire, and the schema turns each value into the field's type:

    int         decimal, 0x, 0o or 0b, and K, M, G, T for powers of 1024: `64K`
    bool        true, false, yes, no, on, off, 1, 0
    str         as it is
    Path        as it is; it has no NUL
    Enum        one of the members' values
    X | None    `none` is None; anything else is an X

Anything else raises `BadConfig`, which names the field, the value and what is allowed.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from devicehost_server.model.errors import BadConfig

_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

ConfigT = TypeVar("ConfigT")


def option(
    default: Any = dataclasses.MISSING,
    help: str = "",  # noqa: A002 # as argparse calls it
    *,
    minimum: int | None = None,
    maximum: int | None = None,
) -> Any:
    """Declare a field of a configuration; one without a default is required.

    Args:
        default: the value when nothing is given.
        help: what the field is for, in a few words, with its unit.
        minimum: the least value of an int, inclusive.
        maximum: the greatest value of an int, inclusive.
    """
    metadata = {"help": help, "minimum": minimum, "maximum": maximum}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class OptionSchema:
    """One field of a configuration, for people and for programs.

    Attributes:
        name: the key.
        type: `int`, `bool`, `str`, `path` or `enum`.
        required: whether it must be given.
        default: the default as text; empty if there is none.
        help: what it is for.
        choices: for an enum, the values allowed.
        minimum: for an int, the least value, if bounded.
        maximum: for an int, the greatest value, if bounded.
        nullable: whether `none` is allowed.
    """

    name: str
    type: str
    required: bool
    default: str
    help: str
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    nullable: bool = False

    @property
    def allowed(self) -> str:
        """What a value may be, in words."""
        words = {"int": "a number", "bool": "true or false", "str": "text", "path": "a path"}
        text = words.get(self.type) or f"one of {', '.join(self.choices)}"
        if self.minimum is not None and self.maximum is not None:
            text = f"{text} from {self.minimum:#x} to {self.maximum:#x}"
        elif self.minimum is not None:
            text = f"{text}, at least {self.minimum:#x}"
        elif self.maximum is not None:
            text = f"{text}, at most {self.maximum:#x}"
        return f"{text}, or none" if self.nullable else text


def schema(config_type: type, key: Callable[[str], str] = str) -> list[OptionSchema]:
    """List the fields of a configuration dataclass, in order.

    Args:
        config_type: a dataclass whose fields are made by `option`.
        key: what a configuration calls a field, by its name; the same if nothing is given.

    Raises:
        TypeError: a field has a type that configurations can't have.
    """
    hints = typing.get_type_hints(config_type)
    return [
        _option_schema(key(field.name), field, hints[field.name])
        for field in dataclasses.fields(config_type)
    ]


def parse(
    device_type: str,
    config_type: type[ConfigT],
    values: Mapping[str, str],
    key: Callable[[str], str] = str,
) -> ConfigT:
    """Make a configuration of text values.

    Args:
        device_type: the type's name, for errors.
        config_type: a dataclass whose fields are made by `option`.
        values: text by key.
        key: what a configuration calls a field, as for `schema`.

    Raises:
        BadConfig: an unknown field, a required one that is missing, or a bad value.
    """
    options = {option.name: option for option in schema(config_type, key)}
    hints = typing.get_type_hints(config_type)
    fields = {key(field): field for field in hints}
    for name in values:
        if name not in options:
            known = ", ".join(options) or "none at all"
            raise _bad(device_type, name, f"no such field; known: {known}")
    for name, option_schema in options.items():
        if option_schema.required and name not in values:
            raise _bad(device_type, name, f"required ({option_schema.help})")
    parsed = {}
    for name, text in values.items():
        try:
            kind, _ = _plain_type(hints[fields[name]])
            parsed[fields[name]] = _parse_value(options[name], kind, text)
        except ValueError:
            why = f"{text!r} is not allowed; allowed: {options[name].allowed}"
            raise _bad(device_type, name, why) from None
    return config_type(**parsed)


def parse_int(text: str) -> int:
    """Read a number: decimal, 0x, 0o or 0b, with K, M, G or T for powers of 1024.

    Raises:
        ValueError: it isn't one.
    """
    unit = _UNITS.get(text[-1:].upper())
    return int(text[:-1], 0) * unit if unit else int(text, 0)


def _bad(device_type: str, field: str, why: str) -> BadConfig:
    return BadConfig(
        f"device type {device_type!r}: field {field!r}: {why}", field=field, type=device_type
    )


def _plain_type(hint: Any) -> tuple[type, bool]:
    """Split `X | None` into X and True, and a plain X into X and False."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        rest = [arm for arm in typing.get_args(hint) if arm is not type(None)]
        if len(rest) == 1:
            return rest[0], True
    if isinstance(hint, type):
        return hint, False
    raise TypeError(f"a configuration field can't be of type {hint!r}")


def _option_schema(key: str, field: dataclasses.Field[Any], hint: Any) -> OptionSchema:
    kind, nullable = _plain_type(hint)
    names = {int: "int", bool: "bool", str: "str", Path: "path"}
    choices: tuple[str, ...] = ()
    if issubclass(kind, enum.Enum):
        choices = tuple(str(member.value) for member in kind)
    elif kind not in names:
        raise TypeError(f"configuration field {field.name!r} can't be of type {kind!r}")
    required = field.default is dataclasses.MISSING
    default = field.default
    text = "" if required else "none" if default is None else _as_text(default)
    return OptionSchema(
        name=key,
        type=names.get(kind, "enum"),
        required=required,
        default=text,
        help=field.metadata.get("help", ""),
        choices=choices,
        minimum=field.metadata.get("minimum"),
        maximum=field.metadata.get("maximum"),
        nullable=nullable,
    )


def _as_text(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _parse_value(option_schema: OptionSchema, kind: type, text: str) -> Any:
    """Turn `text` into a `kind`; ValueError if it can't be."""
    if option_schema.nullable and text.lower() == "none":
        return None
    if kind is bool:
        return _parse_bool(text)
    if kind is int:
        return _parse_bounded(option_schema, text)
    if kind is Path and "\0" in text:
        raise ValueError(text)
    return kind(text)


def _parse_bool(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(text)


def _parse_bounded(option_schema: OptionSchema, text: str) -> int:
    number = parse_int(text)
    if option_schema.minimum is not None and number < option_schema.minimum:
        raise ValueError(text)
    if option_schema.maximum is not None and number > option_schema.maximum:
        raise ValueError(text)
    return number
