"""The bytes of single records: what the packer's hot path doesn't write itself.

Pure functions. What a record depends on besides its event (what times are counted from,
the numbers of names, the high half of addresses) comes in as arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, assert_never

from devicehost.recording import layout, strict_json
from devicehost.recording.events import (
    Access,
    Dma,
    Interrupt,
    InterruptKind,
    Learned,
    Operation,
    Plugged,
    Space,
    Told,
    Unplugged,
    Woken,
)
from devicehost.recording.layout import varint

NamedEvent: TypeAlias = Interrupt | Dma | Plugged | Unplugged | Learned | Woken | Told
"""An event that is written with names, or with text, and has a time."""

NumberOf: TypeAlias = Callable[[str], bytes]
"""Gives the number of a name, encoded."""

INTERRUPT_KINDS: Final = tuple(InterruptKind)
"""By their numbers in a record."""

_KIND_NUMBERS: Final = {kind: number for number, kind in enumerate(INTERRUPT_KINDS)}
_SIGNED_FIRST, _SIGNED_LAST = -(1 << 63), (1 << 63) - 1


def access(event: Access, time: int, window: int) -> tuple[bytes, int]:
    """Encode an access in the shortest form that can say it.

    Args:
        event: the access.
        time: when it began, from what times are counted from, 0 to 2**32 - 1.
        window: where the 4 GiB begin that short MMIO addresses are in.

    Returns:
        The record, and the window that holds after it.

    Raises:
        ValueError: a number can't be.
    """
    vcpu = -1 if event.vcpu is None else event.vcpu
    took, address, size, data = event.took_ns, event.address, event.size, event.data
    pio = event.space is Space.PIO
    bits = (layout.PIO if pio else 0) | (layout.WRITE if event.operation is Operation.WRITE else 0)
    low = address if pio else address - window
    if len(data) == size and size in layout.SIZES:
        usual = bits | layout.SIZES[size]
        if not event.status and -1 <= vcpu <= layout.I8_LAST and 0 <= took <= layout.U16_LAST:
            begin = (vcpu, took, time)
            if pio and 0 <= address <= layout.U16_LAST:
                form = layout.SHORT_PIO[size]
                return form.pack(layout.SHORT | usual, *begin, address, data), window
            if not pio and 0 <= low <= layout.U32_LAST:
                form = layout.SHORT_MMIO[size]
                return form.pack(layout.SHORT | usual, *begin, low, data), window
            if not pio and 0 <= address <= layout.U64_LAST:
                form = layout.FAR_MMIO[size]
                record = form.pack(layout.FAR | usual, *begin, address, data)
                return record, address & -layout.WINDOW
        if -1 <= vcpu <= layout.I16_LAST and max(took, low) <= layout.U32_LAST and low >= 0 <= took:
            form = layout.WIDE_ANY[size]
            record = form.pack(layout.WIDE | usual, event.status, vcpu, took, time, low, data)
            return record, window
    record = (
        layout.LONG_HEAD.pack(layout.LONG | bits, event.status, time)
        + varint("vcpu + 1", vcpu + 1)
        + varint("took_ns", took)
        + varint("address", address)
        + varint("size", size)
        + sized("data", data)
    )
    return record, window


def event(event: NamedEvent, time: int, number_of: NumberOf) -> bytes:
    """Encode an event that is no access.

    Args:
        event: the event.
        time: when it was, from what times are counted from, 0 to 2**32 - 1.
        number_of: called with each name in it.

    Raises:
        ValueError: a value can't be.
    """
    match event:
        case Interrupt():
            kind = layout.INTERRUPT
            rest = (
                bytes((_KIND_NUMBERS[event.kind],))
                + varint("gsi", event.gsi)
                + number_of(event.device)
            )
        case Dma():
            kind = layout.DMA
            rest = (
                bytes((event.operation is Operation.WRITE,))
                + number_of(event.device)
                + varint("address", event.address)
                + sized("data", event.data)
            )
        case Plugged():
            kind, rest = layout.PLUGGED, sized("device", strict_json.dump("a device", event.device))
        case Unplugged():
            kind, rest = layout.UNPLUGGED, number_of(event.device)
        case Learned():
            rest = number_of(event.device) + number_of(event.source)
            if isinstance(event.value, int):
                kind, rest = layout.LEARNED_NUMBER, rest + _signed("value", event.value)
            else:
                kind, rest = layout.LEARNED_BYTES, rest + sized("value", event.value)
        case Woken():
            kind, rest = layout.WOKEN, number_of(event.device) + number_of(event.source)
        case Told():
            kind, rest = layout.TOLD, number_of(event.device) + sized("data", event.data)
        case _:
            assert_never(event)
    return layout.EVENT_HEAD.pack(kind, time) + rest


def name(text: str) -> bytes:
    """Encode the record that gives a name the next number of its block.

    Raises:
        ValueError: it has characters that aren't any in Unicode.
    """
    return bytes((layout.NAME,)) + sized("name", text.encode())


def sized(name: str, data: bytes) -> bytes:
    """Encode bytes, with their number in front."""
    return varint(f"length of {name}", len(data)) + data


def _signed(name: str, value: int) -> bytes:
    """Encode a number that may be negative: 0, -1, 1, -2 and so on become 0, 1, 2, 3."""
    if not _SIGNED_FIRST <= value <= _SIGNED_LAST:
        raise ValueError(f"{name} is {value}: it must be from -2**63 to 2**63 - 1")
    return varint(name, value << 1 if value >= 0 else ~(value << 1))
