"""`interrupt`: the lines of the devices, as they move; and to move them by hand."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeAlias

from devicehost_client import ConnectionLost, DeviceHost
from devicehost_client.ctl.command import Context, ExitStatus, Noun, Verb, argument, checked
from devicehost_client.ctl.numeral import U32_MAX, number
from devicehost_client.ctl.watching import end_with_its_reader
from devicehost_client.debug import InterruptKind

_COLUMNS = {"EVENT": 10, "GSI": 0}

_KINDS = {
    "assert": InterruptKind.ASSERTED,
    "deassert": InterruptKind.DEASSERTED,
    "pulse": InterruptKind.PULSED,
}

_LOOK_AFTER_S = 1.0
"""How long nothing happens until we look whether the server is still there."""

Change: TypeAlias = tuple[str, int]
"""What happened, and to which global system interrupt."""


def watch(context: Context) -> ExitStatus:
    """Show which interrupts are asserted, then each change."""
    end_with_its_reader()
    output = context.output.stream(_COLUMNS)
    asserted, changes = _watch(context.host)
    output.json({"event": "state", "asserted": sorted(asserted)})
    output.row("state", ",".join(map(str, sorted(asserted))))
    for event, gsi in changes:
        output.json({"event": event, "gsi": gsi})
        output.row(event, str(gsi))
    return ExitStatus.OK


def _watch(host: DeviceHost) -> tuple[set[int], Iterator[Change]]:
    """Return what is asserted, and then the changes.

    Raises:
        ConnectionLost: the server doesn't tell.
    """
    queue: SimpleQueue[Change] = SimpleQueue()

    def on_level(gsi: int, /, *, asserted: bool) -> None:
        queue.put(("asserted" if asserted else "deasserted", gsi))

    def on_pulse(gsi: int) -> None:
        queue.put(("pulsed", gsi))

    try:
        host.interrupts.start(on_level=on_level, on_pulse=on_pulse)
    except TimeoutError as error:
        raise ConnectionLost(str(error)) from error
    asserted: set[int] = set()
    # What came until now is the state; a pulse leaves none.
    for _ in range(queue.qsize()):
        event, gsi = queue.get()
        if event == "asserted":
            asserted.add(gsi)
        else:
            asserted.discard(gsi)
    return asserted, _changes(host, queue)


def _changes(host: DeviceHost, queue: SimpleQueue[Change]) -> Iterator[Change]:
    """Yield changes, until the server is gone."""
    instance_id = host.server().instance_id
    while True:
        try:
            yield queue.get(timeout=_LOOK_AFTER_S)
        except Empty:
            # Interrupts are watched again by themselves when the server is back: a person
            # who watches wants to know that it was gone.
            if host.server().instance_id != instance_id:
                raise ConnectionLost("the server was restarted") from None


def inject(context: Context) -> ExitStatus:
    """Change an interrupt; say nothing."""
    options = context.options
    context.host.debug.inject_interrupt(options.gsi, _KINDS[options.change])
    context.output.show_text({"gsi": options.gsi, "change": options.change}, "")
    return ExitStatus.OK


INTERRUPT = Noun(
    "interrupt",
    "interrupts of the devices",
    verbs=(
        Verb(
            "watch",
            watch,
            summary="show which interrupts are asserted, then each change as it happens",
            description=(
                "First a line 'state' with all that are asserted, by their global system\n"
                "interrupt numbers. Then a line for each change: 'asserted', 'deasserted', or\n"
                "'pulsed' for one that is message-signalled. When the server is lost, what it\n"
                "asserted is deasserted."
            ),
            json=(
                "one object on each line:\n"
                '{"event": "state", "asserted": [GSI]}\n'
                '{"event": "asserted", "gsi": GSI}'
            ),
            statuses={ExitStatus.OK: "ended by SIGINT (Ctrl-C), or its reader is gone"},
            examples=("devicehostctl interrupt watch",),
        ),
        Verb(
            "inject",
            inject,
            summary="change an interrupt, as a device would that has a line to it",
            description=(
                "What is asserted here stays so until it is deasserted here, whatever devices do\n"
                "that share the interrupt. Nothing is printed."
            ),
            arguments=(
                argument(
                    "gsi",
                    metavar="GSI",
                    type=checked(partial(number, most=U32_MAX)),
                    help="its global system interrupt number",
                ),
                argument(
                    "change",
                    metavar="CHANGE",
                    choices=list(_KINDS),
                    help="assert, deassert, or pulse (fire once, as a message-signalled one does)",
                ),
            ),
            json='{"gsi", "change"}',
            examples=(
                "devicehostctl interrupt inject 4 assert",
                "devicehostctl interrupt inject 24 pulse",
            ),
        ),
    ),
)
