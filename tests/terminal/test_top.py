"""`devicehostctl top` in a real terminal, beside a guest that uses its devices."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from ctllab import LCR, LSR
from daemonlab import Daemon, daemon, wait_until
from devicehost_client import DeviceHost
from terminal.terminallab import TOP, Terminal, terminal

UART, RTC, RAM = 0x3F8, 0x70, 0xD000_0000
NOBODY = 0xCF8
DEVICES = (
    *("--device", "uart16550,id=uart0,chardev=null"),
    *("--device", "mc146818,id=rtc"),
    *("--device", "scratch,id=ram,base=0xd0000000,size=0x100,irq=5"),
)
LARGE, SMALL = (120, 40), (80, 24)


@contextmanager
def guest(host: DeviceHost) -> Iterator[None]:
    """Access devices until the block ends: the UART most, then the clock, then memory."""
    ended = threading.Event()

    def run() -> None:
        vcpu = host.vcpu(0)
        for step in itertools.count():
            for _ in range(4):
                vcpu.pio_read(LSR, 1)
            vcpu.pio_write(UART, 1, 0x41)
            vcpu.pio_write(RTC, 1, 0x0A)
            vcpu.pio_read(RTC + 1, 1)
            vcpu.mmio_write(RAM, 4, step)
            if ended.wait(0.005):
                return

    thread = threading.Thread(target=run, name="guest")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Daemon]:
    """A server with three devices."""
    with daemon(tmp_path, *DEVICES) as server:
        yield server


@pytest.fixture
def busy(running: Daemon) -> Iterator[Daemon]:
    """The server, while a guest uses its devices."""
    with guest(running.host()):
        yield running


def top(
    server: Daemon, size: tuple[int, int] = LARGE, command: str = TOP, **variables: str
) -> AbstractContextManager[Terminal]:
    """Run `top` in a terminal."""
    variables = {"DEVICEHOST_ENDPOINT": server.endpoint, **variables}
    return terminal(command, columns=size[0], rows=size[1], **variables)


def intervals(server: Daemon, count: int) -> None:
    """Wait until so many intervals of `TOP` have passed on the server."""
    with server.host().debug.activity(0.2) as feed:
        for _ in range(count):
            next(feed)


def figures(row: str) -> list[float]:
    """The numbers of a row: `1.2k` is 1200, and so is `1.2 ms`, in microseconds."""
    factors = {"": 1.0, "k": 1e3, "M": 1e6, " ns": 1e-3, " us": 1.0, " ms": 1e3, " s": 1e6}
    found = re.findall(r"(?<![\w.])(\d+(?:\.\d+)?)([kM]| [num]?s)?(?=\s)", row)
    return [float(number) * factors[factor] for number, factor in found]


def row(shown: Terminal, beginning: str) -> str:
    """The first row of a table that begins with a text, once there is one with a rate."""
    pattern = re.compile(rf"^[│ ]*({re.escape(beginning)} .*)$", re.MULTILINE)

    def is_there(text: str) -> object:
        match = pattern.search(text)
        return match and any(figures(match[1]))

    match = pattern.search(shown.wait_until(is_there, beginning))
    assert match is not None
    return match[1]


def click(shown: Terminal, pattern: str, device: str) -> None:
    """Click on the name of a device, in the line of a pattern; wait until it is selected."""
    lines = shown.wait_until(re.compile(pattern).search, pattern).splitlines()
    number = next(n for n, each in enumerate(lines) if re.search(pattern, each))
    shown.click(lines[number].index(device) + 1, number)
    shown.wait_for(f"▸ {device} ")


def select(shown: Terminal, device: str) -> None:
    """Select a device in the table."""
    shown.wait_for("● live")
    click(shown, rf"{device} +[a-z]+\d*", device)


@pytest.mark.parametrize("size", [LARGE, SMALL])
def test_devices_and_registers_are_shown_with_their_rates(
    busy: Daemon, size: tuple[int, int]
) -> None:
    with top(busy, size) as shown:
        reads, writes, faults, mean, longest, *_ = figures(row(shown, "uart0       uart16550"))
        assert reads > writes > 0
        assert faults == 0
        assert 0 < mean <= longest
        assert figures(row(shown, "uart0.LSR   pio 0x3fd"))[0] > 0
        shown.wait_for("● live", "rtc", "mc146818", "ram", "scratch", "uart0.THR", "3 devices")
        shown.wait_matching(
            rf"top \S*{re.escape(busy.endpoint[-20:])} ",
            r"latency  p50 ≤[0-9.]+ [um]s  p99 ≤",
            r"PIO .*·.*rtc.*·.*uart0.*·",
            r"MMIO .*ram",
            r"\nq Quit p Pause s Sort d Details .*\n$",
        )
        assert len(shown.lines()) == size[1]


def test_without_a_guest_everything_is_there_and_nothing_happens(running: Daemon) -> None:
    with top(running) as shown:
        text = shown.wait_for("● live", "0/s", "uart0", "rtc", "ram", "no accesses in this")
        assert "p50" not in text


def test_a_pause_stops_all_changes(busy: Daemon) -> None:
    with top(busy) as shown:
        row(shown, "uart0.LSR")
        shown.type("p")
        shown.wait_for("‖ paused")
        intervals(busy, 2)  # until all is painted
        before = shown.text()
        intervals(busy, 5)
        assert shown.text() == before
        shown.type("p")
        shown.wait_until(lambda text: "● live" in text and text != before)


def test_keys_sort_both_tables(busy: Daemon) -> None:
    with top(busy) as shown:
        shown.wait_for("devices by rate", "hottest registers by rate")
        row(shown, "uart0.LSR")
        shown.wait_matching(r"(?s)uart0\.LSR .*uart0\.THR ")
        shown.type("s", "s")
        shown.wait_for("devices by writes/s", "hottest registers by writes/s", "▾writes/s")
        shown.wait_matching(r"(?s)uart0\.THR .*uart0\.LSR ")


def test_details_show_decoded_registers_and_follow_them(busy: Daemon) -> None:
    host = busy.host()
    host.pio_write(LCR, 1, 0x1B)
    with top(busy) as shown:
        select(shown, "uart0")
        shown.type("d")
        shown.wait_for("LCR", "0x1b", "WLS=3 8 bits", "THRE=1", "chardev=null")
        shown.wait_for("uart0  uart16550")
        assert figures(row(shown, "LSR"))[0] > 0
        host.pio_write(LCR, 1, 0x02)
        shown.wait_for("WLS=2 7 bits")
        shown.type("Escape")
        shown.wait_until(lambda text: "WLS" not in text and "address map" in text)


def test_details_of_a_device_that_is_unplugged_say_so(running: Daemon) -> None:
    with top(running) as shown:
        select(shown, "ram")
        shown.type("d")
        shown.wait_for("R[0]")
        running.host().hotplug.unplug("ram")
        shown.wait_for("ram is no longer there")


def test_details_of_a_large_device_can_be_scrolled(running: Daemon) -> None:
    running.host().hotplug.plug("scratch", {"size": "0x1000"}, device_id="big")
    with top(running) as shown:
        select(shown, "big")
        shown.type("d")
        shown.wait_for(" R[0] ", "1 to ", " of 4096 ")
        shown.type("End")
        shown.wait_for(" R[4095] ", "register ", " to 4096 of 4096 ")
        shown.type("Up")
        shown.wait_for(" to 4095 of 4096 ")
        shown.type("PageUp")
        shown.wait_until(lambda text: " R[4095] " not in text)
        shown.type("Home", "Down")
        shown.wait_for("2 to ", " R[1] ")


def test_the_interval_can_be_changed(busy: Daemon) -> None:
    with top(busy) as shown:
        shown.wait_for("0.2 s  ● live")
        shown.type("+")
        shown.wait_for("0.5 s  ● live")
        row(shown, "uart0.LSR")
        shown.type("-", "-", "-")
        shown.wait_for("0.1 s  ● live")
        row(shown, "uart0.LSR")


@pytest.mark.parametrize("size", [LARGE, SMALL])
def test_help_explains_the_keys(running: Daemon, size: tuple[int, int]) -> None:
    with top(running, size) as shown:
        shown.wait_for("● live")
        shown.type("?")
        shown.wait_for("look less often", "idle ╌░▒▓█ hottest", "? Back")
        shown.type("?")
        shown.wait_until(lambda text: "look less often" not in text and "q Quit" in text)


def test_devices_come_and_go_while_one_looks(running: Daemon) -> None:
    hotplug = running.host().hotplug
    with top(running) as shown:
        shown.wait_for("3 devices")
        hotplug.plug("postcode", device_id="post")
        shown.wait_matching("4 devices", "postcode", r"PIO .*post")
        hotplug.unplug("post")
        shown.wait_until(lambda text: "3 devices" in text and "post" not in text)


def test_accesses_that_fail_stand_out(running: Daemon) -> None:
    with top(running) as shown:
        shown.wait_for("● live", "0 failed")
        running.host().pio_read(NOBODY, 4)
        shown.wait_for("(no device)", "1 failed")


def test_interrupts_are_shown_while_they_are_asserted(running: Daemon) -> None:
    host = running.host()
    with top(running) as shown:
        shown.wait_matching(r"5 ram +0 -")
        host.mmio_write(RAM + 0xFF, 1, 1)
        shown.wait_for("asserted")
        host.mmio_write(RAM + 0xFF, 1, 0)
        shown.wait_until(lambda text: "asserted" not in text)


def test_a_click_selects_a_device_in_the_table_and_on_the_map(running: Daemon) -> None:
    with top(running) as shown:
        shown.wait_for("▸ ram ")
        click(shown, r"rtc +mc146818", "rtc")
        click(shown, "PIO .*uart0", "uart0")
        click(shown, "MMIO .*ram", "ram")


def test_arrows_select_the_next_device_and_end_with_the_last(running: Daemon) -> None:
    with top(running) as shown:
        shown.wait_for("● live", "▸ ram ")
        for key, device in (
            *(("Up", "ram"), ("Down", "rtc"), ("Down", "uart0"), ("Down", "uart0")),
            *(("k", "rtc"), ("j", "uart0")),
        ):
            shown.type(key)
            shown.wait_for(f"▸ {device} ")


def is_laid_out(columns: int, rows: int, text: str) -> bool:
    """Whether what is shown is what is meant for such a screen."""
    lines = text.splitlines()
    return (
        len(lines) == rows
        and lines[-1].startswith("q Quit")
        and ("╭─ devices" in text) == (rows >= 30)
        and ("last 60 s  peak" in text) == (columns >= 100 and rows >= 30)
        and ("latency" in text) == (rows >= 21)
    )


def test_it_fits_a_terminal_that_changes_its_size(busy: Daemon) -> None:
    with top(busy) as shown:
        shown.wait_for("╭─ devices", "last 60 s  peak")
        for columns, rows in (SMALL, (60, 16), (200, 60), (20, 6), (90, 40), LARGE):
            shown.resize(columns, rows)
            shown.wait_until(partial(is_laid_out, columns, rows), f"{columns}x{rows}")
        row(shown, "uart0.LSR")


def test_there_are_colours_unless_nobody_wants_them(busy: Daemon) -> None:
    with top(busy) as shown:
        row(shown, "uart0.LSR")
        assert shown.has_colours()
    with top(busy, NO_COLOR="1") as shown:
        row(shown, "uart0.LSR")
        select(shown, "rtc")
        shown.type("d")
        shown.wait_for("REG_A")
        assert not shown.has_colours()


def test_light_and_dark_can_be_chosen(running: Daemon) -> None:
    def background(shown: Terminal) -> str:
        shown.wait_for("● live")
        (found,) = re.findall(r"48;2;(\d+)", shown.styled())[:1]
        return "light" if int(found) > 127 else "dark"

    with top(running, COLORTERM="truecolor", COLORFGBG="0;15") as shown:
        assert background(shown) == "light"
        shown.type("t")
        shown.wait_until(lambda _: background(shown) == "dark")


@pytest.mark.parametrize("way", ["q", "C-c", "C-q", "SIGTERM", "SIGINT", "d C-c"])
def test_quitting_leaves_a_sane_terminal(busy: Daemon, way: str) -> None:
    with top(busy) as shown:
        row(shown, "uart0.LSR")
        assert shown.flags()["alternate_on"]
        if way.startswith("SIG"):
            os.kill(shown.pid(), signal.Signals[way])
        else:
            shown.type(*way.split())
        assert shown.ended() == 0
        assert shown.flags() == {
            "alternate_on": False,
            "cursor_flag": True,
            "mouse_any_flag": False,
            "keypad_flag": False,
        }
        assert "Traceback" not in shown.text()
        shown.type("stty -a; echo ty''ped", "Enter")
        settings = set(shown.wait_for("typed").replace(";", " ").split())
        assert {"icanon", "echo", "isig", "icrnl", "opost", "ixon"} <= settings


def test_it_says_that_the_server_was_killed_and_finds_the_next_one(tmp_path: Path) -> None:
    with daemon(tmp_path, *DEVICES, status=None) as first, top(first) as shown:
        shown.wait_for("● live", "uart0")
        first.kill()
        text = shown.wait_for("✖ no server", "The server is gone; waiting for it to come back.")
        assert "Traceback" not in text
        with (
            daemon(tmp_path, "--device", "mc146818,id=clock") as second,
            guest(second.host()),
        ):
            shown.wait_until(lambda text: "clock" in text and "uart0" not in text)
            assert "is gone" not in shown.wait_for("● live", "1 device ")
            row(shown, "clock")
        shown.wait_for("✖ no server")
        shown.type("q")
        assert shown.ended() == 0


def test_it_says_that_a_server_gives_no_answer(tmp_path: Path) -> None:
    with daemon(tmp_path, *DEVICES) as server, top(server) as shown:
        shown.wait_for("● live")
        server.process.send_signal(signal.SIGSTOP)
        try:
            shown.wait_for("… no answer")
        finally:
            server.process.send_signal(signal.SIGCONT)
        shown.wait_for("● live")


def test_nothing_is_left_of_it_when_its_terminal_goes_away(busy: Daemon) -> None:
    with top(busy) as shown:
        shown.wait_for("● live")
        process = Path(f"/proc/{shown.pid()}")
        assert process.exists()
        shown.kill()
        wait_until(lambda: not process.exists(), "top to end")


def test_a_server_that_does_not_answer_does_not_keep_anybody_from_quitting(
    tmp_path: Path,
) -> None:
    with daemon(tmp_path, *DEVICES) as server, top(server) as shown:
        shown.wait_for("● live")
        server.process.send_signal(signal.SIGSTOP)
        try:
            shown.type("d", "C-c")
            assert shown.ended() == 0
        finally:
            server.process.send_signal(signal.SIGCONT)


def test_a_server_without_remote_debugging_is_told_in_words(tmp_path: Path) -> None:
    with daemon(tmp_path, "--no-debug") as server, top(server) as shown:
        assert shown.ended() == 1
        assert "the server offers no remote debugging" in shown.text()
        assert not shown.flags()["alternate_on"]


def test_without_textual_the_extra_is_named(running: Daemon) -> None:
    program = (
        "import sys; sys.modules['textual'] = None; from devicehost_client.ctl import main;"
        " sys.exit(main(['top']))"
    )
    with top(running, command=f"{sys.executable} -c {shlex.quote(program)}") as shown:
        assert shown.ended() == 1
        text = " ".join(shown.text().split())
        assert "devicehostctl: a live view needs textual" in text
        assert "pip install 'devicehost[debug]'" in text


def test_a_terminal_that_can_do_nothing_gets_one_interval(busy: Daemon) -> None:
    with top(busy, TERM="dumb", command=f"env TERM=dumb {TOP}") as shown:
        assert shown.ended() == 0
        assert "≤" in shown.text()
        assert "q Quit" not in shown.text()
