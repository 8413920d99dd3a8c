"""Fields and enumerated values of an SVD file."""

from __future__ import annotations

import enum
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from devicehost.registers.declare import Access, Field, OnRead, OnWrite
from devicehost.registers.limits import MAX_NAME
from devicehost.registers.svd_derive import Derivation, bare
from devicehost.registers.svd_xml import bad, name_of, number, number_of, position, text_of

_E = TypeVar("_E", bound=enum.Enum)

_DIM_MAX = 65536
_DEFAULT_WIDTH_MAX = 4
"""Fields up to so many bits get the meaning of `isDefault` for every value that has no other."""

_SHOWN = 60
_RESERVED = re.compile(r"(RESERVED|RSVD)_?[0-9]*")
_ACCESSES = {
    "read-write": Access.READ_WRITE,
    "read-only": Access.READ_ONLY,
    "write-only": Access.WRITE_ONLY,
    "writeOnce": Access.WRITE_ONLY,
    "read-writeOnce": Access.READ_WRITE,
}


def access_of(element: ET.Element) -> Access | None:
    """Return what a guest may do, if the element says."""
    text = text_of(element, "access")
    if text and text not in _ACCESSES:
        raise bad(element, f"access {text[:_SHOWN]!r}; allowed: {', '.join(_ACCESSES)}")
    return _ACCESSES[text] if text else None


def effects_of(element: ET.Element, access: Access) -> tuple[OnRead | None, OnWrite | None]:
    """Return what accesses do besides, as far as they are allowed."""
    on_read = _choice(element, "readAction", OnRead)
    on_write = _choice(element, "modifiedWriteValues", OnWrite)
    return (
        None if access is Access.WRITE_ONLY else on_read,
        None if access is Access.READ_ONLY else on_write,
    )


def identifier(text: str) -> str:
    """Return the name in a register map for a name in SVD."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", text).upper()
    return (name if name and not name[0].isdecimal() else f"_{name}")[:MAX_NAME]


def expanded(element: ET.Element) -> Iterator[tuple[str, int]]:
    """Go through the names that an element stands for, each with its distance from the first.

    Raises:
        BadRegisterMap: dim, dimIncrement and dimIndex don't fit.
    """
    name = name_of(element)
    dim = number_of(element, "dim")
    if dim is None or "%s" not in name:
        yield bare(name), 0
        return
    step = number_of(element, "dimIncrement") or 0
    if not 1 <= dim <= _DIM_MAX:
        raise bad(element, f"dim {dim}; allowed: 1 to {_DIM_MAX}")
    indexes = _indexes(text_of(element, "dimIndex"), dim)
    if len(indexes) != dim:
        raise bad(element, f"dimIndex has {len(indexes)} items; allowed: dim, {dim}")
    for at, index in enumerate(indexes):
        yield name.replace("[%s]", "%s").replace("%s", index), at * step


def fields_of(
    register: ET.Element,
    around: Sequence[ET.Element],
    *,
    bits: int,
    access: Access,
    derivation: Derivation,
    spend: Callable[[int], None],
) -> tuple[Field, ...]:
    """Return the fields of a register.

    Left out are those called RESERVED, those that reach beyond the register, and those that
    have bits of an earlier one with nothing to tell them apart.

    Args:
        register: resolved.
        around: the elements that fields are in, up to the register.
        bits: how many the register has.
        access: what a guest may do with the register.
        derivation: of the file.
        spend: called for each thing that is made, with the length of its text; it raises
            when it has become too much.
    """
    found: dict[str, Field] = {}
    taken = {Access.READ_ONLY: 0, Access.WRITE_ONLY: 0}
    for raw in register.iterfind("fields/field"):
        element = derivation.resolve(raw, around)
        lsb, width = position(element)
        own = access_of(element)
        on_read, on_write = effects_of(element, own or access)
        about = text_of(element, "description")
        values = _values(element, [*around, element], width, derivation, spend)
        for spelled, distance in expanded(element):
            spend(len(about))
            name = identifier(spelled)
            if _RESERVED.fullmatch(name) or name in found or lsb + distance + width > bits:
                continue
            mask = ((1 << width) - 1) << (lsb + distance)
            ways = [each for each in taken if (own or access) in {each, Access.READ_WRITE}]
            if any(taken[each] & mask for each in ways):
                continue
            for each in ways:
                taken[each] |= mask
            found[name] = Field(
                name=name,
                mask=mask,
                help=about,
                values=values,
                access=own,
                on_read=on_read,
                on_write=on_write,
            )
    return tuple(found.values())


def _values(
    field: ET.Element,
    around: Sequence[ET.Element],
    width: int,
    derivation: Derivation,
    spend: Callable[[int], None],
) -> dict[int, str]:
    """Return what values mean; one that is read before one that is written."""
    result: dict[int, str] = {}
    default = ""
    found = [
        derivation.resolve_if_there(each, around) for each in field.iterfind("enumeratedValues")
    ]
    listed = [each for each in found if each is not None]
    listed.sort(key=lambda each: text_of(each, "usage") == "write")
    for each in listed:
        for one in each.iterfind("enumeratedValue"):
            meaning = text_of(one, "description") or text_of(one, "name")
            spend(len(meaning))
            value = number(one.findtext("value") or "")  # none with bits left open
            if text_of(one, "isDefault") in {"true", "1"}:
                default = meaning
            elif value is not None and not value >> width and meaning:
                result.setdefault(value, meaning)
    if default and width <= _DEFAULT_WIDTH_MAX:
        for rest in range(1 << width):
            result.setdefault(rest, default)
    return result


def _choice(element: ET.Element, tag: str, choices: type[_E]) -> _E | None:
    text = text_of(element, tag)
    for each in choices:
        if each.value == text:
            return each
    if text:
        allowed = ", ".join(str(each.value) for each in choices)
        raise bad(element, f"{tag} {text[:_SHOWN]!r}; allowed: {allowed}")
    return None


def _indexes(text: str, dim: int) -> list[str]:
    """Return the indexes that a dimIndex stands for: 0-3, A-D, or a list."""
    if not text:
        return [str(each) for each in range(dim)]
    if match := re.fullmatch(r"([0-9]{1,9}) ?- ?([0-9]{1,9})", text):
        last = min(int(match[2]), int(match[1]) + _DIM_MAX)
        return [str(each) for each in range(int(match[1]), last + 1)]
    if match := re.fullmatch(r"([A-Z]) ?- ?([A-Z])", text):
        return [chr(each) for each in range(ord(match[1]), ord(match[2]) + 1)]
    return [each.strip() for each in text.split(",")]
