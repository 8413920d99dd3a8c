"""Going through recordings, whole ones and others."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from devicehost.recording import Access, BadRecording, Event, Lost, Plugged
from devicehost_client.recordings.source import Source
from unit.client.recordings.synthetic import DEVICES, Guest, boot, write


def test_events_are_numbered_from_0_and_decoded(tmp_path: Path) -> None:
    with Source.open(write(tmp_path / "boot.rec", boot(1))) as source:
        seen = list(source)
    assert [number for number, _ in seen] == list(range(len(seen)))
    assert str(seen[0][1].registers[0]) == "LCR = 0x80 (DLAB=1, WLS=0 5 bits)"
    assert (source.name, source.events) == ("boot.rec", len(seen))
    assert source.begin_ns == 5_000_000_000
    assert source.is_complete
    assert source.damage is None


def test_of_a_cut_recording_everything_up_to_the_cut_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "boot.rec", boot(8))
    whole = path.read_bytes()
    with Source.open(path) as source:
        everything = [seen.event for _, seen in source]
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with Source.open(path) as source:
        some = [seen.event for _, seen in source]
    assert 0 < len(some) < len(everything)
    assert some == everything[: len(some)]
    assert not source.is_complete
    assert source.damage is not None
    assert "cut at byte" in source.damage


def test_missing_events_are_counted(tmp_path: Path) -> None:
    guest = Guest()
    events: list[Event] = [guest.inb(0x3FD, 0), Lost(70), guest.inb(0x3FD, 0), Lost(7)]
    with Source.open(write(tmp_path / "boot.rec", events)) as source:
        assert len(list(source)) == 4
    assert source.lost == 77


def test_a_device_that_makes_no_sense_ends_what_can_be_told(tmp_path: Path) -> None:
    guest = Guest()
    device = {**DEVICES[0].to_json(), "id": "com2", "registers": {"name": 7}}
    events: list[Event] = [guest.inb(0x3FD, 0), Plugged(guest.now_ns, device), guest.inb(0x3FD, 0)]
    with Source.open(write(tmp_path / "boot.rec", events)) as source:
        assert len(list(source)) == 1
    assert not source.is_complete
    assert source.damage is not None
    assert source.damage.startswith("nothing can be told from event 1 on: the registers of")
    assert "'com2'" in source.damage


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "boot.rec"
    path.write_bytes(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(BadRecording, match="not a recording"):
        Source.open(path)


def test_progress_is_told_in_bytes_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "boot.rec", boot(40))
    steps: list[float] = []
    with Source.open(path) as source:
        source.on_progress = steps.append
        events = sum(1 for _ in source)
    assert events // 1024 <= len(steps) <= events // 1024 + 1
    assert 0 < sum(steps) <= path.stat().st_size


def test_a_pipe_can_be_gone_through(tmp_path: Path) -> None:
    content = write(tmp_path / "boot.rec", boot(3)).read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    steps: list[float] = []
    with Source.open(pipe) as source:
        source.on_progress = steps.append
        accesses = sum(isinstance(seen.event, Access) for _, seen in source)
    writer.join()
    assert accesses > 100
    assert source.is_complete
    assert steps == []
