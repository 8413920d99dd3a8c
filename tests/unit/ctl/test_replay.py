"""`replay` and `shrink`, with the replayer as a child process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from devicehost_client.ctl import main, replaying
from replaylab import Bench

RAM = 0xC000_0000


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A recording of 20 accesses to two devices."""
    directory = tmp_path_factory.mktemp("boot")
    with capture_logs():
        bench = Bench()
        bench.plug("uart16550", "com1", chardev=f"file:{directory}/out")
        bench.plug("scratch", "ram", base=hex(RAM))
        bench.begin()
        for character in b"hello":
            bench.pio_in(0x3FD)
            bench.pio_out(0x3F8, character)
            bench.mmio_out(RAM, character)
            bench.mmio_in(RAM)
        yield bench.write(directory / "boot.rec")
        bench.close()


@pytest.fixture(autouse=True)
def _no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEVICEHOST_ENDPOINT", raising=False)


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, list[str], str]:
    """Run a command; return its status, the lines of stdout, and stderr."""
    status = main([str(each) for each in arguments])
    captured = capsys.readouterr()
    return status, captured.out.splitlines(), captured.err


def test_a_replay_without_differences_ends_with_0_and_says_what_was_replayed(
    capsys: pytest.CaptureFixture[str], boot: Path
) -> None:
    status, (line,), errors = run(capsys, "replay", boot)
    assert (status, errors) == (0, "")
    assert line.startswith("20 accesses of ")
    assert line.endswith(" events): no difference")
    assert {"com1", "ram"} <= set(line.replace(",", "").split())


SPOILED = ("--stuck-at-zero", "com1.LSR=0x20")


def test_the_first_difference_is_shown_register_by_register_and_the_others_are_counted(
    capsys: pytest.CaptureFixture[str], boot: Path
) -> None:
    status, lines, _ = run(capsys, "replay", boot, *SPOILED)
    assert status == 1
    place, expected, got, *rest = lines
    assert place.endswith(": com1: read of LSR at pio 0x3fd: another read")
    assert expected.startswith("  expected     LSR = 0x60 (")
    assert got.startswith("  got          LSR = 0x40 (")
    assert "THRE=1" in expected
    assert "THRE=1" not in got
    assert rest[-2] == "and 4 more; --all lists them"
    assert rest[-1].endswith(": 5 differences")


def test_all_differences_are_shown_when_asked_for(
    capsys: pytest.CaptureFixture[str], boot: Path
) -> None:
    status, lines, _ = run(capsys, "replay", boot, *SPOILED, "--all")
    assert status == 1
    assert sum(line.startswith("event ") for line in lines) == 5
    assert not [line for line in lines if "more" in line]


def test_differences_in_json_are_one_document_with_values_in_0x_form(
    capsys: pytest.CaptureFixture[str], boot: Path
) -> None:
    status, lines, _ = run(
        capsys, "-o", "json", "replay", boot, "--stuck-at-one", "com1.LSR=0x80", "--all"
    )
    assert status == 1
    answer: dict[str, Any] = json.loads("\n".join(lines))
    assert answer["summary"]["differences"] == len(answer["differences"]) == 5
    first = answer["differences"][0]
    assert first["access"]["address"] == "0x3fd"
    assert first["registers_expected"][0]["value"] == "0x60"
    assert first["registers_got"][0]["value"] == "0xe0"


@pytest.mark.parametrize("command", ["replay", "shrink"])
def test_what_is_no_recording_ends_with_2_and_says_why(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    more = ("-o", tmp_path / "small") if command == "shrink" else ()
    (tmp_path / "junk").write_bytes(b"no recording")
    status, lines, errors = run(capsys, command, tmp_path / "junk", *more)
    assert (status, lines) == (2, [])
    assert errors.startswith("devicehostctl: ")
    assert "not a recording" in errors
    status, _, errors = run(capsys, command, tmp_path / "none", *more)
    assert status == 2
    assert "none" in errors


def test_a_register_that_is_not_there_ends_with_2(
    capsys: pytest.CaptureFixture[str], boot: Path
) -> None:
    status, _, errors = run(capsys, "replay", boot, "--stuck-at-one", "com1.XYZ=1")
    assert status == 2
    assert "XYZ" in errors


@pytest.mark.parametrize("text", ["com1.LSR", "com1.LSR=", "com1=1", "com1.LSR=0"])
def test_bits_that_are_none_are_wrong_usage(
    capsys: pytest.CaptureFixture[str], boot: Path, text: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["replay", str(boot), "--stuck-at-one", text])
    assert caught.value.code == 2
    assert "argument --stuck-at-one: " in capsys.readouterr().err


def test_a_cut_recording_is_replayed_up_to_the_cut_and_says_so(
    capsys: pytest.CaptureFixture[str], boot: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.rec"
    cut.write_bytes(boot.read_bytes()[:-10])
    status, lines, _ = run(capsys, "replay", cut)
    assert status == 0
    assert [line for line in lines if line.startswith("the recording is damaged: ")]


def test_a_test_that_was_written_passes(
    capsys: pytest.CaptureFixture[str], boot: Path, tmp_path: Path
) -> None:
    test = tmp_path / "test_boot.py"
    status, lines, _ = run(capsys, "replay", boot, "--to-pytest", test)
    assert (status, lines[-1]) == (0, f"test written: {test}")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout


def test_shrink_writes_a_smaller_recording_that_shows_the_same_difference(
    capsys: pytest.CaptureFixture[str], boot: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small.rec"
    status, lines, errors = run(capsys, "shrink", boot, "-o", small, *SPOILED)
    assert (status, errors) == (0, "")
    assert lines[-1].startswith("20 accesses shrunk to 1, by ")
    status, again, _ = run(capsys, "replay", small, *SPOILED)
    assert status == 1
    assert again[1:3] == lines[1:3]
    assert run(capsys, "replay", small)[0] == 0


def test_shrink_of_a_recording_without_a_difference_ends_with_1(
    capsys: pytest.CaptureFixture[str], boot: Path, tmp_path: Path
) -> None:
    status, lines, errors = run(capsys, "shrink", boot, "-o", tmp_path / "small.rec")
    assert (status, lines) == (1, [])
    assert "no difference" in errors
    assert not (tmp_path / "small.rec").exists()


def test_nothing_is_written_over_the_recording_itself_by_whatever_name(
    capsys: pytest.CaptureFixture[str], boot: Path, tmp_path: Path
) -> None:
    before = boot.read_bytes()
    link = tmp_path / "link.rec"
    link.symlink_to(boot)
    for name in (boot, link):
        for command, option in (("shrink", "-o"), ("replay", "--to-pytest")):
            with pytest.raises(SystemExit):
                main([command, str(boot), option, str(name)])
            assert f"{option}: {name} is the recording itself" in capsys.readouterr().err
    assert boot.read_bytes() == before


def test_without_the_server_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], boot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "_NEEDED", ("devicehost_server", "no_such_package"))
    status, _, errors = run(capsys, "replay", boot)
    assert status == 1
    assert "pip install 'devicehost[server]'" in errors


def test_a_replayer_that_dies_is_an_error_that_says_so(
    capsys: pytest.CaptureFixture[str], boot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "_MODULE", "devicehost_server.no_such_module")
    status, _, errors = run(capsys, "replay", boot)
    assert status == 1
    assert "the replayer ended with status 1" in errors
    assert "No module named" in errors
