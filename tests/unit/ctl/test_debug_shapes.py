"""What `-o json` says of remote debugging."""

from __future__ import annotations

import json

import pytest

from devicehost_client.ctl.debug_shapes import (
    breakpoint_shape,
    event_shape,
    fault_shape,
    hit_shape,
    node_shape,
)
from devicehost_client.debug import (
    AccessFilter,
    Breakpoint,
    Delay,
    DeviceState,
    Fault,
    FieldValue,
    Hit,
    Hotplugged,
    Interrupt,
    InterruptKind,
    Lost,
    Node,
    Operation,
    RegisterValue,
    Space,
    TracedAccess,
    TracedDma,
    TraceEvent,
)

LCR = RegisterValue("LCR", 0x83, (FieldValue("DLAB", 1), FieldValue("WLS", 3, "8 bits")), 0x40)
ACCESS = TracedAccess(
    time_ns=5,
    took_ns=7,
    vcpu=None,
    space=Space.PIO,
    operation=Operation.WRITE,
    address=0x3FB,
    size=1,
    data=b"\x83",
    device="com1",
    offset=3,
    registers=(LCR,),
)


def test_an_access_has_all_that_is_known_of_it() -> None:
    assert event_shape(ACCESS) == {
        "kind": "access",
        "time_ns": 5,
        "device": "com1",
        "vcpu": None,
        "space": "pio",
        "operation": "write",
        "address": "0x3fb",
        "size": "0x1",
        "data": "83",
        "values": ["0x83"],
        "failure": None,
        "took_ns": 7,
        "offset": "0x3",
        "registers": [
            {
                "name": "LCR",
                "value": "0x83",
                "fields": {
                    "DLAB": {"value": "0x1", "meaning": ""},
                    "WLS": {"value": "0x3", "meaning": "8 bits"},
                },
                "reserved": "0x40",
            }
        ],
    }


@pytest.mark.parametrize(
    ("event", "shape"),
    [
        (
            Interrupt(1, 4, InterruptKind.PULSED, ""),
            {"kind": "interrupt", "time_ns": 1, "device": "", "gsi": 4, "change": "pulsed"},
        ),
        (
            TracedDma(1, "fw", Operation.READ, 0x1000, 100, b"\x01"),
            {"kind": "dma", "time_ns": 1, "device": "fw", "operation": "read"}
            | {"address": "0x1000", "size": "0x64", "data": "01"},
        ),
        (
            Hotplugged(1, "new", "scratch"),
            {"kind": "plugged", "time_ns": 1, "device": "new", "type": "scratch"},
        ),
        (Hotplugged(1, "new", ""), {"kind": "unplugged", "time_ns": 1, "device": "new"}),
        (Lost(3), {"kind": "lost", "count": 3}),
    ],
)
def test_other_events_have_a_kind_too(event: TraceEvent | Lost, shape: object) -> None:
    assert event_shape(event) == shape


def test_a_hit_has_its_event_and_the_states_that_were_saved() -> None:
    hit = Hit(1, 2, ACCESS, held=True, remaining_ms=5, states={"a": DeviceState("t", {"x": 1})})
    shape = hit_shape(hit)
    assert shape["at"] == event_shape(ACCESS)
    assert shape["states"] == {"a": {"type": "t", "state": {"x": 1}}}
    assert hit_shape(Hit(1, 2, None, held=False))["at"] is None


def test_breakpoints_faults_and_trees_are_json() -> None:
    wanted = AccessFilter(registers=("a.R",), operation=Operation.READ)
    told = json.loads(json.dumps(breakpoint_shape(Breakpoint(wanted, id=1))))
    assert (told["id"], told["event"], told["action"]) == (1, "access", "hold")
    assert (told["filter"]["text"], told["filter"]["space"]) == ("read a.R", None)
    fault = fault_shape(Fault(Delay(500), wanted, percent=10, seed=7, id=2, count=3))
    assert (fault["kind"], fault["percent"], fault["count"]) == ("delay 500 us", 10, 3)
    assert fault_shape(Fault(None))["kind"] is None
    assert node_shape(Node("a", "1", (Node("b"),), cut=True)) == {
        "name": "a",
        "value": "1",
        "nodes": [{"name": "b", "value": None, "nodes": [], "cut": False}],
        "cut": True,
    }
