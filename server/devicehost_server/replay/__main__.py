"""Replaying as a program, for whoever isn't to import a server: `devicehostctl` starts it.

    python -m devicehost_server.replay replay RECORDING
    python -m devicehost_server.replay shrink RECORDING SMALLER [--time-limit SECONDS]
    python -m devicehost_server.replay to-pytest RECORDING TEST [--embed yes|no]

`replay` and `shrink` know two more options:

    --leave-out             go on without devices that can't be replayed
    --fault DEVICE.REGISTER:BITS=0|1
                            these bits of the register, a number, always read as that; may
                            be given several times

`replay` knows --differences N as well: at most so many are told, though all are counted.

It says what happens in lines of JSON on its standard output, each an object with one member:

    {"progress": {"done": 4096, "total": 81920}}
        bytes of the recording, for `replay`; for `shrink`
        {"progress": {"units": 128, "replays": 17}}: how many accesses and wakings are
        tried, and in which attempt
    {"difference": {...}}
        `index`, `event` (its number in the recording, from 0), `time_ns`, `device`, `what`
        (read, status, interrupt, dma, output, timer, asked), `expected` and `got` (text;
        bytes as hexadecimal digits), `access` (null, or `space`, `operation`, `address`,
        `size`, `vcpu`, `range`, `offset`), `registers_expected` and `registers_got` (each
        `register`, `value`, `text`, `fields`: `name`, `value`, `meaning`), `cause`,
        `unsure`, and `text`, all of it in one line
    {"summary": {...}}
        the last line. Of `replay`: `events`, `accesses`, `differences`, `devices`,
        `left_out` (why, by device), `lost`, `damage` (null, or what is wrong with the
        file). Of `shrink`: `accesses_before`, `accesses`, `events_before`, `events`,
        `replays`, `minimal`; the difference stands before it. Of `to-pytest`: `embedded`
    {"error": {"message": "..."}}
        the last line, instead

It ends with 0 if there is no difference, 1 if there are some (for `shrink`: if there is none),
and 2 if it couldn't do what was asked for: wrong usage, or a recording that can't be replayed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from devicehost.recording import BadRecording, Recording
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.replay.as_test import to_pytest
from devicehost_server.replay.player import CannotReplay
from devicehost_server.replay.replayer import Replayer
from devicehost_server.replay.shrinking import TIME_LIMIT_S, NothingToShrink, shrink
from devicehost_server.replay.spoiled import Spoiled

DIFFERENCES_MAX = 1000
"""How many differences are told, unless another number is asked for."""

PROGRESS_EVERY_S = 0.1

OK, DIFFERENT, FAILED = 0, 1, 2


class _Parser(argparse.ArgumentParser):
    """Tells of wrong usage as of any other error."""

    def error(self, message: str) -> NoReturn:
        raise _WrongUsage(message)


class _WrongUsage(ValueError):
    """The arguments aren't right."""


class _Progress:
    """Tells progress, but not too often."""

    def __init__(self) -> None:
        self._next = 0.0

    def tell(self, **members: int) -> None:
        """Tell it, if it isn't too soon."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + PROGRESS_EVERY_S
            _say("progress", members)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say; return the exit status."""
    try:
        options = _parser().parse_args(arguments)
        status: int = options.run(options)
    except OSError as error:
        file = f"{error.filename}: " if error.filename else ""
        _say("error", {"message": f"{file}{error.strerror or error}"})
        return FAILED
    except (BadRecording, CannotReplay, _WrongUsage) as error:
        _say("error", {"message": str(error)})
        return FAILED
    return status


def _replay(options: argparse.Namespace) -> int:
    size = options.recording.stat().st_size
    with options.recording.open("rb") as file:
        recording = Recording.read(file)
        replayer = Replayer(recording, DeviceTypes(), options.fault, leave_out=options.leave_out)
        progress = _Progress()
        for difference in replayer.run(lambda _: progress.tell(done=file.tell(), total=size)):
            if difference.index < options.differences:
                _say("difference", difference.to_json())
    summary = replayer.summary
    _say(
        "summary",
        {
            "events": summary.events,
            "accesses": summary.accesses,
            "differences": summary.differences,
            "devices": summary.devices,
            "left_out": summary.left_out,
            "lost": summary.lost,
            "damage": recording.damage,
        },
    )
    return DIFFERENT if summary.differences else OK


def _shrink(options: argparse.Namespace) -> int:
    progress = _Progress()
    partial = options.smaller.with_name(f".{options.smaller.name}.{os.getpid()}")
    try:
        with partial.open("wb") as out:
            shrunk = shrink(
                Recording.open(options.recording),
                out,
                DeviceTypes(),
                options.fault,
                leave_out=options.leave_out,
                time_limit_s=options.time_limit,
                on_progress=lambda units, replays: progress.tell(units=units, replays=replays),
            )
        partial.replace(options.smaller)
    except NothingToShrink as error:
        _say("error", {"message": str(error)})
        return DIFFERENT
    finally:
        partial.unlink(missing_ok=True)
    _say("difference", shrunk.difference.to_json())
    _say(
        "summary",
        {
            "accesses_before": shrunk.accesses_before,
            "accesses": shrunk.accesses,
            "events_before": shrunk.events_before,
            "events": shrunk.events,
            "replays": shrunk.replays,
            "minimal": shrunk.is_minimal,
        },
    )
    return OK


def _to_pytest(options: argparse.Namespace) -> int:
    embed = None if options.embed is None else options.embed == "yes"
    text = to_pytest(options.recording, embed=embed)
    options.test.write_text(text)
    _say("summary", {"embedded": "b64decode" in text})
    return OK


def _fault(text: str) -> Spoiled:
    """Read DEVICE.REGISTER:BITS=0|1; a device's id may have dots and colons may not."""
    place, colon, what = text.rpartition(":")
    bits, equals, value = what.partition("=")
    device, dot, register = place.rpartition(".")
    try:
        mask = int(bits, 0)
    except ValueError:
        mask = 0
    if not (colon and equals and dot and device and register and mask > 0 and value in {"0", "1"}):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not allowed; allowed: DEVICE.REGISTER:BITS=0 or =1, such as"
            " com1.LSR:0x20=0"
        )
    if value == "1":
        return Spoiled(device, register, stuck_at_one=mask)
    return Spoiled(device, register, stuck_at_zero=mask)


def _parser() -> _Parser:
    parser = _Parser(prog="python -m devicehost_server.replay", add_help=False)
    commands = parser.add_subparsers(required=True)
    replay = commands.add_parser("replay", add_help=False)
    smaller = commands.add_parser("shrink", add_help=False)
    test = commands.add_parser("to-pytest", add_help=False)
    for command in (replay, smaller, test):
        command.add_argument("recording", type=Path)
    for command in (replay, smaller):
        command.add_argument("--fault", type=_fault, action="append", default=[])
        command.add_argument("--leave-out", action="store_true")
    replay.add_argument("--differences", type=int, default=DIFFERENCES_MAX)
    replay.set_defaults(run=_replay)
    smaller.add_argument("smaller", type=Path)
    smaller.add_argument("--time-limit", type=float, default=TIME_LIMIT_S)
    smaller.set_defaults(run=_shrink)
    test.add_argument("test", type=Path)
    test.add_argument("--embed", choices=("yes", "no"))
    test.set_defaults(run=_to_pytest)
    return parser


def _say(name: str, members: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({name: members}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
