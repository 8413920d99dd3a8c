"""`trace`: what passes between the VM and its devices, as it happens."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial

from devicehost_client.ctl.command import Context, ExitStatus, UsageError, Verb, argument, checked
from devicehost_client.ctl.debug_shapes import EVENT_HELP, event_shape
from devicehost_client.ctl.event_text import COLUMNS, TraceText
from devicehost_client.ctl.mailbox import Ended, Item, Mailbox
from devicehost_client.ctl.numeral import number
from devicehost_client.ctl.where import (
    CONDITIONS,
    FAILED,
    PLACES,
    by_places,
    check_conditions,
    say_who_is_missing,
)
from devicehost_client.debug import Lost

_TRACE = "trace"


def trace(context: Context) -> ExitStatus:
    """Show each event, until there are enough, or somebody has."""
    options = context.options
    wanted = replace(by_places(options), failed=options.failed)
    feed = context.host.debug.trace(
        wanted,
        accesses=not options.no_accesses,
        interrupts=not options.no_interrupts,
        dma=not options.no_dma,
    )
    say_who_is_missing(context.host, [wanted])
    output = context.output.stream(COLUMNS)
    text = TraceText()
    events = lost = 0
    with feed, Mailbox() as mailbox:
        mailbox.take(_TRACE, feed)
        while options.count is None or events < options.count:
            mail = mailbox.get()
            if isinstance(mail, Ended) and mail.error is not None:
                raise mail.error
            if not isinstance(mail, Item):
                break
            event = mail.value
            output.json(event_shape(event))
            cells, style = text.cells(event)
            output.row(*cells, style=style)
            if isinstance(event, Lost):
                lost += event.count
            else:
                events += 1
    sys.stderr.write(f"{events} events, {lost} lost\n")
    return ExitStatus.OK


def _check(options: argparse.Namespace) -> None:
    check_conditions(options)
    if options.no_accesses and options.no_interrupts and options.no_dma:
        raise UsageError("argument --no-accesses: nothing is left to be shown")


TRACE = Verb(
    "trace",
    trace,
    summary="show each access, interrupt and DMA as it happens, decoded",
    description=(
        "One line for each event: the time since the first one, the time since the one before,\n"
        "the vCPU ('tool' for accesses by hand), the register (or device and offset, or\n"
        "address), R or W, the value, how long the device took, and the fields that aren't 0.\n"
        "Interrupts, DMA, and devices that come and go have lines of their own.\n"
        "\n"
        "Conditions are looked at on the server, and an access has to meet all that are given;\n"
        "of several devices, registers or vCPUs, any. With --device, only interrupts and DMA of\n"
        "that device are shown.\n"
        "\n"
        "A trace never makes the guest wait. If it isn't read fast enough events are lost: a\n"
        "line says how many. At the end, a summary is on stderr."
    ),
    arguments=(
        *PLACES,
        *CONDITIONS,
        FAILED,
        argument("--no-accesses", action="store_true", help="leave out accesses"),
        argument("--no-interrupts", action="store_true", help="leave out interrupts"),
        argument("--no-dma", action="store_true", help="leave out DMA"),
        argument(
            "--count",
            metavar="N",
            type=checked(partial(number, least=1)),
            help="end after N events [go on until Ctrl-C]",
        ),
    ),
    check=_check,
    json=f"EVENT on each line\n\n{EVENT_HELP}",
    statuses={ExitStatus.OK: "ended by --count, SIGINT (Ctrl-C) or SIGTERM, or its reader is gone"},
    examples=(
        "devicehostctl trace --device com1",
        "devicehostctl trace --register com1.LCR --write --value 0x80 --mask 0x80",
        "devicehostctl trace --range 0x3f8-0x3ff --space pio --failed",
        "devicehostctl -o json trace --no-interrupts --count 1000 | jq -c .registers",
    ),
)
