"""A recording as JSON lines: its header, an event on each line, and how it ended.

    {"kind": "recording", "header": {...}}
    {"event": 0, "kind": "access", "time_ns": 81120031, ...}
    {"kind": "end", "events": 1, "lost": 0, "complete": true, "damage": null}

What an event has is in `shapes.EVENT_HELP`.
"""

from __future__ import annotations

import json
from typing import BinaryIO

from devicehost_client.recordings.shapes import event_shape
from devicehost_client.recordings.source import Source


def write_json_lines(source: Source, out: BinaryIO) -> None:
    """Go through a recording and write it.

    Raises:
        OSError: it can't be written.
    """
    encode = json.JSONEncoder(separators=(",", ":")).encode
    out.write(encode({"kind": "recording", "header": source.header.to_json()}).encode() + b"\n")
    out.writelines(encode(event_shape(number, seen)).encode() + b"\n" for number, seen in source)
    end = {
        "kind": "end",
        "events": source.events,
        "lost": source.lost,
        "complete": source.is_complete,
        "damage": source.damage,
    }
    out.write(encode(end).encode() + b"\n")
