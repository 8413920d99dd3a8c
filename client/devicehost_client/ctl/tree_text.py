"""A tree of a server's state, drawn with lines.

devices
├─ com1
│  └─ type  uart16550
└─ ram
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from devicehost_client.debug import Node


@dataclass(frozen=True, slots=True)
class Strokes:
    """What a tree is drawn with: before a node, before the last one, and below each."""

    node: str
    last: str
    below: str
    below_last: str


BOX = Strokes("├─ ", "└─ ", "│  ", "   ")
ASCII = Strokes("|- ", "`- ", "|  ", "   ")

_CUT = "..."


def strokes_for(encoding: str | None) -> Strokes:
    """Return the finest strokes that an encoding of characters has."""
    try:
        (BOX.node + BOX.last + BOX.below).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BOX


def draw(node: Node, strokes: Strokes, *, name: str | None = None) -> list[str]:
    """Return a tree as lines.

    Args:
        node: its root.
        strokes: what it is drawn with.
        name: what its root is called, if not by its name.
    """
    return [_label(node, name or node.name or "/", 0), *_below(node, strokes, "")]


def _below(node: Node, strokes: Strokes, margin: str) -> Iterator[str]:
    # Values of neighbours are in one column.
    width = max((len(each.name) for each in node.nodes if each.value is not None), default=0)
    for position, each in enumerate(node.nodes, 1):
        is_last = position == len(node.nodes) and not node.cut
        yield margin + (strokes.last if is_last else strokes.node) + _label(each, each.name, width)
        yield from _below(
            each, strokes, margin + (strokes.below_last if is_last else strokes.below)
        )
    if node.cut:
        yield margin + strokes.last + _CUT


def _label(node: Node, name: str, width: int) -> str:
    return name if node.value is None else f"{name.ljust(width)}  {node.value}"
