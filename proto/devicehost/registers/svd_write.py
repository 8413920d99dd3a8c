"""Register maps written as CMSIS-SVD.

Source: Open-CMSIS-SVD, "SVD Description (*.svd) Format" and CMSIS-SVD.xsd, version 1.3. The
order of elements matters there.

What SVD can't say, and what becomes of it:

    when         the register is an `alternateRegister` of the one that is there without a
                 condition, or else in an `alternateGroup`; the condition is in its description
    via          the register is left out; the description of its data register tells of it
    sizes        left out
    ranges       the addresses of a peripheral's registers all count from one base: the lowest
                 of those of the ranges
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from devicehost.registers.declare import Field, OnRead, OnWrite, Register, RegisterMap
from devicehost.registers.overlaps import overlaps
from devicehost.registers.places import pitch

_SCHEMA = "{http://www.w3.org/2001/XMLSchema-instance}noNamespaceSchemaLocation"
_RANGE_ALIGN = 0x1000
_BUS_BITS = 32
_WIDE_BITS = 64
_LISTED = 16
_VALUE_NAME = 32  # characters


def to_svd(
    register_map: RegisterMap,
    *,
    name: str = "",
    base: int | Sequence[int] = 0,
    description: str = "",
) -> str:
    """Return a CMSIS-SVD 1.3 file with one peripheral.

    Args:
        register_map: one that satisfies `check`.
        name: of the peripheral; by default that of the map, in upper case.
        base: the address of the first byte of each range, in their order. A range for which
            there is none follows the one before, at the next multiple of 4 KiB.
        description: of the peripheral; by default the help of the map.
    """
    called = _identifier(name or register_map.name.upper())
    about = description or register_map.help
    device = ET.Element("device", {"schemaVersion": "1.3", _SCHEMA: "CMSIS-SVD.xsd"})
    _add(device, "name", called)
    _add(device, "version", "1.0")
    _add(device, "description", about or called)
    _add(device, "addressUnitBits", 8)
    wide = any(8 * each.size > _BUS_BITS for each in register_map)
    _add(device, "width", _WIDE_BITS if wide else _BUS_BITS)
    peripheral = ET.SubElement(ET.SubElement(device, "peripherals"), "peripheral")
    _add(peripheral, "name", called)
    _add(peripheral, "description", about)
    spans = _spans(register_map)
    bases = _bases(spans, [base] if isinstance(base, int) else list(base))
    lowest = min(bases.values())
    _add(peripheral, "baseAddress", f"{lowest:#x}")
    for range_, size in spans.items():
        block = ET.SubElement(peripheral, "addressBlock")
        _add(block, "offset", f"{bases[range_] - lowest:#x}")
        _add(block, "size", f"{size:#x}")
        _add(block, "usage", "registers")
    registers = ET.SubElement(peripheral, "registers")
    descriptions = _descriptions(register_map)
    alternatives = _alternatives(register_map)
    for each in register_map:
        if each.via is None:
            element = ET.SubElement(registers, "register")
            if each.count > 1:
                _add(element, "dim", each.count)
                _add(element, "dimIncrement", f"{pitch(register_map, each):#x}")
            _add(element, "name", _dimmed(each))
            _add(element, "description", descriptions[each.name])
            _add_alternative(element, each, alternatives.get(each.name, ""))
            _add(element, "addressOffset", f"{bases[each.range] - lowest + each.offset:#x}")
            _add_content(element, each)
    ET.indent(device)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(device, encoding="unicode")}\n'


def _spans(register_map: RegisterMap) -> dict[int, int]:
    """Return how many bytes of each range have registers, by the number of the range."""
    spans: dict[int, int] = {}
    for each in register_map:
        if each.via is None:
            end = each.offset + (each.count - 1) * pitch(register_map, each) + each.size
            spans[each.range] = max(end, spans.get(each.range, 0))
    return dict(sorted(spans.items()))


def _bases(spans: dict[int, int], known: list[int]) -> dict[int, int]:
    bases: dict[int, int] = {}
    following = 0
    for range_, size in spans.items():
        bases[range_] = known[range_] if range_ < len(known) else following
        following = -(-(bases[range_] + size) // _RANGE_ALIGN) * _RANGE_ALIGN
    return bases


def _alternatives(register_map: RegisterMap) -> dict[str, str]:
    """Return the registers that have another in their place, as SVD calls that."""
    names = {each.name: _dimmed(each) for each in register_map}
    found = {each.name: names[each.alternate] for each in register_map if each.alternate}
    for pair in overlaps(register_map):
        one, other = (register_map.registers[at] for at in pair)
        for conditional, plain in ((one, other), (other, one)):
            if conditional.when and not plain.when and not plain.alternate:
                found.setdefault(conditional.name, names[plain.name])
    return found


def _add_alternative(element: ET.Element, register: Register, alternative: str) -> None:
    if alternative:
        _add(element, "alternateRegister", alternative)
    elif when := register.when:
        _add(element, "alternateGroup", f"{when.register}_{when.field}_{when.value}")


def _add_content(element: ET.Element, register: Register) -> None:
    _add(element, "size", 8 * register.size)
    _add(element, "access", register.access.value)
    if register.reset is not None:
        _add(element, "resetValue", f"{register.reset:#x}")
    _add_effects(element, register.on_read, register.on_write)
    if register.fields:
        fields = ET.SubElement(element, "fields")
        for each in register.fields:
            _add_field(fields, each)


def _add_field(parent: ET.Element, field: Field) -> None:
    element = ET.SubElement(parent, "field")
    _add(element, "name", field.name)
    _add(element, "description", field.help)
    _add(element, "bitRange", f"[{field.mask.bit_length() - 1}:{field.lsb}]")
    if field.access:
        _add(element, "access", field.access.value)
    _add_effects(element, field.on_read, field.on_write)
    if field.values:
        values = ET.SubElement(element, "enumeratedValues")
        names: set[str] = set()
        for value, meaning in field.values.items():
            name = _identifier(meaning.upper())[:_VALUE_NAME]
            while name in names:
                name = f"{name}_{value}"
            names.add(name)
            enumerated = ET.SubElement(values, "enumeratedValue")
            _add(enumerated, "name", name)
            _add(enumerated, "description", meaning)
            _add(enumerated, "value", value)


def _add_effects(element: ET.Element, on_read: OnRead | None, on_write: OnWrite | None) -> None:
    if on_write:
        _add(element, "modifiedWriteValues", on_write.value)
    if on_read:
        _add(element, "readAction", on_read.value)


def _add(parent: ET.Element, tag: str, text: str | int) -> None:
    """Add an element, unless it would be empty: that isn't allowed."""
    if text != "":
        ET.SubElement(parent, tag).text = str(text)


def _dimmed(register: Register) -> str:
    return f"{register.name}[%s]" if register.count > 1 else register.name


def _descriptions(register_map: RegisterMap) -> dict[str, str]:
    """Return each register's help, with what else SVD can't say of it."""
    behind: dict[tuple[str, str], list[Register]] = {}
    result = {}
    for each in register_map:
        parts = [each.help] if each.help else []
        if when := each.when:
            parts.append(f"There while {when.register}.{when.field} is {when.value}.")
        if via := each.via:
            behind.setdefault((via.index, via.data), []).append(each)
        result[each.name] = " ".join(parts)
    for (index, name), registers in behind.items():
        listed = [f"{each.offset:#x} {each.name}" for each in registers[:_LISTED]]
        if len(registers) > _LISTED:
            listed.append("...")
        result[name] = f"{result[name]} By the number in {index}: {', '.join(listed)}.".strip()
    return result


def _identifier(text: str) -> str:
    """Return what SVD takes as a name, like `text`."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")
    return name if name and not name[0].isdecimal() else f"_{name}"
