"""Remote debugging with a real guest: SeaBIOS boots, and others look on, or step in."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ctllab import LCR, RAM_BASE, line
from daemonlab import WAIT_S, wait_until
from devicehost.recording import Recording
from devicehost.recording.events import Access, Lost, Operation, Space
from devicehost_client.debug import (
    AccessFilter,
    Fault,
    Hit,
    HoldEnd,
    HoldEnded,
    StuckAtZero,
    TracedAccess,
    TraceEvent,
)
from guests.bootlab import (
    Boot,
    Gathering,
    Note,
    booting,
    ctl,
    interrupted,
    noted,
    pytest_says,
    recorded,
    tell,
)

THRE = "com1.LSR=0x20"
FCR = 0x3FA
ACCESS_TIMEOUT_S = 0.5
"""Shorter than accesses are held here."""

IN_ORDER = """\
rtc.INDEX W 0x8f NMI=1, NUMBER=0xf
rtc.SHUTDOWN R 0x00 -
pio 0x92 R - NO_DEVICE
debug.OUT W 0x53 -
debug.ID R 0xe9 ID=0xe9 the port is there
fw.SELECTOR W 0x0000 KEY=0 signature
fw.DATA R 0x51 -
fw.SELECTOR W 0x0019 KEY=0x19 directory of files
rtc.MEMORY_ABOVE_16M[1] R 0x01 -
fw.SELECTOR W 0x8003 KEY=0x8003
fw.SELECTOR W 0x0005 KEY=5 number of processors
rtc.REG_A W 0x26 DV=2 32.768 kHz, RS=6 1024 Hz
rtc.REG_B W 0x02 DM=0 BCD, H24=1 0 to 23
rtc.REG_D R 0x80 VRT=1
com1.LCR W 0x03 WLS=3 8 bits
com1.FCR W 0x01 TRIGGER=0 1 or more, ENABLE=1
com1.LSR R 0x60 TEMT=1, THRE=1
com1.THR W 0x1b -
kbd.COMMAND W 0xaa COMMAND=0xaa self-test
kbd.STATUS R 0x1d NOT_INHIBITED=1, CMD=1, SYS=1, OBF=1
kbd.DATA R 0x55 -
kbd.COMMAND W 0x60 COMMAND=0x60 write the command byte
kbd.DATA W 0x30 -
com1.IER W 0x02 ETBEI=1
com1.IIR R 0xc2 FIFOS=3 enabled, ID=2 transmitter holding register empty
kbd.DATA W 0xf4 -
""".splitlines()
"""Some of what SeaBIOS does, whatever its version."""

LINE = re.compile(r" *[\d.]+ +\S+ \w+ +(\S+) +(.+?) +([RW]) +(\S+) +[\d.]+ \w+ +(\S.*)\n")
"""A line of `trace`: times, vCPU, place, operation, value, a duration, details."""


@dataclass(frozen=True)
class Seen:
    """A boot that was watched in three ways at once.

    Attributes:
        notes: what the guest did.
        trace: what the client's API brought of it.
        lines: what `devicehostctl trace` showed, and `summary` at the end.
        recording: what `devicehostctl record` wrote, and `told` at the end.
        consoles: what came out at devices.
    """

    notes: list[Note]
    trace: list[TraceEvent | Lost]
    lines: list[str]
    summary: str
    recording: Path
    told: dict[str, object]
    consoles: dict[str, bytes]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("boot")
    path = folder / "boot.dhrec"
    with (
        booting(folder) as boot,
        boot.ctl.running("trace") as trace,
        boot.ctl.running("-o", "json", "record", "-o", path) as record,
        boot.host.debug.trace() as feed,
    ):
        line(trace)
        wait_until(path.exists, "the recording has begun")
        lines, events = Gathering(trace.stdout or ()), Gathering(feed)
        boot.start()
        boot.finish()
        told, errors = interrupted(record)
        assert errors == ""
        wait_until(lambda: len(events.items) >= len(boot.port.notes))
        wait_until(lambda: len(lines.items) >= len(boot.port.notes))
        feed.close()
        trace.send_signal(signal.SIGINT)
        consoles = {name: boot.console(name) for name in ("com1", "debug")}
        return Seen(
            boot.port.notes,
            events.join(),
            lines.join(),
            trace.stderr.read() if trace.stderr else "",
            path,
            json.loads(told),
            consoles,
        )


def accesses(events: Iterable[TraceEvent | Lost]) -> list[TracedAccess]:
    return [event for event in events if isinstance(event, TracedAccess)]


# Watched


def test_a_trace_has_each_access_of_the_boot_in_order(seen: Seen) -> None:
    assert len(seen.notes) > 2000
    assert noted(accesses(seen.trace)) == seen.notes
    assert len(accesses(seen.trace)) == len(seen.trace)  # and nothing is lost
    assert {each.vcpu for each in accesses(seen.trace)} == {0}


def test_what_is_written_to_a_register_in_a_trace_is_what_the_device_gave_out(seen: Seen) -> None:
    def written(place: str) -> bytes:
        found = [each for each in accesses(seen.trace) if each.place == place]
        return b"".join(each.data for each in found if each.operation is Operation.WRITE)

    assert written("com1.THR") == seen.consoles["com1"]
    assert written("debug.OUT") == seen.consoles["debug"]


def test_devicehostctl_shows_the_same_with_the_names_of_registers_and_fields(seen: Seen) -> None:
    matches = [LINE.fullmatch(each) for each in seen.lines]
    rows = [match.groups() for match in matches if match]
    assert len(rows) == len(matches) == len(seen.trace)
    assert seen.summary == f"{len(rows)} events, 0 lost\n"
    assert [row[1] for row in rows] == [each.place for each in accesses(seen.trace)]
    assert {row[0] for row in rows} == {"0"}
    shown = iter([" ".join(row[1:]) for row in rows])
    for wanted in IN_ORDER:
        assert wanted in shown, f"{wanted} doesn't follow"


def test_no_access_that_reaches_a_device_is_without_a_register(seen: Seen) -> None:
    for each in accesses(seen.trace):
        assert (each.failure == "NO_DEVICE") == (not each.device)
        assert all(register.name for register in each.registers)
        assert len(each.registers) == (1 if each.device else 0)


# Recorded


def test_a_recording_of_the_boot_is_complete(seen: Seen) -> None:
    recording = Recording.open(seen.recording)
    events = list(recording)
    assert recording.is_complete
    assert recording.damage is None
    assert noted(event for event in events if isinstance(event, Access)) == seen.notes
    assert [each.id for each in recording.header.devices] == [
        *("com1", "debug", "fw", "kbd", "post", "rtc")
    ]
    assert seen.told["events"] == len(events)


def test_the_boot_replays_on_fresh_devices_without_a_difference(seen: Seen) -> None:
    told = json.loads(ctl("-o", "json", "replay", seen.recording))
    assert told["differences"] == []
    assert told["summary"]["accesses"] == len(seen.notes)
    assert told["summary"]["devices"] == ["com1", "debug", "fw", "kbd", "post", "rtc"]
    assert (told["summary"]["left_out"], told["summary"]["damage"]) == ({}, None)


def test_lint_finds_what_seabios_does_and_nothing_else(seen: Seen) -> None:
    findings = json.loads(ctl("-o", "json", "lint", seen.recording, status=1))["findings"]
    errors = [each for each in findings if each["severity"] == "error"]
    # A PC's port 0x70 can't be read; SeaBIOS keeps what it got, and writes it back.
    assert [(each["device"], each["register"], each["rule"]) for each in errors] == [
        ("rtc", "INDEX", "read-of-write-only")
    ]
    rules = {each["rule"] for each in findings if each["severity"] != "error"}
    assert rules == {"no-device", "redundant-write"}
    failed = [each for each in accesses(seen.trace) if each.failure]
    counted = sum(each["count"] for each in findings if each["rule"] == "no-device")
    assert counted == len(failed) > 100


def test_the_boot_is_exported_whole(seen: Seen, tmp_path: Path) -> None:
    _, *events, end = map(
        json.loads, ctl("export", seen.recording, "--format", "json").split("\n")[:-1]
    )
    found = [event for event in events if event["kind"] == "access"]
    assert len(found) == len(seen.notes)
    assert [each["address"] for each in found] == [hex(each.address) for each in seen.notes]
    assert end["complete"]
    assert ctl("export", seen.recording, "--format", "perfetto", "-o", tmp_path / "a") != ""
    trace = (tmp_path / "a").read_bytes()
    for name in (b"com1", b"rtc", b"LCR", b"vCPU 0"):
        assert name in trace


def test_a_report_of_the_boot_is_one_page_with_all_that_lint_found(
    seen: Seen, tmp_path: Path
) -> None:
    page = tmp_path / "boot.html"
    told = json.loads(ctl("-o", "json", "report", seen.recording, "-o", page))
    found = json.loads(ctl("-o", "json", "lint", seen.recording, status=1))
    assert (told["events"], told["complete"]) == (seen.told["events"], True)
    assert told["findings"] == len(found["findings"])
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert "boot.dhrec" in text


# A device has a fault.


def test_of_a_device_with_a_fault_the_first_access_that_differs_is_named(seen: Seen) -> None:
    told = json.loads(
        ctl("-o", "json", "replay", seen.recording, "--stuck-at-zero", THRE, status=1)
    )
    (difference,) = told["differences"]
    reads = [each for each in accesses(seen.trace) if each.place == "com1.LSR"]
    assert told["summary"]["differences"] == len(reads)
    assert difference["time_ns"] == reads[0].time_ns
    assert (difference["device"], difference["access"]["operation"]) == ("com1", "read")
    assert (texts(difference, "expected"), texts(difference, "got")) == (
        ["LSR = 0x60 (TEMT=1, THRE=1)"],
        ["LSR = 0x40 (TEMT=1)"],
    )


def texts(difference: dict[str, Any], which: str) -> list[str]:
    """What the registers were expected to be, or what was got."""
    return [each["text"] for each in difference[f"registers_{which}"]]


def test_shrink_keeps_the_difference_in_under_a_tenth_of_the_accesses(
    seen: Seen, tmp_path: Path
) -> None:
    small = tmp_path / "small.dhrec"
    spoiled = ("--stuck-at-zero", THRE)
    told = json.loads(ctl("-o", "json", "shrink", seen.recording, "-o", small, *spoiled))
    assert told["summary"]["accesses_before"] == len(seen.notes)
    assert told["summary"]["accesses"] == len(recorded(small)) <= len(seen.notes) // 10
    ctl("replay", small)
    again = json.loads(ctl("-o", "json", "replay", small, *spoiled, status=1))["differences"]
    assert again[0]["registers_got"] == told["difference"]["registers_got"]


# What a careless change of the device may do: the transmitter never tells that it is empty.
BROKEN = """
from devicehost_server.devices.uart16550 import Uart16550

healthy = Uart16550.pio_read

def broken(self, base, offset, data):
    healthy(self, base, offset, data)
    if offset == 5:
        data[0] &= ~0x20

Uart16550.pio_read = broken
"""


def test_the_exported_test_fails_only_on_a_device_with_the_fault(
    seen: Seen, tmp_path: Path
) -> None:
    test = tmp_path / "test_boot.py"
    ctl("replay", seen.recording, "--to-pytest", test)
    (tmp_path / "boot.dhrec").write_bytes(seen.recording.read_bytes())
    assert pytest_says(test).endswith(" passed")
    (tmp_path / "conftest.py").write_text(BROKEN)
    said = pytest_says(test)
    assert said.endswith(" failed")
    assert "com1: read of LSR at pio 0x3fd" in said
    assert "expected LSR = 0x60 (TEMT=1, THRE=1)" in " ".join(said.split())


def test_a_boot_on_a_device_with_a_fault_differs_on_a_healthy_one(tmp_path: Path) -> None:
    path, small, test = (tmp_path / name for name in ("boot.dhrec", "small.dhrec", "test_a.py"))
    fault = Fault(StuckAtZero(0x20), AccessFilter(registers={"com1.LSR"}), percent=20, seed=4)
    with booting(tmp_path) as boot:
        made = boot.host.debug.create_fault(fault)
        with boot.host.debug.record_to(path):
            boot.start()
            boot.finish()
        (now,) = boot.host.debug.faults()
        assert (now.id, now.count > 10) == (made.id, True)
    assert recorded(path) == boot.port.notes
    told = json.loads(ctl("-o", "json", "replay", path, "--all", status=1))
    assert len(told["differences"]) == now.count
    for each in told["differences"]:
        assert each["device"] == "com1"
        assert texts(each, "expected") == ["LSR = 0x40 (TEMT=1)"]
        assert texts(each, "got") == ["LSR = 0x60 (TEMT=1, THRE=1)"]
    shrunk = json.loads(ctl("-o", "json", "shrink", path, "-o", small))["summary"]
    assert shrunk["accesses"] <= shrunk["accesses_before"] // 10
    ctl("replay", small, "--to-pytest", test, status=1)
    assert "com1: read of LSR at pio 0x3fd" in pytest_says(test)
    small.unlink()
    assert pytest_says(test).endswith(" failed")  # it has the recording in it


# Held


def test_a_breakpoint_holds_the_guest_a_step_is_one_access_and_then_the_boot_ends(
    tmp_path: Path,
) -> None:
    with booting(tmp_path, access_timeout_s=ACCESS_TIMEOUT_S) as boot:
        ram = {"base": hex(RAM_BASE), "size": "0x1000"}
        boot.host.hotplug.plug("scratch", ram, device_id="ram")
        port, other = boot.port, boot.host.vcpu(1)
        arguments = ("break", "com1.LCR", "--write", "--count", "1", "--limit", "20")
        with boot.ctl.running(*arguments, stdin=subprocess.PIPE) as shell:
            assert line(shell) == "breakpoint 1: write com1.LCR"
            boot.start()
            assert "vCPU 0 writes 0x03 to com1.LCR; held before the device" in line(shell)
            assert line(shell) == "  pio 0x3fb, 1 byte"
            assert line(shell) == "  LCR = 0x00 (WLS=0 5 bits) -> 0x03 (WLS=3 8 bits)"
            done = len(port.notes)
            assert port.is_waiting
            # Another vCPU goes on meanwhile, for longer than a client waits otherwise.
            until = time.monotonic() + 3 * ACCESS_TIMEOUT_S
            value = 0
            while time.monotonic() < until:
                value += 1
                other.mmio_write(RAM_BASE, 4, value)
                assert other.mmio_read(RAM_BASE, 4) == value
            assert value > 100
            assert (len(port.notes), port.is_waiting) == (done, True)
            assert boot.ctl.json("peek", "com1.LCR")["registers"][0]["value"] == "0x0"

            tell(shell, "step")
            assert "step: vCPU 0 writes 0x01 to com1.FCR; held before the device" in line(shell)
            assert (len(port.notes), port.is_waiting) == (done + 1, True)
            assert port.notes[-1] == Note(Space.PIO, Operation.WRITE, LCR, 1, b"\x03")
            assert boot.ctl.json("peek", "com1.LCR")["registers"][0]["value"] == "0x3"

            tell(shell, "continue")
            boot.finish()
            assert port.notes[done + 1] == Note(Space.PIO, Operation.WRITE, FCR, 1, b"\x01")
            assert shell.wait(WAIT_S) == 0


def test_a_breakpoint_that_nobody_answers_lets_go_after_its_limit(tmp_path: Path) -> None:
    with (
        booting(tmp_path, access_timeout_s=ACCESS_TIMEOUT_S) as boot,
        boot.host.debug.hits() as hits,
    ):
        arguments = ("break", "com1.LCR", "--write", "--limit", str(3 * ACCESS_TIMEOUT_S))
        with boot.ctl.running(*arguments, stdin=subprocess.PIPE) as shell:
            line(shell)
            boot.start()
            hit = next(hits)
            began = time.monotonic()
            shell.kill()  # so its breakpoint stays
            assert isinstance(hit, Hit)
            assert hit.held
        assert next(hits) == HoldEnded(hit.id, HoldEnd.LIMIT)
        assert 2.5 * ACCESS_TIMEOUT_S < time.monotonic() - began < 20 * ACCESS_TIMEOUT_S
        boot.finish()
        (left,) = boot.host.debug.breakpoints()
        assert (left.matches, left.hits) == (1, 1)


# Let alone


def test_clients_that_are_killed_or_never_read_leave_the_boot_unharmed(tmp_path: Path) -> None:
    with booting(tmp_path) as boot:
        killed, stopped = tmp_path / "killed.dhrec", tmp_path / "stopped.dhrec"
        with (
            boot.ctl.running("trace") as trace,
            boot.ctl.running("record", "-o", killed) as record,
            boot.ctl.running("trace") as stopped_trace,
            boot.ctl.running("record", "-o", stopped) as stopped_record,
            boot.host.debug.trace(),
            boot.host.debug.record(),
        ):
            line(trace)
            line(stopped_trace)
            wait_until(lambda: killed.exists() and stopped.exists())
            stopped_trace.send_signal(signal.SIGSTOP)
            stopped_record.send_signal(signal.SIGSTOP)
            boot.start()
            for _ in range(100):
                line(trace)
            wait_until(lambda: recorded(killed))
            trace.kill()
            record.kill()
            assert not boot.has_ended
            boot.finish()
            part = recorded(killed)
            assert not Recording.open(killed).is_complete
            assert 0 < len(part) < len(boot.port.notes)
            assert part == boot.port.notes[: len(part)]
        wait_until(lambda: feeds(boot) == [], "the server has forgotten all of them")


def feeds(boot: Boot) -> list[str]:
    """What the server sends to those who look on."""
    return [node.name for node in boot.host.debug.inspect("debug/feeds").nodes]
