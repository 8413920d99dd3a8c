"""The lines at the top: which server, how it is, how much goes on."""

from __future__ import annotations

import enum

from devicehost_client.ctl.commands.health import duration_text
from devicehost_client.ctl.output import printable
from devicehost_client.ctl.top.figures import fit_left, rate_text
from devicehost_client.ctl.top.frames import Frame
from devicehost_client.ctl.top.lines import Line, Piece, Tone, ends


class Link(enum.Enum):
    """How we stand with the server. The values are what is shown."""

    CONNECTING = "… connecting"
    LIVE = "● live"
    PAUSED = "‖ paused"
    SILENT = "… no answer"
    LOST = "✖ no server"


_WHOLE = 78
"""How wide it has to be for reads and writes to be told apart."""

_TONES = {
    Link.CONNECTING: Tone.DIM,
    Link.LIVE: Tone.GOOD,
    Link.PAUSED: Tone.ODD,
    Link.SILENT: Tone.ODD,
    Link.LOST: Tone.BAD,
}


def lines(frame: Frame, endpoint: str, link: Link, interval_s: float, width: int) -> list[Line]:
    """Return the two lines."""
    server: list[Piece] = []
    if frame.server is not None:
        uptime = duration_text(int(frame.uptime_s))
        server = [
            (f"devicehost {frame.server.version}", Tone.PLAIN),
            (f"  up {uptime}", Tone.DIM),
        ]
    title = "top "
    room = width - len(title) - sum(len(text) for text, _ in server) - 2
    total, failures = frame.total, frame.failures
    count = sum(bool(each.device.id) for each in frame.devices)
    split: list[Piece] = [
        (" = ", Tone.DIM),
        (rate_text(total.reads), Tone.READ),
        (" reads + ", Tone.DIM),
        (rate_text(total.writes), Tone.WRITE),
        (" writes", Tone.DIM),
    ]
    facts: list[Piece] = [
        (str(count), Tone.STRONG),
        (" device  " if count == 1 else " devices  ", Tone.DIM),
        (f"{rate_text(total.rate)}/s", Tone.STRONG),
        *(split if width >= _WHOLE else []),
        (f"  {failures}", Tone.BAD if total.failures else Tone.ODD if failures else Tone.STRONG),
        (" failed", Tone.DIM),
    ]
    return [
        ends(
            [(title, Tone.TITLE), (fit_left(printable(endpoint), room), Tone.STRONG)], server, width
        ),
        ends(facts, [(f"{interval_s:g} s  ", Tone.DIM), (link.value, _TONES[link])], width),
    ]
