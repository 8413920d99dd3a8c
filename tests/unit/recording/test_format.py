"""The format, byte by byte, as the package's docstring has it for other languages."""

from __future__ import annotations

import json
import struct
import zlib

import pytest

from devicehost.access_status import AccessStatus
from devicehost.recording import (
    Access,
    BadRecording,
    Dma,
    Event,
    Header,
    Interrupt,
    InterruptKind,
    Learned,
    Lost,
    Operation,
    Packer,
    Plugged,
    Space,
    Told,
    Unplugged,
    Woken,
    decode_block,
    file_block,
    file_end,
    file_start,
)
from fuzz import recording_reference as reference
from unit.recording.samples import EVENTS, HEADER, recorded

BASE = 1_000
T = BASE + (1 << 30)
"""A moment whose block begins, with what a packer leaves free before it, at BASE."""

TIME = (1 << 30).to_bytes(4, "little").hex(" ")

READ = Access(T, 1800, 0, Space.MMIO, Operation.READ, 0xFEB0_0010, 4, b"abcd")
RECORDS: dict[str, tuple[Event, str]] = {
    "short": (READ, f"08 00 0807 {TIME} 1000b0fe 61626364"),
    "short write of a port": (
        Access(T, 1, None, Space.PIO, Operation.WRITE, 0x3FD, 1, b"a"),
        f"03 ff 0100 {TIME} fd03 61",
    ),
    "far": (
        Access(T, 1, 127, Space.MMIO, Operation.WRITE, 1 << 40, 8, b"abcdefgh"),
        f"1d 7f 0100 {TIME} 0000000000010000 6162636465666768",
    ),
    "wide": (
        Access(T, 1 << 16, 128, Space.MMIO, Operation.READ, 16, 2, b"ab", AccessStatus.OK),
        f"24 00 8000 00000100 {TIME} 10000000 6162",
    ),
    "wide of a port": (
        Access(T, 1, 0, Space.PIO, Operation.WRITE, 16, 1, b"a", AccessStatus.DEVICE_FAULT),
        f"23 05 0000 01000000 {TIME} 10000000 61",
    ),
    "long": (
        Access(T, 300, None, Space.PIO, Operation.READ, 0x1F0, 2, b"abcdef"),
        f"32 00 {TIME} 00 ac02 f003 02 06 616263646566",
    ),
    "failed read": (
        Access(T, 1, 3, Space.MMIO, Operation.READ, 0x80, 4, b"", AccessStatus.NO_DEVICE),
        f"30 01 {TIME} 04 01 8001 04 00",
    ),
    "interrupt": (
        Interrupt(T, 4, InterruptKind.PULSED, "uart"),
        f"41 04 75617274 50 {TIME} 02 04 00",
    ),
    "DMA": (
        Dma(T, "uart", Operation.WRITE, 0x80, b"abc"),
        f"41 04 75617274 51 {TIME} 01 00 8001 03 616263",
    ),
    "plugged": (Plugged(T, {"id": "a"}), f"52 {TIME} 0a 7b226964223a2261227d"),
    "unplugged": (Unplugged(T, "é"), f"41 02 c3a9 53 {TIME} 00"),
    "learned a number": (
        Learned(T, "a", "now", -64),
        f"41 01 61 41 03 6e6f77 54 {TIME} 00 01 7f",
    ),
    "learned bytes": (
        Learned(T, "a", "a", b"xyz"),
        f"41 01 61 55 {TIME} 00 00 03 78797a",
    ),
    "woken": (Woken(T, "a", "b"), f"41 01 61 41 01 62 56 {TIME} 00 01"),
    "told": (Told(T, "a", b"xyz"), f"41 01 61 57 {TIME} 00 03 78797a"),
}


def block(*records: str, base: int = BASE, count: int = 1) -> bytes:
    return struct.pack("<QI", base, count) + bytes.fromhex(" ".join(records))


@pytest.mark.parametrize(("event", "record"), RECORDS.values(), ids=RECORDS)
def test_an_event_is_packed_as_the_docstring_says(event: Event, record: str) -> None:
    packer = Packer()
    packer.event(event)
    assert packer.take() == block(record)


@pytest.mark.parametrize(("event", "record"), RECORDS.values(), ids=RECORDS)
def test_a_record_is_decoded_as_the_docstring_says(event: Event, record: str) -> None:
    assert list(decode_block(block(record))) == [event]
    assert reference.block_events(block(record)) == ([event], True)


def test_events_are_lost_at_no_time() -> None:
    packer = Packer()
    packer.event(Lost(200))
    assert packer.take() == block("58 c801", base=0)


def test_a_far_record_sets_the_high_bits_of_the_addresses_behind_it() -> None:
    packer = Packer()
    accesses = [
        Access(T, 1, 0, Space.MMIO, Operation.READ, address, 1, b"a")
        for address in (0x10, 0x1_0000_0010, 0x1_0000_0020, 0x20)
    ]
    for access in accesses:
        packer.event(access)
    packed = packer.take()
    begin = f"00 0100 {TIME}"
    assert packed == block(
        f"00 {begin} 10000000 61",
        f"10 {begin} 1000000001000000 61",
        f"00 {begin} 20000000 61",
        f"10 {begin} 2000000000000000 61",
        count=4,
    )
    assert list(decode_block(packed)) == accesses


def test_times_too_far_from_the_base_move_it() -> None:
    packer = Packer()
    later = T + (1 << 33)
    for time_ns in (T, later):
        packer.event(Unplugged(time_ns, "a"))
    moved = (later - (1 << 30)).to_bytes(8, "little").hex()
    assert packer.take() == block(f"41 01 61 53 {TIME} 00", f"40 {moved}", f"53 {TIME} 00", count=2)


def chunk(kind: bytes, events: int, payload: bytes) -> bytes:
    head = kind + struct.pack("<III", len(payload), events, zlib.crc32(payload))
    return head + struct.pack("<I", zlib.crc32(head)) + payload


def test_a_file_is_magic_version_and_chunks() -> None:
    records = block("58 05", base=0)
    start, rest = file_start(HEADER), file_block(records) + file_end(1)
    length = int.from_bytes(start[16:20], "little")
    text = start[-length:]
    assert start == bytes.fromhex("89 44 48 52 45 43 0D 0A 01000000") + chunk(b"HEAD", 0, text)
    assert rest == chunk(b"EVTS", 1, records) + chunk(b"END ", 0, b'{"events":1}')
    assert file_end() == chunk(b"END ", 0, b"{}")


def test_the_header_is_the_json_that_the_docstring_says() -> None:
    start = file_start(HEADER)
    assert json.loads(start[32:]) == {
        "format": 1,
        "version": "1.2.3",
        "started": "2026-01-02T03:04:05+00:00",
        "wall_ns": 1_767_323_045_000_000_000,
        "now_ns": 5_000_000_000_000,
        "note": "a test",
        "devices": [
            {
                "id": "uart0",
                "type": "uart16550",
                "config": {"chardev": "null"},
                "resources": [{"kind": "pio", "base": 0x3F8, "size": 8}, {"kind": "irq", "irq": 4}],
                "ranges": [["pio", 0x3F8, 8]],
                "registers": HEADER.devices[0].registers,
                "state": {"LCR": 3},
                "values": {"LCR": 3},
            },
            {
                "id": "ram.0",
                "type": "scratch",
                "config": {},
                "resources": [],
                "ranges": [["mmio", 0xFEB0_0000, 0x1000]],
                "registers": None,
                "state": None,
                "values": {},
            },
        ],
    }


def test_a_block_of_no_bytes_is_no_bytes_of_a_file() -> None:
    assert file_block(b"") == b""


@pytest.mark.parametrize("size", [1, 11, (64 << 20) + 1])
def test_what_cannot_be_a_block_is_not_put_into_a_file(size: int) -> None:
    with pytest.raises(BadRecording, match=f"a block has {size} bytes, but must have 12 to"):
        file_block(bytes(size))


def test_who_knows_nothing_but_the_docstring_reads_the_same_events() -> None:
    events, is_complete = reference.recording_events(recorded(EVENTS))
    assert tuple(events) == EVENTS
    assert is_complete


BAD_BLOCKS = {
    "a kind that there is not": ("42 00000000", "has the kind 0x42, which there isn't"),
    "a far port": (f"12 00 0100 {TIME} 0000000000000000 61", "has the kind 0x12"),
    "a long size": (f"34 00 {TIME} 01 01 01 01 00", "has the kind 0x34"),
    "a status that there is not": (f"20 08 0000 00000000 {TIME} 00000000 61", "the status 8"),
    "a change that there is not": (f"41 00 50 {TIME} 03 00 00", "an interrupt of kind 3"),
    "an operation that there is not": (f"41 00 51 {TIME} 02 00 00 00", "a DMA of kind 2"),
    "a name before it was given": (f"53 {TIME} 00", "the name 0 of a block, which has 0 so far"),
    "a name that is no text": ("41 01 ff", "a name isn't UTF-8"),
    "a number without end": ("58" + " ff" * 10 + " 01", "has more than 64 bits"),
    "a number of 11 bytes": ("58" + " 80" * 10 + " 00", "has more than 64 bits"),
    "a number of 65 bits": ("58" + " ff" * 9 + " 02", "has more than 64 bits"),
    "a base too late": ("40 ffffffffffffffff 58 01", "times from 0xffffffffffffffff on"),
    "text that is no JSON": (f"52 {TIME} 01 7b", "a device that was plugged isn't JSON"),
    "JSON that is no object": (f"52 {TIME} 02 5b5d", "is a list, but must be a JSON object"),
    "NaN": (f"52 {TIME} 09 7b2261223a4e614e7d", "NaN is no number"),
    "more bytes than there are": ("41 05 61", "ends in its record at 14"),
    "half a record": ("08 00 0807", "ends in its record at 14"),
    "too few events": ("", "has 1 events, but counts 2"),
    "too many events": ("58 01 58 01", "has more events than the 2 that it counts"),
}


@pytest.mark.parametrize(("record", "message"), BAD_BLOCKS.values(), ids=BAD_BLOCKS)
def test_a_block_that_makes_no_sense_gives_the_events_before_that_and_says_what_it_is(
    record: str, message: str
) -> None:
    data = block("58 01", record, count=2)
    events = decode_block(data)
    assert next(events) == Lost(1)
    with pytest.raises(BadRecording) as raised:
        list(events)
    assert message in str(raised.value)
    assert not reference.block_events(data)[1]


@pytest.mark.parametrize("size", range(1, 12))
def test_a_block_without_a_beginning_is_none(size: int) -> None:
    with pytest.raises(BadRecording, match=f"a block has {size} bytes, but must have at least 12"):
        list(decode_block(bytes(size)))


def test_a_block_whose_time_has_no_room_is_none() -> None:
    with pytest.raises(BadRecording, match="times from 0xffffffff00000001 on"):
        list(decode_block(block(base=0xFFFF_FFFF_0000_0001, count=0)))


def test_deep_json_is_refused_like_other_nonsense() -> None:
    text = b'{"a":' * 100_000
    data = block(f"52 {TIME} a0c21e") + text
    with pytest.raises(BadRecording, match="isn't JSON"):
        list(decode_block(data))


def test_an_infinite_number_in_json_is_refused() -> None:
    text = b'{"a":1e999}'
    data = block(f"52 {TIME} {len(text):02x}") + text
    with pytest.raises(BadRecording, match="1e999 is no number"):
        list(decode_block(data))


def test_an_empty_header_is_one() -> None:
    assert json.loads(file_start(Header())[32:])["devices"] == []
