"""`lint`: what a driver did that a data sheet forbids, or that costs it."""

from __future__ import annotations

import argparse
import inspect
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from devicehost_client.ctl.command import (
    Context,
    ExitStatus,
    UsageError,
    Verb,
    argument,
    checked,
)
from devicehost_client.ctl.numeral import number
from devicehost_client.ctl.output import Json, Style
from devicehost_client.ctl.recording_files import (
    SOURCE_HELP,
    going_through,
    source_lines,
    source_shape,
)
from devicehost_client.recordings.lint import RULES, Finding, Linter, Rule, Severity, make_rules
from devicehost_client.recordings.lint.cost import POLLS_MIN
from devicehost_client.recordings.source import Source
from devicehost_client.recordings.words import time_text

POLLS_MAX = 1_000_000

_STYLES = {Severity.ERROR: Style.BAD, Severity.COST: Style.ODD, Severity.NOTE: Style.PLAIN}


def lint(context: Context) -> ExitStatus:
    """Look through a recording, and show what was found; or show the rules."""
    options = context.options
    if options.list_rules:
        _show_rules(context)
        return ExitStatus.OK
    rules = make_rules(only=options.only, disabled=options.disable, polls_min=options.polls)
    linter = Linter(rules)
    with going_through("lint", options.recording) as source:
        for event_number, seen in source:
            linter.see(event_number, seen)
    findings = linter.findings()
    if context.output.is_json:
        shape: dict[str, Json] = {
            "recording": str(options.recording),
            **source_shape(source),
            "findings": [_finding_shape(each, source) for each in findings],
        }
        context.output.show_text(shape, "")
    else:
        _show(context, source, findings)
    has_errors = any(each.severity is Severity.ERROR for each in findings)
    return ExitStatus.FAILED if has_errors else ExitStatus.OK


def check_lint(options: argparse.Namespace) -> None:
    """Check that there is a recording, and that the rules are some.

    Raises:
        UsageError: there isn't, or they aren't.
    """
    if options.recording is None and not options.list_rules:
        raise UsageError("the following arguments are required: RECORDING")
    try:
        make_rules(only=options.only, disabled=options.disable)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _show(context: Context, source: Source, findings: list[Finding]) -> None:
    """Show findings for people."""
    output = context.output.stream({})
    for each in findings:
        output.text(_headline(each), _STYLES[each.severity])
        for line in _first_lines(each, source):
            output.text(f"    {line}")
    counts = Counter(each.severity.value for each in findings)
    found = ", ".join(f"{count} {name}{'s'[: count > 1]}" for name, count in counts.items())
    output.text(f"{source.events} events: {found or 'nothing found'}", Style.STRONG)
    for line in source_lines(source):
        output.text(line, Style.ODD)


def _headline(finding: Finding) -> str:
    target = ".".join(filter(None, (finding.device, finding.register)))
    where = f"{target}: " if target else ""
    times = "once" if finding.count == 1 else f"{finding.count} times"
    cost = "" if finding.cost_ns is None else f", {time_text(finding.cost_ns)}"
    return f"{finding.severity.value}: {where}{finding.what} ({times}{cost}) [{finding.rule}]"


def _first_lines(finding: Finding, source: Source) -> Iterator[str]:
    first = finding.first
    since = (first.time_ns - source.begin_ns) / 1e9
    vcpu = "" if first.vcpu is None else f", vCPU {first.vcpu}"
    yield f"first at event {first.number}, {since:.6f} s{vcpu}: {first.access}"
    if first.decoded:
        yield first.decoded


def _finding_shape(finding: Finding, source: Source) -> dict[str, Json]:
    first = finding.first
    return {
        "rule": finding.rule,
        "severity": finding.severity.value,
        "device": finding.device,
        "register": finding.register,
        "what": finding.what,
        "count": finding.count,
        "cost_ns": finding.cost_ns,
        "first": {
            "event": first.number,
            "time_ns": first.time_ns,
            "since_start_ns": first.time_ns - source.begin_ns,
            "vcpu": first.vcpu,
            "access": first.access,
            "decoded": first.decoded,
        },
    }


def _show_rules(context: Context) -> None:
    shape = [
        {"rule": rule.name, "severity": rule.severity.value, "help": _help(rule)} for rule in RULES
    ]
    lines = []
    for rule in RULES:
        lines.append(f"{rule.name} ({rule.severity.value})")
        lines += [f"    {line}".rstrip() for line in _help(rule).splitlines()]
    context.output.show_text(shape, "".join(f"{line}\n" for line in lines))


def _help(rule: type[Rule]) -> str:
    return inspect.getdoc(rule) or ""


_RULE = {"metavar": "RULE", "action": "append", "default": []}

LINT = Verb(
    "lint",
    lint,
    summary="find what a driver did that a data sheet forbids, or that costs it",
    description=(
        "Looks through a recording for accesses with no device behind them, reserved bits that\n"
        "are set, wrong sizes, polling loops and the like, by the register maps that are in the\n"
        "recording. Each finding comes with its count and its first place. Accesses by hand\n"
        "(devicehostctl io) are left alone."
    ),
    arguments=(
        argument(
            "recording",
            metavar="RECORDING",
            type=Path,
            nargs="?",
            help="what 'record' or 'flight' wrote",
        ),
        argument("--list-rules", action="store_true", help="show the rules, and what they mean"),
        argument("--only", **_RULE, help="look for this only; can be given several times"),
        argument("--disable", **_RULE, help="don't look for this; can be given several times"),
        argument(
            "--polls",
            metavar="N",
            type=checked(partial(number, least=2, most=POLLS_MAX)),
            default=POLLS_MIN,
            help=f"so many equal reads in a row are a polling loop [{POLLS_MIN}]",
        ),
    ),
    check=check_lint,
    offline=True,
    json=(
        '{"recording", "events", "lost", "complete", "damage", "findings": [FINDING]}, or with\n'
        '--list-rules: [{"rule", "severity", "help"}]\n'
        f"{SOURCE_HELP}"
        'FINDING is {"rule", "severity": error, cost or note, "device", "register", "what",\n'
        '"count", "cost_ns" (null if it isn\'t about time), "first": {"event", "time_ns",\n'
        '"since_start_ns", "vcpu", "access", "decoded"}}; events are numbered from 0.'
    ),
    statuses={
        ExitStatus.OK: "nothing was found, or only what costs or is good to know",
        ExitStatus.FAILED: "an error was found; or the recording can't be read: stderr says why",
    },
    examples=(
        "devicehostctl lint boot.rec",
        "devicehostctl lint boot.rec --disable no-device --polls 100",
        "devicehostctl lint --list-rules",
    ),
)
