"""A register map as a document for people."""

from __future__ import annotations

from devicehost.registers import (
    Access,
    Field,
    OnRead,
    OnWrite,
    Register,
    RegisterMap,
    Via,
    When,
    document,
)

CLOCK = RegisterMap(
    "clock",
    (
        Register("INDEX", 0, access=Access.WRITE_ONLY, help="which byte"),
        Register("DATA", 1, reset=None),
        Register(
            "B",
            0x0B,
            help="what interrupts | and how",
            via=Via("INDEX", "DATA", 0x7F),
            sizes=(1, 2),
            on_read=OnRead.CLEARS,
            fields=(
                Field("SET", 0x80, "no updates", {0: "running", 1: "being set"}),
                Field(
                    "FLAG",
                    0x04,
                    access=Access.READ_ONLY,
                    on_read=OnRead.CHANGES_OTHERS,
                ),
                Field("RATE", 0x03, on_write=OnWrite.ONE_CLEARS),
            ),
        ),
        Register("RAM", 0x10, count=16, via=Via("INDEX", "DATA", 0x7F)),
        Register("LATCH", 4, 2, count=2, stride=4, when=When("B", "SET", 1)),
        Register("PLAIN", 4, 2),
        Register("OTHER", 4, 2, alternate="PLAIN"),
        Register("FAR", 0, 4, range=1, reset=0xAB),
    ),
    "keeps the time",
)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").replace("\\|", "¦").split("|")]


def table(heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, without the line below its head."""
    lines = document(CLOCK).split(f"\n{heading}\n")[1].split("\n## ")[0].splitlines()
    found = [cells(line) for line in lines if line.startswith("|")]
    return [found[0], *found[2:]]


def test_it_begins_with_what_the_device_is() -> None:
    assert document(CLOCK).startswith("# clock\n\nKeeps the time.\n\n## Registers of range 0\n")


def test_each_range_has_a_table_of_its_registers_in_order() -> None:
    assert table("## Registers of range 0") == [
        ["Offset", "Register", "Bytes", "Access", "Reset", "What it is"],
        ["`0x00`", "`INDEX`", "1", "write-only", "`0x00`", "Which byte."],
        ["`0x01`", "`DATA`", "1", "read-write", "", ""],
        [
            "`0x04` to `0x08`, every 0x4",
            "`LATCH[0]` to `[1]`",
            "2",
            "read-write",
            "`0x0000`",
            "Here while `B.SET` is 1.",
        ],
        ["`0x04`", "`PLAIN`", "2", "read-write", "`0x0000`", ""],
        ["`0x04`", "`OTHER`", "2", "read-write", "`0x0000`", "In the place of `PLAIN`."],
    ]
    assert table("## Registers of range 1")[1] == [
        "`0x00`",
        "`FAR`",
        "4",
        "read-write",
        "`0x000000ab`",
    ]


def test_one_range_needs_no_number() -> None:
    assert "## Registers\n" in document(RegisterMap("chip", (Register("R", 0),)))


def test_registers_behind_others_are_listed_by_their_numbers() -> None:
    assert "Write the number to `INDEX`, then access `DATA`." in document(CLOCK)
    rows = table("## Registers behind `DATA`")
    assert [row[:2] for row in rows] == [
        ["Number", "Register"],
        ["`0x0b`", "`B`"],
        ["`0x10` to `0x1f`", "`RAM[0]` to `[15]`"],
    ]


def test_a_register_with_fields_has_a_table_of_its_bits() -> None:
    assert (
        "Number `0x0b`, 1 byte, read-write, reset `0x00`, accessed by 1 or 2 bytes. "
        "What interrupts \\| and how. A read clears it."
    ) in document(CLOCK)
    assert table("## `B`") == [
        ["Bits", "Field", "Access", "What it is", "Values"],
        ["7", "`SET`", "", "No updates.", "0: running<br>1: being set"],
        ["6:3", "", "", "reserved", ""],
        ["2", "`FLAG`", "read-only", "A read changes others.", ""],
        ["1:0", "`RATE`", "", "Writing 1 clears.", ""],
    ]


def test_bits_of_no_field_are_shown_as_reserved_wherever_they_are() -> None:
    middle = Register("R", 0, fields=(Field("A", 0x60), Field("B", 0x08)))
    lines = document(RegisterMap("chip", (middle,))).splitlines()
    assert [cells(line)[0] for line in lines[-5:]] == ["7", "6:5", "4", "3", "2:0"]


def test_columns_are_aligned_and_empty_ones_left_out() -> None:
    text = document(RegisterMap("chip", (Register("A", 0), Register("LONGER", 0x100, 2))))
    assert text.splitlines()[4:] == [
        "| Offset  | Register | Bytes | Access     | Reset    |",
        "|---------|----------|-------|------------|----------|",
        "| `0x00`  | `A`      | 1     | read-write | `0x00`   |",
        "| `0x100` | `LONGER` | 2     | read-write | `0x0000` |",
    ]


def test_texts_cannot_be_taken_for_markdown() -> None:
    text = document(RegisterMap("a_b", (Register("R", 0, help="<b> *x* `y` [z](u) | \\"),)))
    assert "# a\\_b" in text
    assert r"\<b\> \*x\* \`y\` \[z\](u) \| \\." in text
