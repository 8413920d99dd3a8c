"""The commands of remote debugging, against a real server."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctllab import COM1, DEVICEHOSTCTL, LCR, LSR, RAM, RAM_BASE, SCR, Ctl, line
from daemonlab import WAIT_S, Daemon, daemon, environment, wait_until
from devicehost.recording import Recording
from devicehost.recording.events import Access
from devicehost_client import DeviceHost


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Daemon]:
    """A server with a UART and some memory."""
    with daemon(tmp_path, "--device", COM1, "--device", RAM) as running:
        yield running


@pytest.fixture
def ctl(server: Daemon) -> Ctl:
    return Ctl(server)


@pytest.fixture
def guest(server: Daemon) -> DeviceHost:
    return server.host()


def read_everything(path: Path) -> list[Access]:
    """The accesses of a recording that is complete."""
    recording = Recording.open(path)
    accesses = [event for event in recording if isinstance(event, Access)]
    assert recording.is_complete, recording.damage
    return accesses


# peek, poke, device registers, device show


def test_peek_shows_a_register_and_what_is_in_it(ctl: Ctl, guest: DeviceHost) -> None:
    guest.vcpu(0).pio_write(LCR, 1, 0x83)
    guest.pio_read(LSR, 1)
    header, row = ctl.ok("peek", "com1.LCR")
    assert header.split() == ["REGISTER", "VALUE", "FIELDS"]
    assert row.split()[:2] == ["com1.LCR", "0x83"]
    assert "DLAB=1" in row
    (told,) = ctl.json("peek", "com1.LCR")["registers"]
    assert (told["device"], told["name"], told["value"]) == ("com1", "LCR", "0x83")
    assert told["fields"]["DLAB"]["value"] == "0x1"


def test_peek_of_a_device_shows_all_its_registers(ctl: Ctl) -> None:
    names = [row.split()[0] for row in ctl.ok("peek", "com1")[1:]]
    assert {"com1.LCR", "com1.LSR", "com1.SCR"} <= set(names)
    shown = ctl.json("device", "show", "com1", "--registers")["registers"]
    assert [f"com1.{each['name']}" for each in shown] == names


def test_what_poke_sets_the_guest_reads(ctl: Ctl, guest: DeviceHost) -> None:
    assert ctl.ok("poke", "com1.SCR", "0x5a") == []
    assert guest.pio_read(SCR, 1) == 0x5A


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("peek com2.LCR", "NO_SUCH_DEVICE"),
        ("peek com1.XYZ", "NO_SUCH_REGISTER"),
        ("poke com1.XYZ 1", "NO_SUCH_REGISTER"),
        ("poke com1.SCR 0x100", "BAD_REQUEST"),
        ("device registers com2", "NO_SUCH_DEVICE"),
        ("device registers --type nothing", "UNKNOWN_DEVICE_TYPE"),
        ("trace --register com1.XYZ", "NO_SUCH_REGISTER"),
        ("break com1.XYZ", "NO_SUCH_REGISTER"),
        ("record -o unused.rec --device com2", "NO_SUCH_DEVICE"),
        ("inspect no/such", "NO_SUCH_PATH"),
        ("trace --register com2.LCR", "NO_SUCH_DEVICE"),
        ("fault remove 7", "NO_SUCH_FAULT"),
        ("state save --device com2", "NO_SUCH_DEVICE"),
        ("flight dump -o unused.rec", "NOT_ARMED"),
    ],
)
def test_what_is_not_there_is_refused_with_a_reason(ctl: Ctl, arguments: str, reason: str) -> None:
    assert ctl.refused(*arguments.split()) == reason
    assert not Path("unused.rec").exists()


def test_device_registers_shows_the_map_in_several_formats(ctl: Ctl) -> None:
    header, *rows = ctl.ok("device", "registers", "com1")
    assert header.split() == ["OFFSET", "REGISTER", "BITS", "FIELD", "ACCESS", "RESET", "HELP"]
    assert any(row.split()[1:2] == ["LCR"] for row in rows)
    assert any("DLAB" in row.split() for row in rows)
    markdown = ctl.ok("device", "registers", "--type", "uart16550", "--format", "markdown")
    assert markdown[0].startswith("# ")
    svd = "\n".join(ctl.ok("device", "registers", "com1", "--format", "svd"))
    assert "<name>LCR</name>" in svd
    told = ctl.json("device", "registers", "com1")
    assert told == json.loads("\n".join(ctl.ok("device", "registers", "com1", "--format", "json")))


def test_a_map_that_is_imported_is_used_until_the_own_one_is_wanted_again(
    ctl: Ctl, tmp_path: Path
) -> None:
    own = ctl.json("device", "registers", "ram")
    other = tmp_path / "other.svd"
    other.write_text("\n".join(ctl.ok("device", "registers", "com1", "--format", "svd")))
    given = ctl.json("device", "registers", "ram", "--import", other)
    assert "LCR" in [each["name"] for each in given["registers"]]
    assert ctl.json("device", "registers", "ram") == given
    assert ctl.json("device", "registers", "ram", "--own") == own


def test_a_file_that_is_no_map_is_refused_before_anything_is_changed(
    ctl: Ctl, tmp_path: Path
) -> None:
    (tmp_path / "junk.svd").write_text("<html/>")
    done = ctl.run("device", "registers", "com1", "--import", tmp_path / "junk.svd")
    assert (done.returncode, done.stdout) == (1, "")
    assert "junk.svd: SVD: the root element is 'html'" in done.stderr


# trace


def test_trace_shows_accesses_decoded(ctl: Ctl, guest: DeviceHost) -> None:
    with ctl.running("trace", "--register", "com1.LCR", "--count", "2") as trace:
        assert line(trace).split()[0] == "TIME/s"
        guest.vcpu(3).pio_write(LCR, 1, 0x83)
        guest.vcpu(3).pio_read(SCR, 1)
        guest.vcpu(3).pio_read(LCR, 1)
        first = line(trace).split()
        assert first[2:] == ["ns", "3", "com1.LCR", "W", "0x83", *first[7:]]
        assert "DLAB=1," in first
        assert line(trace).split()[3:6] == ["3", "com1.LCR", "R"]
        assert trace.wait(WAIT_S) == 0
        assert trace.stderr is not None
        assert trace.stderr.read() == "2 events, 0 lost\n"


def test_trace_in_json_is_an_event_on_each_line(ctl: Ctl, guest: DeviceHost) -> None:
    with ctl.running("-o", "json", "trace", "--device", "com1", "--write") as trace:
        wait_for_trace(ctl)
        guest.vcpu(0).pio_write(SCR, 1, 0x5A)
        told = json.loads(line(trace))
        assert (told["kind"], told["device"], told["vcpu"]) == ("access", "com1", 0)
        assert (told["operation"], told["values"]) == ("write", ["0x5a"])
        assert [each["name"] for each in told["registers"]] == ["SCR"]
        assert told["took_ns"] > 0


def wait_for_trace(ctl: Ctl) -> None:
    """Return when a trace is armed."""
    wait_until(lambda: ctl.json("inspect", "debug/feeds")["nodes"])


def test_a_device_that_is_not_there_yet_is_waited_for_and_that_is_said(
    ctl: Ctl, guest: DeviceHost
) -> None:
    with ctl.running("trace", "--device", "pad", "--count", "1", "--no-interrupts") as trace:
        line(trace)
        ctl.ok("device", "plug", "scratch", "base=0xd1000000", "--id", "pad")
        guest.vcpu(0).mmio_read(0xD100_0000, 4)
        output, errors = trace.communicate(timeout=WAIT_S)
    assert trace.returncode == 0
    assert "pad" in output
    assert "no device 'pad' is there yet" in errors
    made = ctl.run("fault", "add", "gone", "--device", "later")
    assert (made.returncode, "no device 'later' is there yet" in made.stderr) == (0, True)


def test_trace_shows_failures_interrupts_and_devices_that_come(ctl: Ctl, guest: DeviceHost) -> None:
    with ctl.running("trace") as trace:
        line(trace)
        guest.vcpu(0).mmio_read(0xE000_0000, 4)
        failed = line(trace)
        assert "mmio 0xe0000000" in failed
        assert failed.endswith("NO_DEVICE")
        ctl.ok("interrupt", "inject", "9", "assert")
        assert "irq 9" in (raised := line(trace))
        assert "asserted" in raised
        ctl.ok("device", "plug", "scratch", "--id", "new")
        assert line(trace).split()[3:] == ["-", "new", "-", "plugged", "-", "scratch"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_trace_ends_on_a_signal_with_a_summary(
    ctl: Ctl, guest: DeviceHost, number: signal.Signals
) -> None:
    with ctl.running("trace") as trace:
        line(trace)
        guest.pio_read(LSR, 1)
        assert "com1.LSR" in line(trace).split()
        trace.send_signal(number)
        _, errors = trace.communicate(timeout=WAIT_S)
        assert (trace.returncode, errors) == (0, "1 events, 0 lost\n")


def test_a_trace_ends_when_nobody_reads_it(ctl: Ctl) -> None:
    with ctl.running("trace") as trace:
        line(trace)
        assert trace.stdout is not None
        trace.stdout.close()
        assert trace.wait(WAIT_S) == 0


# record, replay, flight


def test_what_record_writes_is_complete_and_replays_without_a_difference(
    ctl: Ctl, guest: DeviceHost, tmp_path: Path
) -> None:
    path = tmp_path / "a.rec"
    with ctl.running("record", "-o", path) as record:
        wait_until(lambda: path.exists() and path.stat().st_size)
        for value in range(50):
            guest.vcpu(0).pio_write(SCR, 1, value)
            assert guest.vcpu(0).pio_read(SCR, 1) == value
        record.send_signal(signal.SIGINT)
        output, errors = record.communicate(timeout=WAIT_S)
        assert (record.returncode, errors) == (0, "")
    header, row = output.splitlines()
    assert header.split() == ["FILE", "EVENTS", "BYTES"]
    assert row.split()[0] == str(path)
    assert int(row.split()[2]) <= path.stat().st_size
    assert len(read_everything(path)) == 100
    assert ctl.ok("replay", path)[-1].endswith("no difference")
    spoiled = ctl.run("replay", path, "--stuck-at-one", "com1.SCR=0x80")
    assert spoiled.returncode == 1
    assert "read of SCR" in spoiled.stdout


def test_record_ends_after_some_time_or_some_events(
    ctl: Ctl, guest: DeviceHost, tmp_path: Path
) -> None:
    told = ctl.json("record", "-o", tmp_path / "a.rec", "--for", "0.2")
    assert told["bytes"] == (tmp_path / "a.rec").stat().st_size
    assert read_everything(tmp_path / "a.rec") == []
    with ctl.running("record", "-o", tmp_path / "b.rec", "--count", "10") as record:
        wait_until(lambda: guest.pio_read(SCR, 1) == 0 and record.poll() is not None)
        assert record.returncode == 0
    assert len(read_everything(tmp_path / "b.rec")) >= 10


def test_record_says_how_far_it_is_in_one_row_of_a_terminal_however_narrow(
    server: Daemon, tmp_path: Path
) -> None:
    columns = 20
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", 0) as terminal, os.fdopen(theirs, "wb", 0) as stderr:
        termios.tcsetwinsize(theirs, (24, columns))
        subprocess.run(
            [DEVICEHOSTCTL, "record", "-o", tmp_path / "a.rec", "--for", "0.3"],
            env=environment(DEVICEHOST_ENDPOINT=server.endpoint),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            timeout=WAIT_S,
            check=True,
        )
        rows = terminal.read(4096).decode().split("\r\x1b[K")
    assert any("events" in row for row in rows)
    assert max(map(len, rows)) < columns


def test_record_of_one_device_has_no_other(ctl: Ctl, guest: DeviceHost, tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    with ctl.running("record", "-o", path, "--device", "ram", "--count", "1") as record:
        wait_until(lambda: path.exists() and path.stat().st_size)
        guest.pio_read(SCR, 1)
        guest.mmio_write(RAM_BASE, 4, 5)
        assert record.wait(WAIT_S) == 0
    assert [access.address for access in read_everything(path)] == [RAM_BASE]


def test_a_file_that_can_not_be_written_is_an_error(ctl: Ctl, tmp_path: Path) -> None:
    done = ctl.run("record", "-o", tmp_path / "none" / "a.rec")
    assert (done.returncode, done.stdout) == (1, "")
    assert "a.rec: No such file or directory" in done.stderr


def test_the_flight_recorder_has_the_last_accesses(
    ctl: Ctl, guest: DeviceHost, tmp_path: Path
) -> None:
    assert ctl.ok("flight", "arm", "10") == []
    for value in range(5):
        guest.pio_write(SCR, 1, value)
    told = ctl.json("flight", "dump", "-o", tmp_path / "a.rec")
    assert told["bytes"] == (tmp_path / "a.rec").stat().st_size
    accesses = read_everything(tmp_path / "a.rec")
    assert [access.data[0] for access in accesses[-5:]] == [0, 1, 2, 3, 4]
    assert ctl.ok("flight", "disarm") == []
    assert ctl.refused("flight", "dump", "-o", tmp_path / "b.rec") == "NOT_ARMED"


# inspect, fault, interrupt, state


def test_inspect_draws_the_state_as_a_tree(ctl: Ctl) -> None:
    root, *below = ctl.ok("inspect", "--depth", "1")
    assert root == "/"
    assert any("devices" in each for each in below)
    tree = ctl.json("inspect", "devices")
    assert {"com1", "ram"} <= {each["name"] for each in tree["nodes"]}
    assert ctl.ok("inspect", "/devices/com1/")[0].split()[0] == "devices/com1"


def test_a_fault_spoils_reads_until_it_is_removed(ctl: Ctl, guest: DeviceHost) -> None:
    guest.pio_write(SCR, 1, 0x0F)
    made = ctl.json("fault", "add", "stuck-at-one", "0x80", "--register", "com1.SCR")
    assert (made["kind"], made["filter"]["registers"]) == ("stuck at one 0x80", ["com1.SCR"])
    assert guest.pio_read(SCR, 1) == 0x8F
    header, row = ctl.ok("fault", "list")
    assert header.split() == ["ID", "KIND", "ACCESSES", "CHANCE", "COUNT"]
    cells = [str(made["id"]), "stuck at one 0x80", "com1.SCR", "100%", "1"]
    assert row.split() == " ".join(cells).split()
    assert ctl.ok("fault", "remove", str(made["id"])) == []
    assert guest.pio_read(SCR, 1) == 0x0F
    assert ctl.json("fault", "list") == {"faults": []}


def test_an_interrupt_that_is_injected_is_seen(ctl: Ctl) -> None:
    with ctl.running("interrupt", "watch") as watch:
        line(watch)
        line(watch)
        ctl.ok("interrupt", "inject", "9", "assert")
        assert line(watch).split() == ["asserted", "9"]
        ctl.ok("interrupt", "inject", "9", "deassert")
        assert line(watch).split() == ["deasserted", "9"]


def test_a_state_that_was_saved_can_be_given_back(
    ctl: Ctl, guest: DeviceHost, tmp_path: Path
) -> None:
    guest.pio_write(SCR, 1, 0x11)
    file = tmp_path / "state.json"
    assert ctl.ok("state", "save", "-o", file) == []
    saved = json.loads(file.read_text())
    assert saved["com1"]["type"] == "uart16550"
    assert json.loads("\n".join(ctl.ok("state", "save"))) == saved
    guest.pio_write(SCR, 1, 0x22)
    assert ctl.json("state", "restore", file, "--device", "com1") == {"restored": ["com1"]}
    assert guest.pio_read(SCR, 1) == 0x11


def test_a_state_that_does_not_fit_is_refused(ctl: Ctl, tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_text('{"com1": {"type": "uart16550", "state": {"x": 1}}}')
    assert ctl.refused("state", "restore", file) == "BAD_STATE"
    file.write_text("[]")
    done = ctl.run("state", "restore", file)
    assert done.returncode == 1
    assert "not states of devices" in done.stderr
    file.write_text("{}")
    done = ctl.run("state", "restore", file, "--device", "com1")
    assert done.returncode == 1
    assert "has no state of 'com1'" in done.stderr


# The server goes.


@pytest.mark.parametrize("command", ["trace", "break com1", "record -o {}"])
def test_a_server_that_dies_ends_a_command_with_3_and_a_message(
    tmp_path: Path, command: str
) -> None:
    path = tmp_path / "a.rec"
    with daemon(tmp_path, "--device", COM1, status=None) as server:
        ctl = Ctl(server)
        with ctl.running(*command.format(path).split()) as running:
            if "record" in command:
                wait_until(lambda: path.exists() and path.stat().st_size)
            else:
                line(running)
            server.kill()
            _, errors = running.communicate(timeout=WAIT_S)
            assert running.returncode == 3
            assert "devicehostctl: " in errors
    if path.exists():
        recording = Recording.open(path)  # what came is readable
        assert [event for event in recording if isinstance(event, Access)] == []
        assert not recording.is_complete


def test_a_server_that_stops_says_so(tmp_path: Path) -> None:
    with daemon(tmp_path, "--device", COM1, status=None) as server:
        ctl = Ctl(server)
        with ctl.running("trace") as trace, ctl.running("break", "com1") as stopped:
            line(trace)
            line(stopped)
            assert server.terminate() == 0
            for each in (trace, stopped):
                _, errors = each.communicate(timeout=WAIT_S)
                assert (each.returncode, "DRAINING" in errors) == (1, True), errors
