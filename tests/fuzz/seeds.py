"""The first inputs of the targets: real messages, as the tests have them, in their forms.

    PYTHONPATH=tests python -m fuzz.seeds build/fuzz/corpus

Fuzzing goes on from them. What came of it, with these, is the corpus in the tree.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from devicehost.bus_regions import LIMITS, REGION_RING, REGION_STATUS
from devicehost.ring.layout import Operation
from devicehost.vfio_user import (
    Command,
    GetRegionInfo,
    GetRegionIoFds,
    IrqAction,
    IrqData,
    RegionWrite,
    RegionWriteMulti,
    RequestPayload,
    Role,
    SetIrqs,
    Version,
)
from devicehost.vfio_user.messages import EXCHANGES
from devicehost.vfio_user.negotiation import proposal
from fuzz.codec import KINDS
from fuzz.messages import COMMANDS
from unit.recording import test_format as formats
from unit.recording.samples import EVENTS, HEADER, recorded
from unit.vfio_user import test_golden_bytes as golden
from unit.vfio_user import test_malformed as malformed

HEADER_JSON: Final = json.dumps(HEADER.to_json()).encode()

POSTED: Final = 2
"""Index of the flag in `twins.FLAGS` and `bus_script.FLAGS`."""


def blob(data: bytes) -> bytes:
    """Bytes in the form of `Source.blob`."""
    return len(data).to_bytes(2, "little") + data


def codec() -> Iterable[bytes]:
    """All payloads with their bytes, right and wrong."""
    for case in (*golden.REQUESTS, *golden.REPLIES):
        yield _payload(type(case.value), case.request, golden.wire(case.text))
    for bad in (*malformed.REQUESTS, *malformed.REPLIES):
        yield _payload(bad.kind, bad.request, bad.payload)
    for text in (b"[" * 2000, b'{"capabilities":' * 1000):  # deeper than Python goes
        yield bytes([0]) + blob(bytes(4) + text + b"\0")
    for data in (b"a", b"abcdefgh"):
        writes = RegionWriteMulti((RegionWrite(1, 2, data), RegionWrite(1, 2, b"bc"))).encode()
        yield bytes([KINDS.index((RegionWriteMulti, None))]) + blob(writes[:-1] + b"x")


def _payload(kind: type[Any], request: RequestPayload | None, payload: memoryview) -> bytes:
    """A payload for the codec, with its request if it is a reply."""
    if request is None:
        return bytes([KINDS.index((kind, None))]) + blob(bytes(payload))
    number = KINDS.index((type(request), kind))
    return bytes([number]) + blob(request.encode()) + blob(bytes(payload))


def requests(sender: Role) -> Iterable[RequestPayload]:
    """The requests of one side."""
    for case in golden.REQUESTS:
        if isinstance(case.value, Version) or EXCHANGES[case.value.COMMAND].sender is sender:
            yield case.value


def server_session() -> Iterable[bytes]:
    """Each request, alone and with an answer, whole and in pieces; requests of ours."""
    for payload in requests(Role.CLIENT):
        for flags, how in ((0, 0), (POSTED, 0), (0, 0x10), (0, 0x21), (0, 1)):
            message = bytes([0, 1, payload.COMMAND, 0, flags, 0]) + blob(payload.encode())
            yield bytes([1]) + message + bytes([how, 2, 0, 0]) + bytes(8)
    for payload in requests(Role.SERVER):
        if not isinstance(payload, Version):
            asked = bytes([3, COMMANDS[Role.SERVER].index(payload.COMMAND)])
            yield (
                bytes([1]) + asked + blob(payload.encode()) + bytes([0, 0, 4, 0, 2, 0, 1, 2, 0, 0])
            )
    yield bytes([0, 0, 0, Command.VERSION, 0, 0, 0]) + blob(proposal(LIMITS).encode()) + b"\0"
    for flags in range(10):
        for offset, count in ((1, 2), (2, 0), (2, 2), (3, 4)):
            for reading in range(2):
                access = bytes([7, flags, 1, offset, 4, count, 1, 0, reading]) + b"abcdefgh"
                yield bytes([1]) + access[: 9 if reading else None] + b"\0"
    for size in (280, 304, 305, 2000, 2001):
        yield bytes([1, 5]) + struct.pack("<HHBB", size, size, 9, 0) + bytes([0x20, 40, 0, 1, 1])


def client_session() -> Iterable[bytes]:
    """Each request of ours with a reply; each of the server's with an answer."""
    for payload in requests(Role.CLIENT):
        if not isinstance(payload, Version):
            asked = bytes([2, COMMANDS[Role.CLIENT].index(payload.COMMAND)])
            for tail in (bytes(6), bytes([1, 2, 1, 0, 0, 0, 0]), bytes([0x20] * 8)):
                yield bytes([1]) + asked + blob(payload.encode()) + bytes([0, 0, 3, 0]) + tail
    for payload in requests(Role.SERVER):
        message = bytes([0, 1, payload.COMMAND, 0, 0, 0]) + blob(payload.encode())
        yield bytes([1]) + message + bytes([0, 5, 0, 0, 2, 0, 1, 2])
    for way, reply in enumerate((bytes([3, 0]) + blob(b"abcd"), bytes([3, 0, 4, 0]))):
        access = bytes([4, way]) + struct.pack("<IQH", 1, 0xFE00, 4)
        yield bytes([1]) + access + reply + bytes(1)
        for how in (0x08, 0x10, 0x20):  # with what comes behind it, or in pieces
            broken = reply + bytes([2, how])
            yield bytes([1]) + access + broken + bytes(8)
            yield bytes([1]) + access * 2 + broken + bytes([3, 1]) + reply[2:] + bytes([2, 0])
        yield bytes([1]) + access + bytes([7, 1, 0]) + reply + bytes(1)  # abandoned
    yield bytes([1, 4, 2]) + struct.pack("<IQH", 1, 0xFE00, 4)
    answered = proposal(LIMITS).encode()
    yield bytes([2, 0, 0, Command.VERSION, 0, 1, 0]) + blob(answered) + b"\0"


def bus_endpoint() -> Iterable[bytes]:
    """Each request, with the descriptors that it needs and without; the device's DMA."""
    more: tuple[RequestPayload, ...] = (
        GetRegionInfo(REGION_RING),
        GetRegionIoFds(REGION_RING, 4096),
        RegionWrite(REGION_STATUS, 0x10, bytes(8)),
        SetIrqs(0, 4, 1, IrqAction.TRIGGER, IrqData.EVENTFD),
        SetIrqs(0, 4, 2, IrqAction.TRIGGER, IrqData.EVENTFD),
        SetIrqs(9, 4, 2, IrqAction.TRIGGER, IrqData.EVENTFD),
    )
    for payload in (*requests(Role.CLIENT), *more):
        for how in (b"\0", b"\1\0", b"\1\1", b"\2\0", b"\x40\7\0"):
            yield (bytes([1, 1, payload.COMMAND, 9, 0]) + blob(payload.encode()) + how)
    ring = bytes([1, Command.DEVICE_GET_REGION_INFO, 1, 0]) + blob(more[0].encode()) + b"\0"
    opened = bytes([1, Command.REGION_WRITE, 1, 0]) + blob(more[2].encode()) + b"\0"
    yield bytes([1]) + ring + opened
    for flags in range(16):
        share = bytes([2, 0, 0, 1, flags, 0])
        for fds in (b"\0", b"\1\1", b"\1\3"):
            yield bytes([1]) + share + fds + bytes([3, 0, 8, 0, 0])
            reply = bytes([4, 0, 0, 8, 4]) + b"abcd" + bytes([0, 0, 0, 0])
            yield bytes([1]) + share + fds + bytes([3, 0, 8, 0, 0x20]) + reply + reply
    for region in range(4):
        yield bytes([1, 0, 0, region, 0, 4, 1, 4, 0]) + bytes(
            [0, 1, region, 0, 0x40, 0, 1, 4, 1, 0]
        )


def pci_endpoint() -> Iterable[bytes]:
    """Each request, and interrupts of each index, with the descriptors that they need."""
    many = [
        SetIrqs(index, start, count, action, data, bytes(count if data is IrqData.BOOL else 0))
        for index in range(6)
        for start, count in ((0, 1), (1, 2), (18, 2))
        for action in IrqAction
        for data in IrqData
    ]
    nothing = [SetIrqs(index, 0, 0, IrqAction.TRIGGER, IrqData.NONE) for index in range(6)]
    regions = [GetRegionInfo(index, 4096) for index in range(10)]
    for payload in (*requests(Role.CLIENT), *many, *nothing, *regions):
        for how in (b"\0", b"\1\0", b"\2\0"):
            yield (bytes([1, 1, payload.COMMAND, 9, 0]) + blob(payload.encode()) + how)
    master = RegionWrite(7, 4, b"\4\0")
    enabled = bytes([1, Command.REGION_WRITE, 1, 0]) + blob(master.encode()) + b"\0"
    share = bytes([2, 0, 0, 1, 3, 0])
    for fds in (b"\0", b"\1\1", b"\1\3"):
        yield bytes([1]) + enabled + share + fds + bytes([3, 0, 8, 0, 0])
        yield bytes([1]) + share + fds + enabled + bytes([3, 0, 8, 0, 0])
    for region in range(9):
        for place in range(8):
            yield bytes([1, 0, 0, region, place, 4, 1, 4, 0]) + bytes(
                [0, 1, region, place, 4, 0, 1, 4, 1, 0]
            )


def ring_consumer() -> Iterable[bytes]:
    """An entry of each operation and size, with what may go wrong."""
    for operation in range(8):
        for size in (0, 1, 4, 8, 32, 33):
            place = 1 if operation in (Operation.PIO_READ, Operation.PIO_WRITE) else 0
            entry = bytes([0, 0, operation, size, place, 16]) + b"\x5a" * size
            yield entry + bytes([1, 0])
            yield bytes([3, 8, 5, 2]) + entry + bytes([1, 2]) + entry + bytes([1, 1])
            yield bytes([4, 1, 0, 3]) + b"\xff" * 4 + entry + bytes([1, 0])


def ring_producer() -> Iterable[bytes]:
    """An access of each operation, with a server that works, sleeps or lies."""
    for kind in range(3):
        for port in range(2):
            access = bytes([0, kind, port, 8, 0, 3]) + b"abcd"
            for done in (bytes([0] * 3), bytes([1, 0, 0]), bytes([1, 0, 1]), bytes([3, 1, 1, 0])):
                yield bytes([0]) + access + done * 3 + bytes([2])
            yield bytes([1]) + (access + bytes([1, 0])) * 6 + bytes([2])


def recording() -> Iterable[bytes]:
    """Files and blocks with each event, right and wrong, whole and cut."""
    records = [bytes.fromhex(record) for _, record in formats.RECORDS.values()]
    records += [bytes.fromhex(record) for record, _ in formats.BAD_BLOCKS.values()]
    events, end = bytes([0]), bytes([3])  # places in `KINDS` of the target
    for record in records:
        block = formats.block(record.hex())
        for head in (bytes([1, 0]), bytes([3, 0]), bytes([1, 1])):  # right, too few, spoilt
            yield bytes([0, 1]) + events + head + blob(block) + bytes([1, 0])
        yield bytes([0, 1]) + events + bytes([1, 0]) + blob(block) + bytes([0, 3])
    every = formats.block(*(record.hex() for record in records[:15]), count=15)
    yield bytes([0, 1]) + events + bytes([15, 0]) + blob(every) + bytes([1, 0])
    for total in (b'{"events":1}', b'{"events":2}', b"", b"[]"):
        block = formats.block("58 01")
        chunks = events + bytes([1, 0]) + blob(block) + end + bytes([0, 0]) + blob(total)
        yield bytes([0, 2]) + chunks + bytes([0, 0])
        yield bytes([0, 3]) + chunks + bytes([5, 0, 0]) + blob(b"new") + bytes([1, 0])
    file = recorded(EVENTS[:4])
    for cut in (0, 1, 9, 14, 40, 2000, len(file) - 60, len(file) - 10, len(file)):
        yield bytes([1]) + file[:cut]
    first = file.index(b"EVTS")
    for at in range(0, 24, 4):  # each number of a chunk's header, and then the block
        yield (
            bytes([1]) + file[: first + at] + bytes([file[first + at] ^ 1]) + file[first + at + 1 :]
        )
        yield bytes([2]) + file[first:][:at] + b"?" + file[first:][at + 1 :]
    yield bytes([2]) + file[first:]
    for text in (b"{}", HEADER_JSON, HEADER_JSON.replace(b"pio", b"rom"), b"[1]"):
        yield bytes([3]) + blob(text)


SEEDS: Final = {
    make.__name__: make
    for make in (
        codec,
        server_session,
        client_session,
        bus_endpoint,
        pci_endpoint,
        ring_consumer,
        ring_producer,
        recording,
    )
}


def write(directory: Path) -> None:
    """Write the inputs of each target into a folder of its own, each by its hash."""
    for target, make in SEEDS.items():
        folder = directory / target
        folder.mkdir(parents=True, exist_ok=True)
        for data in make():
            name = hashlib.sha1(data, usedforsecurity=False).hexdigest()
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
