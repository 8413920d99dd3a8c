"""`report`: a recording as one page of HTML."""

from __future__ import annotations

import argparse
from pathlib import Path

from devicehost_client.ctl.command import CommandFailed, Context, ExitStatus, Verb, argument
from devicehost_client.ctl.files import read_text
from devicehost_client.ctl.recording_files import (
    RECORDING,
    SOURCE_HELP,
    check_not_itself,
    going_through,
    source_lines,
    source_shape,
    writing,
)
from devicehost_client.recordings.report import (
    BadDifferences,
    Survey,
    read_differences,
    write_report,
)
from devicehost_client.recordings.report.differences import Differences


def report(context: Context) -> ExitStatus:
    """Write the page, and say what is in it."""
    options = context.options
    differences = _differences(options.differences)
    with going_through("report", options.recording) as source:
        survey = Survey(source, differences).run()
    with writing(options.file) as file:
        write_report(survey, file)
    findings = survey["findings_count"]
    shape = {
        "file": str(options.file),
        **source_shape(source),
        "findings": findings,
        "differences": differences and differences.count,
    }
    found = f"{source.events} events, {findings} findings"
    if differences is not None:
        found += f", {differences.count} differences"
    lines = [f"{options.file}: {found}", *source_lines(source)]
    context.output.show_text(shape, "".join(f"{line}\n" for line in lines))
    return ExitStatus.OK


def check_report(options: argparse.Namespace) -> None:
    """Check that the page isn't written over the recording.

    Raises:
        UsageError: it would be.
    """
    check_not_itself(options.recording, options.file)


def _differences(path: Path | None) -> Differences | None:
    if path is None:
        return None
    try:
        return read_differences(read_text(path))
    except BadDifferences as error:
        raise CommandFailed(f"{path}: {error}") from error


REPORT = Verb(
    "report",
    report,
    summary="make a page of a recording, to look at or to attach to a bug report",
    description=(
        "One file of HTML that needs no other, and no network: a timeline, the registers and how\n"
        "often each is accessed, latencies, what 'lint' finds, and the events: all of a small\n"
        "recording; of a large one the first, the last, and those around findings and differences."
    ),
    arguments=(
        RECORDING,
        argument(
            "-o", dest="file", metavar="FILE", type=Path, required=True, help="the page to write"
        ),
        argument(
            "--differences",
            metavar="FILE",
            type=Path,
            help="what a replay found, to be shown as well: the output of 'replay --all -o json',"
            " or a JSON object for each difference, on a line; - is stdin",
        ),
    ),
    check=check_report,
    offline=True,
    json=(
        '{"file", "events", "lost", "complete", "damage", "findings", "differences"}\n'
        f"The last are counts; of differences, null if none were given.\n{SOURCE_HELP}"
    ),
    statuses={
        ExitStatus.OK: "done, as far as the recording could be read",
        ExitStatus.FAILED: "it is no recording, or a file can't be read or written",
    },
    examples=(
        "devicehostctl report boot.rec -o report.html",
        "devicehostctl replay boot.rec --all -o json > found.json",
        "devicehostctl report boot.rec -o report.html --differences found.json",
    ),
)
