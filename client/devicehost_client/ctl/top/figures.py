"""Numbers as text of a few characters, bars and sparklines."""

from __future__ import annotations

from collections.abc import Sequence

_STEP = 1000
_EXACT_BELOW = 9.95
_TENTHS_BELOW = 99.95
_UPWARDS = " ▁▂▃▄▅▆▇█"
_HEIGHTS = _UPWARDS[1:-1]  # so that graphs one above the other don't touch

HEAT_LEVELS = 4
"""How hot something can be; 0 is not at all."""

HEAT_GLYPHS = "╌░▒▓█"
"""A character for each level."""


def rate_text(rate: float) -> str:
    """Show a number per second in five characters at most: `0`, `0.4`, `123`, `12.3k`."""
    if rate <= 0:
        return "0"
    if rate < _EXACT_BELOW:
        return f"{max(rate, 0.1):.1f}"
    for unit in ("", "k", "M", "G"):
        if rate < _STEP - 0.5 or unit == "G":
            break
        rate /= _STEP
    return f"{rate:.1f}{unit}" if unit and rate < _TENTHS_BELOW else f"{rate:.0f}{unit}"


def count_text(count: int) -> str:
    """Show a number in five characters at most: `2`, `123`, `12.3k`."""
    return str(count) if count < _STEP else rate_text(count)


def bar(part: float, width: int) -> str:
    """Return a bar of `width` cells of which `part`, 0 to 1, is drawn, to half a cell.

    What isn't 0 can be seen.
    """
    halves = min(2 * width, max(int(part > 0), round(part * 2 * width)))
    full, rest = divmod(halves, 2)
    return ("━" * full + "╸" * rest).ljust(width)


def sparkline(values: Sequence[float | None]) -> str:
    """Return a character for each value, as high as it is; the greatest has the full height.

    Only a 0 has the least height, and None is a blank.
    """
    most = max((value for value in values if value is not None), default=0.0)
    return "".join(_height(value, most) for value in values)


def mountain(values: Sequence[float | None], height: int) -> list[str]:
    """Return a bar upwards for each value, as lines from the top; None is a blank."""
    most = max((value for value in values if value is not None), default=0.0)
    eighths = [
        -1 if value is None else max(1, round(value / most * 8 * height)) if most else 1
        for value in values
    ]
    return [
        "".join(_UPWARDS[min(8, max(0, each - 8 * row))] for each in eighths)
        for row in range(height - 1, -1, -1)
    ]


def _height(value: float | None, most: float) -> str:
    if value is None:
        return " "
    if value <= 0:
        return _HEIGHTS[0]
    return _HEIGHTS[max(1, round(value / most * (len(_HEIGHTS) - 1)))]


def heat(rate: float, hottest: float) -> int:
    """How hot a rate is beside the hottest: 0 is none at all, and each level is 8 times more."""
    if rate <= 0:
        return 0
    level = HEAT_LEVELS
    while level > 1 and rate < hottest:
        hottest /= 8
        level -= 1
    return level


def fit(text: str, width: int) -> str:
    """Cut a text to `width` characters."""
    return text if len(text) <= width else f"{text[: max(0, width - 1)]}…"[:width]


def fit_left(text: str, width: int) -> str:
    """Cut a text to `width` characters at its beginning: the end of a path says more."""
    return text if len(text) <= width else f"…{text[len(text) - max(0, width - 1) :]}"[:width]
