"""Tables, JSON and errors as text."""

from __future__ import annotations

import io
import json
import os
import pty
from collections.abc import Callable
from contextlib import suppress

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_client import ConnectionLost, RemoteError
from devicehost_client.ctl.output import (
    Output,
    Style,
    Table,
    format_error,
    format_table,
    printable,
)


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    table = Table(("ID", "TYPE"), [("a", "scratch"), ("longer", "x")])
    assert format_table(table) == "ID      TYPE\na       scratch\nlonger  x\n"


def test_a_table_without_rows_is_its_header() -> None:
    assert format_table(Table(("ID", "TYPE"), [])) == "ID  TYPE\n"


def test_an_empty_cell_is_a_dash_so_that_columns_can_be_counted() -> None:
    assert format_table(Table(("A", "B", "C"), [("", "b", "")])).splitlines()[1].split() == [
        "-",
        "b",
        "-",
    ]


def test_what_a_terminal_would_act_on_is_escaped() -> None:
    assert printable("a\x1b[2Jb\nc\r\u202e") == r"a\x1b[2Jb\nc\r\u202e"
    assert printable("naïve 文 -") == "naïve 文 -"


@given(st.lists(st.tuples(st.text(), st.text())))
def test_a_table_has_one_line_for_each_row_whatever_is_in_it(rows: list[tuple[str, str]]) -> None:
    text = format_table(Table(("A", "B"), rows))
    assert len(text.splitlines()) == len(rows) + 1
    assert text.replace("\n", "").isprintable()


def test_json_has_no_table_and_a_table_has_no_json() -> None:
    table = Table(("ID",), [("a",)])
    as_table, as_json = io.StringIO(), io.StringIO()
    Output(as_table, "table").show({"ids": ["a"]}, table)
    Output(as_json, "json").show({"ids": ["a"]}, table)
    assert as_table.getvalue() == "ID\na\n"
    assert json.loads(as_json.getvalue()) == {"ids": ["a"]}


class Flushed(io.StringIO):
    """Counts the flushes, and what was there at the last one."""

    seen = ""

    def flush(self) -> None:
        self.seen = self.getvalue()


def test_lines_of_a_table_come_one_by_one_below_the_header() -> None:
    stream = Flushed()
    lines = Output(stream, "table").stream({"EVENT": 8, "ID": 0})
    assert stream.seen == "EVENT     ID\n"
    lines.json({"event": "plugged"})
    lines.row("plugged", "a")
    assert stream.seen == "EVENT     ID\nplugged   a\n"
    lines.row("longer than its column", "b")
    assert stream.seen.endswith("\nlonger than its column  b\n")


def test_lines_of_json_are_an_object_each() -> None:
    stream = Flushed()
    lines = Output(stream, "json").stream({"EVENT": 8})
    lines.row("plugged")
    lines.json({"event": "plugged"})
    lines.json({"event": "unplugged"})
    assert [json.loads(line)["event"] for line in stream.seen.splitlines()] == [
        "plugged",
        "unplugged",
    ]


def no_device() -> RemoteError:
    facts = {"size": "4", "address": "0x10"}
    return RemoteError("no device at mmio 0x10", grpc.StatusCode.NOT_FOUND, "NO_DEVICE", facts)


def test_an_error_of_the_server_shows_its_message_reason_and_facts() -> None:
    assert format_error(no_device(), "table").splitlines() == [
        "devicehostctl: no device at mmio 0x10",
        "  code: NOT_FOUND",
        "  reason: NO_DEVICE",
        "  address: 0x10",
        "  size: 4",
    ]


def test_an_error_of_the_server_is_one_object_in_json() -> None:
    (line,) = format_error(no_device(), "json").splitlines()
    assert json.loads(line) == {
        "error": {
            "message": "no device at mmio 0x10",
            "code": "NOT_FOUND",
            "reason": "NO_DEVICE",
            "metadata": {"address": "0x10", "size": "4"},
        }
    }


def test_a_server_that_gives_no_reason_is_not_given_one() -> None:
    error = RemoteError("Method not found!", grpc.StatusCode.UNIMPLEMENTED)
    assert format_error(error, "table") == (
        "devicehostctl: Method not found!\n  code: UNIMPLEMENTED\n"
    )


@pytest.mark.parametrize("output_format", ["table", "json"])
def test_an_error_that_is_not_the_servers_is_its_message(output_format: str) -> None:
    text = format_error(ConnectionLost("gone"), output_format)
    if output_format == "json":
        error = json.loads(text)["error"]
        assert error == {"message": "gone", "code": None, "reason": None, "metadata": None}
    else:
        assert text == "devicehostctl: gone\n"


def test_a_message_of_the_server_can_not_reach_the_terminal() -> None:
    error = RemoteError("\x1b[2J", grpc.StatusCode.INTERNAL, "A\nB", {"k\n": "\x07"})
    text = format_error(error, "table")
    assert text.replace("\n", "").isprintable()
    assert len(text.splitlines()) == 4


def on_a_terminal(write: Callable[[Output], None]) -> str:
    """What a terminal gets."""
    ours, theirs = pty.openpty()
    with open(theirs, "w", encoding="utf-8") as stream:  # noqa: PTH123 # it is a descriptor
        write(Output(stream, "table"))
    shown = b""
    with suppress(OSError):  # EIO: there is no more, and nobody to write any
        while data := os.read(ours, 4096):
            shown += data
    os.close(ours)
    return shown.decode()


def one_bad_line(output: Output) -> None:
    output.stream({"EVENT": 8, "ID": 0}).row("\x1b[2J", "b", style=Style.BAD)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return monkeypatch


@pytest.mark.usefixtures("terminal")
def test_a_line_is_coloured_on_a_terminal() -> None:
    _, line = on_a_terminal(one_bad_line).splitlines()
    assert line == "\x1b[31m\\x1b[2J   b\x1b[0m"


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_line_is_not_coloured_when_nobody_wants_that(
    terminal: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    terminal.setenv(variable, value)
    assert on_a_terminal(one_bad_line).splitlines()[1] == "\\x1b[2J   b"


def test_a_line_is_not_coloured_in_a_file() -> None:
    stream = io.StringIO()
    one_bad_line(Output(stream, "table"))
    assert stream.getvalue().splitlines()[1] == "\\x1b[2J   b"


def test_lines_that_stand_by_themselves_have_no_header_and_none_in_json() -> None:
    as_table, as_json = io.StringIO(), io.StringIO()
    for stream, output_format in ((as_table, "table"), (as_json, "json")):
        lines = Output(stream, output_format).stream({})
        lines.text("a\x07")
        lines.prompt("(held) ")
        lines.json({"event": "hit"})
    assert as_table.getvalue() == "a\\x07\n(held) "
    assert as_json.getvalue() == '{"event": "hit"}\n'
