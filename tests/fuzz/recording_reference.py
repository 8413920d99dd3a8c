"""Recordings, read by the plainest implementation of what the package's docstring says.

It takes nothing from the package but the values that events are.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from devicehost.access_status import AccessStatus
from devicehost.recording.events import (
    Access,
    Dma,
    Event,
    Interrupt,
    InterruptKind,
    Learned,
    Lost,
    Operation,
    Plugged,
    Space,
    Told,
    Unplugged,
    Woken,
)

T = TypeVar("T")

MAGIC: Final = bytes.fromhex("89 44 48 52 45 43 0D 0A")
KINDS: Final = (InterruptKind.ASSERTED, InterruptKind.DEASSERTED, InterruptKind.PULSED)
U64: Final = 1 << 64


class Nonsense(Exception):
    """Bytes that have no meaning."""


class Short(Nonsense):
    """Bytes end where more are needed."""


@dataclass
class Bytes:
    """Bytes that are used up from the front."""

    data: bytes
    at: int = 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise Short
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def varint(self) -> int:
        value = 0
        for place in range(10):
            byte = self.number(1)
            value += byte % 128 << 7 * place
            if byte < 128 and value < U64:
                return value
            if byte < 128:
                break
        raise Nonsense

    def sized(self) -> bytes:
        return self.take(self.varint())


@dataclass
class Block:
    """A block, and what its records have said so far."""

    bytes: Bytes
    base: int
    window: int = 0
    names: list[str] = field(default_factory=list)

    def record(self) -> Event | None:
        kind = self.bytes.number(1)
        if kind < 0x40:
            return self.access(kind)
        if kind == 0x40:
            self.base = checked_base(self.bytes.number(8))
            return None
        if kind == 0x41:
            self.names.append(text(self.bytes.sized()))
            return None
        if kind == 0x58:
            return Lost(self.bytes.varint())
        if not 0x50 <= kind < 0x58:
            raise Nonsense
        return self.event(kind, self.base + self.bytes.number(4))

    def access(self, kind: int) -> Access:
        form, code, number = kind & 0x30, kind >> 2 & 3, self.bytes.number
        pio, write = bool(kind & 2), bool(kind & 1)
        if (form == 0x10 and pio) or (form == 0x30 and code):
            raise Nonsense
        size, status = 1 << code, 0
        if form < 0x20:
            vcpu, took, time = number(1, signed=True), number(2), number(4)
            address = number(8) if form else number(2) if pio else self.window + number(4)
            data = self.bytes.take(size)
        elif form == 0x20:
            status, vcpu, took, time = number(1), number(2, signed=True), number(4), number(4)
            address = number(4) if pio else self.window + number(4)
            data = self.bytes.take(size)
        else:
            status, time, vcpu = number(1), number(4), self.bytes.varint() - 1
            took, address, size = (self.bytes.varint() for _ in range(3))
            data = self.bytes.sized()
        if status not in list(AccessStatus):
            raise Nonsense
        if form == 0x10:
            self.window = address >> 32 << 32
        return Access(
            self.base + time,
            took,
            None if vcpu < 0 else vcpu,
            Space.PIO if pio else Space.MMIO,
            Operation.WRITE if write else Operation.READ,
            address,
            size,
            data,
            AccessStatus(status),
        )

    def event(self, kind: int, time: int) -> Event:
        if kind == 0x50:
            change = pick(KINDS, self.bytes.number(1))
            gsi = self.bytes.varint()
            return Interrupt(time, gsi, change, self.name())
        if kind == 0x51:
            operation = pick((Operation.READ, Operation.WRITE), self.bytes.number(1))
            device, address = self.name(), self.bytes.varint()
            return Dma(time, device, operation, address, self.bytes.sized())
        if kind == 0x52:
            return Plugged(time, json_object(self.bytes.sized()))
        device = self.name()
        if kind == 0x53:
            return Unplugged(time, device)
        if kind == 0x54:
            source, value = self.name(), self.bytes.varint()
            return Learned(time, device, source, -(value // 2) - 1 if value % 2 else value // 2)
        if kind == 0x55:
            source = self.name()
            return Learned(time, device, source, self.bytes.sized())
        if kind == 0x56:
            return Woken(time, device, self.name())
        return Told(time, device, self.bytes.sized())

    def name(self) -> str:
        return pick(self.names, self.bytes.varint())


def pick(options: Sequence[T], number: int) -> T:
    if number >= len(options):
        raise Nonsense
    return options[number]


def text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Nonsense from None


def json_object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data.decode())
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        raise Nonsense from None
    if not isinstance(value, dict):
        raise Nonsense
    return value


def checked_base(base: int) -> int:
    if base + 0xFFFFFFFF >= U64:
        raise Nonsense
    return base


def block_events(data: bytes) -> tuple[list[Event], bool]:
    """Return the events of a block, and whether that is all that it has."""
    if not data:
        return [], True
    source, events = Bytes(data), list[Event]()
    try:
        block = Block(source, checked_base(source.number(8)))
        count = source.number(4)
        while source.at < len(data):
            event = block.record()
            if event is not None:
                if len(events) == count:
                    return events, False
                events.append(event)
    except Nonsense:
        return events, False
    return events, len(events) == count


def recording_events(data: bytes) -> tuple[list[Event], bool]:
    """Return the events of a recording, and whether it is complete.

    Raises:
        Nonsense: it is none, or its header isn't whole.
    """
    file = Bytes(data)
    if file.take(8) != MAGIC or file.number(4) != 1:
        raise Nonsense
    kind, _, payload, is_right = chunk(file)
    if kind != b"HEAD" or not is_right:
        raise Nonsense
    json_object(payload)  # that the rest of it is right is for the header's own tests
    return body(file)


def body(file: Bytes) -> tuple[list[Event], bool]:
    events, counted, is_complete = list[Event](), 0, True
    while True:
        at = file.at
        try:
            kind, count, payload, is_right = chunk(file)
        except Short:
            file.at = at
            events += cut_events(file)
            return events, False
        except Nonsense:
            return events, False
        is_complete &= is_right
        counted += count
        if kind == b"END ":
            return events, is_complete and ends_well(payload, counted) and file.at == len(file.data)
        if kind == b"EVTS":
            found, is_whole = block_events(payload) if is_right else ([], True)
            events += found
            is_complete &= is_whole
            if len(found) < count:
                events.append(Lost(count - len(found)))


def chunk(file: Bytes) -> tuple[bytes, int, bytes, bool]:
    """Return type, count and payload of a chunk, and whether its checksum is right."""
    kind, length, count, checksum = struct.unpack("<4sIII", head := file.take(16))
    if file.number(4) != zlib.crc32(head) or length > 64 << 20:
        raise Nonsense
    payload = file.take(length)
    return kind, count, payload, zlib.crc32(payload) == checksum


def cut_events(file: Bytes) -> list[Event]:
    """Return what there is of the last chunk."""
    rest = file.data[file.at :]
    return block_events(rest[20:])[0] if rest[:4] == b"EVTS" else []


def ends_well(payload: bytes, counted: int) -> bool:
    try:
        return json_object(payload).get("events") in (None, counted)
    except Nonsense:
        return False
