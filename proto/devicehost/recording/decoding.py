"""Blocks into events.

    for event in decode_block(block):
        ...

Invariants:
    Whatever the bytes are, nothing but a BadRecording is raised.
    No byte is looked at twice, and what is kept of a block is in proportion to its length.
    Every value that comes out could be packed again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from devicehost.access_status import AccessStatus
from devicehost.recording import layout, strict_json
from devicehost.recording.encoding import INTERRUPT_KINDS
from devicehost.recording.events import (
    Access,
    Dma,
    Event,
    Interrupt,
    Learned,
    Lost,
    Operation,
    Plugged,
    Space,
    Told,
    Unplugged,
    Woken,
)
from devicehost.recording.layout import BadRecording

T = TypeVar("T")

_STATUSES: Final = {int(status): status for status in AccessStatus}

_Form: TypeAlias = tuple[Callable[[bytes, int], tuple[Any, ...]], int, Space, Operation, int]
"""How to unpack an access; how long its record is; its space, operation and size."""


def _forms(
    form: int, structs: dict[int, struct.Struct], *spaces: Space
) -> Iterator[tuple[int, _Form]]:
    """The ways to write accesses in one form, by the first byte of the record."""
    for size, each in structs.items():
        for space in spaces:
            for write, operation in enumerate(layout.OPERATIONS):
                kind = (
                    form
                    | write * layout.WRITE
                    | layout.SPACES.index(space) * layout.PIO
                    | layout.SIZES[size]
                )
                yield kind, (each.unpack_from, each.size, space, operation, size)


_SHORTS: Final = dict(
    [
        *_forms(layout.SHORT, layout.SHORT_MMIO, Space.MMIO),
        *_forms(layout.SHORT, layout.SHORT_PIO, Space.PIO),
    ]
)
_FARS: Final = dict(_forms(layout.FAR, layout.FAR_MMIO, Space.MMIO))
_WIDES: Final = dict(_forms(layout.WIDE, layout.WIDE_ANY, *layout.SPACES))
_LONGS: Final = range(layout.LONG, layout.LONG + (layout.WRITE | layout.PIO) + 1)


def decode_block(block: bytes) -> Iterator[Event]:
    """Decode a block, one event after the other. No bytes at all are a block without events.

    Raises:
        BadRecording: what follows makes no sense, or isn't there. All events before that
            were returned.
    """
    if not block:
        return
    if len(block) < layout.BLOCK.size:
        raise BadRecording(
            f"a block has {len(block)} bytes, but must have at least {layout.BLOCK.size}"
        )
    base, count = layout.BLOCK.unpack_from(block)
    found = 0
    for event in _events(_Cursor(block, _checked_base(base))):
        if found == count:
            raise BadRecording(f"a block has more events than the {count} that it counts")
        found += 1
        yield event
    if found < count:
        raise BadRecording(f"a block has {found} events, but counts {count}")


def _events(cursor: _Cursor) -> Iterator[Event]:
    """Decode the records that are left. Short accesses have a short way."""
    block, shorts = cursor.block, _SHORTS
    at, end = cursor.at, len(block)
    while at < end:
        form = shorts.get(block[at])
        try:
            if form is None:
                cursor.at = at
                event = cursor.record()
                at = cursor.at
                if event is not None:
                    yield event
                continue
            unpack, length, space, operation, size = form
            _, vcpu, took, time, address, data = unpack(block, at)
        except (struct.error, IndexError):
            raise BadRecording(f"a block of {end} bytes ends in its record at {at}") from None
        if space is Space.MMIO:
            address += cursor.window
        yield Access(
            cursor.base + time,
            took,
            vcpu if vcpu >= 0 else None,
            space,
            operation,
            address,
            size,
            data,
        )
        at += length


class _Cursor:
    """A place in a block, and what the records before it have set.

    What runs past the end raises a struct.error or an IndexError.
    """

    __slots__ = ("at", "base", "block", "names", "window")

    def __init__(self, block: bytes, base: int) -> None:
        self.block = block
        self.at = layout.BLOCK.size
        self.base = base
        self.window = 0
        self.names: list[str] = []

    def record(self) -> Event | None:
        """Decode a record that isn't a short access; None if it isn't an event either."""
        kind = self.block[self.at]
        if kind in _FARS:
            return self._far(*_FARS[kind])
        if kind in _WIDES:
            return self._wide(*_WIDES[kind])
        if kind in _LONGS:
            return self._long(kind - layout.LONG)
        if kind == layout.TIME:
            self.base = _checked_base(self._unpack(layout.TIME_RECORD)[1])
            return None
        if kind in (layout.NAME, layout.LOST):
            self.at += 1
            if kind == layout.LOST:
                return Lost(self._varint())
            self.names.append(self._text())
            return None
        return self._named(kind)

    def _far(
        self, unpack: Callable[..., Any], length: int, space: Space, operation: Operation, size: int
    ) -> Access:
        """Decode an access with its whole address; those after it are in the same window."""
        _, vcpu, took, time, address, data = unpack(self.block, self.at)
        self.at += length
        self.window = address & -layout.WINDOW
        return Access(self.base + time, took, _vcpu(vcpu), space, operation, address, size, data)

    def _wide(
        self, unpack: Callable[..., Any], length: int, space: Space, operation: Operation, size: int
    ) -> Access:
        _, status, vcpu, took, time, address, data = unpack(self.block, self.at)
        self.at += length
        if space is Space.MMIO:
            address += self.window
        return Access(
            self.base + time,
            took,
            _vcpu(vcpu),
            space,
            operation,
            address,
            size,
            data,
            _status(status),
        )

    def _long(self, bits: int) -> Access:
        _, status, time = self._unpack(layout.LONG_HEAD)
        vcpu, took, address, size = (self._varint() for _ in range(4))
        return Access(
            self.base + time,
            took,
            _vcpu(vcpu - 1),
            layout.SPACES[bits // layout.PIO],
            layout.OPERATIONS[bits & layout.WRITE],
            address,
            size,
            self._bytes(),
            _status(status),
        )

    def _named(self, kind: int) -> Event:
        """Decode an event that is no access."""
        _, since = self._unpack(layout.EVENT_HEAD)
        time = self.base + since
        match kind:
            case layout.INTERRUPT:
                change = self._one_of("an interrupt", INTERRUPT_KINDS)
                return Interrupt(time, self._varint(), change, self._name())
            case layout.DMA:
                operation = self._one_of("a DMA", layout.OPERATIONS)
                return Dma(time, self._name(), operation, self._varint(), self._bytes())
            case layout.PLUGGED:
                return Plugged(time, strict_json.load("a device that was plugged", self._bytes()))
            case layout.UNPLUGGED:
                return Unplugged(time, self._name())
            case layout.LEARNED_NUMBER:
                device, source, value = self._name(), self._name(), self._varint()
                return Learned(time, device, source, value >> 1 ^ -(value & 1))
            case layout.LEARNED_BYTES:
                return Learned(time, self._name(), self._name(), self._bytes())
            case layout.WOKEN:
                return Woken(time, self._name(), self._name())
            case layout.TOLD:
                return Told(time, self._name(), self._bytes())
            case _:
                raise BadRecording(f"a record has the kind {kind:#04x}, which there isn't")

    def _unpack(self, form: struct.Struct) -> tuple[Any, ...]:
        fields = form.unpack_from(self.block, self.at)
        self.at += form.size
        return fields

    def _byte(self) -> int:
        value = self.block[self.at]
        self.at += 1
        return value

    def _one_of(self, what: str, options: Sequence[T]) -> T:
        """Decode a choice of one byte."""
        number = self._byte()
        if number >= len(options):
            raise BadRecording(f"{what} of kind {number}: it must be below {len(options)}")
        return options[number]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 7 * layout.VARINT_MAX, 7):
            byte = self._byte()
            value |= (byte & ~layout.VARINT_MORE) << shift
            if byte < layout.VARINT_MORE:
                if value > layout.U64_LAST:
                    break
                return value
        raise BadRecording(f"the number before byte {self.at} of a block has more than 64 bits")

    def _bytes(self) -> bytes:
        length = self._varint()
        if length > len(self.block) - self.at:
            raise IndexError
        begin = self.at
        self.at += length
        return self.block[begin : self.at]

    def _text(self) -> str:
        try:
            return self._bytes().decode()
        except UnicodeDecodeError as error:
            raise BadRecording(f"a name isn't UTF-8: {error}") from error

    def _name(self) -> str:
        number = self._varint()
        if number >= len(self.names):
            raise BadRecording(f"the name {number} of a block, which has {len(self.names)} so far")
        return self.names[number]


def _checked_base(base: int) -> int:
    if base > layout.BASE_LAST:
        raise BadRecording(f"times from {base:#x} on: they begin at {layout.BASE_LAST:#x} at most")
    return base


def _vcpu(number: int) -> int | None:
    return number if number >= 0 else None


def _status(number: int) -> AccessStatus:
    status = _STATUSES.get(number)
    if status is None:
        raise BadRecording(f"an access has the status {number}, which there isn't")
    return status
