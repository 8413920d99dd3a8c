"""Names of registers, and where they are."""

from __future__ import annotations

import pytest

from devicehost.registers import (
    Register,
    RegisterMap,
    UnknownRegister,
    Via,
    locate,
    parse_name,
    places,
    scaled,
)

IOAPIC = RegisterMap(
    "ioapic",
    (
        Register("SELECT", 0x00, 4),
        Register("WINDOW", 0x10, 4),
        Register("ID", 0, 4, via=Via("SELECT", "WINDOW", 0xFF)),
        Register("ENTRY", 0x10, 8, count=24, via=Via("SELECT", "WINDOW", 0xFF)),
        Register("R", 0x40, 2, range=1, count=3, stride=8),
    ),
)


def test_a_name_has_an_index_or_none() -> None:
    assert parse_name("LCR") == ("LCR", None)
    assert parse_name("R[0]") == ("R", 0)
    assert parse_name("_R2[1048575]") == ("_R2", 1048575)


@pytest.mark.parametrize(
    "name",
    ["", "lcr", "R[", "R[]", "R[01]", "R[-1]", "R[1][2]", "R [1]", "2R", "R\n", "R[99999999999]"],
)
def test_what_cannot_be_a_name_is_refused_with_what_can(name: str) -> None:
    with pytest.raises(ValueError, match="isn't a register's name; allowed") as caught:
        parse_name(name)
    assert repr(name) in str(caught.value)


def test_a_register_of_a_row_is_a_stride_from_the_one_before() -> None:
    place = locate(IOAPIC, "R[2]")
    assert (place.name, place.range, place.offset, place.last) == ("R[2]", 1, 0x50, 0x51)
    assert (place.index, place.number) == (2, None)


def test_a_row_reaches_from_its_first_register_to_its_last() -> None:
    place = locate(IOAPIC, "R")
    assert (place.name, place.index, place.offset, place.size) == ("R", None, 0x40, 18)


def test_a_register_behind_another_is_accessed_there_by_its_number() -> None:
    place = locate(IOAPIC, "ID")
    assert (place.offset, place.size, place.number) == (0x10, 4, 0)


def test_a_register_wider_than_its_data_register_takes_several_numbers() -> None:
    assert [locate(IOAPIC, f"ENTRY[{index}]").number for index in (0, 1, 23)] == [0x10, 0x12, 0x3E]


def test_an_unknown_register_is_named_with_those_that_are_there() -> None:
    with pytest.raises(UnknownRegister) as caught:
        locate(IOAPIC, "LCR")
    assert str(caught.value) == (
        "ioapic has no register 'LCR'; it has: SELECT, WINDOW, ID, ENTRY, R"
    )
    with pytest.raises(KeyError):
        locate(IOAPIC, "not a name")


def test_only_a_few_of_many_registers_are_named() -> None:
    many = RegisterMap("many", tuple(Register(f"R{at}", at) for at in range(100)))
    with pytest.raises(UnknownRegister, match=r"R18, R19, …$"):
        locate(many, "X")


def test_an_index_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(UnknownRegister, match=r"'R\[3\]'; allowed: R\[0\] to R\[2\]"):
        locate(IOAPIC, "R[3]")
    with pytest.raises(UnknownRegister, match="ID is one register, without an index"):
        locate(IOAPIC, "ID[0]")


def test_places_are_all_registers_each_of_a_row_by_itself() -> None:
    names = [place.name for place in places(IOAPIC)]
    assert names[:4] == ["SELECT", "WINDOW", "ID", "ENTRY[0]"]
    assert names[-4:] == ["ENTRY[23]", "R[0]", "R[1]", "R[2]"]
    assert all(locate(IOAPIC, place.name) == place for place in places(IOAPIC))


def test_scaling_moves_registers_apart_but_not_their_numbers() -> None:
    wired = scaled(IOAPIC, 2)
    assert locate(wired, "WINDOW").offset == 0x40
    assert locate(wired, "R[1]").offset == 0x120
    assert locate(wired, "ENTRY[1]").number == 0x12
    dense = scaled(RegisterMap("row", (Register("R", 1, count=4),)), 3)
    assert [place.offset for place in places(dense)] == [8, 16, 24, 32]
    assert scaled(IOAPIC, 0) == IOAPIC
