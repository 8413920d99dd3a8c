"""A tree that is drawn with lines."""

from __future__ import annotations

import pytest

from devicehost_client.ctl.tree_text import ASCII, BOX, draw, strokes_for
from devicehost_client.debug import Node

TREE = Node(
    "",
    nodes=(
        Node(
            "devices", nodes=(Node("com1", nodes=(Node("a", "1"), Node("long", ""))), Node("ram"))
        ),
        Node("now", "12"),
    ),
)


def test_a_tree_has_a_line_for_each_node_and_values_in_one_column() -> None:
    assert draw(TREE, BOX) == [
        "/",
        "├─ devices",
        "│  ├─ com1",
        "│  │  ├─ a     1",
        "│  │  └─ long  ",
        "│  └─ ram",
        "└─ now  12",
    ]


def test_a_part_is_called_by_its_path_and_what_is_cut_off_is_marked() -> None:
    part = Node("com1", "here", (Node("a"),), cut=True)
    assert draw(part, ASCII, name="devices/com1") == ["devices/com1  here", "|- a", "`- ..."]
    assert draw(Node("com1"), ASCII) == ["com1"]


@pytest.mark.parametrize(
    ("encoding", "strokes"), [("utf-8", BOX), ("ascii", ASCII), (None, ASCII), ("no-such", ASCII)]
)
def test_it_is_drawn_with_what_the_terminal_can_show(encoding: str | None, strokes: object) -> None:
    assert strokes_for(encoding) is strokes
