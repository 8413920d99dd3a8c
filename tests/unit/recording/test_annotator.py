"""Events to devices, offsets and registers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from devicehost.access_status import AccessStatus
from devicehost.recording import (
    Access,
    Annotated,
    Annotator,
    BadRecording,
    DeviceRecord,
    Interrupt,
    InterruptKind,
    Lost,
    Operation,
    Plugged,
    Space,
    Unplugged,
)
from devicehost.registers import Field, Register, RegisterMap, When, to_json
from unit.recording.samples import OTHERS, RAM, T0, UART, read, write

UART_MAP = RegisterMap(
    "uart",
    (
        Register("RBR", 0, when=When("LCR", "DLAB", 0)),
        Register("DLL", 0, when=When("LCR", "DLAB", 1)),
        Register("LCR", 3, fields=(Field("DLAB", 0x80), Field("WLS", 0x03))),
        Register("SCR", 7),
    ),
)
MEMORY_MAP = RegisterMap("ram", (Register("WORD", 0, 4, count=4), Register("END", 0, range=1)))

DEVICES = (
    replace(UART, registers=to_json(UART_MAP), values={}),
    DeviceRecord(
        "ram.0",
        "scratch",
        ranges=((Space.MMIO, 0xFEB0_0000, 0x10), (Space.MMIO, 0xFEB0_2000, 0x10)),
        registers=to_json(MEMORY_MAP),
    ),
    DeviceRecord("plain", "scratch", ranges=((Space.MMIO, 0xFEB0_1000, 0x10),)),
)


@pytest.fixture
def annotator() -> Annotator:
    return Annotator(DEVICES)


def names(annotated: Annotated) -> list[str]:
    return [decoded.register for decoded in annotated.registers]


def port(address: int, data: bytes = b"a") -> Access:
    return read(address=address, data=data, space=Space.PIO)


@pytest.mark.parametrize(
    ("access", "device", "number", "offset"),
    [
        (port(0x3F8), "uart0", 0, 0),
        (port(0x3FF), "uart0", 0, 7),
        (port(0x3F7), "", -1, 0),
        (port(0x400), "", -1, 0),
        (read(address=0x3F8), "", -1, 0),
        (read(address=0xFEB0_0004), "ram.0", 0, 4),
        (read(address=0xFEB0_2000), "ram.0", 1, 0),
        (read(address=0xFEB0_100C), "plain", 0, 12),
        (read(address=0xFEB0_1010), "", -1, 0),
        (read(address=0), "", -1, 0),
        (read(address=(1 << 64) - 4), "", -1, 0),
    ],
)
def test_an_access_is_to_the_device_whose_range_its_first_byte_is_in(
    annotator: Annotator, access: Access, device: str, number: int, offset: int
) -> None:
    annotated = annotator.annotate(access)
    assert annotated.event is access
    assert (annotated.device, annotated.range, annotated.offset) == (device, number, offset)


def test_registers_are_decoded_with_their_fields_and_writes_are_followed(
    annotator: Annotator,
) -> None:
    assert names(annotator.annotate(port(0x3F8))) == ["RBR"]
    [decoded] = annotator.annotate(write(address=0x3FB, data=b"\x83")).registers
    assert str(decoded) == "LCR = 0x83 (DLAB=1, WLS=3)"
    assert names(annotator.annotate(port(0x3F8))) == ["DLL"]
    annotator.annotate(write(address=0x3FB, data=b"\x03"))
    assert names(annotator.annotate(port(0x3F8))) == ["RBR"]


def test_an_access_over_several_registers_has_all_of_them(annotator: Annotator) -> None:
    annotated = annotator.annotate(read(address=0xFEB0_0004, data=b"abcdefgh"))
    assert names(annotated) == ["WORD[1]", "WORD[2]"]
    assert annotated.registers[1].value == int.from_bytes(b"efgh", "little")


def test_registers_of_a_second_range_are_those_of_that_range(annotator: Annotator) -> None:
    assert names(annotator.annotate(read(address=0xFEB0_2000, data=b"a"))) == ["END"]


def test_values_from_before_the_recording_decide_what_registers_mean() -> None:
    annotator = Annotator([replace(DEVICES[0], values={"LCR": 0x80, "NONE": 5})])
    assert names(annotator.annotate(port(0x3F8))) == ["DLL"]


def test_a_string_access_has_a_register_for_each_of_the_first_16_operands(
    annotator: Annotator,
) -> None:
    string = replace(port(0x3F8, bytes(range(20))), size=1)
    registers = annotator.annotate(string).registers
    assert [decoded.value for decoded in registers] == list(range(16))
    assert {decoded.register for decoded in registers} == {"RBR"}


def test_the_last_operand_of_a_long_string_is_what_a_register_has_then(
    annotator: Annotator,
) -> None:
    string = replace(write(address=0x3FB, data=bytes(99) + b"\x80"), size=1)
    assert len(annotator.annotate(string).registers) == 16
    assert names(annotator.annotate(port(0x3F8))) == ["DLL"]


def test_of_a_long_operand_the_first_64_bytes_are_decoded() -> None:
    words = RegisterMap("ram", (Register("WORD", 0, 4, count=1024),))
    device = DeviceRecord("a", "b", ranges=((Space.MMIO, 0, 4096),), registers=to_json(words))
    annotated = Annotator([device]).annotate(read(address=0, data=bytes(4096)))
    assert names(annotated) == [f"WORD[{number}]" for number in range(16)]


@pytest.mark.parametrize("size", [0, 3, 1 << 60])
def test_a_size_that_does_not_go_with_the_data_does_no_harm(
    annotator: Annotator, size: int
) -> None:
    for data in (b"", b"abcd"):
        assert annotator.annotate(replace(port(0x3F8, data), size=size)).device == "uart0"


@pytest.mark.parametrize("operation", Operation)
def test_a_failed_access_has_a_device_but_no_registers_and_is_not_followed(
    annotator: Annotator, operation: Operation
) -> None:
    failed = replace(
        write(address=0x3FB, data=b"\x80"), operation=operation, status=AccessStatus.DEVICE_FAULT
    )
    annotated = annotator.annotate(failed)
    assert (annotated.device, annotated.offset, annotated.registers) == ("uart0", 3, ())
    assert names(annotator.annotate(port(0x3F8))) == ["RBR"]


def test_a_device_without_a_map_has_no_registers(annotator: Annotator) -> None:
    assert annotator.annotate(read(address=0xFEB0_1000)).registers == ()


def test_devices_come_and_go(annotator: Annotator) -> None:
    gone = annotator.annotate(Unplugged(T0, "uart0"))
    assert gone.device == "uart0"
    assert annotator.annotate(port(0x3F8)).device == ""
    assert annotator.annotate(read(address=0xFEB0_0000)).device == "ram.0"
    other = replace(DEVICES[0], id="uart1")
    assert annotator.annotate(Plugged(T0, other.to_json())).device == "uart1"
    annotated = annotator.annotate(port(0x3FF))
    assert (annotated.device, names(annotated)) == ("uart1", ["SCR"])


def test_a_device_that_is_plugged_again_begins_anew_where_it_is_now(annotator: Annotator) -> None:
    annotator.annotate(write(address=0x3FB, data=b"\x80"))
    moved = replace(DEVICES[0], ranges=((Space.PIO, 0x2F8, 8),))
    annotator.annotate(Plugged(T0, moved.to_json()))
    assert annotator.annotate(port(0x3F8)).device == ""
    assert names(annotator.annotate(port(0x2F8))) == ["RBR"]


def test_other_events_have_the_device_that_they_name(annotator: Annotator) -> None:
    assert annotator.annotate(OTHERS["DMA"]).device == "disk"
    assert annotator.annotate(OTHERS["woken"]).device == "rtc"
    assert annotator.annotate(OTHERS["told"]).device == "gerät"
    assert annotator.annotate(OTHERS["time"]).device == "rtc"
    interrupt = Interrupt(T0, 4, InterruptKind.PULSED, "uart0")
    assert annotator.annotate(interrupt) == Annotated(interrupt, "uart0", -1, 0, ())
    assert annotator.annotate(Lost(5)) == Annotated(Lost(5))


def test_registers_that_are_no_map_are_refused_with_the_name_of_the_device(
    annotator: Annotator,
) -> None:
    bad = replace(RAM, registers={"name": "a"})
    with pytest.raises(BadRecording, match=r"the registers of the device 'ram\.0': "):
        Annotator([bad])
    with pytest.raises(BadRecording, match=r"the registers of the device 'ram\.0': "):
        annotator.annotate(Plugged(T0, bad.to_json()))
    with pytest.raises(BadRecording, match="type of the device 'a' is None"):
        annotator.annotate(Plugged(T0, {"id": "a"}))


def test_a_plug_that_was_refused_changes_nothing(annotator: Annotator) -> None:
    bad = replace(DEVICES[1], registers={"name": "a"})
    with pytest.raises(BadRecording):
        annotator.annotate(Plugged(T0, bad.to_json()))
    assert names(annotator.annotate(read(address=0xFEB0_0000))) == ["WORD[0]"]
