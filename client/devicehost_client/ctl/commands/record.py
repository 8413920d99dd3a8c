"""`record`: all that passes between the VM and its devices, into a file."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Self

from devicehost_client.ctl.command import (
    CommandFailed,
    Context,
    ExitStatus,
    Verb,
    argument,
    checked,
)
from devicehost_client.ctl.mailbox import Mailbox
from devicehost_client.ctl.numeral import number
from devicehost_client.ctl.output import Table
from devicehost_client.ctl.seconds import seconds
from devicehost_client.debug import FileRecorder

FOR_MAX_S = 366 * 86400

_LOOK_EVERY_S = 0.1


def record(context: Context) -> ExitStatus:
    """Record until there is enough, or somebody has."""
    options = context.options
    path: Path = options.file
    until = None if options.seconds is None else monotonic() + options.seconds
    with ExitStack() as closing:
        mailbox = closing.enter_context(Mailbox())
        try:
            recorder = context.host.debug.record_to(path, options.devices)
        except OSError as error:
            raise CommandFailed(f"can't write {path}: {error.strerror}") from error
        show = closing.enter_context(_Line())
        while not recorder.wait(0):
            show.update(recorder)
            if options.count is not None and recorder.events >= options.count:
                break
            if until is not None and monotonic() >= until:
                break
            if mailbox.get(_LOOK_EVERY_S) is not None:
                break
        try:
            recorder.close()
        except OSError as error:
            raise CommandFailed(f"can't write {path}: {error.strerror}") from error
    context.output.show(
        {"file": str(path), "events": recorder.events, "bytes": recorder.written},
        Table(
            ("FILE", "EVENTS", "BYTES"), [(str(path), str(recorder.events), str(recorder.written))]
        ),
    )
    return ExitStatus.OK


class _Line:
    """A line on a terminal, which says how far it is; for others nothing.

    It is cut to the width of the terminal: of one that wraps, only the last row can be redone.
    """

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._write("")

    def update(self, recorder: FileRecorder) -> None:
        self._write(f"{recorder.events} events, {recorder.written} bytes; Ctrl-C ends it")

    def _write(self, text: str) -> None:
        if self._is_shown:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or len(text) + 1
            sys.stderr.write(f"\r\x1b[K{text[: columns - 1]}")
            sys.stderr.flush()


RECORD = Verb(
    "record",
    record,
    summary="record everything into a file, to be replayed, looked through or exported",
    description=(
        "The file has the state of the devices at the start, then each access, interrupt and\n"
        "DMA, and all that devices learned from outside. It ends with Ctrl-C or SIGTERM, or as\n"
        "--for and --count say, and is complete then. Should the server or this command die,\n"
        "it is readable up to there.\n"
        "\n"
        "See 'replay', 'shrink', 'report', 'lint' and 'export' for what to do with it."
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
        argument(
            "--device",
            metavar="ID",
            dest="devices",
            action="append",
            default=[],
            help="record this device only; can be given several times",
        ),
        argument(
            "--for",
            metavar="S",
            dest="seconds",
            type=checked(partial(seconds, most=FOR_MAX_S)),
            help="end after S seconds",
        ),
        argument(
            "--count",
            metavar="N",
            type=checked(partial(number, least=1)),
            help="end when there are N events or more",
        ),
    ),
    json='{"file", "events", "bytes"}',
    statuses={
        ExitStatus.OK: "recorded, and ended by --for, --count, SIGINT (Ctrl-C) or SIGTERM",
        ExitStatus.FAILED: (
            "the server said no, or the file couldn't be written, or recording was too slow\n"
            "      (RECORDING_TOO_SLOW): what there is of the file is readable"
        ),
    },
    examples=(
        "devicehostctl record -o boot.rec",
        "devicehostctl record -o com1.rec --device com1 --for 10",
    ),
)
