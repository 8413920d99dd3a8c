"""A register map as a document for people, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from devicehost.registers.declare import Field, OnRead, OnWrite, Register, RegisterMap
from devicehost.registers.places import numbers_taken, pitch

_READS = {
    OnRead.CLEARS: "a read clears it",
    OnRead.SETS: "a read sets it",
    OnRead.CHANGES: "a read changes it",
    OnRead.CHANGES_OTHERS: "a read changes others",
}
_WRITES = {
    OnWrite.ONE_CLEARS: "writing 1 clears",
    OnWrite.ONE_SETS: "writing 1 sets",
    OnWrite.ONE_TOGGLES: "writing 1 toggles",
    OnWrite.ZERO_CLEARS: "writing 0 clears",
    OnWrite.ZERO_SETS: "writing 0 sets",
    OnWrite.ZERO_TOGGLES: "writing 0 toggles",
    OnWrite.CLEARS: "any write clears it",
    OnWrite.SETS: "any write sets it",
    OnWrite.CHANGES: "a write changes it",
}

_LAST_MAX = 40


def document(register_map: RegisterMap) -> str:
    """Return a Markdown document: all registers, then the fields of each.

    Args:
        register_map: one that satisfies `check`.
    """
    parts = [f"# {_escaped(register_map.name)}"]
    if register_map.help:
        parts.append(_sentence(register_map.help))
    parts.extend(_overview(register_map))
    parts.extend(
        part for each in register_map if each.fields for part in _details(register_map, each)
    )
    return "\n\n".join(parts) + "\n"


def _overview(register_map: RegisterMap) -> Iterable[str]:
    """Yield a table for each range, and for those behind each data register."""
    addressed = [each for each in register_map if each.via is None]
    ranges = sorted({each.range for each in addressed})
    for range_ in ranges:
        yield "## Registers" if len(ranges) == 1 else f"## Registers of range {range_}"
        yield _registers(
            register_map, "Offset", [each for each in addressed if each.range == range_]
        )
    behind: dict[tuple[str, str], list[Register]] = {}
    for each in register_map:
        if each.via:
            behind.setdefault((each.via.index, each.via.data), []).append(each)
    for (index, data), registers in behind.items():
        yield f"## Registers behind `{data}`"
        yield f"Write the number to `{index}`, then access `{data}`."
        yield _registers(register_map, "Number", registers)


def _registers(register_map: RegisterMap, where: str, registers: Sequence[Register]) -> str:
    ordered = sorted(registers, key=lambda each: each.offset)
    rows = [
        (
            _places(register_map, each),
            f"`{each.name}`" if each.count == 1 else f"`{each.name}[0]` to `[{each.count - 1}]`",
            str(each.size),
            each.access.value,
            _reset(each),
            _remarks(each),
        )
        for each in ordered
    ]
    return _table((where, "Register", "Bytes", "Access", "Reset", "What it is"), rows)


def _details(register_map: RegisterMap, register: Register) -> Iterable[str]:
    yield f"## `{register.name}`"
    where = "Number" if register.via else "Offset"
    facts = [
        f"{where} {_places(register_map, register)}",
        f"{register.size} byte{'s' if register.size > 1 else ''}",
        register.access.value,
    ]
    if register.reset is not None:
        facts.append(f"reset {_reset(register)}")
    if register.sizes and register.sizes != (register.size,):
        facts.append(f"accessed by {' or '.join(map(str, sorted(register.sizes)))} bytes")
    remarks = _remarks(register)
    yield f"{', '.join(facts)}.{' ' if remarks else ''}{remarks}"
    yield _table(
        ("Bits", "Field", "Access", "What it is", "Values"),
        [_field(register, each) for each in _with_reserved(register)],
    )


def _field(register: Register, field: Field) -> tuple[str, str, str, str, str]:
    high = field.mask.bit_length() - 1
    bits = str(high) if field.width == 1 else f"{high}:{field.lsb}"
    if not field.name:
        return bits, "", "", "reserved", ""
    own = field.access
    effects = _effects(field.on_read, field.on_write)
    about = [_sentence(each) for each in (field.help, effects) if each]
    values = [f"{value}: {_escaped(meaning)}" for value, meaning in field.values.items()]
    return (
        bits,
        f"`{field.name}`",
        own.value if own is not None and own is not register.access else "",
        " ".join(about),
        "<br>".join(values),
    )


def _with_reserved(register: Register) -> list[Field]:
    """Return the fields, highest first, with those bits between them that belong to none."""
    fields = list(register.fields)
    left = register.reserved
    while left:
        low = left & -left
        run = (left + low) & ~left  # the first bit above those that begin at `low`
        mask = (run - 1) & ~(low - 1)
        fields.append(Field("", mask))
        left &= ~mask
    return sorted(fields, key=lambda each: -each.mask)


def _places(register_map: RegisterMap, register: Register) -> str:
    first = f"`{register.offset:#04x}`"
    step = pitch(register_map, register)
    if register.count == 1:
        return first
    taken = register.size
    if register.via:
        taken = numbers_taken(register, register_map.register(register.via.data))
    last = f"{first} to `{register.offset + (register.count - 1) * step:#04x}`"
    return last if step == taken == 1 else f"{last}, every {step:#x}"


def _reset(register: Register) -> str:
    return "" if register.reset is None else f"`0x{register.reset:0{2 * register.size}x}`"


def _remarks(register: Register) -> str:
    parts = [_sentence(register.help)] if register.help else []
    if when := register.when:
        parts.append(f"Here while `{when.register}.{when.field}` is {when.value}.")
    if register.alternate:
        parts.append(f"In the place of `{register.alternate}`.")
    if effects := _effects(register.on_read, register.on_write):
        parts.append(_sentence(effects))
    return " ".join(parts)


def _effects(on_read: OnRead | None, on_write: OnWrite | None) -> str:
    return "; ".join(
        [_READS[each] for each in (on_read,) if each]
        + [_WRITES[each] for each in (on_write,) if each]
    )


def _sentence(text: str) -> str:
    """Return a text with a capital and a full stop."""
    begun = text[0].upper() + text[1:]
    return _escaped(begun if begun.endswith((".", "!", "?")) else f"{begun}.")


def _escaped(text: str) -> str:
    """Return a text in which Markdown finds nothing of its own."""
    return "".join(f"\\{each}" if each in "\\`*_[]<>|#" else each for each in text)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose columns are aligned, to be read as it stands too."""
    used = [at for at in range(len(head)) if any(row[at] for row in rows)]
    cells = [[row[at] for at in used] for row in (head, *rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(used))]
    widths[-1] = min(widths[-1], _LAST_MAX)  # the last one may run on
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    return "\n".join([lines[0], f"|{'|'.join('-' * (width + 2) for width in widths)}|", *lines[1:]])
