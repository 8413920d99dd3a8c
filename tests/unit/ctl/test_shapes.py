"""What `-o json` says about each thing."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from devicehost.v1 import hotplug_service_pb2 as hotplug_pb
from devicehost.v1 import io_service_pb2 as io_pb
from devicehost.v1 import resource_pb2 as pb
from devicehost.v1 import resource_service_pb2
from devicehost_client.ctl.output import Json
from devicehost_client.ctl.shapes import (
    DEVICE_HELP,
    DEVICE_TYPE_HELP,
    RESOURCE_HELP,
    device_shape,
    device_type_shape,
    pool_shape,
    range_shape,
    resource_shape,
)


@pytest.mark.parametrize(
    ("resource", "shape"),
    [
        (
            pb.Resource(pio=pb.AddressRange(base=0x3F8, size=8)),
            {"text": "pio:0x3f8+0x8", "kind": "pio", "base": "0x3f8", "size": "0x8"},
        ),
        (pb.Resource(legacy_irq=4), {"text": "irq:4", "kind": "irq", "irq": 4}),
        (
            pb.Resource(msi=pb.MsiRange(type=pb.MSI_TYPE_PCI_MSI, base=24, size=4)),
            {"text": "msi:24+4,type=pci-msi", "kind": "msi", "type": "pci-msi"}
            | {"first": 24, "count": 4},
        ),
        (pb.Resource(kvm_mem_slot=3), {"text": "slot:3", "kind": "slot", "slot": 3}),
        (
            pb.Resource(mac_address="52:54:00:12:34:56"),
            {"text": "mac:52:54:00:12:34:56", "kind": "mac", "address": "52:54:00:12:34:56"},
        ),
        (pb.Resource(), {"text": "unknown", "kind": "unknown"}),
    ],
)
def test_a_resource_has_its_text_and_its_parts(
    resource: pb.Resource, shape: dict[str, Json]
) -> None:
    assert resource_shape(resource) == shape


def test_addresses_above_2_to_the_53_are_exact() -> None:
    resource = pb.Resource(mmio=pb.AddressRange(base=(1 << 64) - 1, size=1))
    assert resource_shape(resource)["base"] == "0xffffffffffffffff"


def full_device() -> hotplug_pb.Device:
    return hotplug_pb.Device(
        id="r0",
        type="scratch",
        state=hotplug_pb.DEVICE_STATE_UNPLUGGING,
        config={"size": "8", "bus": "pio"},
        resources=[pb.Resource(legacy_irq=5)],
        generation=7,
        accesses=hotplug_pb.AccessCounts(reads=1, writes=2, faults=3),
    )


def test_a_device_has_all_that_is_known_of_it() -> None:
    assert device_shape(full_device()) == {
        "id": "r0",
        "type": "scratch",
        "state": "unplugging",
        "generation": 7,
        "config": {"bus": "pio", "size": "8"},
        "resources": [{"text": "irq:5", "kind": "irq", "irq": 5}],
        "accesses": {"reads": 1, "writes": 2, "faults": 3},
    }


def test_accesses_that_nobody_counts_are_null() -> None:
    device = full_device()
    device.ClearField("accesses")
    assert device_shape(device)["accesses"] is None


def test_a_required_option_has_no_default() -> None:
    required = hotplug_pb.DeviceOption(name="path", type="path", required=True, help="where")
    other = hotplug_pb.DeviceOption(name="id", type="str", default_value="", allowed="text")
    device_type = hotplug_pb.DeviceType(name="t", summary="A type.", options=[required, other])
    shape = device_type_shape(device_type)
    assert shape["options"] == [
        {"name": "path", "type": "path", "required": True, "default": None}
        | {"allowed": "", "help": "where"},
        {"name": "id", "type": "str", "required": False, "default": ""}
        | {"allowed": "text", "help": ""},
    ]


def test_a_pool_counts_in_0x_form() -> None:
    pool = resource_service_pb2.GetCapacityResponse.Pool(
        name="pio", total=0x10000, free=0xFFF8, largest_free=0xF000
    )
    assert pool_shape(pool) == {
        "name": "pio",
        "total": "0x10000",
        "free": "0xfff8",
        "largest_free": "0xf000",
    }


def test_a_range_has_its_last_address() -> None:
    trapped = io_pb.ListRangesResponse.Range(
        space=io_pb.SPACE_PIO, base=0x70, size=2, device_id="rtc"
    )
    assert range_shape(trapped, None) == {
        "space": "pio",
        "base": "0x70",
        "size": "0x2",
        "last": "0x71",
        "device": "rtc",
        "type": None,
    }


def test_a_range_of_size_0_is_all_of_the_space() -> None:
    trapped = io_pb.ListRangesResponse.Range(space=io_pb.SPACE_MMIO, device_id="all")
    shape = range_shape(trapped, "scratch")
    assert (shape["size"], shape["last"]) == ("0x10000000000000000", "0xffffffffffffffff")


def keys_in(help_text: str) -> set[str]:
    return set(re.findall(r'"([a-z_]+)"', help_text))


def test_help_names_every_field_and_no_other() -> None:
    device = device_shape(full_device())
    assert keys_in(DEVICE_HELP) - keys_in(RESOURCE_HELP) == {
        *(device.keys() - keys_in(RESOURCE_HELP)),
        *("reads", "writes", "faults"),
    }
    option = hotplug_pb.DeviceOption(name="o")
    shape = device_type_shape(hotplug_pb.DeviceType(name="t", options=[option]))
    as_read: dict[str, Any] = json.loads(json.dumps(shape))
    assert keys_in(DEVICE_TYPE_HELP) == {*as_read, *as_read["options"][0]}
