"""`replay` and `shrink`: a recording on fresh devices, to see whether they do the same."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from devicehost_client.ctl.command import Context, ExitStatus, Verb, argument, checked
from devicehost_client.ctl.difference_text import (
    DIFFERENCE_HELP,
    difference_lines,
    difference_shape,
)
from devicehost_client.ctl.numeral import number
from devicehost_client.ctl.output import OutputStream, Style, format_error
from devicehost_client.ctl.progress import progress
from devicehost_client.ctl.recording_files import check_not_itself
from devicehost_client.ctl.replaying import BadInput, replayer
from devicehost_client.ctl.seconds import seconds
from devicehost_client.ctl.where import RegisterName, parse_register

ALL_MAX = 1_000_000
"""How many differences are listed, at most."""

TIME_LIMIT_MAX_S = 86400


def replay(context: Context) -> ExitStatus:
    """Replay a recording; show the first difference, or all."""
    try:
        return _replay(context)
    except BadInput as error:
        return _bad_input(error, context)


def shrink(context: Context) -> ExitStatus:
    """Write a smaller recording that shows the same difference."""
    try:
        return _shrink(context)
    except BadInput as error:
        return _bad_input(error, context)


def _replay(context: Context) -> ExitStatus:
    options = context.options
    recording: Path = options.recording
    most = ALL_MAX if options.all else 1
    arguments = ["replay", *_common(options), "--differences", str(most), "--", str(recording)]
    output = context.output.stream({})
    differences: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    size = recording.stat().st_size if recording.is_file() else None
    with progress("replay", size) as advance:
        done = 0
        for name, facts in replayer(*arguments):
            if name == "progress":
                advance(facts["done"] - done)
                done = facts["done"]
            elif name == "difference":
                differences.append(facts)
            else:
                summary = facts
    if options.to_pytest is not None:
        _write_test(recording, options.to_pytest)
    shapes = [difference_shape(each) for each in differences]
    context.output.show_text({"differences": shapes, "summary": summary}, "")
    _show(output, differences, summary)
    if options.to_pytest is not None:
        output.text(f"test written: {options.to_pytest}")
    return ExitStatus.FAILED if summary["differences"] else ExitStatus.OK


def _show(output: OutputStream, differences: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    """Show differences for people, and what was replayed."""
    for each in differences:
        for line in difference_lines(each):
            output.text(line, Style.BAD if line.startswith("event") else Style.PLAIN)
    more = summary["differences"] - len(differences)
    if more:
        output.text(f"and {more} more; --all lists them")
    for text, style in _summary(summary):
        output.text(text, style)


def _summary(summary: dict[str, Any]) -> Iterator[tuple[str, Style]]:
    count = summary["differences"]
    found = {0: "no difference", 1: "1 difference"}.get(count, f"{count} differences")
    devices = ", ".join(summary["devices"]) or "no device"
    accesses, events = summary["accesses"], summary["events"]
    yield (
        f"{accesses} accesses of {devices} replayed ({events} events): {found}",
        Style.BAD if count else Style.STRONG,
    )
    for device, why in summary["left_out"].items():
        yield f"left out: {device}: {why}", Style.ODD
    if summary["lost"]:
        yield f"{summary['lost']} events are missing in the recording", Style.ODD
    if summary["damage"]:
        yield f"the recording is damaged: {summary['damage']}", Style.ODD


def _write_test(recording: Path, test: Path) -> None:
    for _ in replayer("to-pytest", "--", str(recording), str(test)):
        pass  # it says no more than that it is done


def _shrink(context: Context) -> ExitStatus:
    options = context.options
    limit = [] if options.time_limit is None else ["--time-limit", str(options.time_limit)]
    arguments = ["shrink", *_common(options), *limit, "--"]
    difference: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    with progress("shrink", None) as advance:
        for name, facts in replayer(*arguments, str(options.recording), str(options.file)):
            if name == "progress":
                advance(1)
            elif name == "difference":
                difference = facts
            else:
                summary = facts
    shape = {"difference": difference_shape(difference), "summary": summary}
    context.output.show_text({"file": str(options.file), **shape}, "")
    output = context.output.stream({})
    for line in difference_lines(difference):
        output.text(line)
    before, after = summary["accesses_before"], summary["accesses"]
    minimal = "" if summary["minimal"] else "; more may be possible: see --time-limit"
    output.text(f"{before} accesses shrunk to {after}, by {summary['replays']} replays{minimal}")
    return ExitStatus.OK


def _common(options: argparse.Namespace) -> Iterator[str]:
    """Arguments of the replayer that both commands have."""
    for value, stuck in ((0, options.stuck_at_zero), (1, options.stuck_at_one)):
        for place, mask in stuck:
            yield from ("--fault", f"{place}:{mask:#x}={value}")
    if options.leave_out:
        yield "--leave-out"


def _bad_input(error: BadInput, context: Context) -> ExitStatus:
    sys.stderr.write(format_error(error, context.options.output))
    return ExitStatus.USAGE


def _register_and_mask(text: str) -> tuple[RegisterName, int]:
    """Read bits of a register: `com1.LSR=0x20`."""
    name, equals, mask = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is not allowed; allowed: DEVICE.REGISTER=MASK")
    return parse_register(name), number(mask, least=1)


def _check_replay(options: argparse.Namespace) -> None:
    if options.to_pytest is not None:
        check_not_itself(options.recording, options.to_pytest, "--to-pytest")


def _check_shrink(options: argparse.Namespace) -> None:
    check_not_itself(options.recording, options.file)


_RECORDING = argument("recording", metavar="RECORDING", type=Path, help="what 'record' wrote")
_SPOILING = (
    argument(
        "--stuck-at-zero",
        metavar="DEV.REG=MASK",
        action="append",
        default=[],
        type=checked(_register_and_mask),
        help="spoil a device on purpose: these bits of this register always read as 0; can be"
        " given several times",
    ),
    argument(
        "--stuck-at-one",
        metavar="DEV.REG=MASK",
        action="append",
        default=[],
        type=checked(_register_and_mask),
        help="likewise, as 1",
    ),
    argument(
        "--leave-out",
        action="store_true",
        help="go on without devices that can't be replayed",
    ),
)
_BAD_INPUT = "wrong usage, or the recording isn't one, or can't be replayed"

REPLAY = Verb(
    "replay",
    replay,
    summary="replay a recording on fresh devices, and show what they do otherwise",
    description=(
        "The devices of the recording are made anew, get the state that they had, and then each\n"
        "access, and all that they learned from outside. What they return, write to memory, and\n"
        "raise as interrupts is compared. The first difference is shown register by register:\n"
        "those after it may come from it.\n"
        "\n"
        "It needs no server, but the server's package must be installed here (and so must the\n"
        "packages of devices of your own)."
    ),
    arguments=(
        _RECORDING,
        *_SPOILING,
        argument("--all", action="store_true", help="show all differences, not only the first"),
        argument(
            "--to-pytest",
            metavar="FILE",
            type=Path,
            help="write a test for pytest that replays the recording, as well",
        ),
    ),
    check=_check_replay,
    offline=True,
    json=(
        '{"differences": [DIFFERENCE], "summary": {"events", "accesses", "differences" (how many\n'
        'in all), "devices", "left_out": {DEVICE: WHY}, "lost", "damage"}}\n\n'
        f"{DIFFERENCE_HELP}"
    ),
    statuses={
        ExitStatus.OK: "there is no difference",
        ExitStatus.FAILED: "there are differences, or it can't be done: the message is on stderr",
        ExitStatus.USAGE: _BAD_INPUT,
    },
    examples=(
        "devicehostctl replay boot.rec",
        "devicehostctl replay boot.rec --stuck-at-zero com1.LSR=0x20 --all",
        "devicehostctl replay boot.rec --to-pytest test_boot.py",
    ),
)

SHRINK = Verb(
    "shrink",
    shrink,
    summary="find a smaller recording that still shows the first difference",
    description=(
        "Parts of the recording are left out as long as the first difference that 'replay' shows\n"
        "stays the same."
    ),
    arguments=(
        _RECORDING,
        argument(
            "-o",
            dest="file",
            metavar="SMALL",
            type=Path,
            required=True,
            help="the smaller recording",
        ),
        *_SPOILING,
        argument(
            "--time-limit",
            metavar="S",
            type=checked(partial(seconds, most=TIME_LIMIT_MAX_S)),
            help="be content after S seconds with what there is [a minute or so]",
        ),
    ),
    check=_check_shrink,
    offline=True,
    json=(
        '{"file", "difference": DIFFERENCE, "summary": {"accesses_before", "accesses",\n'
        '"events_before", "events", "replays", "minimal"}}\n\n'
        f"{DIFFERENCE_HELP}"
    ),
    statuses={
        ExitStatus.OK: "done; the difference is shown",
        ExitStatus.FAILED: "there is no difference, or it can't be done: the message is on stderr",
        ExitStatus.USAGE: _BAD_INPUT,
    },
    examples=("devicehostctl shrink boot.rec -o small.rec --stuck-at-zero com1.LSR=0x20",),
)
