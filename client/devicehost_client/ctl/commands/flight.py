"""`flight`: the flight recorder, which always has the last accesses."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from devicehost_client.ctl.command import Context, ExitStatus, Noun, Verb, argument, checked
from devicehost_client.ctl.files import write_parts
from devicehost_client.ctl.numeral import U32_MAX, number
from devicehost_client.ctl.output import Table


def arm(context: Context) -> ExitStatus:
    """Keep the last accesses from now on; say nothing."""
    accesses = context.options.accesses
    context.host.debug.set_flight_recorder(accesses)
    context.output.show_text({"armed": True, "accesses": accesses}, "")
    return ExitStatus.OK


def dump(context: Context) -> ExitStatus:
    """Write what was kept to a file."""
    path: Path = context.options.file
    with context.host.debug.flight_recording() as recording:
        written = write_parts(path, recording)
    context.output.show(
        {"file": str(path), "bytes": written},
        Table(("FILE", "BYTES"), [(str(path), str(written))]),
    )
    return ExitStatus.OK


def disarm(context: Context) -> ExitStatus:
    """Keep nothing any more; say nothing."""
    context.host.debug.set_flight_recorder(0)
    context.output.show_text({"armed": False, "accesses": 0}, "")
    return ExitStatus.OK


FLIGHT = Noun(
    "flight",
    "the flight recorder: the last accesses, for when something went wrong",
    verbs=(
        Verb(
            "arm",
            arm,
            summary="keep the last accesses from now on",
            description="Nothing is printed. What was kept before is kept on, as far as it fits.",
            arguments=(
                argument(
                    "accesses",
                    metavar="N",
                    type=checked(partial(number, least=1, most=U32_MAX)),
                    help="how many, at least",
                ),
            ),
            json='{"armed": true, "accesses"}',
            examples=("devicehostctl flight arm 100000",),
        ),
        Verb(
            "dump",
            dump,
            summary="write what was kept to a file, as a recording",
            description=(
                "It goes on keeping. The recording can be looked through, exported and linted; as\n"
                "the devices' states at its beginning aren't known, it can't be replayed."
            ),
            arguments=(
                argument(
                    "-o",
                    dest="file",
                    metavar="FILE",
                    type=Path,
                    required=True,
                    help="the recording; a file that is there already is written over",
                ),
            ),
            json='{"file", "bytes"}',
            examples=("devicehostctl flight dump -o crash.rec",),
        ),
        Verb(
            "disarm",
            disarm,
            summary="keep nothing any more, and forget what was kept",
            description="Nothing is printed.",
            json='{"armed": false, "accesses": 0}',
            examples=("devicehostctl flight disarm",),
        ),
    ),
)
