"""A snapshot is written and read back; what isn't one is refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_server.device_info import SavedDevice
from devicehost_server.model.errors import BadState
from devicehost_server.model.resources import (
    DeviceResources,
    KvmMemSlot,
    LegacyIrq,
    MmioAddressRange,
    MsiIrq,
    MsiType,
    PioAddressRange,
)
from devicehost_server.snapshot import from_text, to_text

UART = SavedDevice(
    "com1",
    "uart16550",
    {"base": "0x3f8"},
    DeviceResources([PioAddressRange(0x3F8, 8), LegacyIrq(4)]),
    {"lcr": 3, "fifo": "00ff"},
    None,
)
CARD = SavedDevice(
    "disk0",
    "virtio-blk",
    {"file": "disk.img", "pci-socket": "/run/disk0.sock"},
    DeviceResources(
        [MmioAddressRange(0xD000_0000, 0x4000), MsiIrq(MsiType.PCI_MSIX, 24, 2), KvmMemSlot(3)]
    ),
    {"queues": [{"avail": 7}]},
    {"command": 6},
)


def test_devices_come_back_as_they_were_in_their_order() -> None:
    assert from_text(to_text([CARD, UART])) == (CARD, UART)
    assert from_text(to_text([])) == ()


def test_a_state_that_is_no_json_is_refused_with_the_name_of_the_device() -> None:
    odd = SavedDevice("odd", "x", {}, DeviceResources(), {"bytes": b"\0"}, None)
    with pytest.raises(BadState, match=r"'odd'.*JSON"):
        to_text([UART, odd])


def changed(**changes: object) -> str:
    found = json.loads(to_text([UART]))
    found["devices"][0] |= changes
    return json.dumps(found)


def without(key: str) -> str:
    found = json.loads(to_text([UART]))
    del found["devices"][0][key]
    return json.dumps(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "isn't JSON"),
        ("[" * 100_000, "isn't JSON"),
        ("[]", "no format"),
        ("{}", "no format"),
        (to_text([UART])[:-5], "isn't JSON"),
        (to_text([UART]).replace('"format_version": 1', '"format_version": 2'), "version 2"),
        (to_text([UART, UART]), "'com1' twice"),
        (without("state"), "device 0"),
        (changed(more=1), "device 0"),
        (changed(id=""), "device 0"),
        (changed(type=7), "its type"),
        (changed(config={"base": 7}), "isn't text"),
        (changed(resources=[{"kind": "pio", "base": 0, "size": 0}]), "'com1'.*empty"),
        (changed(resources=[{"kind": "moon"}]), "'com1'.*moon"),
        (changed(state=[]), "its state"),
        (changed(pci=7), "its pci"),
    ],
)
def test_what_is_no_snapshot_is_refused_with_a_reason(text: str, message: str) -> None:
    with pytest.raises(BadState, match=message):
        from_text(text)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_any_other_json_is_refused_and_nothing_else_happens(found: Any) -> None:
    with pytest.raises(BadState):
        from_text(
            json.dumps({"format": "devicehost-snapshot", "format_version": 1, "devices": [found]})
        )
