"""The values of settings: each function turns the text of one into what it stands for.

They raise ValueError, whose message says what is allowed.
"""

from __future__ import annotations

import re
from typing import Any

from devicehost_server.debug.flight import FLIGHT_MAX
from devicehost_server.devices.config import parse_int

NO_SOCKET = "none"
"""Stands for no local socket."""


def octal_mode(text: str) -> int:
    """Permissions."""
    # With a leading zero only: a number from TOML has lost the base it was written in.
    if not re.fullmatch("0[0-7]{3}", text):
        raise ValueError('allowed: permissions in octal, "0000" to "0777"')
    return int(text, 8)


def descriptor(text: str) -> int:
    """A file descriptor that is inherited."""
    if not (text.isdecimal() and int(text) >= 3):  # noqa: PLR2004 # 0 to 2 are standard streams
        raise ValueError("allowed: the number of a file descriptor, at least 3")
    return int(text)


def flag(text: str) -> bool:
    """Yes or no."""
    if text.lower() in ("true", "yes", "on", "1"):
        return True
    if text.lower() in ("false", "no", "off", "0"):
        return False
    raise ValueError("allowed: true, false")


def seconds(text: str) -> float:
    """A time limit."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.001 <= seconds <= 3600:  # noqa: PLR2004 # stands in the message
        raise ValueError("allowed: seconds, 0.001 to 3600")
    return seconds


def spin(text: str) -> float:
    """How long to spin, in seconds."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 0.01:  # noqa: PLR2004 # stands in the message
        raise ValueError("allowed: seconds, 0 to 0.01; 0 for never")
    return seconds


def path_or_none(text: str) -> str:
    """A path, or the word for none, as text."""
    if not text:
        raise ValueError(f"allowed: a path, or {NO_SOCKET!r}")
    return text


def count(text: str) -> int:
    """How many, from 1 to 1000."""
    if not (text.isdecimal() and 1 <= int(text) <= 1000):  # noqa: PLR2004 # likewise
        raise ValueError("allowed: 1 to 1000")
    return int(text)


def flight(text: str) -> int:
    """How many events to keep."""
    if not (text.isdecimal() and int(text) <= FLIGHT_MAX):
        raise ValueError(f"allowed: 0 to {FLIGHT_MAX}")
    return int(text)


def number(text: str) -> int:
    """A number."""
    try:
        return parse_int(text)
    except ValueError:
        raise ValueError("allowed: a number: decimal or 0x, with K, M, G or T") from None


def numbers(text: str) -> tuple[int, ...]:
    """Numbers, with commas between."""
    return tuple(number(part.strip()) for part in text.split(",") if part.strip())


def names(text: str) -> frozenset[str]:
    """Names, with commas between."""
    names = frozenset(name for part in text.split(",") if (name := part.strip()))
    if not names:  # it would let everybody in
        raise ValueError("allowed: at least one name")
    return names


def host_and_port(text: str) -> tuple[str, int]:
    """A TCP address."""
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) <= 0xFFFF):  # noqa: PLR2004 # 16 bits
        raise ValueError("allowed: HOST:PORT, for IPv6 [ADDRESS]:PORT")
    return host.strip("[]"), int(port)


def one_of(*words: str) -> Any:
    """Return what reads one of these words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"allowed: {', '.join(words)}")
        return text

    return parse
