"""`top`: what the devices of a server do, live in a terminal."""

from __future__ import annotations

import os
import sys

from devicehost_client import ClientError
from devicehost_client.ctl.command import (
    CommandFailed,
    Context,
    ExitStatus,
    Verb,
    argument,
    checked,
)
from devicehost_client.ctl.parser import ENDPOINT_VARIABLE
from devicehost_client.ctl.seconds import seconds
from devicehost_client.ctl.top import once

_SHORTEST_S, _LONGEST_S = 0.1, 60.0


def top(context: Context) -> ExitStatus:
    """Show what goes on until somebody quits; or for one interval."""
    options = context.options
    endpoint: str = options.endpoint or os.environ.get(ENDPOINT_VARIABLE, "")
    if options.once or context.output.is_json or not _is_terminal():
        frame = once.take(context.host, options.interval)
        context.output.show_text(once.shape(frame, endpoint), once.text(frame, endpoint))
        return ExitStatus.OK
    try:
        from devicehost_client.ctl.top.app import TopApp  # noqa: PLC0415 # not everybody has it
    except ImportError as error:
        raise CommandFailed(
            f"a live view needs {error.name}, which comes with the extra 'debug': pip install"
            " 'devicehost[debug]'; --once does without"
        ) from error
    result = TopApp(context.host, endpoint, options.interval).run()
    if isinstance(result, ClientError):
        raise result
    return ExitStatus.OK if result is True else ExitStatus.FAILED


def _is_terminal() -> bool:
    """Whether there is a terminal to type on and to draw on."""
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return all(each.isatty() for each in streams) and os.environ.get("TERM") != "dumb"


def _interval(text: str) -> float:
    found = seconds(text, most=_LONGEST_S)
    if found < _SHORTEST_S:
        raise ValueError(
            f"{text!r} is not allowed; allowed: {_SHORTEST_S:g} to {_LONGEST_S:g} seconds"
        )
    return found


TOP = Verb(
    "top",
    top,
    summary="show what the devices do, live: rates, latency, the hottest registers",
    description=(
        "A view of the terminal, with the devices, the registers that are accessed most, a\n"
        "histogram of latency (as the server measures it), interrupts, and the address map, where\n"
        "ranges that are accessed more are denser. Its keys are at the bottom; ? explains them.\n"
        "When the server goes away, it waits for it. It needs the extra 'debug'.\n"
        "\n"
        "With --once, with -o json, or where stdin, stdout and stderr aren't all a terminal, it\n"
        "shows one interval, and ends."
    ),
    arguments=(
        argument(
            "--interval",
            metavar="SECONDS",
            type=checked(_interval),
            default=1.0,
            help=f"how often it is to look, {_SHORTEST_S:g} to {_LONGEST_S:g} [1]",
        ),
        argument("--once", action="store_true", help="show one interval, and end"),
    ),
    json=once.HELP,
    statuses={ExitStatus.OK: "done; of the live view, somebody has quit it"},
    examples=(
        "devicehostctl top",
        "devicehostctl top --interval 0.2",
        "devicehostctl top --once --interval 10",
        "devicehostctl -o json top | jq -r '.registers[0].register'",
    ),
)
