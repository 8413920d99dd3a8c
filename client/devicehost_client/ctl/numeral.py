"""Numbers as people type them: decimal, or 0x."""

from __future__ import annotations

import re

U32_MAX = (1 << 32) - 1
U64_MAX = (1 << 64) - 1

_NUMERAL = re.compile(r"[0-9]{1,20}|0[xX][0-9a-fA-F]+")


def number(text: str, *, least: int = 0, most: int = U64_MAX) -> int:
    """Read a number.

    Args:
        text: decimal (up to 20 digits, which is all that 64 bits have), or 0x.
        least: the least number allowed.
        most: the greatest number allowed.

    Raises:
        ValueError: it isn't a number, or isn't allowed.
    """
    if _NUMERAL.fullmatch(text):
        found = int(text, 16 if text[:2].lower() == "0x" else 10)
        if least <= found <= most:
            return found
    raise ValueError(f"{text!r} is not allowed; allowed: {least} to {most:#x}, in decimal or 0x")
