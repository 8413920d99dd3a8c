"""`export`: a recording in the forms of others."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from devicehost_client.ctl.command import Context, ExitStatus, UsageError, Verb, argument
from devicehost_client.ctl.recording_files import (
    RECORDING,
    SOURCE_HELP,
    STDOUT,
    check_not_itself,
    going_through,
    source_lines,
    source_shape,
    writing,
)
from devicehost_client.recordings.export.json_lines import write_json_lines
from devicehost_client.recordings.export.perfetto import write_perfetto
from devicehost_client.recordings.shapes import EVENT_HELP

_WRITERS = {"json": write_json_lines, "perfetto": write_perfetto}


def export(context: Context) -> ExitStatus:
    """Write a recording in another form, and say how much it was."""
    options = context.options
    with going_through("export", options.recording) as source, writing(options.file) as file:
        _WRITERS[options.form](source, file)
    if options.file == STDOUT:
        return ExitStatus.OK  # what was written says how it ended
    shape = {"file": str(options.file), "format": options.form, **source_shape(source)}
    lines = [f"{options.file}: {source.events} events", *source_lines(source)]
    context.output.show_text(shape, "".join(f"{line}\n" for line in lines))
    return ExitStatus.OK


def check_export(options: argparse.Namespace) -> None:
    """Check that there is a place to write to.

    Raises:
        UsageError: there isn't.
    """
    check_not_itself(options.recording, options.file)
    if options.file == STDOUT and options.form != "json" and sys.stdout.isatty():
        raise UsageError(f"argument -o: {options.form} is not for a terminal; give a file")


EXPORT = Verb(
    "export",
    export,
    summary="write a recording as JSON lines, or as a trace for Perfetto",
    description=(
        "json      an event on each line, with registers and fields by name; first comes\n"
        "          the header of the recording, and last how it ended\n"
        "perfetto  a trace that https://ui.perfetto.dev opens: a track for each device and\n"
        "          vCPU, with accesses as slices, and a counter for each interrupt\n"
        "\n"
        "What is written to stdout says itself how it ended; nothing else is on stdout then."
    ),
    arguments=(
        RECORDING,
        argument(
            "--format",
            dest="form",
            choices=tuple(_WRITERS),
            required=True,
            help="json or perfetto",
        ),
        argument(
            "-o",
            dest="file",
            metavar="FILE",
            type=Path,
            default=STDOUT,
            help="where to write it; - is stdout [-]",
        ),
    ),
    check=check_export,
    offline=True,
    json=(
        '{"file", "format", "events", "lost", "complete", "damage"}\n'
        f"{SOURCE_HELP}\n"
        "The lines of --format json are {kind: recording, header}, then EVENTs, then {kind: end,\n"
        "events, lost, complete, damage}.\n"
        f"{EVENT_HELP}"
    ),
    statuses={
        ExitStatus.OK: "done, as far as the recording could be read",
        ExitStatus.FAILED: "it is no recording, or a file can't be read or written",
    },
    examples=(
        "devicehostctl export boot.rec --format perfetto -o boot.pftrace",
        "devicehostctl export boot.rec --format json | jq 'select(.status == \"NO_DEVICE\")'",
    ),
)
