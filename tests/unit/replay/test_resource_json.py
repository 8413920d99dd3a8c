"""Resources to JSON and back."""

from __future__ import annotations

import json

import pytest

from devicehost_server.model.errors import BadRange
from devicehost_server.model.resources import (
    KvmMemSlot,
    LegacyIrq,
    MacAddress,
    MemAddressRange,
    MmioAddressRange,
    MsiIrq,
    MsiType,
    PioAddressRange,
    Resource,
)
from devicehost_server.resource_json import resources_from_json, resources_to_json

ALL: list[Resource] = [
    PioAddressRange(0x3F8, 8),
    MmioAddressRange((1 << 64) - 8, 8),
    MemAddressRange(0, 1),
    LegacyIrq(4),
    *(MsiIrq(ty, 24, 2) for ty in MsiType),
    KvmMemSlot(3),
    MacAddress("52:54:00:12:34:56"),
]


def test_resources_come_back_as_they_went() -> None:
    text = json.dumps(resources_to_json(ALL))
    assert list(resources_from_json(json.loads(text))) == ALL


def test_a_resource_that_has_no_form_is_an_error() -> None:
    with pytest.raises(TypeError, match="Resource"):
        resources_to_json([Resource()])


@pytest.mark.parametrize(
    "shape",
    [
        None,
        {},
        {"kind": "pio", "base": 1},
        {"kind": "pio", "base": "1", "size": 1},
        {"kind": "isa", "base": 1, "size": 1},
        {"kind": "msi", "type": "pci-x", "first": 1, "count": 1},
        {"kind": "irq"},
    ],
)
def test_rubbish_is_an_error_that_shows_it(shape: object) -> None:
    with pytest.raises(ValueError, match="resource 1 is "):
        resources_from_json([{"kind": "irq", "irq": 1}, shape])


def test_a_range_that_is_none_is_an_error() -> None:
    with pytest.raises(BadRange):
        resources_from_json([{"kind": "pio", "base": 0xFFFF, "size": 2}])
    with pytest.raises(ValueError, match="allowed: a list"):
        resources_from_json("pio")
