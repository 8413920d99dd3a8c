"""A screen as SVG that looks the same wherever it is shown.

textual's SVG asks for a font from the network, which no page that embeds a picture fetches,
and with another font blocks and lines have gaps. So here blocks and lines are drawn, each
word begins where its cells do, and the font is one that the reader has.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

_CELL_W, _CELL_H = 12.2, 24.4
_TOP = 18.5
"""How far the top of a cell is above the base line of its text."""

_FONT = '"DejaVu Sans Mono", Menlo, "Liberation Mono", Consolas, monospace'
_FONT_SIZE = "20.2px"  # so that a character of these is as wide as a cell

_TEXT = re.compile(
    r'<text class="(?P<style>[\w-]+-r\d+)" x="(?P<x>[\d.]+)" y="(?P<y>[\d.]+)"'
    r' textLength="[\d.]+" clip-path="[^"]*">(?P<text>[^<]*)</text>'
)
_COLOUR = re.compile(r"\.(?P<style>[\w-]+-r\d+) \{ fill: (?P<colour>#\w+)")
_FONT_FACE = re.compile(r"\s*@font-face \{[^}]*\}")
_RUNS = re.compile(
    r"(?P<columns>[▁▂▃▄▅▆▇█]+)|(?P<bars>━*╸|━+)|(?P<shades>[░▒▓]+)|(?P<line>─+)"
    r"|(?P<corners>[│╭╮╰╯]+)|(?P<word>[^\xa0▁▂▃▄▅▆▇█━╸░▒▓─│╭╮╰╯]+)"
)
_SHADES = {"░": 0.3, "▒": 0.55, "▓": 0.8}
_STROKE = 1.5
_BAR = 7.0


def portable(svg: str) -> str:
    """Return textual's SVG without a font of its own, and with blocks and lines drawn."""
    colours = {match["style"]: match["colour"] for match in _COLOUR.finditer(svg)}
    drawn = _TEXT.sub(lambda match: "".join(_pieces(match, colours)), svg)
    drawn = _FONT_FACE.sub("", drawn)
    drawn = drawn.replace("font-family: Fira Code, monospace;", f"font-family: {_FONT};")
    return drawn.replace("font-size: 20px;", f"font-size: {_FONT_SIZE};", 1)


def _pieces(match: re.Match[str], colours: dict[str, str]) -> Iterator[str]:
    """Draw a piece of text: words, and all else by its shape."""
    style, y = match["style"], float(match["y"])
    top = y - _TOP
    for run in _RUNS.finditer(html.unescape(match["text"])):
        text = run[0]
        x = float(match["x"]) + run.start() * _CELL_W
        width = len(text) * _CELL_W
        match run.lastgroup:
            case "word":
                yield (
                    f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" textLength="{width:.1f}">'
                    f"{html.escape(text, quote=False)}</text>"
                )
            case "columns":
                for part in re.finditer(r"(.)\1*", text):
                    height = _CELL_H * ("▁▂▃▄▅▆▇█".index(part[1]) + 1) / 8
                    at = x + part.start() * _CELL_W
                    yield _rect(
                        style,
                        (at, top + _CELL_H - height),
                        (len(part[0]) * _CELL_W, height),
                    )
            case "bars":
                length = width - (_CELL_W / 2 if text.endswith("╸") else 0)
                yield _rect(style, (x, top + (_CELL_H - _BAR) / 2), (length, _BAR))
            case "shades":
                opacity = f' fill-opacity="{_SHADES[text[0]]}"'
                yield _rect(style, (x, top), (width, _CELL_H), opacity)
            case "line":
                yield _path(colours[style], f"M{x:.1f} {top + _CELL_H / 2:.1f}h{width:.1f}")
            case _:
                for n, char in enumerate(text):
                    yield _path(colours[style], _corner(char, x + n * _CELL_W, top))


def _corner(char: str, left: float, top: float) -> str:
    """The path of a line that goes up or down."""
    right, bottom = left + _CELL_W, top + _CELL_H
    x, y = left + _CELL_W / 2, top + _CELL_H / 2
    begin = bottom if char in "╭╮" else top
    end = right if char in "╭╰" else left
    if char == "│":
        return f"M{x:.1f} {top:.1f}V{bottom + 0.2:.1f}"
    return f"M{x:.1f} {begin:.1f}Q{x:.1f} {y:.1f} {end:.1f} {y:.1f}"


def _rect(style: str, at: tuple[float, float], size: tuple[float, float], more: str = "") -> str:
    return (
        f'<rect class="{style}" x="{at[0]:.1f}" y="{at[1]:.1f}" width="{size[0]:.1f}"'
        f' height="{size[1]:.1f}" shape-rendering="crispEdges"{more}/>'
    )


def _path(colour: str, path: str) -> str:
    return f'<path d="{path}" stroke="{colour}" stroke-width="{_STROKE}" fill="none"/>'
