"""Colours: what a tone looks like on dark, on light, and where there are none.

The view paints its own background, so it can be read on any terminal. Where NO_COLOR asks
for none (no-color.org) it is left to the terminal, and tones are bold, dim or reversed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from textual.app import App
from textual.content import Content
from textual.theme import Theme

from devicehost_client.ctl.top.lines import Line, Tone

DARK = Theme(
    name="devicehost-dark",
    primary="#6cb6ff",
    secondary="#8b98ad",
    accent="#f0a83a",
    warning="#e3b341",
    error="#ff7b6b",
    success="#56d39b",
    foreground="#d7dee9",
    background="#0d131c",
    surface="#121a26",
    panel="#1a2433",
    dark=True,
    variables={"edge": "#2c3a4f", "edge-title": "#8fb8e8"},
)
LIGHT = Theme(
    name="devicehost-light",
    primary="#0b5cad",
    secondary="#5a6675",
    accent="#a85f00",
    warning="#8a6100",
    error="#c02717",
    success="#157a46",
    foreground="#1c2530",
    background="#fbfbf9",
    surface="#f3f4f3",
    panel="#e7eaee",
    dark=False,
    variables={"edge": "#bac4d0", "edge-title": "#0b5cad"},
)


@dataclass(frozen=True, slots=True)
class Palette:
    """A style for each tone, in textual's words, and one for a line that is selected."""

    styles: Mapping[Tone, str]
    selected: str

    def painted(self, lines: Iterable[Line], width: int) -> Content:
        """Return lines in colour; a selected one is filled up to `width`."""
        return Content("\n").join([self._line(each, width) for each in lines])

    def _line(self, each: Line, width: int) -> Content:
        content = Content.assemble(*((text, self.styles[tone]) for text, tone in each.pieces))
        if not each.selected:
            return content
        return content.pad_right(max(0, width - len(each.text))).stylize(self.selected)


_DARK = Palette(
    {
        Tone.PLAIN: "",
        Tone.DIM: "#7d8aa0",
        Tone.STRONG: "bold #f2f6fc",
        Tone.HEAD: "#8b98ad",
        Tone.SORTED: "bold #f0a83a",
        Tone.TITLE: "bold #6cb6ff",
        Tone.GOOD: "bold #56d39b",
        Tone.ODD: "bold #e3b341",
        Tone.BAD: "bold #ff7b6b",
        Tone.READ: "#79c7ff",
        Tone.WRITE: "#e6a8f0",
        Tone.SPARK: "#56d39b",
        Tone.BAR: "#4f9fe8",
        Tone.CHANGED: "bold #f0a83a",
        Tone.HEAT_0: "#35435a",
        Tone.HEAT_1: "#3b82b0",
        Tone.HEAT_2: "#3fae83",
        Tone.HEAT_3: "#e3b341",
        Tone.HEAT_4: "#ff6b4a",
        Tone.FILL_0: "#9aa7bb",
        Tone.FILL_1: "bold #ffffff on #2a5f83",
        Tone.FILL_2: "bold #06130d on #3fae83",
        Tone.FILL_3: "bold #1a1300 on #e3b341",
        Tone.FILL_4: "bold #220600 on #ff6b4a",
        Tone.FILL_SELECTED: "bold #0d131c on #f2f6fc",
    },
    "on #22324a",
)
_LIGHT = Palette(
    {
        Tone.PLAIN: "",
        Tone.DIM: "#66717f",
        Tone.STRONG: "bold #0d141c",
        Tone.HEAD: "#5a6675",
        Tone.SORTED: "bold #a85f00",
        Tone.TITLE: "bold #0b5cad",
        Tone.GOOD: "bold #157a46",
        Tone.ODD: "bold #8a6100",
        Tone.BAD: "bold #c02717",
        Tone.READ: "#0b5cad",
        Tone.WRITE: "#8a2f9c",
        Tone.SPARK: "#157a46",
        Tone.BAR: "#2f7cc7",
        Tone.CHANGED: "bold #a85f00",
        Tone.HEAT_0: "#b4bdc8",
        Tone.HEAT_1: "#5b9cc4",
        Tone.HEAT_2: "#2f9468",
        Tone.HEAT_3: "#c08a00",
        Tone.HEAT_4: "#d0431f",
        Tone.FILL_0: "#5a6675",
        Tone.FILL_1: "bold #06202f on #9cc8e2",
        Tone.FILL_2: "bold #ffffff on #237a55",
        Tone.FILL_3: "bold #1a1300 on #e8b83a",
        Tone.FILL_4: "bold #ffffff on #c23a18",
        Tone.FILL_SELECTED: "bold #ffffff on #1c2530",
    },
    "on #d5e4f5",
)
_PLAIN = Palette(
    {
        **dict.fromkeys(Tone, ""),
        Tone.DIM: "dim",
        Tone.STRONG: "bold",
        Tone.SORTED: "bold underline",
        Tone.TITLE: "bold",
        Tone.GOOD: "bold",
        Tone.ODD: "bold",
        Tone.BAD: "bold reverse",
        Tone.CHANGED: "bold",
        Tone.FILL_SELECTED: "bold reverse",
    },
    "reverse",
)

_LIGHT_BACKGROUNDS = ("7", "15")


def palette_of(app: App[object]) -> Palette:
    """Return the palette for what an app looks like now."""
    if app.no_color:
        return _PLAIN
    return _DARK if app.current_theme.dark else _LIGHT


def first_theme() -> Theme:
    """Return the theme to begin with: light where the terminal says that it is."""
    background = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    return LIGHT if background in _LIGHT_BACKGROUNDS else DARK
