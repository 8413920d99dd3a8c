"""Durations as people type them: in seconds."""

from __future__ import annotations

SHORTEST_S = 0.001


def seconds(text: str, *, most: float) -> float:
    """Read a number of seconds.

    Args:
        text: a decimal number.
        most: the greatest number allowed; the least is a thousandth.

    Raises:
        ValueError: it isn't a number, or isn't allowed.
    """
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not SHORTEST_S <= found <= most:  # nor is it, if it is no number
        raise ValueError(f"{text!r} is not allowed; allowed: {SHORTEST_S:g} to {most:g} seconds")
    return found
