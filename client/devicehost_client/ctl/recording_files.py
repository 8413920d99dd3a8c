"""Recordings that commands read, and what they make of them; errors are said in words.

with going_through("lint", path) as source:
    for number, seen in source:
        ...
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from devicehost.recording import BadRecording
from devicehost_client.ctl.command import CommandFailed, UsageError, argument
from devicehost_client.ctl.output import Json
from devicehost_client.ctl.progress import progress
from devicehost_client.recordings.source import Source

RECORDING = argument(
    "recording", metavar="RECORDING", type=Path, help="what 'record' or 'flight' wrote"
)

STDOUT = Path("-")

SOURCE_HELP = """\
"events" is how many were read, "lost" how many the recording says are missing, "complete"
whether it was read to its end without anything wrong, and "damage" says what is wrong (null
if nothing is).
"""


@contextmanager
def going_through(what: str, path: Path) -> Iterator[Source]:
    """Open a recording, and show the progress of reading it.

    Args:
        what: is being done with it, in a word.
        path: where it is.

    Raises:
        CommandFailed: it is no recording, or can't be read.
    """
    try:
        with Source.open(path) as source, progress(what, source.size or None) as advance:
            source.on_progress = advance
            yield source
    except BadRecording as error:
        raise CommandFailed(f"{path}: {error}") from error
    except BrokenPipeError:
        raise  # that is of what is written meanwhile
    except OSError as error:
        raise CommandFailed(f"can't read {path}: {error.strerror}") from error


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write, over one that is there; `-` is stdout.

    Raises:
        CommandFailed: it can't be written.
    """
    if path == STDOUT:
        try:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise  # its reader has had enough, which is no failure
        except OSError as error:
            raise CommandFailed(f"can't write to stdout: {error.strerror}") from error
        return
    try:
        with path.open("wb") as file:
            yield file
    except OSError as error:
        raise CommandFailed(f"can't write {path}: {error.strerror}") from error


def check_not_itself(recording: Path, out: Path, option: str = "-o") -> None:
    """Check that what is written isn't written over what is read.

    Raises:
        UsageError: it would be.
    """
    if out != STDOUT and out.exists() and recording.exists() and out.samefile(recording):
        raise UsageError(f"argument {option}: {out} is the recording itself")


def source_shape(source: Source) -> dict[str, Json]:
    """How far a recording could be read."""
    return {
        "events": source.events,
        "lost": source.lost,
        "complete": source.is_complete,
        "damage": source.damage,
    }


def source_lines(source: Source) -> Iterator[str]:
    """Say how far a recording could be read, if there is anything to say."""
    if source.damage is not None:
        yield f"the recording is damaged: {source.damage}"
    if source.lost:
        yield f"{source.lost} events are missing in the recording"
