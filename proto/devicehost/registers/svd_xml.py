"""Reads the XML of an SVD file, as it may come from a stranger, and the words in it.

A document type is refused, and with it entities that grow. How much there is, and how deep,
is limited.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import NoReturn
from xml.parsers import expat

from devicehost.registers.errors import BadRegisterMap
from devicehost.registers.limits import MAX_NAME, MAX_TEXT

MAX_FILE = 64 << 20
"""Characters of a file."""

MAX_ELEMENTS = 4_000_000
"""Elements in a file."""

MAX_DEPTH = 64
"""Elements in each other."""

_NUMBER = re.compile(r"\+?(?:0[xX]([0-9a-fA-F]+)|(?:#|0[bB])([01]+)|([0-9]+))([kmgtKMGT]?)")
_BITS = re.compile(r"\[([0-9]{1,4}):([0-9]{1,4})\]")
_BITS_MAX = 1 << 10
_NUMBER_MAX = 80  # characters
_SCALES = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_SHOWN = 60


def parse(text: str) -> ET.Element:
    """Return the root element of a file.

    Raises:
        BadRegisterMap: it isn't well-formed, has a document type, or is too large.
    """
    if len(text) > MAX_FILE:
        raise BadRegisterMap(f"SVD: {len(text)} characters; allowed: {MAX_FILE}")
    reader = _Reader()
    try:
        return reader.read(text)
    except (expat.ExpatError, UnicodeEncodeError) as error:
        raise BadRegisterMap(f"SVD: not well-formed XML: {error}") from error


class _Reader:
    def __init__(self) -> None:
        self._builder = ET.TreeBuilder()
        self._depth = 0
        self._elements = 0

    def read(self, text: str) -> ET.Element:
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._builder.data
        parser.StartDoctypeDeclHandler = self._refuse
        parser.Parse(text, True)  # noqa: FBT003 # the parser's own interface
        return self._builder.close()

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._elements += 1
        if self._depth > MAX_DEPTH or self._elements > MAX_ELEMENTS:
            raise BadRegisterMap(
                f"SVD: more than {MAX_ELEMENTS} elements, or {MAX_DEPTH} in each other"
            )
        self._builder.start(tag, attributes)

    def _end(self, tag: str) -> None:
        self._depth -= 1
        self._builder.end(tag)

    def _refuse(self, *_: object) -> NoReturn:
        raise BadRegisterMap("SVD: it has a document type (DOCTYPE); allowed: none")


def text_of(element: ET.Element, tag: str) -> str:
    """Return the text of a child on one line, at most `MAX_TEXT`; empty if there is none."""
    text = (element.findtext(tag) or "")[: 2 * MAX_TEXT].replace("\\n", " ")
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= MAX_TEXT else f"{line[: MAX_TEXT - 3]}..."


def name_of(element: ET.Element) -> str:
    """Return the name of an element, with a %s where an index has its place.

    Raises:
        BadRegisterMap: it is too long.
    """
    name = (element.findtext("name") or "").strip()
    if len(name) > MAX_NAME:
        raise bad(element, f"a name of {len(name)} characters; allowed: {MAX_NAME}")
    return name


def number_of(element: ET.Element, tag: str) -> int | None:
    """Return the number in a child; None if there is no such child.

    Raises:
        BadRegisterMap: it isn't a number.
    """
    text = element.findtext(tag)
    if text is None:
        return None
    value = number(text)
    if value is None:
        raise bad(
            element, f"{tag} {text.strip()[:_SHOWN]!r}; allowed: a number, as 0x1F, 31, #11111"
        )
    return value


def number(text: str) -> int | None:
    """Return a number as SVD writes it: 0x1F, 31, #11111 or 4k; None if it isn't one."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None or len(text) > _NUMBER_MAX:
        return None
    hexadecimal, binary, decimal, scale = match.groups()
    value = int(hexadecimal, 16) if hexadecimal else int(binary, 2) if binary else int(decimal)
    return value << _SCALES[scale.lower()]


def position(element: ET.Element) -> tuple[int, int]:
    """Return the lowest bit of a field, and how many it has.

    Raises:
        BadRegisterMap: it doesn't say, or has none.
    """
    bits = _BITS.fullmatch("".join((element.findtext("bitRange") or "").split()))
    lsb, msb = number_of(element, "lsb"), number_of(element, "msb")
    offset, width = number_of(element, "bitOffset"), number_of(element, "bitWidth")
    if bits:
        msb, lsb = int(bits[1]), int(bits[2])
    elif offset is not None:
        lsb, msb = offset, offset + (1 if width is None else width) - 1
    if lsb is None or msb is None or not 0 <= lsb <= msb < _BITS_MAX:
        raise bad(
            element, f"no bits; allowed: bitRange, lsb and msb, or bitOffset, below {_BITS_MAX}"
        )
    return lsb, msb - lsb + 1


def bad(element: ET.Element, what: str) -> BadRegisterMap:
    """Return the error about an element, called by its name."""
    return BadRegisterMap(f"SVD: {element.tag} {text_of(element, 'name')[:_SHOWN]}: {what}")
