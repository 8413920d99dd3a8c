"""Stored registers, against a model that goes bit by bit."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost.registers import Access, Field, OnRead, OnWrite, Register, RegisterMap, check
from devicehost_server.devices.register_file import RegisterFile, Rules
from devicehost_server.devices.state import StateReader
from devicehost_server.model.errors import BadState

WIDTH = 16


def bit_after_write(declared: OnWrite | None, old: int, written: int) -> int:
    match declared:
        case OnWrite.ONE_CLEARS:
            return 0 if written else old
        case OnWrite.ONE_SETS:
            return 1 if written else old
        case OnWrite.ONE_TOGGLES:
            return old ^ written
        case OnWrite.ZERO_CLEARS:
            return old if written else 0
        case OnWrite.ZERO_SETS:
            return old if written else 1
        case OnWrite.ZERO_TOGGLES:
            return old if written else 1 - old
        case OnWrite.CLEARS:
            return 0
        case OnWrite.SETS:
            return 1
        case _:
            return written


def modelled_write(register: Register, old: int, written: int) -> int:
    new = 0
    for field in register.fields:
        access = field.access or register.access
        for bit in range(field.lsb, field.lsb + field.width):
            before = old >> bit & 1
            if access is not Access.READ_ONLY:
                before = bit_after_write(
                    field.on_write or register.on_write, before, written >> bit & 1
                )
            new |= before << bit
    return new


def modelled_read(register: Register, old: int) -> tuple[int, int]:
    """What a read returns, and what is left."""
    shown, new = 0, old
    for field in register.fields:
        if (field.access or register.access) is not Access.WRITE_ONLY:
            shown |= old & field.mask
        if (effect := field.on_read or register.on_read) is OnRead.CLEARS:
            new &= ~field.mask
        elif effect is OnRead.SETS:
            new |= field.mask
    return shown, new


@st.composite
def registers(draw: st.DrawFn) -> Register:
    """A register with fields of any kind, and gaps."""
    fields, bit = [], 0
    while bit < WIDTH:
        width = draw(st.integers(1, 5))
        mask = ((1 << width) - 1) << bit & 0xFFFF
        if draw(st.booleans()):
            access = draw(st.sampled_from([None, *Access]))
            on_write = draw(st.sampled_from([None, *OnWrite]))
            on_read = draw(st.sampled_from([None, *OnRead]))
            fields.append(
                Field(
                    f"F{bit}",
                    mask,
                    access=access,
                    on_write=None if access is Access.READ_ONLY else on_write,
                    on_read=None if access is Access.WRITE_ONLY else on_read,
                )
            )
        bit += width
    if not fields:
        fields.append(Field("ALL", 0xFFFF))
    mask = sum(field.mask for field in fields)
    return Register("R", 0, 2, reset=draw(st.integers(0, 0xFFFF)) & mask, fields=tuple(fields))


VALUES = st.integers(0, 0xFFFF)


@given(register=registers(), steps=st.lists(st.none() | VALUES))
def test_reads_and_writes_do_what_is_declared(register: Register, steps: list[int | None]) -> None:
    register_map = RegisterMap("any", (register,))
    check(register_map)
    file = RegisterFile(register_map)
    model = register.reset or 0
    for written in steps:
        if written is None:
            shown, model = modelled_read(register, model)
            assert file.read("R") == shown
        else:
            file.write("R", written)
            model = modelled_write(register, model, written)
        assert file["R"] == model


@given(register=registers(), old=VALUES, part=VALUES, covered=st.sampled_from([0xFF, 0xFF00]))
def test_a_write_in_part_leaves_the_other_bits(
    register: Register, old: int, part: int, covered: int
) -> None:
    rules = Rules.of(register)
    old &= rules.bits
    whole = rules.whole(old, part & covered, covered)
    after = modelled_write(register, old, whole)
    assert after & covered == modelled_write(register, old, part & covered) & covered
    always = sum(  # whatever is written to them, they change
        field.mask for field in register.fields if field.on_write in (OnWrite.CLEARS, OnWrite.SETS)
    )
    assert (after ^ old) & ~covered & ~always == 0


@given(register=registers(), values=st.lists(VALUES, min_size=3, max_size=3))
def test_a_row_is_as_many_registers(register: Register, values: list[int]) -> None:
    row = Register("ROW", 8, 2, fields=register.fields, reset=register.reset, count=3)
    file = RegisterFile(RegisterMap("any", (register, row)))
    for index, value in enumerate(values):
        file.write("R", value)
        file.write_row("ROW", index, value)
        assert file.rows["ROW"][index] == file["R"]
        assert file.read_row("ROW", index) == file.read("R")
        assert file.rows["ROW"][index] == file["R"]
        file.reset()


MAP = RegisterMap(
    "chip",
    (
        Register("A", 0, 4, reset=7),
        Register("B", 4, reset=None, fields=(Field("LOW", 0x0F),)),
        Register("ROW", 8, 2, count=3, reset=0x1234),
    ),
)


def changed() -> RegisterFile:
    file = RegisterFile(MAP)
    file["A"], file["B"] = 0xDEAD_BEEF, 5
    file.rows["ROW"][:] = [1, 2, 0xFFFF]
    return file


def test_a_new_file_has_the_reset_values_and_zeros_where_they_are_open() -> None:
    file = RegisterFile(MAP)
    assert (file["A"], file["B"], file.rows["ROW"]) == (7, 0, [0x1234] * 3)


def test_a_reset_brings_them_back_in_place() -> None:
    file = changed()
    row = file.rows["ROW"]
    file.reset()
    assert (file["A"], file["B"], row) == (7, 0, [0x1234] * 3)


def test_a_value_loses_bits_that_the_register_does_not_have() -> None:
    file = RegisterFile(MAP)
    file["B"] = 0xFF
    file["A"] = -1
    assert (file["B"], file["A"]) == (0x0F, 0xFFFF_FFFF)


@pytest.mark.parametrize("name", ["C", "ROW", "a"])
def test_a_name_that_is_wrong_is_an_error_and_no_new_register(name: str) -> None:
    file = RegisterFile(MAP)
    with pytest.raises(KeyError, match=name):
        file[name] = 1
    assert sorted(file) == ["A", "B"]


def test_a_saved_file_is_read_back() -> None:
    state = json.loads(json.dumps(changed().save()))
    assert state == {"A": 0xDEAD_BEEF, "B": 5, "ROW": "01000200ffff"}
    file = RegisterFile(MAP)
    row = file.rows["ROW"]
    file.take(file.restored(StateReader("dut", state)))
    assert file == changed()
    assert row == [1, 2, 0xFFFF]


@pytest.mark.parametrize(
    ("field", "value"),
    [("A", 1 << 32), ("A", -1), ("A", "7"), ("B", 0x100), ("ROW", "00"), ("ROW", "zz" * 6)],
)
def test_a_bad_value_is_refused_and_changes_nothing(field: str, value: object) -> None:
    file = changed()
    with pytest.raises(BadState) as refused:
        file.restored(StateReader("dut", {**file.save(), field: value}))
    assert refused.value.metadata["field"] == field
    assert file == changed()
    assert file.rows == changed().rows


def test_reserved_bits_of_a_state_are_left_out() -> None:
    state = {**changed().save(), "B": 0xF5}
    assert RegisterFile(MAP).restored(StateReader("dut", state))["B"] == 5
