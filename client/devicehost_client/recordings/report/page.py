"""The survey and the files of the page become one file.

Invariants:
    The page fetches nothing, and may not: its policy allows its own style and script only,
    by their hashes.
    What comes from a recording is in one place of the page, compressed and in base64: no
    byte of it is markup. The script shows it as text only.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import zlib
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any, BinaryIO

_SCRIPTS = ("text.js", "canvas.js", "timeline.js", "charts.js", "tables.js", "page.js")
_LEVEL = 9


def write_report(survey: Mapping[str, Any], out: BinaryIO) -> None:
    """Write the page of a survey.

    Raises:
        OSError: it can't be written.
    """
    style = _file("page.css")
    script = "\n".join(_file(name) for name in _SCRIPTS)
    page = Template(_file("page.html")).substitute(
        policy="; ".join(
            (
                "default-src 'none'",
                f"style-src 'sha256-{_hash(style)}'",
                f"script-src 'sha256-{_hash(script)}'",
                "base-uri 'none'",
                "form-action 'none'",
            )
        ),
        title=html.escape(str(survey["name"])),
        style=style,
        script=script,
        data=_packed(survey),
    )
    out.write(page.encode(errors="replace"))


def _packed(survey: Mapping[str, Any]) -> str:
    encoded = json.dumps(survey, separators=(",", ":")).encode()
    return base64.b64encode(zlib.compress(encoded, _LEVEL)).decode()


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _file(name: str) -> str:
    return (files(__package__) / name).read_text("utf-8")
