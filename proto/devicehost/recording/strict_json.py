"""JSON as every language has it: objects, with a limit, without NaN and infinities."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from devicehost.recording.layout import HEADER_MAX, BadRecording


def dump(what: str, value: dict[str, object]) -> bytes:
    """Encode an object.

    Args:
        what: what it is, for errors.
        value: the object.

    Raises:
        ValueError: it isn't JSON, or has too many bytes.
    """
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{what} isn't JSON: {error}") from error
    if len(text) > HEADER_MAX:
        raise ValueError(f"{what} has {len(text)} bytes of JSON, but may have {HEADER_MAX}")
    return text


def load(what: str, text: bytes) -> dict[str, Any]:
    """Decode an object.

    Raises:
        BadRecording: it isn't one, or has too many bytes.
    """
    if len(text) > HEADER_MAX:
        raise BadRecording(f"{what} has {len(text)} bytes of JSON, but may have {HEADER_MAX}")
    try:
        value = json.loads(text.decode(), parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise BadRecording(f"{what} isn't JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadRecording(f"{what} is a {type(value).__name__}, but must be a JSON object")
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)
