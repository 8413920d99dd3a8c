"""Register maps of plugged devices: names, and what the device tells by them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from debuglab import TELLER_MAP, DebugBench, debugging, occupied
from devicehost.access_status import AccessStatus
from devicehost.recording.events import Access, Operation, Space
from devicehost.registers import Register, RegisterMap
from devicehost_server.debug import entered as entered_module
from devicehost_server.debug import registers as registers_module
from devicehost_server.model.errors import (
    BadRequest,
    DeviceFault,
    DeviceTimeout,
    NoRegisterMap,
    NoSuchDevice,
    NoSuchRegister,
    NotPeekable,
    UnknownDeviceType,
)

OTHER_MAP = RegisterMap(
    "other",
    (
        Register("X", 4, 4),
        Register("ITEMS", 8, 2, count=4),
        Register("NOWHERE", 0x20),
        Register("SHARED", 1),
        Register("MODE", 0),
    ),
)


@pytest.fixture
def bench() -> Iterator[DebugBench]:
    with debugging() as running:
        yield running


def access(operation: Operation, data: bytes, size: int = 1) -> Access:
    return Access(0, 0, 0, Space.MMIO, operation, 0x1000, size, data)


# Which map.


def test_a_device_has_its_own_map_or_the_one_it_was_given(bench: DebugBench) -> None:
    bench.teller("t")
    assert bench.registers.of("t") == TELLER_MAP
    bench.registers.set("t", OTHER_MAP)
    assert bench.registers.of("t") == OTHER_MAP
    bench.registers.set("t", None)
    assert bench.registers.of("t") == TELLER_MAP
    bench.registers.set("t", None)


def test_a_given_map_goes_with_the_device(bench: DebugBench) -> None:
    bench.teller("t")
    bench.registers.set("t", OTHER_MAP)
    bench.devices.unplug("t")
    bench.teller("t")
    assert bench.registers.of("t") == TELLER_MAP
    assert not bench.registers._given


def test_a_device_without_a_map_can_be_given_one(bench: DebugBench) -> None:
    bench.teller("t", mapped="no")
    with pytest.raises(NoRegisterMap, match="'t'"):
        bench.registers.of("t")
    with pytest.raises(NoRegisterMap):
        bench.registers.peek("t", "A")
    assert bench.registers.decoder("t") is None
    bench.registers.set("t", TELLER_MAP)
    assert bench.registers.peek("t", "A").value == 0


def test_a_map_that_breaks_a_rule_is_refused(bench: DebugBench) -> None:
    bench.teller("t")
    broken = RegisterMap("broken", (Register("A", 0), Register("A", 1)))
    with pytest.raises(BadRequest, match="A") as caught:
        bench.registers.set("t", broken)
    assert caught.value.metadata["field"] == "register_map"
    assert bench.registers.of("t") == TELLER_MAP


def test_a_device_that_is_not_there_has_no_registers(bench: DebugBench) -> None:
    for call in (
        lambda: bench.registers.of("x"),
        lambda: bench.registers.set("x", TELLER_MAP),
        lambda: bench.registers.set("x", None),
        lambda: bench.registers.decoder("x"),
        lambda: bench.registers.peek("x", "A"),
        lambda: bench.registers.peek_all("x"),
        lambda: bench.registers.poke("x", "A", 0),
    ):
        with pytest.raises(NoSuchDevice):
            call()


def test_a_type_has_the_map_of_a_device_without_configuration(bench: DebugBench) -> None:
    assert bench.registers.of_type("teller") == TELLER_MAP
    assert bench.registers.of_type("uart16550").register("LCR").offset == 3
    with pytest.raises(NoRegisterMap, match="'plain'"):
        bench.registers.of_type("plain")
    with pytest.raises(UnknownDeviceType):
        bench.registers.of_type("nothing")


# Peeks and pokes.


def test_a_peek_tells_value_fields_and_reserved_bits(bench: DebugBench) -> None:
    bench.teller("t").values["MODE"] = 0x93
    found = bench.registers.peek("t", "MODE")
    assert str(found) == "MODE = 0x93 (BANK=1, SPEED=3 fast, reserved=0x10)"
    assert found.complete


def test_one_of_a_row_is_told_by_its_index(bench: DebugBench) -> None:
    teller = bench.teller("t")
    bench.registers.poke("t", "ROW[2]", 0xBEEF)
    assert teller.values["ROW[2]"] == 0xBEEF
    assert str(bench.registers.peek("t", "ROW[2]")) == "ROW[2] = 0xbeef"
    for name in ("ROW", "ROW[4]", "row[1]", "MODE[0]", "NONE", ""):
        with pytest.raises(NoSuchRegister) as caught:
            bench.registers.peek("t", name)
        assert caught.value.metadata["device"] == "t"
        assert caught.value.metadata["register"] == name
        assert "MODE" in caught.value.metadata["known"]


def test_all_that_can_be_told_is_told_in_the_order_of_the_map(bench: DebugBench) -> None:
    bench.teller("t").values["WIDE"] = 0x12345678
    found = bench.registers.peek_all("t")
    assert [each.register for each in found] == [
        *("MODE", "A", "B", "WIDE"),
        *(f"ROW[{n}]" for n in range(4)),
        "COMMAND",
    ]
    assert found[3].value == 0x12345678


def test_of_a_map_without_end_only_a_part_is_told(
    bench: DebugBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registers_module, "ALL_MAX", 5)
    bench.teller("t")
    assert len(bench.registers.peek_all("t")) == 4  # SECRET is the fifth


def test_what_a_device_cannot_tell_or_set_is_said(bench: DebugBench) -> None:
    bench.teller("t")
    with pytest.raises(NotPeekable):
        bench.registers.peek("t", "SECRET")
    with pytest.raises(NotPeekable):
        bench.registers.poke("t", "SECRET", 1)


@pytest.mark.parametrize(("register", "value"), [("A", 256), ("A", -1), ("WIDE", 1 << 32)])
def test_a_poke_that_does_not_fit_is_refused(bench: DebugBench, register: str, value: int) -> None:
    teller = bench.teller("t")
    with pytest.raises(BadRequest, match=register) as caught:
        bench.registers.poke("t", register, value)
    assert caught.value.metadata["field"] == "value"
    assert teller.values[register] == 0


def test_a_device_that_tells_what_its_register_cannot_hold_is_at_fault(bench: DebugBench) -> None:
    bench.teller("t").values["A"] = 0x100
    with pytest.raises(DeviceFault, match="A is 0x100"):
        bench.registers.peek("t", "A")


def test_what_a_device_raises_is_its_fault_and_only_for_that_time(bench: DebugBench) -> None:
    teller = bench.teller("t")
    teller.raises = RuntimeError("broken")
    for call in (
        lambda: bench.registers.of("t"),
        lambda: bench.registers.peek("t", "A"),
        lambda: bench.registers.decoder("t"),
    ):
        with pytest.raises(DeviceFault, match=r"RuntimeError .*: broken"):
            call()
    teller.raises = None
    assert bench.registers.peek("t", "A").value == 0


def test_a_device_that_hangs_is_not_waited_for_without_end(
    bench: DebugBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entered_module, "LOCK_TIMEOUT_S", 0.01)
    with occupied(bench.teller("t")), pytest.raises(DeviceTimeout, match="'t'"):
        bench.registers.peek("t", "A")
    assert bench.registers.peek("t", "A").value == 0


def test_who_wants_to_know_is_told_what_was_changed_here(bench: DebugBench) -> None:
    bench.teller("t")
    told: list[str] = []
    told_inside: list[str] = []
    bench.registers.on_changed(told.append, inside=told_inside.append)
    bench.registers.peek("t", "A")
    assert told == []
    bench.registers.poke("t", "A", 1)
    bench.registers.set("t", OTHER_MAP)
    bench.registers.set("t", None)
    assert told == told_inside == ["t"] * 3
    with pytest.raises(NotPeekable):
        bench.registers.poke("t", "SECRET", 1)
    assert len(told) == 3


# Names of a given map.


def test_a_given_name_finds_what_the_device_has_at_the_same_place(bench: DebugBench) -> None:
    teller = bench.teller("t")
    bench.registers.set("t", OTHER_MAP)
    bench.registers.poke("t", "X", 7)
    bench.registers.poke("t", "ITEMS[3]", 9)
    bench.registers.poke("t", "MODE", 1)
    assert (teller.values["WIDE"], teller.values["ROW[3]"], teller.values["MODE"]) == (7, 9, 1)
    assert bench.registers.peek("t", "X").value == 7
    assert [each.register for each in bench.registers.peek_all("t")] == [
        *("X", "ITEMS[0]", "ITEMS[1]", "ITEMS[2]", "ITEMS[3]", "MODE")
    ]


@pytest.mark.parametrize("name", ["NOWHERE", "SHARED"])
def test_a_given_name_without_one_such_place_is_not_the_device_s(
    bench: DebugBench, name: str
) -> None:
    bench.teller("t")
    bench.registers.set("t", OTHER_MAP)
    with pytest.raises(NoSuchRegister):
        bench.registers.peek("t", name)


# Decoders.


def test_a_new_decoder_knows_what_the_device_is_set_to(bench: DebugBench) -> None:
    teller = bench.teller("t")
    for mode, name in ((0x00, "A"), (0x80, "B")):
        teller.values["MODE"] = mode
        decoder = bench.registers.decoder("t")
        assert decoder is not None
        assert [each.register for each in decoder.decode(0, 1, Operation.READ, b"\0")] == [name]
    assert set(teller.peeked) == {"MODE"}  # nothing else was worth looking at


def test_a_decoder_begins_with_reset_values_where_the_device_cannot_tell(
    bench: DebugBench,
) -> None:
    bench.teller("t")
    mode = replace(TELLER_MAP.register("MODE"), name="SECRET", reset=0x80)
    other = tuple(
        replace(each, when=each.when and replace(each.when, register="SECRET"))
        for each in TELLER_MAP
        if each.name not in {"SECRET", "MODE"}
    )
    bench.registers.set("t", RegisterMap("given", (mode, *other)))
    decoder = bench.registers.decoder("t")
    assert decoder is not None
    assert decoder.decode(0, 1, Operation.READ, b"\0")[0].register == "B"


def test_a_single_access_is_told_by_the_state_of_the_device(bench: DebugBench) -> None:
    bench.teller("t").values["MODE"] = 0x80
    touched = bench.registers.touched
    write = touched("t", 0, 0, access(Operation.WRITE, b"\x03"))
    assert [str(each) for each in write] == ["MODE = 0x03 (SPEED=3 fast)"]
    (ahead,) = touched("t", 0, 1, access(Operation.READ, b""))
    assert (ahead.register, ahead.value, ahead.fields, ahead.complete) == ("B", 0, (), False)
    string = touched("t", 0, 8, access(Operation.WRITE, bytes(range(8)), size=2))
    assert [str(each) for each in string] == ["ROW[0] = 0x0100"]


def test_of_an_access_that_tells_nothing_nothing_is_said(bench: DebugBench) -> None:
    teller = bench.teller("t")
    failed = replace(access(Operation.READ, b""), status=AccessStatus.DEVICE_FAULT)
    assert bench.registers.touched("t", 0, 0, failed) == ()
    assert bench.registers.touched("gone", 0, 0, access(Operation.READ, b"\0")) == ()
    assert [
        e.register for e in bench.registers.touched("t", 0, 99, access(Operation.READ, b""))
    ] == [""]
    teller.raises = RuntimeError("broken")
    assert bench.registers.touched("t", 0, 0, access(Operation.READ, b"\0")) == ()
    teller.raises = None
    bench.teller("u", mapped="no")
    assert bench.registers.touched("u", 0, 0, access(Operation.READ, b"\0")) == ()
