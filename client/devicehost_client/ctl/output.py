"""What goes to stdout and stderr, as tables for people or as JSON for programs.

A command has both forms of its answer and gives both; the option `-o` chooses. Nothing
but the answer is on stdout. What comes from a server may hold anything: characters that
a terminal would act on are escaped.
"""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO, TypeAlias

from devicehost_client.errors import RemoteError

FORMATS = ("table", "json")

Json: TypeAlias = str | int | float | bool | Sequence["Json"] | Mapping[str, "Json"] | None


class Style(enum.Enum):
    """How a line looks on a terminal that has colours. The values are ECMA-48's (SGR)."""

    PLAIN = ""
    BAD = "31"  # red
    ODD = "33"  # yellow
    STRONG = "1"  # bold


_GAP = "  "
_NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Table:
    """Cells of text in rows.

    Attributes:
        columns: the headers.
        rows: each with a cell for each column.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def format_table(table: Table) -> str:
    """Return a table with aligned columns, a line for each row; an empty cell is a dash."""
    lines = [table.columns, *([_cell(text) for text in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(_line(line, widths) for line in lines)


def printable(text: str) -> str:
    """Return `text` with all that a terminal would act on escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def format_error(error: Exception, output_format: str) -> str:
    """Return an error as lines for stderr.

    As a table it is the message, and below it the reason and the facts that the server
    gave. As JSON it is one line: {"error": {"message", "code", "reason", "metadata"}},
    where all but the message are null if it wasn't the server that failed.
    """
    remote = error if isinstance(error, RemoteError) else None
    if output_format == "json":
        shape = {
            "message": str(error),
            "code": remote and remote.code.name,
            "reason": remote and remote.reason,
            "metadata": remote and remote.metadata,
        }
        return json.dumps({"error": shape}) + "\n"
    lines = [f"devicehostctl: {printable(str(error))}\n"]
    if remote is not None:
        facts = {
            "code": remote.code.name,
            "reason": remote.reason,
            **dict(sorted(remote.metadata.items())),
        }
        lines += [
            f"  {printable(name)}: {printable(fact)}\n" for name, fact in facts.items() if fact
        ]
    return "".join(lines)


def has_colours(stream: TextIO) -> bool:
    """Whether colours make sense: it is a terminal, and nobody asked for none (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Output:
    """Where a command writes its answer.

    Args:
        stream: stdout.
        output_format: one of `FORMATS`.

    Attributes:
        is_json: whether it is for programs.
    """

    def __init__(self, stream: TextIO, output_format: str) -> None:
        self._stream = stream
        self.is_json = output_format == "json"

    def show(self, shape: Json, table: Table) -> None:
        """Write an answer that is a table."""
        self.show_text(shape, format_table(table))

    def show_text(self, shape: Json, text: str) -> None:
        """Write an answer that is some text other than a table; it may be none at all."""
        self._stream.write(json.dumps(shape, indent=2) + "\n" if self.is_json else text)
        self._stream.flush()

    def stream(self, columns: Mapping[str, int]) -> OutputStream:
        """Begin an answer of lines that come one by one.

        Args:
            columns: the headers and the widths of their columns, in characters; none for an
                answer that is no table.
        """
        result = OutputStream(self._stream, list(columns.values()), is_json=self.is_json)
        if columns and not self.is_json:
            self._stream.write(_line(list(columns), result.widths))
            self._stream.flush()
        return result


class OutputStream:
    """Lines that come one by one; each is flushed.

    Attributes:
        widths: of the columns, in characters; a cell that is longer is shown all the same.
    """

    def __init__(self, stream: TextIO, widths: Sequence[int], *, is_json: bool) -> None:
        self.widths = widths
        self._stream = stream
        self._is_json = is_json
        self._has_colours = not is_json and has_colours(stream)

    def json(self, shape: Json) -> None:
        """Write a line, if the output is JSON."""
        if self._is_json:
            self._write(json.dumps(shape) + "\n")

    def row(self, *cells: str, style: Style = Style.PLAIN) -> None:
        """Write a line, if the output is a table."""
        if not self._is_json:
            self._write_styled(_line([_cell(text) for text in cells], self.widths), style)

    def text(self, line: str, style: Style = Style.PLAIN) -> None:
        """Write a line that stands by itself, if the output is a table."""
        if not self._is_json:
            self._write_styled(printable(line) + "\n", style)

    def prompt(self, text: str) -> None:
        """Write the beginning of a line that somebody else ends, if the output is a table."""
        if not self._is_json:
            self._write(text)

    def _write_styled(self, line: str, style: Style) -> None:
        if self._has_colours and style.value:
            line = f"\x1b[{style.value}m{line.removesuffix(chr(10))}\x1b[0m\n"
        self._write(line)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _cell(text: str) -> str:
    return printable(text) or _NOTHING


def _line(cells: Iterable[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return _GAP.join(padded).rstrip() + "\n"
