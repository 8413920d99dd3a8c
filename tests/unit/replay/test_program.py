"""The program that devicehostctl starts: lines of JSON, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from devicehost.recording import Recording
from devicehost_server.replay.__main__ import main
from replaylab import Bench

RAM = 0xC000_0000


@pytest.fixture(name="recording")
def recording_fixture(bench: Bench, tmp_path: Path) -> Path:
    bench.plug("uart16550", "com1", chardev=f"file:{tmp_path}/out")
    bench.plug("scratch", "ram", base=hex(RAM))
    bench.begin()
    for character in b"hello":
        bench.pio_in(0x3FD)
        bench.pio_out(0x3F8, character)
        bench.mmio_out(RAM, character)
        bench.mmio_in(RAM)
    return bench.write(tmp_path / "boot.dhrec")


class Said(list[dict[str, Any]]):
    """Lines of JSON."""

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [line[kind] for line in self if kind in line]


def run(*arguments: str | Path) -> tuple[int, Said]:
    """Run the program; return its status, and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "devicehost_server.replay", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, Said(json.loads(line) for line in done.stdout.splitlines())


def test_a_replay_without_differences_ends_with_0(recording: Path) -> None:
    status, said = run("replay", recording)
    assert status == 0
    assert said.of("difference") == []
    [summary] = said.of("summary")
    assert summary["accesses"] == 20
    assert (summary["differences"], summary["damage"]) == (0, None)
    assert sorted(summary["devices"]) == ["com1", "ram"]


def test_differences_are_told_and_end_with_1(recording: Path) -> None:
    fault = "com1.LSR:0x20=0"
    status, said = run("replay", recording, "--fault", fault, "--differences", "2")
    assert status == 1
    assert len(said.of("difference")) == 2
    [summary] = said.of("summary")
    assert summary["differences"] == 5
    first = said.of("difference")[0]
    assert (first["device"], first["what"], first["access"]["offset"]) == ("com1", "read", 5)
    assert first["registers_expected"][0]["register"] == "LSR"
    assert "LSR" in first["text"]


def test_a_recording_that_was_cut_is_replayed_up_to_the_cut(recording: Path) -> None:
    recording.write_bytes(recording.read_bytes()[:-60])
    status, said = run("replay", recording)
    assert status == 0
    [summary] = said.of("summary")
    assert "cut" in summary["damage"]


def test_a_long_replay_tells_its_progress_in_bytes(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.plug("scratch", "ram", base=hex(RAM))
    bench.begin()
    for _ in range(3000):
        bench.mmio_in(RAM)
    path = bench.write(tmp_path / "long.dhrec")
    assert main(["replay", str(path)]) == 0
    said = Said(json.loads(line) for line in capsys.readouterr().out.splitlines())
    progress = said.of("progress")
    assert progress
    assert all(0 < each["done"] <= each["total"] == path.stat().st_size for each in progress)


def test_a_recording_is_shrunk_into_another_file(recording: Path, tmp_path: Path) -> None:
    smaller = tmp_path / "smaller.dhrec"
    status, said = run("shrink", recording, smaller, "--fault", "com1.LSR:0x20=0")
    assert status == 0
    [summary] = said.of("summary")
    assert (summary["accesses_before"], summary["accesses"]) == (20, 1)
    assert summary["minimal"] is True
    assert said.of("difference")[0]["device"] == "com1"
    assert [device.id for device in Recording.open(smaller).header.devices] == ["com1"]
    assert sorted(path.name for path in tmp_path.glob("*dhrec*")) == [
        "boot.dhrec",
        "smaller.dhrec",
    ]


def test_nothing_to_shrink_ends_with_1_and_leaves_no_file(recording: Path, tmp_path: Path) -> None:
    status, said = run("shrink", recording, tmp_path / "smaller.dhrec")
    assert status == 1
    assert "no difference" in said.of("error")[0]["message"]
    assert [path.name for path in tmp_path.glob("*.dhrec*")] == ["boot.dhrec"]


def test_a_test_is_written(recording: Path, tmp_path: Path) -> None:
    test = tmp_path / "test_boot.py"
    status, said = run("to-pytest", recording, test)
    assert (status, said) == (0, [{"summary": {"embedded": True}}])
    assert "def test_boot_replays" in test.read_text()
    status, said = run("to-pytest", recording, test, "--embed", "no")
    assert (status, said) == (0, [{"summary": {"embedded": False}}])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["dance"], "dance"),
        (["replay"], "recording"),
        (["replay", "/nowhere"], "/nowhere"),
        (["replay", __file__], "not a recording"),
        (["replay", "x", "--fault", "LSR"], "DEVICE.REGISTER:BITS"),
        (["replay", "x", "--fault", "com1.LSR:0x20=2"], "DEVICE.REGISTER:BITS"),
        (["replay", "x", "--fault", "com1.LSR:no=1"], "DEVICE.REGISTER:BITS"),
        (["shrink", "x"], "smaller"),
    ],
)
def test_what_can_not_be_done_ends_with_2_and_a_message(arguments: list[str], message: str) -> None:
    status, said = run(*arguments)
    assert status == 2
    assert message in said.of("error")[0]["message"]


def test_a_device_that_is_not_known_here_ends_with_2_or_is_left_out(
    bench: Bench, tmp_path: Path
) -> None:
    bench.plug("register", "mine")  # a type of the tests' own
    bench.plug("postcode", "post")
    bench.begin()
    bench.pio_in(0x80)
    path = bench.write(tmp_path / "strange.dhrec")
    status, said = run("replay", path)
    assert status == 2
    assert "'mine'" in said.of("error")[0]["message"]
    status, said = run("replay", path, "--leave-out")
    assert status == 0
    assert said.of("summary")[0]["devices"] == ["post"]
    assert list(said.of("summary")[0]["left_out"]) == ["mine"]
