"""`fault`: devices that misbehave, on purpose."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from devicehost_client.ctl.command import (
    Context,
    ExitStatus,
    Noun,
    UsageError,
    Verb,
    argument,
    checked,
)
from devicehost_client.ctl.debug_shapes import FAULT_HELP, fault_shape
from devicehost_client.ctl.numeral import U64_MAX, number
from devicehost_client.ctl.output import Table
from devicehost_client.ctl.where import (
    CONDITIONS,
    FAILED,
    PLACES,
    by_places,
    check_conditions,
    filter_text,
    say_who_is_missing,
)
from devicehost_client.debug import (
    Delay,
    Failing,
    Fault,
    FaultKind,
    Gone,
    StuckAtOne,
    StuckAtZero,
)

DELAY_MAX_US = 10_000_000
"""The longest delay of an access."""

_WITH_AMOUNT: dict[str, tuple[Callable[[int], FaultKind], int]] = {
    "delay": (Delay, DELAY_MAX_US),
    "stuck-at-one": (StuckAtOne, U64_MAX),
    "stuck-at-zero": (StuckAtZero, U64_MAX),
}
_WITHOUT: dict[str, Callable[[], FaultKind]] = {"gone": Gone, "failing": Failing}


def add(context: Context) -> ExitStatus:
    """Make a fault, and show it."""
    options = context.options
    wanted = Fault(
        kind=_kind(options),
        filter=replace(by_places(options), failed=options.failed),
        percent=options.percent,
        seed=options.seed,
    )
    made = context.host.debug.create_fault(wanted)
    say_who_is_missing(context.host, [made.filter])
    context.output.show(fault_shape(made), _table([made]))
    return ExitStatus.OK


def list_faults(context: Context) -> ExitStatus:
    """Show all faults."""
    found = context.host.debug.faults()
    context.output.show({"faults": [fault_shape(each) for each in found]}, _table(found))
    return ExitStatus.OK


def remove(context: Context) -> ExitStatus:
    """End faults; say nothing."""
    for fault_id in context.options.ids:
        context.host.debug.delete_fault(fault_id)
    context.output.show_text({"removed": list(context.options.ids)}, "")
    return ExitStatus.OK


def _table(faults: list[Fault]) -> Table:
    rows = [
        (
            str(each.id),
            "unknown" if each.kind is None else str(each.kind),
            filter_text(each.filter),
            f"{each.percent or 100}%",
            str(each.count),
        )
        for each in faults
    ]
    return Table(("ID", "KIND", "ACCESSES", "CHANCE", "COUNT"), rows)


def _kind(options: argparse.Namespace) -> FaultKind:
    if options.kind in _WITH_AMOUNT:
        make, _ = _WITH_AMOUNT[options.kind]
        return make(options.amount)
    return _WITHOUT[options.kind]()


def _check_add(options: argparse.Namespace) -> None:
    check_conditions(options)
    if options.kind not in _WITH_AMOUNT:
        if options.amount is not None:
            raise UsageError(f"argument AMOUNT: fault {options.kind!r} has none")
        return
    _, most = _WITH_AMOUNT[options.kind]
    if options.amount is None or not 1 <= options.amount <= most:
        given = "none" if options.amount is None else str(options.amount)
        raise UsageError(
            f"argument AMOUNT: {given} is not allowed for fault {options.kind!r}; allowed: 1 to"
            f" {most:#x}"
        )


FAULT = Noun(
    "fault",
    "faults: devices that misbehave on purpose",
    verbs=(
        Verb(
            "add",
            add,
            summary="make a device misbehave from now on, and show the fault",
            description=(
                "KIND is one of:\n"
                "  delay US            each access takes so many microseconds longer\n"
                "  stuck-at-one MASK   these bits of what is read are always set\n"
                "  stuck-at-zero MASK  these bits of what is read are always clear\n"
                "  gone                nobody answers, as if no device were there\n"
                "  failing             the device fails, as if it had raised\n"
                "\n"
                "The other arguments say in which accesses; without any, in all. With --percent,\n"
                "chance decides, and the same --seed makes the same choices."
            ),
            arguments=(
                argument(
                    "kind",
                    metavar="KIND",
                    choices=[*_WITH_AMOUNT, *_WITHOUT],
                    help="what goes wrong, see above",
                ),
                argument(
                    "amount",
                    metavar="AMOUNT",
                    nargs="?",
                    type=checked(number),
                    help="US, or MASK",
                ),
                *PLACES,
                *CONDITIONS,
                FAILED,
                argument(
                    "--percent",
                    metavar="N",
                    type=checked(partial(number, least=1, most=100)),
                    default=0,
                    help="in N of each hundred accesses [all]",
                ),
                argument(
                    "--seed",
                    metavar="N",
                    type=checked(number),
                    default=0,
                    help="what chance begins with [0]",
                ),
            ),
            check=_check_add,
            json=f"FAULT\n\n{FAULT_HELP}",
            examples=(
                "devicehostctl fault add stuck-at-zero 0x20 --register com1.LSR",
                "devicehostctl fault add delay 500 --device rtc --percent 10 --seed 7",
                "devicehostctl fault add gone --range 0x60-0x64 --space pio",
            ),
        ),
        Verb(
            "list",
            list_faults,
            summary="list the faults, and how many accesses each has spoiled",
            json=f'{{"faults": [FAULT]}}\n\n{FAULT_HELP}',
            examples=("devicehostctl fault list",),
        ),
        Verb(
            "remove",
            remove,
            summary="end faults",
            description="Nothing is printed.",
            arguments=(
                argument(
                    "ids", metavar="ID", nargs="+", type=checked(number), help="as 'list' has it"
                ),
            ),
            json='{"removed": [ID]}',
            examples=("devicehostctl fault remove 1 2",),
        ),
    ),
)
