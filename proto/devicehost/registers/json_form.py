"""Register maps as JSON.

    {
      "name": "pc16550d",
      "help": "a serial port",
      "registers": [
        {
          "name": "LCR", "offset": 3, "size": 1, "access": "read-write", "reset": 0,
          "help": "line control", "range": 0, "count": 1, "stride": 0, "sizes": [1],
          "when": {"register": "LCR", "field": "DLAB", "value": 1},
          "via": {"index": "INDEX", "data": "DATA", "mask": 127},
          "on_read": "clear", "on_write": "oneToClear", "alternate": "OTHER",
          "fields": [
            {
              "name": "WLS", "mask": 3, "help": "bits of a character",
              "values": {"0": "5 bits", "3": "8 bits"}, "access": "read-only",
              "on_read": "clear", "on_write": "oneToClear"
            }
          ]
        }
      ]
    }

All means what it does in `declare`. A map needs `name` and `registers`, a register `name` and
`offset`, a field `name` and `mask`, `when` all of it, `via` all but `mask`; what else isn't
there has the default. `reset` may be null. What has the default isn't written. Numbers are
JSON integers, up to 64 bits; the keys of `values` are decimal.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import TypeVar

from devicehost.registers.checks import check
from devicehost.registers.declare import (
    Access,
    Field,
    OnRead,
    OnWrite,
    Register,
    RegisterMap,
    Via,
    When,
)
from devicehost.registers.errors import BadRegisterMap
from devicehost.registers.limits import MAX_REGISTERS

_T = TypeVar("_T")
_E = TypeVar("_E", bound=enum.Enum)

_NUMBER_MAX = (1 << 64) - 1
_SHOWN = 60
_DECIMAL_MAX = 20  # digits of the largest number


def to_json(register_map: RegisterMap) -> dict[str, object]:
    """Return a register map as what `json.dumps` takes."""
    return _fields_of(register_map)


def from_json(value: object) -> RegisterMap:
    """Return the register map that JSON says, as `json.loads` returned it.

    Raises:
        BadRegisterMap: it isn't one, or breaks a rule of `check`; the message says where.
    """
    source = _Object(value, "register map")
    register_map = RegisterMap(
        name=source.text("name"),
        registers=source.items("registers", _register),
        help=source.text("help", ""),
    )
    source.finish()
    check(register_map)
    return register_map


def _fields_of(value: RegisterMap | Register | Field | When | Via) -> dict[str, object]:
    """Return the attributes that don't have their default."""
    result: dict[str, object] = {}
    for each in fields(value):
        content = getattr(value, each.name)
        default = each.default_factory() if callable(each.default_factory) else each.default
        if default is MISSING or content != default:
            result[each.name] = _plain(content)
    return result


def _plain(content: object) -> object:
    match content:
        case enum.Enum():
            return content.value
        case RegisterMap() | Register() | Field() | When() | Via():
            return _fields_of(content)
        case tuple():
            return [_plain(each) for each in content]
        case Mapping():
            return {str(key): each for key, each in content.items()}
        case _:
            return content


def _register(value: object, where: str) -> Register:
    source = _Object(value, where)
    name = source.text("name")
    source.where = f"register {name[:_SHOWN]!r}"
    register = Register(
        name=name,
        offset=source.number("offset"),
        size=source.number("size", 1),
        access=source.choice("access", Access) or Access.READ_WRITE,
        reset=source.number_or_null("reset", 0),
        fields=source.items("fields", _field, ()),
        help=source.text("help", ""),
        range=source.number("range", 0),
        count=source.number("count", 1),
        stride=source.number("stride", 0),
        sizes=source.items("sizes", _number, ()),
        when=source.part("when", _when),
        via=source.part("via", _via),
        on_read=source.choice("on_read", OnRead),
        on_write=source.choice("on_write", OnWrite),
        alternate=source.text("alternate", ""),
    )
    source.finish()
    return register


def _field(value: object, where: str) -> Field:
    source = _Object(value, where)
    name = source.text("name")
    mask = source.number("mask")
    source.where = f"{where}: {name[:_SHOWN]!r}"
    field = Field(
        name=name,
        mask=mask,
        help=source.text("help", ""),
        values=source.part("values", _values) or {},
        access=source.choice("access", Access),
        on_read=source.choice("on_read", OnRead),
        on_write=source.choice("on_write", OnWrite),
    )
    source.finish()
    return field


def _values(value: object, where: str) -> Mapping[int, str]:
    if not isinstance(value, dict):
        raise _unfit(where, value, "an object")
    result = {}
    for key, meaning in value.items():
        decimal = isinstance(key, str) and len(key) <= _DECIMAL_MAX and key.isdecimal()
        if not decimal or str(int(key)) != key:
            raise _unfit(where, key, "decimal numbers as keys")
        if not isinstance(meaning, str):
            raise _unfit(f"{where}: {key}", meaning, "a string")
        result[int(key)] = meaning
    return result


def _when(value: object, where: str) -> When:
    source = _Object(value, where)
    when = When(source.text("register"), source.text("field"), source.number("value"))
    source.finish()
    return when


def _via(value: object, where: str) -> Via:
    source = _Object(value, where)
    via = Via(source.text("index"), source.text("data"), source.number("mask", -1))
    source.finish()
    return via


def _number(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _NUMBER_MAX:
        raise _unfit(where, value, f"an integer from 0 to {_NUMBER_MAX:#x}")
    return value


def _unfit(where: str, value: object, allowed: str) -> BadRegisterMap:
    """Return the error about a value, which is shown if that can be done in a few characters."""
    match value:
        case bool() | None | float():
            shown = repr(value)
        case int():
            shown = f"{value:#x}"[:_SHOWN]
        case str():
            shown = repr(value[:_SHOWN])
        case dict():
            shown = "an object"
        case list():
            shown = "an array"
        case _:
            shown = type(value).__name__
    return BadRegisterMap(f"{where}: {shown}; allowed: {allowed}")


class _Object:
    """A JSON object, of which everything has to be used."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise _unfit(where, value, "an object")
        self._left: dict[object, object] = dict(value)
        self.where = where

    def text(self, key: str, default: str | None = None) -> str:
        value = self._take(key, default)
        if not isinstance(value, str):
            raise _unfit(self._at(key), value, "a string")
        return value

    def number(self, key: str, default: int | None = None) -> int:
        if key not in self._left and default is not None:
            return default
        return _number(self._take(key, None), self._at(key))

    def number_or_null(self, key: str, default: int) -> int | None:
        if key in self._left and self._left[key] is None:
            del self._left[key]
            return None
        return self.number(key, default)

    def choice(self, key: str, choices: type[_E]) -> _E | None:
        if key not in self._left:
            return None
        value = self._left.pop(key)
        for each in choices:
            if each.value == value:
                return each
        allowed = ", ".join(repr(each.value) for each in choices)
        raise _unfit(self._at(key), value, allowed)

    def part(self, key: str, read: Callable[[object, str], _T]) -> _T | None:
        if key not in self._left:
            return None
        return read(self._left.pop(key), self._at(key))

    def items(
        self, key: str, read: Callable[[object, str], _T], default: tuple[_T, ...] | None = None
    ) -> tuple[_T, ...]:
        value = self._take(key, default)
        if value is default and default is not None:
            return default
        if not isinstance(value, list) or len(value) > MAX_REGISTERS:
            raise _unfit(self._at(key), value, f"an array, of at most {MAX_REGISTERS} items")
        return tuple(read(each, f"{self._at(key)}[{at}]") for at, each in enumerate(value))

    def finish(self) -> None:
        for key in self._left:
            raise BadRegisterMap(f"{self.where}: unknown key {str(key)[:_SHOWN]!r}")

    def _take(self, key: str, default: object) -> object:
        if key not in self._left and default is None:
            raise BadRegisterMap(f"{self.where}: {key!r} is missing")
        return self._left.pop(key, default)

    def _at(self, key: str) -> str:
        return f"{self.where}: {key}"
