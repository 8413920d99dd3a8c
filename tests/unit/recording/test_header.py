"""The header of a recording, as JSON and back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from devicehost.recording import BadRecording, DeviceRecord, Header, Space, file_start
from unit.recording.samples import HEADER, RAM, UART


@pytest.mark.parametrize("header", [HEADER, Header(), Header((RAM, RAM))])
def test_a_header_is_the_same_when_it_comes_back(header: Header) -> None:
    assert Header.from_json(header.to_json()) == header


@pytest.mark.parametrize("device", [UART, RAM, DeviceRecord("a", "b")])
def test_a_device_is_the_same_when_it_comes_back(device: DeviceRecord) -> None:
    assert DeviceRecord.from_json(device.to_json()) == device


def test_a_device_needs_an_id_and_a_type_and_members_of_later_releases_are_passed_over() -> None:
    members = {"id": "a", "type": "b", "colour": "red"}
    assert DeviceRecord.from_json(members) == DeviceRecord("a", "b")


@pytest.mark.parametrize(
    ("member", "value", "message"),
    [
        ("id", 5, "id of a device is 5, but must be a string"),
        ("type", None, "type of the device 'uart0' is None, but must be a string"),
        ("config", [], "config of the device 'uart0' is [], but must be an object"),
        ("resources", {}, "resources of the device 'uart0' is {}, but must be an array"),
        ("resources", [1], "a resource of the device 'uart0' is 1, but must be an object"),
        ("ranges", None, "ranges of the device 'uart0' is None, but must be an array"),
        ("ranges", [["pio", 1]], "a range of the device 'uart0' is ['pio', 1], but must be"),
        ("ranges", [["rom", 1, 1]], "a range of the device 'uart0' is ['rom', 1, 1]"),
        ("ranges", [["pio", 1, 0]], "a range of the device 'uart0' is ['pio', 1, 0]"),
        ("ranges", [["pio", -1, 1]], "a range of the device 'uart0' is ['pio', -1, 1]"),
        ("ranges", [["pio", 65535, 2]], "a range of the device 'uart0' is ['pio', 65535, 2]"),
        ("ranges", [["mmio", 1 << 64, 1]], "a range of the device 'uart0' is ['mmio', "),
        ("registers", 5, "registers of the device 'uart0' is 5, but must be an object"),
        ("state", "a" * 1000, "but must be an object"),
        ("values", {"LCR": "3"}, "the value of LCR of the device 'uart0' is '3', but must be a "),
        ("values", {"LCR": True}, "the value of LCR of the device 'uart0' is True, but must be a "),
    ],
)
def test_a_member_that_cannot_be_is_named(member: str, value: object, message: str) -> None:
    with pytest.raises(BadRecording) as raised:
        DeviceRecord.from_json({**UART.to_json(), member: value})
    assert message in str(raised.value)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("member", ["devices", "version", "started", "wall_ns", "now_ns"])
def test_a_header_without_a_member_is_none(member: str) -> None:
    members = HEADER.to_json()
    del members[member]
    with pytest.raises(BadRecording, match=f"{member} of the header is None"):
        Header.from_json(members)


def test_a_range_may_end_with_its_space() -> None:
    ranges = ((Space.PIO, 0, 1 << 16), (Space.MMIO, (1 << 64) - 1, 1))
    device = replace(UART, ranges=ranges)
    assert DeviceRecord.from_json(device.to_json()) == device


def test_what_is_not_json_is_refused_when_it_is_written() -> None:
    with pytest.raises(ValueError, match="the header of a recording isn't JSON"):
        file_start(Header((replace(UART, state={"a": b""}),)))
    with pytest.raises(ValueError, match="of JSON, but may have 16777216"):
        file_start(Header(note="a" * (16 << 20)))
