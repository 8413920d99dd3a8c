"""`devicehostctl top` for scripts: one interval, and no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ctllab import COM1, LSR, RAM, Ctl
from daemonlab import Daemon, daemon
from terminal.test_top import guest


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Daemon]:
    """A server with two devices, and a guest that uses them."""
    with (
        daemon(
            tmp_path, "--device", COM1, "--device", RAM, "--device", "mc146818,id=rtc"
        ) as server,
        guest(server.host()),
    ):
        yield server


@pytest.mark.parametrize("arguments", [("--once",), ()])
def test_where_there_is_no_terminal_one_interval_is_printed(
    busy: Daemon, arguments: tuple[str, ...]
) -> None:
    lines = Ctl(busy).ok("top", "--interval", "0.3", *arguments)
    assert lines[0].startswith(f"{busy.endpoint}  devicehost ")
    assert lines[1].endswith(" in 0.3 s")
    (com1,) = [line.split() for line in lines if line.startswith("com1 ")]
    assert com1[:2] == ["com1", "uart16550"]
    assert any(line.split()[:3] == ["com1.LSR", "pio", "0x3fd"] for line in lines)
    assert not any("\x1b" in line for line in lines)


def test_json_has_everything(busy: Daemon) -> None:
    shown = Ctl(busy).json("top", "--interval", "0.5")
    assert shown["endpoint"] == busy.endpoint
    assert 0.3 < shown["interval_s"] < 5
    devices = {each["device"]: each for each in shown["devices"]}
    assert set(devices) == {"com1", "ram", "rtc"}
    assert devices["com1"]["reads"] > devices["rtc"]["reads"] > 0
    assert devices["com1"]["mean_ns"] <= devices["com1"]["longest_ns"]
    assert shown["reads"] == pytest.approx(sum(each["reads"] for each in devices.values()), abs=1)
    (status,) = [each for each in shown["registers"] if each["register"] == "LSR"]
    assert (status["device"], status["space"], status["address"]) == ("com1", "pio", hex(LSR))
    assert shown["registers"][0] == status
    total = sum(each["count"] for each in shown["latency"]["at_most"])
    assert total == pytest.approx(
        (shown["reads"] + shown["writes"]) * shown["interval_s"], rel=0.01
    )
    assert 0 < shown["latency"]["p50_ns"] <= shown["latency"]["p99_ns"]
    assert [each["gsi"] for each in shown["interrupts"]] == [4, 5, 8]


@pytest.mark.parametrize("interval", ["0", "0.09", "61", "often"])
def test_an_interval_that_cannot_be_is_refused(busy: Daemon, interval: str) -> None:
    done = Ctl(busy).run("top", "--interval", interval)
    assert done.returncode == 2
    assert f"'{interval}' is not allowed; allowed: " in done.stderr


def test_a_server_without_remote_debugging_is_told_in_words(tmp_path: Path) -> None:
    with daemon(tmp_path, "--no-debug") as server:
        assert Ctl(server).refused("top") == "NOT_OFFERED"
