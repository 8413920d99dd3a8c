"""`devicehostctl break`: accesses that are held, and what is typed meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctllab import COM1, DEVICEHOSTCTL, LCR, LSR, RAM, SCR, Ctl, line
from daemonlab import WAIT_S, Daemon, daemon, environment, wait_until
from devicehost_client import DeviceHost


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Daemon]:
    """A server with a UART and some memory."""
    with daemon(tmp_path, "--device", COM1, "--device", RAM) as running:
        yield running


@pytest.fixture
def ctl(server: Daemon) -> Ctl:
    return Ctl(server)


class Guest:
    """A vCPU that makes accesses on a thread of its own: they may be held."""

    def __init__(self, host: DeviceHost, number: int = 0) -> None:
        self.results: list[int] = []
        self._vcpu = host.vcpu(number)
        self._threads: list[threading.Thread] = []

    def do(self, *accesses: tuple[int, int] | int) -> None:
        """Make accesses: to a port, write a value; or read a port."""

        def make() -> None:
            for access in accesses:
                if isinstance(access, int):
                    self.results.append(self._vcpu.pio_read(access, 1))
                else:
                    self._vcpu.pio_write(access[0], 1, access[1])

        self._threads.append(threading.Thread(target=make))
        self._threads[-1].start()

    def wait(self) -> None:
        """Return when all are made."""
        for thread in self._threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()


@pytest.fixture
def host(server: Daemon) -> DeviceHost:
    """A client that waits for what is held for longer than a test."""
    return server.host(access_timeout_s=2 * WAIT_S)


@pytest.fixture
def guest(host: DeviceHost) -> Guest:
    return Guest(host)


def script(ctl: Ctl, *arguments: str, lines: str) -> Running:
    """Start `break` with a script."""
    return Running(ctl, arguments, lines)


class Running:
    """A `break` with its script. It has its breakpoints when the block begins."""

    def __init__(self, ctl: Ctl, arguments: tuple[str, ...], lines: str) -> None:
        self._context = ctl.running("break", *arguments, stdin=subprocess.PIPE)
        self._lines = lines

    def __enter__(self) -> subprocess.Popen[str]:
        process = self._context.__enter__()
        assert process.stdin is not None
        process.stdin.write(self._lines)
        process.stdin.close()
        process.stdin = None
        assert "breakpoint" in line(process)
        return process

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(None, None, None)


def end(process: subprocess.Popen[str]) -> list[str]:
    """The rest of its lines, when it has ended with 0."""
    output, errors = process.communicate(timeout=WAIT_S)
    assert (process.returncode, errors) == (0, "")
    return output.splitlines()


def breakpoints(server: Daemon) -> list[int]:
    return [each.id for each in server.host(transport="grpc-stream").debug.breakpoints()]


def test_a_script_steps_and_continues_a_line_at_each_hit(
    server: Daemon, ctl: Ctl, guest: Guest
) -> None:
    with script(ctl, "com1.LCR", "--write", lines="step\ncontinue\n") as process:
        guest.do((LCR, 0x83), LSR, (SCR, 7), SCR)
        shown = end(process)
    guest.wait()
    assert guest.results == [0x60, 7]
    hits = [each for each in shown if each.startswith("hit ")]
    assert len(hits) == 2
    assert "breakpoint 1: vCPU 0 writes 0x83 to com1.LCR; held before the device" in hits[0]
    assert "step: vCPU 0 reads com1.LSR" in hits[1]
    (change,) = [each for each in shown if "->" in each]
    assert change.startswith("  LCR = 0x0")
    assert "-> 0x83 (" in change
    assert "(held)" not in "".join(shown)
    assert breakpoints(server) == []


def test_set_changes_what_is_written(ctl: Ctl, guest: Guest) -> None:
    with script(ctl, "com1.SCR", "--write", lines="set 0x5a\nc\n") as process:
        guest.do((SCR, 1), SCR)
        assert "0x5a will be written when it goes on" in end(process)
    guest.wait()
    assert guest.results == [0x5A]


def test_set_changes_what_a_read_returns_when_it_is_held_after_the_device(
    ctl: Ctl, guest: Guest
) -> None:
    with script(ctl, "com1.SCR", "--read", "--after", lines="set 0x5a\nc\n") as process:
        guest.do((SCR, 1), SCR)
        assert "0x5a will be returned when it goes on" in end(process)
    guest.wait()
    assert guest.results == [0x5A]


@pytest.mark.parametrize(
    ("flags", "lines", "why"),
    [
        (("--read",), "set 1\n", "the device wasn't asked yet; make the breakpoint with --after"),
        (("--write", "--after"), "set 1\n", "the device has this write already"),
        (("--write",), "set 0x100\n", "'0x100' is not allowed; allowed: 0 to 0xff"),
        (("--write",), "jump\n", "'jump' is not a command"),
        (("--write",), "peek com1.XYZ\n", "XYZ"),
        (("--write",), "poke com1 1\n", "'com1' is not a register"),
        (("--write",), "delete 99\n", "99"),
        (("--write",), "inspect no/such\n", "no/such"),
        (("--write",), "state com2\n", "com2"),
    ],
)
def test_a_command_that_can_not_be_is_told_and_the_access_is_held_on(
    ctl: Ctl, guest: Guest, flags: tuple[str, ...], lines: str, why: str
) -> None:
    with script(ctl, "com1.SCR", *flags, lines=f"{lines}where\nc\n") as process:
        guest.do((SCR, 1), SCR)
        shown = end(process)
    guest.wait()
    assert any(why in each for each in shown), shown
    assert sum(each.startswith("hit 1,") for each in shown) == 2  # `where` shows it again


def test_one_can_look_around_while_an_access_is_held(ctl: Ctl, guest: Guest) -> None:
    lines = "peek\npeek com1.LSR\npoke com1.SCR 9\ninspect devices/com1\nstate\nlist\nhelp\nc\n"
    with script(ctl, "com1.LCR", lines=lines) as process:
        guest.do(LCR, SCR)
        shown = end(process)
    guest.wait()
    assert guest.results[1] == 9
    text = "\n".join(shown)
    assert "  LSR = 0x60 (" in text
    assert "  SCR = 0x09" in text
    assert "devices/com1" in text
    assert "breakpoint 1: com1.LCR, matched 1, hit 1" in text
    assert "c, continue" in text


def test_the_end_of_the_script_lets_go(server: Daemon, ctl: Ctl, guest: Guest) -> None:
    with script(ctl, "com1.SCR", lines="") as process:
        guest.do((SCR, 1), SCR)
        end(process)
    guest.wait()
    assert guest.results == [1]
    assert breakpoints(server) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_removes_the_breakpoints_and_lets_go(
    server: Daemon, ctl: Ctl, guest: Guest, number: signal.Signals
) -> None:
    with ctl.running("break", "com1.SCR", "com1.LCR", stdin=subprocess.PIPE) as process:
        assert [line(process), line(process)] == [
            "breakpoint 1: com1.SCR",
            "breakpoint 2: com1.LCR",
        ]
        guest.do((SCR, 1), SCR)
        assert line(process).startswith("hit 1, breakpoint 1")
        process.send_signal(number)
        end(process)
    guest.wait()
    assert guest.results == [1]
    assert breakpoints(server) == []


def test_a_breakpoint_that_nobody_answers_lets_go_after_its_limit(ctl: Ctl, guest: Guest) -> None:
    limit = ("--limit", "0.2")
    with ctl.running("break", "com1.SCR", *limit, stdin=subprocess.PIPE) as process:
        line(process)
        begun = time.monotonic()
        guest.do((SCR, 1))
        guest.wait()
        assert 0.2 <= time.monotonic() - begun < WAIT_S
        shown = ""
        while "its time is up" not in shown:
            shown = line(process)
        assert shown == "hit 1: its time is up: it went on"


def test_count_removes_the_breakpoint_and_ends_the_command(
    server: Daemon, ctl: Ctl, guest: Guest
) -> None:
    with script(ctl, "com1.SCR", "--count", "2", lines="c\nc\nc\n") as process:
        guest.do((SCR, 1), (SCR, 2), (SCR, 3), SCR)
        assert sum(each.startswith("hit ") for each in end(process)) == 2
    guest.wait()
    assert guest.results == [3]
    assert breakpoints(server) == []


def test_ignore_lets_the_first_ones_pass(ctl: Ctl, guest: Guest) -> None:
    with script(ctl, "com1.SCR", "--write", "--ignore", "2", lines="c\n") as process:
        guest.do((SCR, 1), (SCR, 2), (SCR, 3))
        (hit,) = [each for each in end(process) if each.startswith("hit ")]
    assert "writes 0x03" in hit
    guest.wait()


def test_a_value_under_a_mask_is_waited_for(ctl: Ctl, guest: Guest) -> None:
    condition = ("--value", "0x80", "--mask", "0x80")
    with script(ctl, "com1.LCR", "--write", *condition, lines="c\n") as process:
        guest.do((LCR, 0x03), (LCR, 0x83), (LCR, 0x03))
        (hit,) = [each for each in end(process) if each.startswith("hit ")]
    assert "writes 0x83" in hit
    guest.wait()


def test_log_reports_and_holds_nothing(ctl: Ctl, guest: Guest) -> None:
    with ctl.running("break", "com1.SCR", "--log", "--count", "2") as process:
        assert line(process) == "breakpoint 1: com1.SCR, log"
        guest.do((SCR, 1), SCR)
        guest.wait()
        shown = end(process)
    assert [each for each in shown if each.startswith("hit ")][1].startswith(
        "hit 2, breakpoint 1: vCPU 0 reads com1.SCR"
    )


def test_save_state_brings_the_states_in_json(ctl: Ctl, guest: Guest) -> None:
    arguments = ("-o", "json", "break", "com1.SCR", "--save-state", "--count", "1")
    with ctl.running(*arguments) as process:
        assert json.loads(line(process))["breakpoint"]["action"] == "save-state"
        guest.do((SCR, 1))
        hit = json.loads(line(process))
        assert (hit["event"], hit["held"]) == ("hit", False)
        assert hit["states"]["com1"]["type"] == "uart16550"
        end(process)


def test_record_arms_the_flight_recorder(ctl: Ctl, guest: Guest, tmp_path: Path) -> None:
    assert ctl.refused("flight", "dump", "-o", tmp_path / "a.rec") == "NOT_ARMED"
    with ctl.running("break", "com1.SCR", "--record", "--count", "1") as process:
        line(process)
        guest.do((SCR, 1))
        end(process)
    ctl.ok("flight", "dump", "-o", tmp_path / "a.rec")


def test_a_breakpoint_on_an_interrupt_is_hit(ctl: Ctl) -> None:
    with ctl.running("break", "--interrupt", "9", "--log", "--count", "1") as process:
        assert line(process) == "breakpoint 1: interrupt 9, log"
        ctl.ok("interrupt", "inject", "9", "assert")
        assert end(process) == ["hit 1, breakpoint 1: interrupt 9 asserted"]


def test_hits_of_others_are_left_alone(server: Daemon, ctl: Ctl, guest: Guest) -> None:
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(ctl.running("break", "com1.LCR", stdin=subprocess.PIPE))
        assert line(other) == "breakpoint 1: com1.LCR"
        process = stack.enter_context(script(ctl, "com1.SCR", lines="c\n"))
        guest.do((SCR, 1), LCR)
        assert line(process).startswith("hit 1, breakpoint 2")
        end(process)
        assert line(other).startswith("hit 2, breakpoint 1: vCPU 0 reads com1.LCR")
        assert breakpoints(server) == [1]
        other.send_signal(signal.SIGTERM)
        end(other)
    guest.wait()


def test_hits_in_json_are_an_object_on_each_line(ctl: Ctl, guest: Guest) -> None:
    with script(ctl, "com1.LCR", "-o", "json", lines="peek com1.SCR\nc\n") as process:
        guest.do((LCR, 3))
        told = [json.loads(each) for each in end(process)]
    guest.wait()
    assert [each["event"] for each in told] == ["hit", "registers", "resumed"]
    assert told[0]["held"] is True
    assert told[0]["at"]["registers"][0]["name"] == "LCR"
    assert told[0]["now"][0]["name"] == "LCR"
    assert 0 < told[0]["remaining_ms"] <= 30_000


class Screen:
    """A terminal with a command on it."""

    def __init__(self, server: Daemon, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self._unread = ""
        self.process = subprocess.Popen(
            # It takes the terminal for its own, so that Ctrl-C is a signal.
            ["/usr/bin/setsid", "--ctty", DEVICEHOSTCTL, *arguments],
            env=environment(DEVICEHOST_ENDPOINT=server.endpoint, TERM="dumb"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    def expect(self, text: str) -> None:
        """Return when the screen shows `text`, behind what was expected before."""
        while text not in self._unread:
            readable, _, _ = select.select([self._ours], [], [], WAIT_S)
            assert readable, f"no {text!r} in {self._unread!r}"
            self._unread += os.read(self._ours, 4096).decode()
        self._unread = self._unread.partition(text)[2]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


def test_on_a_terminal_there_is_a_prompt_and_an_empty_line_repeats_the_last(
    server: Daemon, guest: Guest
) -> None:
    with contextlib.closing(Screen(server, "break", "com1.SCR")) as screen:
        screen.expect("breakpoint 1: com1.SCR\r\n")
        screen.type("list\n")
        screen.expect("breakpoint 1: com1.SCR\r\n")
        guest.do((SCR, 1), (SCR, 2), (SCR, 3), SCR)
        screen.expect("writes 0x01")
        screen.expect("(held) ")
        screen.type("c\n")
        screen.expect("writes 0x02")
        screen.expect("(held) ")
        screen.type("\n")
        screen.expect("writes 0x03")
        screen.expect("(held) ")
        screen.type("\x03")  # Ctrl-C
        assert screen.process.wait(WAIT_S) == 0
        guest.wait()
    assert guest.results == [3]
    wait_until(lambda: breakpoints(server) == [])
