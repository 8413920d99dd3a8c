"""Values of remote debugging survive the way to the API's messages and back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost.v1 import debug_service_pb2 as pb
from devicehost.v1 import interrupt_service_pb2, io_service_pb2
from devicehost_client.debug import (
    AccessFilter,
    Breakpoint,
    BreakpointAction,
    BreakpointEvent,
    Delay,
    DeviceState,
    Failing,
    Fault,
    FieldValue,
    Gone,
    Hit,
    HoldEnd,
    HoldEnded,
    Hotplugged,
    Interrupt,
    InterruptKind,
    Lost,
    Node,
    Operation,
    RegisterValue,
    Space,
    StuckAtOne,
    StuckAtZero,
    TracedAccess,
    TracedDma,
    wire,
)

U32 = st.integers(0, (1 << 32) - 1)
U64 = st.integers(0, (1 << 64) - 1)
NAMES = st.lists(st.text("abcX.[3]", min_size=1), unique=True).map(sorted).map(tuple)
FILTERS = st.builds(
    AccessFilter,
    devices=NAMES,
    registers=NAMES,
    space=st.none() | st.sampled_from(Space),
    base=U64,
    size=U64,
    operation=st.none() | st.sampled_from(Operation),
    value=U64,
    mask=U64,
    vcpus=st.lists(U32, unique=True).map(sorted).map(tuple),
    failed=st.booleans(),
)
KINDS = (
    st.builds(Delay, U32)
    | st.builds(StuckAtOne, U64)
    | st.builds(StuckAtZero, U64)
    | st.just(Gone())
    | st.just(Failing())
)


@given(FILTERS)
def test_a_filter_comes_back_as_it_went(wanted: AccessFilter) -> None:
    assert wire.from_filter(wire.to_filter(wanted)) == wanted


def test_a_set_of_devices_is_sent_in_an_order_that_does_not_change() -> None:
    message = wire.to_filter(AccessFilter(devices={"b", "a", "c"}, vcpus=frozenset({2, 1})))
    assert list(message.device_ids) == ["a", "b", "c"]
    assert list(message.vcpus) == [1, 2]


@given(
    st.builds(
        Breakpoint,
        filter=FILTERS,
        event=st.sampled_from(BreakpointEvent),
        gsi=st.none() | U32,
        ignore=U64,
        hits_max=U64,
        action=st.sampled_from(BreakpointAction),
        after=st.booleans(),
        limit_ms=U32,
    )
)
def test_a_breakpoint_comes_back_as_it_went(wanted: Breakpoint) -> None:
    message = wire.to_breakpoint(wanted)
    message.id, message.matches, message.hits = 7, 5, 3
    assert wire.from_breakpoint(message) == replace(wanted, id=7, matches=5, hits=3)


@given(st.builds(Fault, kind=KINDS, filter=FILTERS, percent=U32, seed=U64))
def test_a_fault_comes_back_as_it_went(wanted: Fault) -> None:
    message = wire.to_fault(wanted)
    message.id, message.count = 7, 5
    assert wire.from_fault(message) == replace(wanted, id=7, count=5)


def test_a_fault_of_no_kind_can_not_be_made() -> None:
    with pytest.raises(ValueError, match="a fault needs a kind; allowed: Delay"):
        wire.to_fault(Fault(None))


def test_a_fault_of_a_kind_that_a_newer_server_has_is_shown_all_the_same() -> None:
    assert wire.from_fault(pb.Fault(id=3)) == Fault(None, id=3)


LCR = pb.DecodedRegister(
    name="LCR",
    value=0x83,
    fields=[
        pb.FieldValue(name="DLAB", value=1),
        pb.FieldValue(name="WLS", value=3, meaning="8 bits"),
    ],
    reserved=0x40,
)
ACCESS = pb.TracedAccess(
    vcpu=0,
    space=io_service_pb2.SPACE_PIO,
    operation=io_service_pb2.OPERATION_WRITE,
    address=0x3FB,
    size=1,
    data=b"\x83",
    device_id="com1",
    offset=3,
    registers=[LCR],
    took_ns=1200,
)


def test_events_of_a_trace_become_values_and_what_is_lost_stands_before_them() -> None:
    response = pb.TraceResponse(
        lost=9,
        events=[
            pb.TraceEvent(time_ns=1, access=ACCESS),
            pb.TraceEvent(
                time_ns=2,
                interrupt=pb.TracedInterrupt(
                    gsi=4, kind=interrupt_service_pb2.INTERRUPT_KIND_ASSERTED, device_id="com1"
                ),
            ),
            pb.TraceEvent(
                time_ns=3,
                dma=pb.TracedDma(
                    device_id="fw",
                    operation=io_service_pb2.OPERATION_READ,
                    address=0x1000,
                    size=100,
                    data=b"x" * 64,
                ),
            ),
            pb.TraceEvent(time_ns=4, hotplug=pb.TracedHotplug(device_id="new", type="scratch")),
            pb.TraceEvent(time_ns=5),  # of a kind that a newer server has
        ],
    )
    register = RegisterValue(
        "LCR", 0x83, (FieldValue("DLAB", 1), FieldValue("WLS", 3, "8 bits")), 0x40
    )
    assert list(wire.from_trace(response)) == [
        Lost(9),
        TracedAccess(
            time_ns=1,
            took_ns=1200,
            vcpu=0,
            space=Space.PIO,
            operation=Operation.WRITE,
            address=0x3FB,
            size=1,
            data=b"\x83",
            device="com1",
            offset=3,
            registers=(register,),
        ),
        Interrupt(2, 4, InterruptKind.ASSERTED, "com1"),
        TracedDma(3, "fw", Operation.READ, 0x1000, 100, b"x" * 64),
        Hotplugged(4, "new", "scratch"),
    ]


def test_a_vcpu_that_is_not_known_is_not_vcpu_0() -> None:
    access = pb.TracedAccess()
    access.CopyFrom(ACCESS)
    access.ClearField("vcpu")
    event = wire.from_event(pb.TraceEvent(access=access))
    assert isinstance(event, TracedAccess)
    assert event.vcpu is None


def test_hits_and_ends_of_holds_become_values() -> None:
    held = pb.Hit(
        id=1, breakpoint_id=2, event=pb.TraceEvent(access=ACCESS), held=True, remaining_ms=30000
    )
    states = '{"com1": {"type": "uart16550", "state": {"lcr": 3}}}'
    snapshot = pb.WatchHitsResponse.Snapshot(held=[held, pb.Hit(id=2, states=states)])
    first, second = wire.from_hits(pb.WatchHitsResponse(snapshot=snapshot))
    assert isinstance(first, Hit)
    assert (first.id, first.breakpoint_id, first.held, first.remaining_ms) == (1, 2, True, 30000)
    assert second == Hit(
        2, 0, None, held=False, states={"com1": DeviceState("uart16550", {"lcr": 3})}
    )
    (again,) = wire.from_hits(pb.WatchHitsResponse(hit=held))
    assert again == first
    ended = pb.WatchHitsResponse.Ended(hit_id=1, why=pb.HOLD_END_LIMIT)
    assert list(wire.from_hits(pb.WatchHitsResponse(ended=ended))) == [HoldEnded(1, HoldEnd.LIMIT)]
    newer = pb.WatchHitsResponse.Ended(hit_id=1)
    assert list(wire.from_hits(pb.WatchHitsResponse(ended=newer))) == [
        HoldEnded(1, HoldEnd.UNKNOWN)
    ]


def test_a_tree_keeps_its_shape_and_an_empty_value_is_a_value() -> None:
    message = pb.Node(name="a", nodes=[pb.Node(name="b", value=""), pb.Node(name="c", cut=True)])
    assert wire.from_node(message) == Node("a", None, (Node("b", ""), Node("c", cut=True)))


def test_states_come_back_as_they_went() -> None:
    states = {"a": DeviceState("scratch", {"x": [1, None, {"y": "z"}]}), "b": DeviceState("t", {})}
    assert wire.from_states(wire.to_states(states)) == states


@pytest.mark.parametrize("text", ["[]", "3", '{"a": 3}', '{"a": {"type": "t"}}', "{", ""])
def test_what_is_not_states_is_an_error_in_words(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 # json's own, or ours
        wire.from_states(text)
