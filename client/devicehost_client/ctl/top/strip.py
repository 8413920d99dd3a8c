"""The address map as a strip: each range a block, as hot as it is accessed.

An address space is far larger than what is used of it. So a block is as wide as its name
needs, larger ranges get more of what is left, and what lies between is a short gap:

    PIO  ·░░rtc░░··█kbd█··▒▒com1▒▒··
          70       60     3f8
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from devicehost.recording.events import Space
from devicehost_client.ctl.output import printable
from devicehost_client.ctl.top.figures import HEAT_GLYPHS, fit, heat, rate_text
from devicehost_client.ctl.top.frames import Frame, RangeLine
from devicehost_client.ctl.top.lines import FILL, HEAT, Line, Piece, Tone, line

_LABEL = 5
_LAST = {Space.PIO: (1 << 16) - 1, Space.MMIO: (1 << 64) - 1}
_GAP = "·"


@dataclass(frozen=True, slots=True)
class Block:
    """A range, or what lies between two (`line` is None then), and how wide it is drawn."""

    line: RangeLine | None
    base: int
    size: int
    width: int


def lines(frame: Frame, selected: str, width: int, *, addresses: bool) -> list[Line]:
    """Return the strips of both spaces, and in words where the selected device is.

    Args:
        frame: what is shown.
        selected: the id of a device.
        width: in characters.
        addresses: whether each strip has a line with addresses below it.
    """
    hottest = max((each.rate for each in frame.ranges), default=0.0)
    shown = []
    for space in Space:
        blocks = layout(frame, space, width)
        shown.append(_strip(space, blocks, hottest, selected))
        if addresses:
            shown.append(_addresses(blocks))
    return [*shown, _words(frame, selected)]


def device_at(frame: Frame, space: Space, width: int, x: int) -> str | None:
    """Return which device is drawn in column `x` of the strip of a space."""
    at = _LABEL
    for block in layout(frame, space, width):
        if at <= x < at + block.width:
            return block.line.range.device if block.line else None
        at += block.width
    return None


def legend() -> Line:
    """Say how hot looks."""
    levels = [(glyph, HEAT[level]) for level, glyph in enumerate(HEAT_GLYPHS)]
    return line(("idle ", Tone.DIM), *levels, (" hottest", Tone.DIM))


def layout(frame: Frame, space: Space, width: int) -> list[Block]:
    """Return the blocks of a space, in the order of their addresses."""
    ranges = [each for each in frame.ranges if each.range.space is space]
    room = width - _LABEL
    if not ranges or room < 1:
        return []
    blocks = list(_blocks(ranges, _LAST[space]))
    taken = sum(block.width for block in blocks)
    if taken > room:
        return _squeezed(ranges, room)
    weights = [math.log2(block.size + 1) * (1 if block.line else 0.25) for block in blocks]
    left = room - taken
    whole = sum(weights)
    grown = []
    done, given = 0.0, 0
    for block, weight in zip(blocks, weights, strict=True):
        done += weight
        more = round(left * done / whole) - given
        given += more
        grown.append(Block(block.line, block.base, block.size, block.width + more))
    return grown


def _blocks(ranges: Sequence[RangeLine], last: int) -> list[Block]:
    """Each range as wide as it needs at least, and the gaps."""
    blocks = []
    at = 0
    for each in ranges:
        base, end = each.range.base, each.range.last
        if base > at:
            blocks.append(Block(None, at, base - at, 1))
        need = max(len(_name(each)) + 2, len(f"{base:x}") + 1)
        blocks.append(Block(each, base, end - base + 1, need))
        at = end + 1
    if at <= last:
        blocks.append(Block(None, at, last - at + 1, 1))
    return blocks


def _squeezed(ranges: Sequence[RangeLine], room: int) -> list[Block]:
    """Too many ranges for names: all of the same width, or the hottest of several in a cell."""
    if len(ranges) > room:
        cuts = [len(ranges) * n // room for n in range(room + 1)]
        ranges = [
            max(ranges[begin:end], key=lambda each: each.rate) for begin, end in pairwise(cuts)
        ]
    edges = [room * n // len(ranges) for n in range(len(ranges) + 1)]
    return [
        Block(each, each.range.base, each.range.last - each.range.base + 1, end - begin)
        for each, (begin, end) in zip(ranges, pairwise(edges), strict=True)
    ]


def _strip(space: Space, blocks: Sequence[Block], hottest: float, selected: str) -> Line:
    pieces: list[Piece] = [(space.value.upper().ljust(_LABEL), Tone.HEAD)]
    if not blocks:
        pieces.append(("nothing traps", Tone.DIM))
    for block in blocks:
        if block.line is None:
            pieces.append((_GAP * block.width, Tone.DIM))
            continue
        level = heat(block.line.rate, hottest)
        glyph = HEAT_GLYPHS[level]
        name = fit(_name(block.line), max(0, block.width - 2))
        if not name:
            pieces.append((glyph * block.width, HEAT[level]))
            continue
        before = (block.width - len(name)) // 2
        is_selected = block.line.range.device == selected
        pieces += [
            (glyph * before, HEAT[level]),
            (name, Tone.FILL_SELECTED if is_selected else FILL[level]),
            (glyph * (block.width - len(name) - before), HEAT[level]),
        ]
    return line(*pieces)


def _addresses(blocks: Sequence[Block]) -> Line:
    """Where each range begins, in hexadecimal, as far as there is room."""
    text = " " * _LABEL
    at = _LABEL
    for block in blocks:
        if block.line is not None and (len(text) < at or at == _LABEL):
            text = f"{text.ljust(at)}{block.base:x}"
        at += block.width
    return line((text[:at], Tone.DIM))


def _words(frame: Frame, selected: str) -> Line:
    found = frame.device(selected)
    if found is None or not found.device.id:
        return line(("no device is selected", Tone.DIM))
    device = found.device
    where = " ".join(device.resources) or "no resources"
    return line(
        ("▸ ", Tone.TITLE),
        (device.id, Tone.STRONG),
        (f" {device.type}  ", Tone.DIM),
        (where, Tone.PLAIN),
        (f"  {rate_text(found.traffic.rate)}/s", Tone.READ),
    )


def _name(each: RangeLine) -> str:
    return printable(each.range.device)
