"""Panes: parts of the screen that draw lines, as large as they happen to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from textual.content import Content
from textual.events import Click
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from devicehost_client.ctl.top.lines import Line
from devicehost_client.ctl.top.palette import palette_of

Draw: TypeAlias = Callable[[int, int], list[Line]]
"""Returns the lines for a width and a height, in characters."""


class Pane(Widget):
    """Draws lines.

    Args:
        draw: returns them.
        pane_id: its name in the style sheet.
        title: stands on its border.

    Attributes:
        wanted: how many lines it has use for, where the style sheet leaves its height to it.
    """

    wanted = reactive(1, layout=True)

    @dataclass
    class Clicked(Message):
        """Somebody clicked at a column and a line of a pane's content."""

        pane: str
        x: int
        y: int

    def __init__(self, draw: Draw, pane_id: str, title: str = "") -> None:
        super().__init__(id=pane_id, classes="pane")
        self._draw = draw
        self.border_title = title

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Say how many lines it has use for."""
        del container, viewport, width
        return self.wanted

    def render(self) -> Content:
        """Draw them."""
        width, height = self.content_size
        return palette_of(self.app).painted(self._draw(width, height)[:height], width)

    def on_click(self, event: Click) -> None:
        """Tell where it was."""
        offset = event.get_content_offset(self)
        if offset is not None and self.id is not None:
            self.post_message(self.Clicked(self.id, offset.x, offset.y))
