"""`break`: hold accesses, look around meanwhile, and decide how they go on."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from time import monotonic

from devicehost_client.ctl.breaking import BreakSession
from devicehost_client.ctl.command import Context, ExitStatus, UsageError, Verb, argument, checked
from devicehost_client.ctl.debug_shapes import BREAKPOINT_HELP, EVENT_HELP
from devicehost_client.ctl.hold_commands import hold_help
from devicehost_client.ctl.mailbox import Ended, Item, Lines, Mailbox
from devicehost_client.ctl.numeral import U32_MAX, number
from devicehost_client.ctl.seconds import seconds
from devicehost_client.ctl.tree_text import strokes_for
from devicehost_client.ctl.where import (
    CONDITIONS,
    FAILED,
    WHERE_FORMS,
    check_conditions,
    parse_where,
    say_who_is_missing,
    with_conditions,
)
from devicehost_client.debug import (
    AccessFilter,
    Breakpoint,
    BreakpointAction,
    BreakpointEvent,
)

LIMIT_MAX_S = 3600
"""The longest that an access can be held."""

_PROMPT = "(held) "
_STEP_PATIENCE_S = 0.5

_HITS = "hits"
_LINES = "lines"


def break_(context: Context) -> ExitStatus:
    """Make breakpoints, and look after what they hold until nobody wants them any more."""
    debug = context.host.debug
    output = context.output.stream({})
    prompt = _PROMPT if os.isatty(0) else ""
    session = BreakSession(debug, output, strokes_for(sys.stdout.encoding), prompt=prompt)
    with debug.hits() as hits, Mailbox() as mailbox:
        try:
            wanted = _wanted(context.options)
            session.create(wanted)
            say_who_is_missing(context.host, [each.filter for each in wanted])
            mailbox.take(_HITS, hits)
            _attend(session, mailbox)
            _await_steps(session, mailbox)
        finally:
            session.finish()
    return ExitStatus.OK


def _await_steps(session: BreakSession, mailbox: Mailbox) -> None:
    """Wait a moment for steps that are under way: what they hold is to be let go, too."""
    until = monotonic() + _STEP_PATIENCE_S
    while session.is_expecting and (left_s := until - monotonic()) > 0:
        match mailbox.get(left_s):
            case Item(source, value) if source == _HITS:
                session.take(value)
            case Ended(source, _) if source == _HITS:
                return
    if session.is_expecting:
        sys.stderr.write(
            "a step is under way: the next access of its vCPU is held, up to the limit\n"
        )


def _attend(session: BreakSession, mailbox: Mailbox) -> None:
    """Bring hits and lines to a session, until it is over.

    Raises:
        ClientError: the server has ended the hits, or is gone.
    """
    script = _Script(session, mailbox)
    while not (session.is_over or session.is_used_up or script.is_done):
        if script.go_on():
            continue
        match mailbox.get():
            case Item(source, value):
                (script.take if source == _LINES else session.take)(value)
            case Ended(source, _) if source == _LINES:
                script.is_at_end = True
            case Ended(_, error) if error is not None:
                raise error
            case _:
                break


class _Script:
    """The lines of stdin.

    Those of a terminal are obeyed at once. Those of a pipe are a script, a line for each
    time that something is held: they are left alone until then, and so is a terminal's
    input while the command is in the background.

    Attributes:
        is_at_end: whether there are no more.
    """

    def __init__(self, session: BreakSession, mailbox: Mailbox) -> None:
        self.is_at_end = False
        self._session = session
        self._mailbox = mailbox
        self._lines = Lines()
        self._is_terminal = os.isatty(0)
        self._is_begun = False
        self._waiting: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether all was obeyed, and no step is to end yet."""
        return self.is_at_end and self._waiting is None and not self._session.is_expecting

    def take(self, line: str) -> None:
        """Take a line."""
        self._waiting = line

    def go_on(self) -> bool:
        """Obey the next line, if it is time; return whether that was so."""
        if not self._is_begun and (self._session.is_holding or self._is_in_front()):
            self._is_begun = True
            self._mailbox.take(_LINES, self._lines)
            self._lines.ask()
        if self._waiting is None or not (self._is_terminal or self._session.is_holding):
            return False
        line, self._waiting = self._waiting, None
        self._session.obey(line)
        self._lines.ask()
        return True

    def _is_in_front(self) -> bool:
        """Whether it is a terminal's input, and nobody would stop us for reading it."""
        try:
            return self._is_terminal and os.tcgetpgrp(0) == os.getpgrp()
        except OSError:
            return True  # it isn't the terminal that we are controlled by


def _wanted(options: argparse.Namespace) -> list[Breakpoint]:
    """The breakpoints that the arguments say."""

    def made(event: BreakpointEvent, place: AccessFilter, gsi: int | None = None) -> Breakpoint:
        return Breakpoint(
            filter=place,
            event=event,
            gsi=gsi,
            ignore=options.ignore,
            hits_max=options.count,
            action=BreakpointAction(options.action),
            after=options.after,
            limit_ms=round(options.limit * 1000),
        )

    event = BreakpointEvent.FAULT if options.fault else BreakpointEvent.ACCESS
    places: Sequence[AccessFilter] = options.where
    if not places and (options.fault or options.failed):
        places = [AccessFilter()]
    found = [made(event, _place(each, options)) for each in places]
    interrupts = options.interrupts
    return found + [made(BreakpointEvent.INTERRUPT, AccessFilter(), gsi) for gsi in interrupts]


def _place(place: AccessFilter, options: argparse.Namespace) -> AccessFilter:
    return replace(with_conditions(place, options), failed=options.failed)


def _check(options: argparse.Namespace) -> None:
    check_conditions(options)
    if not (options.where or options.fault or options.failed or options.interrupts):
        raise UsageError(
            "the following arguments are required: WHERE, or --fault, --failed or --interrupt"
        )


_GSI = checked(partial(number, most=U32_MAX))

BREAK = Verb(
    "break",
    break_,
    summary="hold accesses at breakpoints, look around meanwhile, and let them go on",
    description=(
        f"WHERE is one of:\n"
        f"  {WHERE_FORMS}\n"
        "\n"
        "At a hit the access is held, and with it its vCPU; other vCPUs and devices go on. The\n"
        "access is shown with what its registers hold, and commands are read from stdin:\n"
        "\n" + "".join(f"  {line}\n" for line in hold_help().splitlines()) + "\n"
        "Any other beginning of a name will do if only one has it. An empty line does the last\n"
        "command again. When nobody answers, the access goes on after the limit.\n"
        "\n"
        "If stdin isn't a terminal it is a script: each line is read when an access is held,\n"
        "and its end is 'quit'.\n"
        "\n"
        "However the command ends, by 'quit', Ctrl-C or SIGTERM, its breakpoints are removed and\n"
        "what they hold goes on. (If it is killed, they stay, and hold up to their limit: see\n"
        "'list' and 'delete'.)"
    ),
    arguments=(
        argument(
            "where",
            metavar="WHERE",
            nargs="*",
            type=checked(parse_where),
            help="a breakpoint for each",
        ),
        *CONDITIONS,
        FAILED,
        argument("--fault", action="store_true", help="only accesses in which the device raises"),
        argument(
            "--interrupt",
            metavar="GSI",
            dest="interrupts",
            action="append",
            default=[],
            type=_GSI,
            help="a breakpoint on an interrupt: hold the access in which it changes, or the next"
            " one; can be given several times",
        ),
        argument(
            "--after",
            action="store_true",
            help="hold after the device was asked: to see what a read returns, or change it",
        ),
        argument(
            "--ignore",
            metavar="N",
            type=checked(number),
            default=0,
            help="let it pass N times before the first hit [0]",
        ),
        argument(
            "--count",
            metavar="N",
            type=checked(number),
            default=0,
            help="remove each breakpoint after N hits, and end with the last [0: never]",
        ),
        argument(
            "--limit",
            metavar="S",
            type=checked(partial(seconds, most=LIMIT_MAX_S)),
            default=30.0,
            help=f"hold no longer than S seconds, up to {LIMIT_MAX_S} [30]",
        ),
        argument(
            "--log",
            dest="action",
            action="store_const",
            const="log",
            default="hold",
            help="don't hold, only report",
        ),
        argument(
            "--save-state",
            dest="action",
            action="store_const",
            const="save-state",
            help="don't hold, report with the state of all devices (shown with -o json)",
        ),
        argument(
            "--record",
            dest="action",
            action="store_const",
            const="record",
            help="don't hold, report, and arm the flight recorder if it isn't",
        ),
    ),
    check=_check,
    json=(
        'one object on each line, by its "event":\n'
        '  breakpoint   "breakpoint": BREAKPOINT, for each that is made\n'
        '  hit          "id", "breakpoint_id" (0: a step), "at": EVENT, "held", "after",\n'
        '               "remaining_ms", "now": [REGISTER], "states": {DEVICE: {"type", "state"}}\n'
        '  ended        "hit", "why" (limit, resumed by others, draining)\n'
        '  resumed      "hit", "step"\n'
        "and for the other commands: set, registers, node, state, breakpoints, deleted, help,\n"
        'and error with "message".\n'
        "\n"
        f"{BREAKPOINT_HELP}\n{EVENT_HELP}"
    ),
    statuses={ExitStatus.OK: "ended by 'quit', --count, SIGINT (Ctrl-C) or SIGTERM"},
    examples=(
        "devicehostctl break com1.LCR --write",
        "devicehostctl break com1.LSR --read --after --value 0x20 --mask 0x20 --count 1",
        "devicehostctl break pio:0x70-0x71 rtc --vcpu 0 --limit 300",
        "devicehostctl break com1 --fault --save-state -o json",
        "devicehostctl break --interrupt 4 --interrupt 8 --log",
    ),
)
