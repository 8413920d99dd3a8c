"""One device: what it is, and what its registers hold, as lines of a given width."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from devicehost_client.ctl.output import printable
from devicehost_client.ctl.top.figures import rate_text
from devicehost_client.ctl.top.frames import DeviceLine, Frame, Traffic
from devicehost_client.ctl.top.lines import Column, Columns, Line, Piece, Tone, line
from devicehost_client.ctl.top.tables import traffic_cells
from devicehost_client.debug import RegisterValue
from devicehost_client.debug.events import whole_bytes

_CHANGED = "*"
_RATE = 8
_FIELDS_MIN = 12
_NAME_MAX = 24


@dataclass(frozen=True, slots=True)
class Peeked:
    """What a device's registers hold; or why that can't be told.

    Attributes:
        device: its id.
        registers: in the order of its map.
        problem: empty if there was none.
    """

    device: str
    registers: tuple[RegisterValue, ...] = ()
    problem: str = ""


def facts(found: DeviceLine | None, device: str) -> list[Line]:
    """Return what a device is."""
    if found is None:
        return [line((f"{device} is no longer there", Tone.BAD))]
    about = found.device
    config = " ".join(f"{key}={value}" for key, value in about.config)
    traffic = found.traffic
    return [
        line(("resources  ", Tone.HEAD), (" ".join(about.resources) or "none", Tone.PLAIN)),
        line(("config     ", Tone.HEAD), (config or "none", Tone.PLAIN)),
        line(
            ("accesses   ", Tone.HEAD),
            (rate_text(traffic.reads), Tone.READ),
            (" reads/s  ", Tone.DIM),
            (rate_text(traffic.writes), Tone.WRITE),
            (" writes/s  ", Tone.DIM),
            (rate_text(traffic.failures), Tone.BAD if traffic.failures else Tone.DIM),
            (" faults/s", Tone.DIM),
        ),
    ]


def registers(
    peeked: Peeked | None, before: Mapping[str, int], frame: Frame, width: int
) -> list[Line]:
    """Return the registers of a device, decoded.

    Args:
        peeked: what they hold; None if that isn't known yet.
        before: what they held the last time: what has changed is marked.
        frame: how they are accessed.
        width: in characters; fields that need more go on in a line of their own.
    """
    if peeked is None:
        return [line(("asking …", Tone.DIM))]
    if peeked.problem:
        return [line((peeked.problem, Tone.BAD))]
    name = min(_NAME_MAX, max((len(each.name) for each in peeked.registers), default=0) + 1)
    name = max(name, len("register "))
    value = max(5, *(len(whole_bytes(each.value)) for each in peeked.registers), 0)
    fields = max(_FIELDS_MIN, width - name - value - 2 * _RATE - 4)
    columns = Columns(
        Column("register", name, left=True),
        Column("value", value, left=True),
        Column("reads/s", _RATE),
        Column("writes/s", _RATE),
        Column("fields", fields, left=True),
    )
    accessed = _accessed(frame, peeked.device)
    return [columns.head(), *_rows(columns, peeked.registers, before, accessed)]


def _rows(
    columns: Columns,
    registers: Sequence[RegisterValue],
    before: Mapping[str, int],
    accessed: Mapping[str, Traffic],
) -> Iterator[Line]:
    fields = columns.columns[-1].width
    for each in registers:
        has_changed = before.get(each.name, each.value) != each.value
        tone = Tone.CHANGED if has_changed else Tone.PLAIN
        traffic = accessed.get(each.name, Traffic())
        first, *more = _wrapped(printable(each.details), fields)
        yield columns.row(
            [
                (each.name + (_CHANGED if has_changed else ""), Tone.STRONG),
                (whole_bytes(each.value), tone),
                *traffic_cells(traffic),
                (first, tone),
            ]
        )
        blank: Piece = ("", Tone.PLAIN)
        for text in more:
            yield columns.row([blank, blank, blank, blank, (text, tone)])


def _wrapped(text: str, width: int) -> list[str]:
    return [text] if len(text) <= width else textwrap.wrap(text, width)


def _accessed(frame: Frame, device: str) -> dict[str, Traffic]:
    """The traffic of a device's registers by name; one that is at several addresses once."""
    found: dict[str, Traffic] = {}
    for each in frame.registers:
        if each.device == device and each.register not in found:
            found[each.register] = each.traffic
    return found
