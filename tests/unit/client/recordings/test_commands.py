"""`lint`, `export` and `report`, as commands."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from devicehost_client.ctl.command import CommandFailed, Context, ExitStatus, UsageError
from devicehost_client.ctl.commands.export import EXPORT
from devicehost_client.ctl.commands.lint import LINT
from devicehost_client.ctl.commands.report import REPORT
from devicehost_client.ctl.output import Output
from devicehost_client.ctl.parser import build
from devicehost_client.recordings.lint import RULES
from unit.client.recordings.synthetic import COM1, Guest, boot, write


def run(*arguments: object) -> ExitStatus:
    """Run a command as the program does, but for what becomes of errors."""
    options = build([LINT, EXPORT, REPORT]).parse_args([str(each) for each in arguments])
    assert options.verb.offline
    options.verb.check(options)
    status: ExitStatus = options.verb.run(
        Context(None, options, Output(sys.stdout, options.output))
    )
    return status


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write(tmp_path / "boot.rec", boot(8))


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    path = write(tmp_path / "cut.rec", boot(8))
    path.write_bytes(path.read_bytes()[:-300])
    return path


def test_lint_shows_findings_with_their_first_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = Guest()
    path = write(tmp_path / "some.rec", [guest.outb(COM1 + 6, 1), guest.outb(COM1 + 6, 2)])
    assert run("lint", path) == ExitStatus.FAILED
    assert capsys.readouterr().out == (
        "error: com1.MSR: a read-only register is written (2 times) [write-to-read-only]\n"
        "    first at event 0, 0.000000 s, vCPU 0: write pio 0x3fe 1 = 0x01\n"
        "    MSR = 0x01\n"
        "2 events: 1 error\n"
    )


def test_lint_succeeds_if_nothing_is_wrong_but_something_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = Guest()
    path = write(tmp_path / "some.rec", [guest.outb(COM1 + 7, 1), guest.outb(COM1 + 7, 1)])
    assert run("lint", path) == ExitStatus.OK
    assert "[redundant-write]" in capsys.readouterr().out
    assert run("lint", path, "--disable", "redundant-write") == ExitStatus.OK
    assert capsys.readouterr().out == "2 events: nothing found\n"


def test_lint_gives_json_with_numbers_of_events_and_costs(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("-o", "json", "lint", recording, "--only", "polling-loop")
    found = json.loads(capsys.readouterr().out)
    assert (found["complete"], found["damage"], found["lost"]) == (True, None, 0)
    (finding,) = found["findings"]
    assert (finding["rule"], finding["severity"]) == ("polling-loop", "cost")
    assert (finding["device"], finding["register"], finding["count"]) == ("rtc", "REG_A", 2)
    assert finding["cost_ns"] > 0
    assert finding["first"]["decoded"] == "REG_A = 0xa6 (UIP=1, DV=2, RS=6)"
    assert finding["first"]["time_ns"] - finding["first"]["since_start_ns"] == 5_000_000_000


def test_lint_shows_its_rules_without_a_recording(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("lint", "--list-rules") == ExitStatus.OK
    shown = capsys.readouterr().out
    assert all(f"{rule.name} ({rule.severity.value})\n    " in shown for rule in RULES)
    run("lint", "--list-rules", "-o", "json")
    shapes = json.loads(capsys.readouterr().out)
    assert [each["rule"] for each in shapes] == [rule.name for rule in RULES]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["lint"], "the following arguments are required: RECORDING"),
        (["lint", "x", "--only", "sizes"], "rule 'sizes' is not one; allowed: access-size, "),
        (["lint", "x", "--disable", "sizes"], "rule 'sizes' is not one; allowed: access-size, "),
    ],
)
def test_wrong_usage_is_told_before_anything_is_read(arguments: list[str], why: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(*arguments)
    assert str(caught.value).startswith(why)


@pytest.mark.parametrize("command", [("lint",), ("export", "--format=json"), ("report", "-o", "x")])
def test_what_is_no_recording_is_an_error_with_its_name(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    path = tmp_path / "some.rec"
    with pytest.raises(CommandFailed, match=r"can't read .*some.rec: No such file or directory"):
        run(*command, path)
    path.write_text("hello")
    with pytest.raises(CommandFailed, match=r"some.rec: not a recording"):
        run(*command, path)


@pytest.mark.parametrize("command", [("export", "--format=perfetto"), ("report",)])
def test_the_recording_is_not_written_over(recording: Path, command: tuple[str, ...]) -> None:
    before = recording.read_bytes()
    with pytest.raises(UsageError, match="is the recording itself"):
        run(*command, recording, "-o", recording)
    assert recording.read_bytes() == before


def test_what_can_not_be_written_is_an_error_with_its_name(recording: Path) -> None:
    with pytest.raises(CommandFailed, match="can't write /nowhere/x: No such file or directory"):
        run("export", recording, "--format", "json", "-o", "/nowhere/x")
    with pytest.raises(CommandFailed, match="can't write /dev/full: No space left on device"):
        run("report", recording, "-o", "/dev/full")


@pytest.mark.parametrize(
    "command", [("lint",), ("export", "--format=json", "-o"), ("report", "-o")]
)
def test_every_command_says_that_a_recording_is_damaged(
    cut: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    out = [tmp_path / "out"] if command[-1] == "-o" else []
    run(*command, *out, cut)
    assert "the recording is damaged: it was cut" in capsys.readouterr().out
    run("-o", "json", *command, *out, cut)
    shape = json.loads(capsys.readouterr().out)
    assert shape["complete"] is False
    assert "cut" in shape["damage"]
    assert shape["events"] > 100


def test_an_export_to_a_file_says_how_much_it_was(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "boot.jsonl"
    assert run("export", recording, "--format", "json", "-o", out) == ExitStatus.OK
    events = len(out.read_text().splitlines()) - 2
    assert capsys.readouterr().out == f"{out}: {events} events\n"


def test_an_export_to_stdout_is_nothing_else(recording: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from unit.client.recordings.test_commands import run;"
        "sys.exit(run('export', sys.argv[1], '--format', 'perfetto'))"
    )
    made = subprocess.run(
        [sys.executable, "-c", code, recording],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        check=True,
        capture_output=True,
    )
    run("export", recording, "--format", "perfetto", "-o", tmp_path / "out")
    assert made.stdout == (tmp_path / "out").read_bytes()
    assert made.stderr == b""


def test_a_report_says_what_is_in_it(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, differences = tmp_path / "report.html", tmp_path / "found.jsonl"
    differences.write_text('{"event": 7}\n{"event": 9}\n')
    run("-o", "json", "report", recording, "-o", out, "--differences", differences)
    shape = json.loads(capsys.readouterr().out)
    assert (shape["file"], shape["differences"]) == (str(out), 2)
    assert shape["findings"] > 5
    assert out.read_text().startswith("<!DOCTYPE html>")


def test_differences_that_are_none_are_an_error_with_the_name_of_the_file(
    recording: Path, tmp_path: Path
) -> None:
    differences = tmp_path / "found.jsonl"
    differences.write_text('{"event": 7}\n{"event": "9"}\n')
    with pytest.raises(CommandFailed, match=r"found.jsonl: line 2: event is '9', but must be"):
        run("report", recording, "-o", tmp_path / "x", "--differences", differences)


# Progress is for a terminal, and for nothing else.

_BAR = """\
from devicehost_client.ctl.progress import progress
with progress("export", 10) as advance:
    for _ in range(10):
        advance(1)
print("done")
"""


def test_progress_is_shown_on_a_terminal_and_leaves_stdout_alone() -> None:
    ours, theirs = pty.openpty()
    made = subprocess.run(
        [sys.executable, "-c", _BAR],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
        check=True,
    )
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 4096):
            shown += data
    except OSError:  # how a terminal says that nobody is there any more
        pass
    os.close(ours)
    assert b"export" in shown
    assert made.stdout == b"done\n"


@pytest.mark.parametrize("prologue", ["", "import sys; sys.modules['rich'] = None\n"])
def test_without_a_terminal_or_rich_nothing_is_shown(prologue: str) -> None:
    ours, theirs = pty.openpty()
    made = subprocess.run(
        [sys.executable, "-c", prologue + _BAR],
        stdout=subprocess.PIPE,
        stderr=theirs if prologue else subprocess.PIPE,
        check=True,
    )
    os.set_blocking(ours, False)
    with pytest.raises(BlockingIOError):
        os.read(ours, 1)
    os.close(ours)
    os.close(theirs)
    assert made.stdout == b"done\n"
    assert not made.stderr
