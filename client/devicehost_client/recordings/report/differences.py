"""What a replay found to be different, as it wrote it.

A JSON object for each difference, on a line of its own:

    {"event": 1201, "device": "com1", "register": "LSR", "what": "read",
     "expected": "60", "got": "20", "text": "event 1201: com1: read of LSR ..."}

All members are optional but `event`, the number of the event in the recording. It may also
be wrapped, as `python -m devicehost_server.replay` does it: `{"difference": {...}}`; lines
with a `progress` or a `summary` are passed over. Or the differences are in one document, as
`devicehostctl replay -o json` writes it: `{"differences": [{...}], "summary": {...}}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

DIFFERENCES_MAX = 1000
"""How many are kept; there may be one for each event."""


_OTHERS = {"progress", "summary"}
_SHOWN_MAX = 60


class BadDifferences(ValueError):
    """What was given isn't what a replay writes."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that a replay did otherwise.

    Attributes:
        event: the number of the event.
        device: whose.
        register: which, if it is one.
        what: differs, in a word.
        expected: what is in the recording.
        got: what the replay got.
        text: all that in a sentence.
    """

    event: int
    device: str = ""
    register: str = ""
    what: str = ""
    expected: str = ""
    got: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Differences:
    """What differs.

    Attributes:
        kept: the first.
        count: how many there are.
    """

    kept: tuple[Difference, ...]
    count: int


def read_differences(text: str) -> Differences:
    """Read what a replay wrote.

    Raises:
        BadDifferences: it isn't that; says where it is wrong.
    """
    found = [_difference(where, each) for where, each in _found(text)]
    return Differences(tuple(found[:DIFFERENCES_MAX]), len(found))


def _found(text: str) -> Iterator[tuple[str, object]]:
    """Go through the differences as JSON, and where each of them is."""
    try:
        document = json.loads(text)
    except ValueError:
        document = None  # an object on each line, or nothing at all
    if isinstance(document, dict) and isinstance(document.get("differences"), list):
        for number, each in enumerate(document["differences"]):
            yield f"difference {number}", each
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            where = f"line {number}"
            members = _parsed(where, line)
            if not _OTHERS & members.keys():
                yield where, members.get("difference", members)


def _parsed(where: str, line: str) -> dict[str, object]:
    try:
        members = json.loads(line)
    except ValueError as error:
        raise BadDifferences(f"{where} is not JSON: {error}") from error
    if not isinstance(members, dict):
        raise BadDifferences(f"{where} is not a JSON object: {line[:_SHOWN_MAX]!r}")
    return members


def _difference(where: str, members: object) -> Difference:
    if not isinstance(members, dict):
        raise BadDifferences(f"{where} is not a JSON object: {str(members)[:_SHOWN_MAX]!r}")
    event = members.get("event")
    if not isinstance(event, int) or isinstance(event, bool) or event < 0:
        raise BadDifferences(f"{where}: event is {event!r}, but must be a number from 0 on")
    texts = {
        name: _text(members[name])
        for name in ("device", "register", "what", "expected", "got", "text")
        if members.get(name) is not None
    }
    return Difference(event, **{**_registers(members), **texts})


def _registers(members: dict[str, object]) -> dict[str, str]:
    """Return what is said of registers, where a replay says it in a list of its own."""
    texts = {}
    for name, member in (("expected", "registers_expected"), ("got", "registers_got")):
        registers = members.get(member)
        if isinstance(registers, list):
            known = [each for each in registers if isinstance(each, dict)]
            texts[name] = "; ".join(_text(each.get("text", "")) for each in known)
            texts["register"] = "+".join(_text(each.get("register", "")) for each in known)
    return texts


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
