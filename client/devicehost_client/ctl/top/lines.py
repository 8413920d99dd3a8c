"""Lines of text in tones: what is to be shown, before anything is known of colours.

line = columns.row([("com1", Tone.STRONG), ("12.3k", Tone.PLAIN)])
assert line.text == "com1      12.3k"
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from devicehost_client.ctl.output import printable
from devicehost_client.ctl.top.figures import fit


class Tone(enum.Enum):
    """What a piece of text means. All that a tone says is said by the text as well."""

    PLAIN = "plain"
    DIM = "dim"
    STRONG = "strong"
    HEAD = "head"
    SORTED = "sorted"
    TITLE = "title"
    GOOD = "good"
    ODD = "odd"
    BAD = "bad"
    READ = "read"
    WRITE = "write"
    SPARK = "spark"
    BAR = "bar"
    CHANGED = "changed"
    HEAT_0 = "heat-0"
    HEAT_1 = "heat-1"
    HEAT_2 = "heat-2"
    HEAT_3 = "heat-3"
    HEAT_4 = "heat-4"
    FILL_0 = "fill-0"
    FILL_1 = "fill-1"
    FILL_2 = "fill-2"
    FILL_3 = "fill-3"
    FILL_4 = "fill-4"
    FILL_SELECTED = "fill-selected"


HEAT = (Tone.HEAT_0, Tone.HEAT_1, Tone.HEAT_2, Tone.HEAT_3, Tone.HEAT_4)
"""Something as hot as that, by level."""

FILL = (Tone.FILL_0, Tone.FILL_1, Tone.FILL_2, Tone.FILL_3, Tone.FILL_4)
"""A name that stands on something as hot as that, by level."""

Piece: TypeAlias = tuple[str, Tone]


@dataclass(frozen=True, slots=True)
class Line:
    """A line; one that is selected is marked over its full width."""

    pieces: tuple[Piece, ...]
    selected: bool = False

    @property
    def text(self) -> str:
        """What it says."""
        return "".join(text for text, _ in self.pieces)


def line(*pieces: Piece) -> Line:
    """Return a line of these pieces."""
    return Line(tuple((printable(text), tone) for text, tone in pieces if text))


def ends(left: Sequence[Piece], right: Sequence[Piece], width: int) -> Line:
    """Return a line with pieces at both of its ends."""
    used = sum(len(text) for text, _ in (*left, *right))
    return line(*left, (" " * max(1, width - used), Tone.PLAIN), *right)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: its header.
        width: in characters.
        left: whether cells begin at its left side.
    """

    title: str
    width: int
    left: bool = False


_MARK = "▾"


class Columns:
    """The columns of a table, with a space between them."""

    def __init__(self, *columns: Column) -> None:
        self.columns = columns

    @property
    def width(self) -> int:
        """How wide the table is."""
        return sum(each.width for each in self.columns) + len(self.columns) - 1

    def head(self, sorted_by: str = "") -> Line:
        """Return the headers; that of the column which is sorted by has a mark beside it."""
        return self._line(
            [
                (each.title, Tone.SORTED if each.title == sorted_by else Tone.HEAD)
                for each in self.columns
            ]
        )

    def row(self, cells: Sequence[Piece], *, selected: bool = False) -> Line:
        """Return a line with a cell for each column."""
        return replace(self._line(cells), selected=selected)

    def _line(self, cells: Sequence[Piece]) -> Line:
        pieces: list[Piece] = []
        for column, (text, tone) in zip(self.columns, cells, strict=True):
            shown = fit(printable(text), column.width)
            padding = " " * (column.width - len(shown))
            gap = " " if pieces else ""
            mark = _MARK if tone is Tone.SORTED else ""
            if column.left:
                cell = (shown + mark + padding)[: column.width]
                pieces += [(gap, Tone.PLAIN), (cell, tone)]
            else:
                before = gap + padding
                pieces += [(before[: len(before) - len(mark)], Tone.PLAIN), (mark + shown, tone)]
        return Line(tuple(piece for piece in pieces if piece[0]))
