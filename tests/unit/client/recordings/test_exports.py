"""Recordings in the forms of others: JSON lines, and traces for Perfetto."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet

from devicehost.access_status import AccessStatus
from devicehost.recording import (
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
from devicehost_client.recordings.export.json_lines import write_json_lines
from devicehost_client.recordings.export.perfetto import write_perfetto
from devicehost_client.recordings.export.protobuf import message, number, text, varint
from devicehost_client.recordings.source import Source
from unit.client.recordings.synthetic import COM1, DEVICES, HEADER, Guest, boot, write


def json_lines(path: Path) -> list[dict[str, Any]]:
    out = io.BytesIO()
    with Source.open(path) as source:
        write_json_lines(source, out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def perfetto(path: Path) -> bytes:
    out = io.BytesIO()
    with Source.open(path) as source:
        write_perfetto(source, out)
    return out.getvalue()


def test_an_access_is_a_line_with_registers_and_fields(tmp_path: Path) -> None:
    guest = Guest()
    path = write(tmp_path / "some.rec", [guest.outb(COM1 + 3, 0x83, took_ns=1234)])
    head, line, end = json_lines(path)
    assert head == {"kind": "recording", "header": HEADER.to_json()}
    assert line == {
        "event": 0,
        "kind": "access",
        "time_ns": 5_000_000_000,
        "device": "com1",
        "vcpu": 0,
        "space": "pio",
        "operation": "write",
        "address": "0x3fb",
        "size": "0x1",
        "data": "83",
        "status": "OK",
        "took_ns": 1234,
        "range": 0,
        "offset": "0x3",
        "registers": [
            {
                "name": "LCR",
                "value": "0x83",
                "fields": {
                    "DLAB": {"value": "0x1", "meaning": ""},
                    "BREAK": {"value": "0x0", "meaning": ""},
                    "PARITY": {"value": "0x0", "meaning": ""},
                    "STB": {"value": "0x0", "meaning": ""},
                    "WLS": {"value": "0x3", "meaning": "8 bits"},
                },
                "reserved": "0x0",
                "complete": True,
            }
        ],
    }
    assert end == {"kind": "end", "events": 1, "lost": 0, "complete": True, "damage": None}


def test_every_kind_of_event_has_its_line(tmp_path: Path) -> None:
    events: list[Event] = [
        Interrupt(1, 4, InterruptKind.ASSERTED, "com1"),
        Dma(2, "timer0", Operation.WRITE, 0x1000, b"\x01\x02"),
        Plugged(3, DEVICES[3].to_json()),
        Unplugged(4, "debugcon"),
        Learned(5, "rtc", "wall", 77),
        Learned(6, "com1", "read", b"x"),
        Woken(7, "com1", "timer:tick"),
        Told(8, "com1", b"hi"),
        Lost(9),
    ]
    lines = json_lines(write(tmp_path / "some.rec", events))[1:-1]
    assert lines == [
        {"kind": "interrupt", "device": "com1", "gsi": 4, "change": "asserted"}
        | {"event": 0, "time_ns": 1},
        {"kind": "dma", "device": "timer0", "operation": "write", "address": "0x1000"}
        | {"data": "0102", "event": 1, "time_ns": 2},
        {"kind": "plugged", "device": "debugcon", "description": DEVICES[3].to_json()}
        | {"event": 2, "time_ns": 3},
        {"kind": "unplugged", "device": "debugcon", "event": 3, "time_ns": 4},
        {"kind": "learned", "device": "rtc", "source": "wall", "value": "0x4d"}
        | {"event": 4, "time_ns": 5},
        {"kind": "learned", "device": "com1", "source": "read", "data": "78"}
        | {"event": 5, "time_ns": 6},
        {"kind": "woken", "device": "com1", "source": "timer:tick", "event": 6, "time_ns": 7},
        {"kind": "told", "device": "com1", "data": "6869", "event": 7, "time_ns": 8},
        {"kind": "lost", "count": 9, "event": 8},
    ]


def test_json_lines_of_a_cut_recording_end_with_what_is_wrong(tmp_path: Path) -> None:
    path = write(tmp_path / "boot.rec", boot(8))
    path.write_bytes(path.read_bytes()[:-100])
    end = json_lines(path)[-1]
    assert end["complete"] is False
    assert "cut" in end["damage"]


@pytest.mark.parametrize("write_out", [write_json_lines, write_perfetto])
def test_memory_is_not_in_proportion_to_the_recording(tmp_path: Path, write_out: Any) -> None:
    path = write(tmp_path / "boot.rec", boot(200))  # its 20,000 events are 10 MB in memory
    with Source.open(path) as source, Path("/dev/null").open("wb") as out:
        tracemalloc.start()
        write_out(source, out)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert source.events > 20_000
    assert peak < 4 << 20


# A trace is read here by a reader of our own, and by Perfetto's classes where they are there.


def fields(encoded: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message, as far as such traces have kinds of them."""
    at = 0

    def take() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = encoded[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(encoded):
        tag = take()
        if tag & 7 == 0:
            yield tag >> 3, take()
        else:
            assert tag & 7 == 2
            length = take()
            assert at + length <= len(encoded)
            yield tag >> 3, encoded[at : at + length]
            at += length


def of(encoded: bytes | int, field: int) -> list[Any]:
    assert isinstance(encoded, bytes)
    return [value for number_, value in fields(encoded) if number_ == field]


class Trace:
    """What is in a trace: names of tracks, and their events in order of time."""

    def __init__(self, encoded: bytes) -> None:
        self.tracks: dict[int, tuple[str, int]] = {}
        self.names: dict[int, str] = {}
        self.events: dict[int, list[tuple[int, int, str, bytes]]] = defaultdict(list)
        for packet in of(encoded, 1):
            for descriptor in of(packet, 60):
                parent = of(descriptor, 5)
                name = of(descriptor, 2)[0].decode()
                self.tracks[of(descriptor, 1)[0]] = (name, parent[0] if parent else 0)
            for interned in of(packet, 12):
                for name in of(interned, 2):
                    self.names[of(name, 1)[0]] = of(name, 2)[0].decode()
            for event in of(packet, 11):
                time = of(packet, 8)[0]
                iid = of(event, 10)
                name = self.names[iid[0]] if iid else ""
                self.events[of(event, 11)[0]].append((time, of(event, 9)[0], name, event))
        for each in self.events.values():
            each.sort(key=lambda event: event[0])

    def path(self, track: int) -> str:
        name, parent = self.tracks[track]
        return f"{self.path(parent)}/{name}" if parent else name

    def slices(self) -> Counter[str]:
        """How many slices each track has, by its path; checks that they nest."""
        counts: Counter[str] = Counter()
        for track, events in self.events.items():
            is_open = False
            for _time, kind, _name, _event in events:
                if kind in {1, 2}:
                    assert is_open is (kind == 2)
                    is_open = kind == 1
                    counts[self.path(track)] += kind == 1
            assert not is_open
        return counts


def accesses(events: Iterable[Event]) -> list[Access]:
    return [each for each in events if isinstance(each, Access)]


def test_a_trace_has_a_slice_for_each_access_by_vcpu_and_by_device(tmp_path: Path) -> None:
    trace = Trace(perfetto(write(tmp_path / "boot.rec", boot(20))))
    slices = trace.slices()
    made = accesses(boot(20))
    assert slices["vCPUs/vCPU 0"] == sum(each.vcpu == 0 for each in made)
    assert slices["vCPUs/vCPU 1"] == sum(each.vcpu == 1 for each in made)
    com1 = [each for each in made if COM1 <= each.address < COM1 + 8]
    assert slices["devices/com1"] == len(com1)
    assert set(slices) == {
        "vCPUs/vCPU 0",
        "vCPUs/vCPU 1",
        *(f"devices/{device.id}" for device in DEVICES),
    }


def test_slices_are_named_by_registers_and_last_as_long_as_the_access(tmp_path: Path) -> None:
    guest = Guest()
    path = write(
        tmp_path / "some.rec",
        [
            guest.inb(COM1 + 5, 0x60, took_ns=1500),
            guest.access(Operation.READ, Space.PIO, 0x510, 0, status=AccessStatus.NO_DEVICE),
        ],
    )
    trace = Trace(perfetto(path))
    by_path = {trace.path(track): events for track, events in trace.events.items()}
    (begin, _, name, _), (end, *_) = by_path["devices/com1"]
    assert (name, begin, end - begin) == ("read LSR", 5_000_000_000, 1500)
    assert [event[2] for event in by_path["vCPUs/vCPU 0"]] == ["read LSR", "", "read pio 0x510", ""]


def test_interrupts_are_instants_of_their_device_and_levels_of_their_gsi(tmp_path: Path) -> None:
    events: list[Event] = [
        Interrupt(10, 4, InterruptKind.ASSERTED, "com1"),
        Interrupt(20, 4, InterruptKind.DEASSERTED, "com1"),
        Interrupt(30, 33, InterruptKind.PULSED, "timer0"),
        Interrupt(40, 5, InterruptKind.ASSERTED, ""),
    ]
    trace = Trace(perfetto(write(tmp_path / "some.rec", events)))
    by_path = {trace.path(track): found for track, found in trace.events.items()}
    assert [(time, name) for time, _, name, _ in by_path["devices/com1"]] == [
        (10, "GSI 4 asserted"),
        (20, "GSI 4 deasserted"),
    ]
    levels = {
        path: [(time, of(event, 30)[0]) for time, _, _, event in found]
        for path, found in by_path.items()
        if path.startswith("GSIs")
    }
    assert levels == {
        "GSIs/GSI 4": [(10, 1), (20, 0)],
        "GSIs/GSI 33": [(30, 1), (30, 0)],
        "GSIs/GSI 5": [(40, 1)],
    }
    assert [name for _, _, name, _ in by_path["recording"]] == ["GSI 5 asserted"]


def test_accesses_that_overlap_are_on_tracks_of_one_name(tmp_path: Path) -> None:
    events = [
        Access(time, took, vcpu, Space.PIO, Operation.READ, COM1 + 5, 1, b"\x60")
        for time, took, vcpu in ((200, 10, 1), (100, 150, 0), (240, 5, 1), (260, 0, 0), (260, 9, 0))
    ]
    trace = Trace(perfetto(write(tmp_path / "some.rec", events)))
    assert trace.slices() == {"vCPUs/vCPU 0": 3, "vCPUs/vCPU 1": 2, "devices/com1": 5}
    tracks = [track for track in trace.tracks if trace.path(track) == "devices/com1"]
    assert len(tracks) == 2


def test_a_trace_says_where_events_are_missing_and_what_is_damaged(tmp_path: Path) -> None:
    guest = Guest()
    events: list[Event] = [guest.inb(COM1 + 5, 0), Lost(70), guest.inb(COM1 + 5, 0)]
    path = write(tmp_path / "some.rec", events)
    path.write_bytes(path.read_bytes()[:-10])
    trace = Trace(perfetto(path))
    (track,) = [track for track in trace.tracks if trace.path(track) == "recording"]
    missing, damaged = [name for _, _, name, _ in trace.events[track]]
    assert missing == "70 events are missing"
    assert damaged.startswith("damaged from here on: it was cut")


def test_a_trace_is_what_perfetto_itself_reads(tmp_path: Path) -> None:
    perfetto_trace = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    trace = perfetto_trace.Trace()
    encoded = perfetto(write(tmp_path / "boot.rec", boot(20)))
    trace.ParseFromString(encoded)
    names: dict[int, str] = {}
    keys: dict[int, str] = {}
    found = None
    for packet in trace.packet:
        assert packet.trusted_packet_sequence_id == 1
        interned = packet.interned_data
        names |= {each.iid: each.name for each in interned.event_names}
        keys |= {each.iid: each.name for each in interned.debug_annotation_names}
        event = packet.track_event
        assert not len(UnknownFieldSet(packet)) + len(UnknownFieldSet(event))
        if event.type == event.TYPE_SLICE_BEGIN and names[event.name_iid] == "write LCR":
            found = found or event
    assert found is not None
    arguments = {keys[each.name_iid]: each for each in found.debug_annotations}
    assert arguments["pio"].pointer_value == COM1 + 3
    assert arguments["event"].uint_value == 0
    assert arguments["status"].string_value == "OK"
    entries = {keys[each.name_iid]: each for each in arguments["LCR"].dict_entries}
    assert entries["value"].pointer_value == 0x80
    assert entries["DLAB"].string_value == "0x1"


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (-1, "ff" * 9 + "01")],
)
def test_varints_are_those_of_protobuf(value: int, encoded: str) -> None:
    assert varint(value).hex() == encoded


def test_fields_are_those_of_protobuf() -> None:
    assert (number(1, 150) + text(2, "testing") + message(3, number(1, 150))).hex() == (
        "089601120774657374696e671a03089601"
    )
    assert text(16, "\ud800").hex() == "8201013f"
