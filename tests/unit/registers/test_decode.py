"""The decoder: which registers an access touches, and what it says of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from devicehost.recording.events import Operation
from devicehost.registers import (
    Access,
    Decoded,
    DecodedField,
    Decoder,
    Field,
    OnRead,
    OnWrite,
    Register,
    RegisterMap,
    Via,
    When,
    check,
)

READ, WRITE = Operation.READ, Operation.WRITE
RO, WO = Access.READ_ONLY, Access.WRITE_ONLY

LATCHED = When("LCR", "DLAB", 1)
UART = RegisterMap(
    "pc16550d",
    (
        Register("RBR", 0, access=RO, reset=None),
        Register("THR", 0, access=WO, reset=None),
        Register("DLL", 0, when=LATCHED),
        Register("IER", 1, fields=(Field("ERBFI", 0x01), Field("ETBEI", 0x02))),
        Register("DLM", 1, when=LATCHED),
        Register("IIR", 2, access=RO, reset=0x01),
        Register("FCR", 2, access=WO),
        Register(
            "LCR",
            3,
            fields=(
                Field("WLS", 0x03, values={0: "5 bits", 3: "8 bits"}),
                Field("STB", 0x04),
                Field("DLAB", 0x80),
            ),
        ),
        Register("LSR", 5, access=RO, reset=0x60),
    ),
)
RTC_WAY = Via("INDEX", "DATA", 0x7F)
RTC = RegisterMap(
    "mc146818",
    (
        Register("INDEX", 0, access=WO),
        Register("DATA", 1),
        Register("SECONDS", 0, via=RTC_WAY),
        Register("C", 0x0C, access=RO, via=RTC_WAY, fields=(Field("IRQF", 0x80),)),
        Register("BASE_MEMORY", 0x15, 2, via=RTC_WAY),
        Register("RAM", 0x20, count=16, via=RTC_WAY),
    ),
)
WIDE = RegisterMap(
    "wide",
    (
        Register(
            "CMP",
            0,
            8,
            fields=(Field("LOW", 0xFFFF), Field("MID", 0x3 << 31), Field("TOP", 1 << 63)),
        ),
        Register("R", 0x10, 4, count=4, stride=8),
    ),
)


def decoded(decoder: Decoder, offset: int, operation: Operation, data: str, range_: int = 0) -> str:
    return "; ".join(map(str, decoder.decode(range_, offset, operation, bytes.fromhex(data))))


def test_the_maps_here_keep_the_rules() -> None:
    for each in (UART, RTC, WIDE):
        check(each)


def test_an_access_prints_as_its_register_with_the_fields_that_say_something() -> None:
    assert decoded(Decoder(UART), 3, WRITE, "83") == "LCR = 0x83 (DLAB=1, WLS=3 8 bits)"
    assert decoded(Decoder(UART), 3, WRITE, "00") == "LCR = 0x00 (WLS=0 5 bits)"
    assert decoded(Decoder(UART), 1, READ, "85") == "IER = 0x85 (ERBFI=1, reserved=0x84)"
    assert decoded(Decoder(UART), 6, READ, "ff") == "no register = 0xff"


def test_what_is_decoded_can_be_taken_apart() -> None:
    [lcr] = Decoder(UART).decode(0, 3, WRITE, b"\xc3")
    assert lcr == Decoded(
        register="LCR",
        value=0xC3,
        fields=(
            DecodedField("DLAB", 1, ""),
            DecodedField("STB", 0, ""),
            DecodedField("WLS", 3, "8 bits"),
        ),
        reserved=0x40,
        declared=UART.register("LCR"),
        complete=True,
    )


def test_a_read_and_a_write_of_one_place_are_two_registers() -> None:
    decoder = Decoder(UART)
    assert decoded(decoder, 0, READ, "41") == "RBR = 0x41"
    assert decoded(decoder, 0, WRITE, "41") == "THR = 0x41"
    assert decoded(decoder, 2, READ, "01") == "IIR = 0x01"
    assert decoded(decoder, 2, WRITE, "01") == "FCR = 0x01"


def test_a_write_to_a_read_only_register_is_seen_as_that() -> None:
    [lsr] = Decoder(UART).decode(0, 5, WRITE, b"\0")
    assert lsr.register == "LSR"
    assert lsr.declared is not None
    assert not lsr.declared.writable


def test_while_dlab_is_set_the_divisor_is_there() -> None:
    decoder = Decoder(UART)
    decoded(decoder, 3, WRITE, "80")
    assert decoded(decoder, 0, WRITE, "01") == "DLL = 0x01"
    assert decoded(decoder, 0, READ, "01") == "DLL = 0x01"
    assert decoded(decoder, 1, WRITE, "00") == "DLM = 0x00"
    decoded(decoder, 3, WRITE, "03")
    assert decoded(decoder, 0, WRITE, "01") == "THR = 0x01"


def test_conditions_are_followed_the_second_time_too() -> None:
    decoder = Decoder(UART)
    for _ in range(3):
        assert decoded(decoder, 0, WRITE, "01") == "THR = 0x01"
        decoded(decoder, 3, WRITE, "80")
        assert decoded(decoder, 0, WRITE, "01") == "DLL = 0x01"
        decoded(decoder, 3, WRITE, "03")


def test_a_read_shows_what_a_condition_depends_on_too() -> None:
    decoder = Decoder(UART)
    decoded(decoder, 3, READ, "80")
    assert decoded(decoder, 1, READ, "00") == "DLM = 0x00"


def test_a_decoder_can_be_told_what_it_has_not_seen() -> None:
    decoder = Decoder(UART)
    assert decoder.follows == ("LCR",)
    decoder.learn("LCR", 0x83)
    decoder.learn("IER", 0xFF)
    decoder.learn("NOTHING", 1)
    assert decoded(decoder, 0, READ, "0c") == "DLL = 0x0c"


def test_it_begins_with_the_reset_value() -> None:
    lcr = Register("LCR", 3, reset=0x80, fields=UART.register("LCR").fields)
    latched = RegisterMap("x", tuple(lcr if each.name == "LCR" else each for each in UART))
    assert decoded(Decoder(latched), 0, READ, "0c") == "DLL = 0x0c"


def test_a_wide_access_is_one_to_each_register_in_turn() -> None:
    decoder = Decoder(UART)
    assert decoded(decoder, 0, WRITE, "41000183") == (
        "THR = 0x41; IER = 0x00; FCR = 0x01; LCR = 0x83 (DLAB=1, WLS=3 8 bits)"
    )
    assert decoded(decoder, 4, READ, "0b60") == "no register = 0xb; LSR = 0x60"
    assert decoded(decoder, 0, READ, "0c00") == "DLL = 0x0c; DLM = 0x00"


def test_the_number_in_the_index_register_says_which_the_data_register_is() -> None:
    decoder = Decoder(RTC)
    assert decoded(decoder, 1, READ, "30") == "SECONDS = 0x30"
    assert decoded(decoder, 0, WRITE, "8c") == "INDEX = 0x8c"
    assert decoded(decoder, 1, READ, "80") == "C = 0x80 (IRQF=1)"
    assert decoded(decoder, 0, READ, "ff") == "INDEX = 0xff"
    assert decoded(decoder, 1, WRITE, "00") == "C = 0x00"


def test_an_access_to_index_and_data_selects_first() -> None:
    decoder = Decoder(RTC)
    assert decoded(decoder, 0, WRITE, "2155") == "INDEX = 0x21; RAM[1] = 0x55"
    assert decoded(decoder, 0, READ, "ff55") == "INDEX = 0xff; RAM[1] = 0x55"


def test_a_register_of_two_numbers_comes_in_two_parts() -> None:
    decoder = Decoder(RTC)
    decoded(decoder, 0, WRITE, "16")
    [high] = decoder.decode(0, 1, READ, b"\x02")
    assert (high.register, high.value, high.complete) == ("BASE_MEMORY", 0x0200, False)


def test_an_access_to_a_part_of_a_data_register_is_one_to_that_part_of_what_is_behind() -> None:
    way = Via("SELECT", "WINDOW", 0xFF)
    ioapic = RegisterMap(
        "ioapic",
        (
            Register("SELECT", 0x00, 4),
            Register("WINDOW", 0x10, 4),
            Register("ENTRY", 0x10, 8, count=24, via=way),
            Register("SHORT", 0x50, 1, via=way),
        ),
    )
    check(ioapic)
    decoder = Decoder(ioapic)
    decoded(decoder, 0, WRITE, "13000000")
    assert decoded(decoder, 0x10, WRITE, "00000002") == "ENTRY[1] = 0x0200000000000000 (in part)"
    assert decoded(decoder, 0x13, WRITE, "02") == "ENTRY[1] = 0x0200000000000000 (in part)"
    decoded(decoder, 0, WRITE, "50000000")
    assert decoded(decoder, 0x10, READ, "0102") == "SHORT = 0x01; WINDOW = 0x00000200 (in part)"


def test_a_number_of_no_register_leaves_the_data_register() -> None:
    decoder = Decoder(RTC)
    decoded(decoder, 0, WRITE, "7f")
    assert decoded(decoder, 1, READ, "00") == "DATA = 0x00"


def test_half_a_register_is_decoded_as_far_as_it_goes() -> None:
    decoder = Decoder(WIDE)
    [low] = decoder.decode(0, 0, WRITE, bytes.fromhex("3412ffff"))
    assert (low.value, low.complete) == (0xFFFF1234, False)
    assert low.fields == (DecodedField("LOW", 0x1234, ""),)
    assert low.reserved == 0x7FFF0000
    [high] = decoder.decode(0, 4, WRITE, bytes.fromhex("01000080"))
    assert high.value == 0x80000001_00000000
    assert high.fields == (DecodedField("TOP", 1, ""),)
    assert high.reserved == 0
    assert str(high) == "CMP = 0x8000000100000000 (TOP=1, in part)"


def test_an_access_in_the_middle_of_a_register_is_a_part_of_it() -> None:
    [part] = Decoder(WIDE).decode(0, 3, READ, b"\x01\x02")
    assert (part.register, part.value, part.complete) == ("CMP", 0x02_01_000000, False)
    assert part.fields == (DecodedField("MID", 0, ""),)


def test_registers_of_a_row_have_their_index_and_what_is_between_them_is_nothing() -> None:
    results = Decoder(WIDE).decode(0, 0x12, READ, bytes(range(1, 15)))
    assert [(each.register, each.complete) for each in results] == [
        ("R[0]", False),
        ("", False),
        ("R[1]", True),
        ("", False),
    ]
    assert results[1].value == 0x06050403
    assert decoded(Decoder(WIDE), 0x28, READ, "01000000") == "R[3] = 0x00000001"
    assert decoded(Decoder(WIDE), 0x30, READ, "01") == "no register = 0x1"


def test_there_is_nothing_beyond_all_registers_nor_in_another_range() -> None:
    for range_, offset in ((0, 1 << 70), (0, -3), (7, 0)):
        [nothing] = Decoder(WIDE).decode(range_, offset, WRITE, b"\x05\0")
        assert nothing == Decoded("", 5, (), 0, None, complete=False)


def test_an_access_without_data_touches_nothing() -> None:
    assert Decoder(UART).decode(0, 0, READ, b"") == ()


def test_the_names_of_an_access_to_come_are_those_of_now_and_change_nothing() -> None:
    decoder = Decoder(RTC)
    assert decoder.names(0, 0, WRITE, 2) == ("INDEX", "SECONDS")
    decoded(decoder, 0, WRITE, "22")
    assert decoder.names(0, 1, READ, 1) == ("RAM[2]",)
    assert decoder.names(0, 0, READ, 4) == ("INDEX", "RAM[2]", "")
    assert decoded(decoder, 1, READ, "00") == "RAM[2] = 0x00"


@pytest.mark.parametrize(
    ("on_write", "written", "expected"),
    [
        (OnWrite.ONE_CLEARS, 0b0110, 0b0000),
        (OnWrite.ONE_SETS, 0b1000, 0b1100),
        (OnWrite.ONE_TOGGLES, 0b1100, 0b1000),
        (OnWrite.ZERO_CLEARS, 0b1000, 0b0000),
        (OnWrite.ZERO_SETS, 0b0100, 0b1100),
        (OnWrite.ZERO_TOGGLES, 0b1000, 0b0000),
        (OnWrite.CLEARS, 0b1100, 0b0000),
        (OnWrite.SETS, 0b0000, 0b1100),
        (OnWrite.CHANGES, 0b1000, 0b1000),
        (None, 0b1000, 0b1000),
    ],
)
def test_a_condition_follows_what_a_write_does(
    on_write: OnWrite | None, written: int, expected: int
) -> None:
    mode = Register("MODE", 0, reset=0b0100, fields=(Field("BANK", 0b1100, on_write=on_write),))
    banks = (Register(f"B{at}", 1, when=When("MODE", "BANK", at)) for at in range(4))
    decoder = Decoder(RegisterMap("banked", (mode, *banks)))
    decoder.decode(0, 0, WRITE, bytes([written]))
    assert decoder.names(0, 1, READ, 1) == (f"B{expected >> 2}",)


def test_a_condition_follows_what_a_read_does() -> None:
    mode = Register("MODE", 0, fields=(Field("ON", 1, on_read=OnRead.CLEARS),))
    other = Register("OTHER", 1, when=When("MODE", "ON", 1))
    decoder = Decoder(RegisterMap("chip", (mode, other)))
    decoder.decode(0, 0, WRITE, b"\1")
    assert decoder.names(0, 1, READ, 1) == ("OTHER",)
    decoder.decode(0, 0, READ, b"\1")
    assert decoder.names(0, 1, READ, 1) == ("",)


def test_a_condition_ignores_what_cannot_be_written_or_read() -> None:
    mode = Register("MODE", 0, fields=(Field("ON", 1, access=RO), Field("GO", 2, access=WO)))
    on = Register("ON", 1, when=When("MODE", "ON", 1))
    go = Register("GO", 2, when=When("MODE", "GO", 1))
    decoder = Decoder(RegisterMap("chip", (mode, on, go)))
    decoder.decode(0, 0, WRITE, b"\3")
    assert decoder.names(0, 1, READ, 2) == ("", "GO")
    decoder.decode(0, 0, READ, b"\1")
    assert decoder.names(0, 1, READ, 2) == ("ON", "GO")


def test_a_field_to_be_read_and_one_to_be_written_in_its_place_are_told_apart() -> None:
    both = Register("R", 0, fields=(Field("STATE", 3, access=RO), Field("GO", 2, access=WO)))
    decoder = Decoder(RegisterMap("chip", (both,)))
    assert decoded(decoder, 0, READ, "03") == "R = 0x03 (STATE=3)"
    assert decoded(decoder, 0, WRITE, "03") == "R = 0x03 (GO=1)"


def test_an_alternate_is_taken_only_where_nothing_else_is() -> None:
    plain, other = Register("PLAIN", 0), Register("OTHER", 0, 2, alternate="PLAIN")
    check(chip := RegisterMap("chip", (other, plain)))
    assert decoded(Decoder(chip), 0, READ, "0102") == "PLAIN = 0x01; OTHER = 0x0200 (in part)"


def test_a_decoder_of_many_accesses_remembers_a_bounded_number() -> None:
    decoder = Decoder(RegisterMap("memory", (Register("R", 0, 4, count=1 << 20),)))
    for at in range(10_000):
        [result] = decoder.decode(0, 4 * at, WRITE, at.to_bytes(4, "little"))
        assert (result.register, result.value) == (f"R[{at}]", at)
    assert len(decoder._known) <= 4096
    assert len(decoder._slots) <= 4096


@pytest.mark.parametrize("first", ["registers", "recording"])
def test_registers_and_recordings_can_be_imported_in_any_order(first: str) -> None:
    second = {"registers": "recording", "recording": "registers"}[first]
    code = f"import devicehost.{first}, devicehost.{second}"
    subprocess.run([sys.executable, "-c", code], check=True)
