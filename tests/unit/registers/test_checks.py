"""The rules for register maps: what breaks one is told with the register and the reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from devicehost.registers import (
    Access,
    BadRegisterMap,
    Field,
    OnRead,
    OnWrite,
    Register,
    RegisterMap,
    Via,
    When,
    check,
)

RO, WO = Access.READ_ONLY, Access.WRITE_ONLY
MODE = Register("MODE", 0x20, fields=(Field("BANK", 0x0C), Field("ON", 0x01)))
INDEX, DATA = Register("INDEX", 0x30), Register("DATA", 0x31)


def refused(*registers: Register) -> str:
    with pytest.raises(BadRegisterMap) as caught:
        check(RegisterMap("chip", registers))
    return str(caught.value)


def in_bank(value: int) -> When:
    return When("MODE", "BANK", value)


@pytest.mark.parametrize(
    ("register", "message"),
    [
        (Register("lcr", 0), "register lcr: it can't be called so"),
        (Register("R[0]", 0), "it can't be called so"),
        (Register("R" * 129, 0), "at most 128"),
        (Register("R", 0, 9), "register R: size 0x9; allowed: 0x1 to 0x8"),
        (Register("R", 0, 0), "size 0x0"),
        (Register("R", -1), "offset -0x1"),
        (Register("R", (1 << 64) - 1, 2), "it ends beyond the last offset"),
        (Register("R", 0, count=0), "count 0x0; allowed: 0x1 to 0x100000"),
        (Register("R", 0, 4, count=2, stride=3), "stride 0x3 is less than its size, 4 bytes"),
        (Register("R", 0, range=256), "range 0x100; allowed: 0x0 to 0xff"),
        (Register("R", 0, reset=0x100), "reset 0x100; allowed: 0x0 to 0xff"),
        (Register("R", 0, sizes=(1, 9)), "sizes: 0x9"),
        (Register("R", 0, sizes=(1, 1)), "name one twice"),
        (Register("R", 0, help="two\nlines"), "help must be one line"),
        (Register("R", 0, help="x" * 4097), "at most 4096 long"),
        (Register("R", 0, access=WO, on_read=OnRead.CLEARS), "on_read is 'clear', but it is"),
        (Register("R", 0, access=RO, on_write=OnWrite.ONE_CLEARS), "on_write is 'oneToClear'"),
        (Register("R", 0, alternate="R"), "alternate: it is itself"),
        (Register("R", 0, alternate="X"), "alternate: there is no register 'X'"),
        (Register("R", 0, when=When("X", "F", 0)), "when: there is no register 'X'"),
        (Register("R", 0, when=When("MODE", "X", 0)), "when: MODE has no field 'X'"),
        (Register("R", 0, when=in_bank(4)), "when: value 0x4; allowed: 0x0 to 0x3"),
        (Register("R", 0, when=When("R", "F", 0)), "when: it depends on itself"),
        (Register("R", 0, via=Via("X", "DATA")), "via: index: there is no register 'X'"),
        (Register("R", 0, via=Via("INDEX", "X")), "via: data: there is no register 'X'"),
        (Register("R", 0, via=Via("DATA", "DATA")), "index and data are both DATA"),
        (Register("R", 0, via=Via("INDEX", "DATA", 0x100)), "mask 0x100 isn't in the 1 bytes"),
        (Register("R", 0, via=Via("INDEX", "DATA", 0)), "mask 0x0 isn't in"),
        (Register("R", 0x80, via=Via("INDEX", "DATA", 0x7F)), "numbers 0x80 to 0x80 aren't in"),
        (Register("R", 0, count=129, via=Via("INDEX", "DATA", 0x7F)), "numbers 0x0 to 0x80"),
        (Register("R", 0, 4, count=2, stride=2, via=Via("INDEX", "DATA")), "than the 4 numbers"),
    ],
)
def test_a_register_that_cannot_be_is_refused(register: Register, message: str) -> None:
    assert message in refused(register, MODE, INDEX, DATA)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((Field("f", 1),), "field f: it can't be called so"),
        ((Field("F", 0),), "field F: mask 0x0 isn't in the 1 bytes of the register"),
        ((Field("F", 0x100),), "mask 0x100 isn't in"),
        ((Field("F", -1),), "mask -0x1 isn't in"),
        ((Field("F", 0x05),), "mask 0x5 has a gap"),
        ((Field("F", 1), Field("F", 2)), "field F: there are two of this name"),
        ((Field("F", 3), Field("G", 6)), "field G: mask 0x6: another field has some"),
        ((Field("F", 1, access=RO), Field("G", 1)), "field G: mask 0x1: another field"),
        ((Field("F", 6, values={4: "x"}),), "field F: values: 0x4; allowed: 0x0 to 0x3"),
        ((Field("F", 6, values={1: ""}),), "values: 0x1 has no meaning"),
        ((Field("F", 6, values={1: "\x07"}),), "values: 0x1 must be one line"),
        ((Field("F", 1, access=WO, on_read=OnRead.SETS),), "on_read is 'set'"),
    ],
)
def test_fields_that_cannot_be_are_refused(fields: tuple[Field, ...], message: str) -> None:
    assert message in refused(Register("R", 0, fields=fields))


def test_fields_share_bits_if_one_is_read_and_the_other_written() -> None:
    fields = (Field("STATE", 0x0F, access=RO), Field("COMMAND", 0xFF, access=WO))
    check(RegisterMap("chip", (Register("R", 0, fields=fields),)))


def test_a_map_needs_a_name_and_registers_of_different_names() -> None:
    assert "registers: 0x0; allowed: 0x1 to 0x10000" in refused()
    assert "register R: there are two of this name" in refused(Register("R", 0), Register("R", 1))
    for name in ("", "Chip", ".x", "a b", "x" * 129):
        with pytest.raises(BadRegisterMap, match="it can't be called so; allowed: lower-case"):
            check(RegisterMap(name, (Register("R", 0),)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Register("A", 0), Register("B", 0)),
        (Register("A", 0, 4), Register("B", 3)),
        (Register("A", 0, access=RO), Register("B", 0)),
        (Register("A", 0, when=in_bank(1)), Register("B", 0, when=in_bank(1))),
        (Register("A", 0, when=in_bank(1)), Register("B", 0, when=When("MODE", "ON", 0))),
        (Register("A", 0, 4, count=8), Register("B", 30)),
        (Register("A", 0, 2, count=4, stride=6), Register("B", 2, 2, count=2, stride=5)),
        (Register("A", 5, via=Via("INDEX", "DATA")), Register("B", 5, via=Via("INDEX", "DATA"))),
        (
            Register("A", 5, 4, via=Via("INDEX", "DATA")),
            Register("B", 8, via=Via("INDEX", "DATA")),
        ),
    ],
)
def test_registers_in_one_place_must_be_told_apart(one: Register, other: Register) -> None:
    message = refused(one, other, MODE, INDEX, DATA)
    assert "registers A and B share a place, and an access doesn't tell" in message


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Register("A", 0, access=RO), Register("B", 0, access=WO)),
        (Register("A", 0), Register("B", 0, when=in_bank(1))),
        (Register("A", 0, when=in_bank(2)), Register("B", 0, when=in_bank(1))),
        (Register("A", 0, 4), Register("B", 2, 2, alternate="A")),
        (Register("A", 0), Register("B", 0, range=1)),
        (Register("A", 0), Register("B", 0, via=Via("INDEX", "DATA"))),
        (Register("A", 0, count=4, stride=2), Register("B", 1, count=4, stride=2)),
    ],
)
def test_registers_that_are_told_apart_may_share_a_place(one: Register, other: Register) -> None:
    check(RegisterMap("chip", (one, other, MODE, INDEX, DATA)))


def test_an_alternate_shares_the_place_of_one_that_is_none() -> None:
    plain = Register("A", 0)
    assert "it shares no place with A" in refused(plain, Register("B", 1, alternate="A"))
    assert "B is the alternate of another" in refused(
        plain, Register("B", 0, alternate="A"), Register("C", 0, alternate="B")
    )


def test_what_decides_where_others_are_stands_alone_and_has_an_address() -> None:
    row = replace(MODE, count=2)
    assert "MODE is a row" in refused(Register("R", 0, when=in_bank(1)), row)
    hidden = Register("HIDDEN", 1, via=Via("INDEX", "DATA"))
    deeper = Register("R", 0, via=Via("HIDDEN", "MODE"))
    assert "HIDDEN has no address of its own" in refused(hidden, deeper, MODE, INDEX, DATA)


def test_all_behind_a_data_register_are_reached_in_one_way() -> None:
    message = refused(
        Register("A", 0, via=Via("INDEX", "DATA", 0x7F)),
        Register("B", 1, via=Via("INDEX", "DATA")),
        INDEX,
        DATA,
    )
    assert "register B: via: another register is reached via DATA in another way" in message


def test_a_place_is_shared_by_so_many_only() -> None:
    bank = Register("BANK", 0, 2, fields=(Field("N", 0xFFFF),))
    banks = [Register(f"R{at}", 2, when=When("BANK", "N", at)) for at in range(300)]
    check(RegisterMap("chip", (bank, *banks[:256])))
    assert "it shares its place with more than 256 others" in refused(bank, *banks)


def test_rows_with_gaps_have_a_limit_and_those_without_have_not() -> None:
    check(RegisterMap("memory", (Register("R", 0, count=1 << 20),)))
    assert "more than 262144 registers with gaps" in refused(
        Register("R", 0, count=1 << 20, stride=2)
    )
