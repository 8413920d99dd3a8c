"""The messages of DebugService: both ways without a loss, and nothing that can't be."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost.access_status import AccessStatus
from devicehost.recording.annotator import Annotated
from devicehost.recording.events import (
    Access,
    Dma,
    Interrupt,
    InterruptKind,
    Learned,
    Operation,
    Plugged,
    Space,
    Unplugged,
)
from devicehost.registers import Decoded, DecodedField, Register, RegisterMap
from devicehost.v1 import debug_service_pb2 as pb
from devicehost.v1 import interrupt_service_pb2 as interrupt_pb
from devicehost.v1 import io_service_pb2 as io_pb
from devicehost_server.debug.activity import Activity, InterruptActivity, PlaceActivity
from devicehost_server.debug.breakpoint import (
    Breakpoint,
    BreakpointAction,
    BreakpointEvent,
    ResumeAction,
)
from devicehost_server.debug.faults import (
    Delay,
    Failing,
    Fault,
    Gone,
    StuckAtOne,
    StuckAtZero,
)
from devicehost_server.debug.filters import AccessFilter
from devicehost_server.debug.holds import Hit, HoldEnd, HoldEnded
from devicehost_server.debug.inspection import Node
from devicehost_server.model.errors import BadRequest
from devicehost_server.services import debug_convert as convert
from devicehost_server.services import debug_stops as stops
from devicehost_server.services.debug_activity import activity_to_message
from devicehost_server.services.debug_streams import (
    CHUNK_MAX,
    EVENTS_MAX,
    EVENTS_SIZE,
    chunks,
    trace_responses,
)

words = st.integers(0, (1 << 64) - 1)
numbers = st.integers(0, (1 << 32) - 1)
names = st.text(max_size=8)

filters = st.builds(
    AccessFilter,
    devices=st.frozensets(names, max_size=3),
    registers=st.lists(names, max_size=3).map(tuple),
    space=st.sampled_from([None, *Space]),
    base=words,
    size=words,
    operation=st.sampled_from([None, *Operation]),
    value=words,
    mask=words,
    vcpus=st.frozensets(numbers, max_size=3),
    failed=st.booleans(),
)
breakpoints = st.builds(
    Breakpoint,
    filter=filters,
    event=st.sampled_from(BreakpointEvent),
    gsi=st.none() | numbers,
    ignore=words,
    hits_max=words,
    action=st.sampled_from(BreakpointAction),
    after=st.booleans(),
    limit_ms=numbers,
)
kinds = (
    st.builds(Delay, numbers)
    | st.builds(StuckAtOne, words)
    | st.builds(StuckAtZero, words)
    | st.just(Gone())
    | st.just(Failing())
)
faults = st.builds(Fault, kind=kinds, filter=filters, percent=numbers, seed=words)

READ = Access(5, 7, 2, Space.PIO, Operation.READ, 0x3FD, 1, b"\x60")
LSR = Decoded(
    "LSR", 0x60, (DecodedField("THRE", 1, "empty"),), 0x40, Register("LSR", 5), complete=True
)


def touched(_device: str, _range: int, _offset: int, _access: Access) -> tuple[Decoded, ...]:
    return (LSR,)


# Both ways.


@given(filters)
def test_a_filter_survives_its_message(wanted: AccessFilter) -> None:
    assert convert.filter_from_message(convert.filter_to_message(wanted)) == wanted


@given(breakpoints)
def test_a_breakpoint_survives_its_message(wanted: Breakpoint) -> None:
    assert stops.breakpoint_from_message(stops.breakpoint_to_message(wanted)) == wanted


@given(faults)
def test_a_fault_survives_its_message(wanted: Fault) -> None:
    assert stops.fault_from_message(stops.fault_to_message(wanted)) == wanted


def test_what_the_server_counts_is_not_taken_from_a_client() -> None:
    told = Breakpoint(id=5, matches=3, hits=2)
    message = stops.breakpoint_to_message(told)
    assert (message.id, message.matches, message.hits) == (5, 3, 2)
    assert stops.breakpoint_from_message(message) == Breakpoint()
    fault = Fault(Gone(), id=4, count=9)
    assert stops.fault_from_message(stops.fault_to_message(fault)) == Fault(Gone())


def test_a_register_map_survives_its_text() -> None:
    registers = RegisterMap("chip", (Register("R", 0, 4, count=8), Register("LAST", 32)))
    text = convert.register_map_to_text(registers)
    assert convert.register_map_from_text(text) == registers


# From clients.


def test_an_empty_message_is_what_the_api_says() -> None:
    assert convert.filter_from_message(pb.AccessFilter()) == AccessFilter()
    assert stops.breakpoint_from_message(pb.Breakpoint()) == Breakpoint()
    assert stops.resume_action_from_message(0) is ResumeAction.CONTINUE


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: convert.filter_from_message(pb.AccessFilter(space=9)), "filter.space"),  # type: ignore[arg-type] # from a newer client
        (lambda: convert.filter_from_message(pb.AccessFilter(operation=-1)), "filter.operation"),  # type: ignore[arg-type] # likewise
        (
            lambda: convert.filter_from_message(
                pb.AccessFilter(vcpus=range(convert.FILTER_MAX + 1))
            ),
            "filter.vcpus",
        ),
        (lambda: stops.breakpoint_from_message(pb.Breakpoint(event=9)), "event"),  # type: ignore[arg-type] # likewise
        (lambda: stops.breakpoint_from_message(pb.Breakpoint(action=9)), "action"),  # type: ignore[arg-type] # likewise
        (lambda: stops.resume_action_from_message(9), "action"),
        (lambda: convert.interrupt_kind_from_message(0), "kind"),
        (lambda: convert.interrupt_kind_from_message(9), "kind"),
        (lambda: stops.fault_from_message(pb.Fault()), "kind"),
        (lambda: stops.fault_from_message(pb.Fault(gone=False)), "gone"),
        (lambda: stops.fault_from_message(pb.Fault(failing=False)), "failing"),
    ],
)
def test_what_cannot_be_is_refused_with_the_field(call: Callable[[], object], field: str) -> None:
    with pytest.raises(BadRequest) as caught:
        call()
    assert caught.value.metadata["field"] == field


@pytest.mark.parametrize(
    "text",
    ["x", "[]", "{}", "[" * 100_000, '{"name": "x"}', '{"name": "x", "registers": 5}', "NaN"],
)
def test_text_that_is_no_register_map_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        convert.register_map_from_text(text)
    assert caught.value.metadata["field"] == "register_map"


# To clients.


def test_an_access_says_where_it_went_and_what_it_carried() -> None:
    event = convert.event_to_message(Annotated(READ, "uart0", 0, 5, (LSR,)))
    assert event is not None
    assert event == pb.TraceEvent(
        time_ns=5,
        access=pb.TracedAccess(
            vcpu=2,
            space=io_pb.SPACE_PIO,
            operation=io_pb.OPERATION_READ,
            address=0x3FD,
            size=1,
            data=b"\x60",
            device_id="uart0",
            offset=5,
            registers=[
                pb.DecodedRegister(
                    name="LSR",
                    value=0x60,
                    fields=[pb.FieldValue(name="THRE", value=1, meaning="empty")],
                    reserved=0x40,
                )
            ],
            took_ns=7,
        ),
    )


def test_messages_that_are_remembered_are_those_that_would_be_made() -> None:
    remembered = convert.RegisterMessages()
    for number in range(convert.REMEMBERED * 2 + 1):
        decoded = Decoded("R", number, (), 0, None, complete=True)
        (message,) = remembered([decoded])
        assert message.value == number
        assert remembered([decoded, LSR]) == convert.registers_to_messages([decoded, LSR])
    assert len(remembered._known) <= convert.REMEMBERED


def test_an_access_that_found_nothing_says_so() -> None:
    lost = Access(
        1, 2, None, Space.MMIO, Operation.WRITE, 1 << 63, 8, bytes(8), AccessStatus.NO_DEVICE
    )
    event = convert.event_to_message(Annotated(lost))
    assert event is not None
    assert not event.access.HasField("vcpu")
    assert (event.access.device_id, event.access.offset, event.access.failure) == (
        *("", 0),
        "NO_DEVICE",
    )


def test_of_a_dma_the_beginning_is_sent_and_the_size_of_all() -> None:
    dma = Dma(1, "d", Operation.WRITE, 0x1000, bytes(range(200)))
    event = convert.event_to_message(Annotated(dma, "d"))
    assert event is not None
    assert (event.dma.size, event.dma.data) == (200, bytes(range(64)))


def test_interrupts_and_hotplug_say_whose_they_are() -> None:
    raised = Interrupt(3, 4, InterruptKind.PULSED, "u")
    event = convert.event_to_message(Annotated(raised, "u"))
    assert event is not None
    assert event.interrupt == pb.TracedInterrupt(
        gsi=4, kind=interrupt_pb.INTERRUPT_KIND_PULSED, device_id="u"
    )
    came = convert.event_to_message(Annotated(Plugged(1, {"id": "u", "type": "scratch"}), "u"))
    went = convert.event_to_message(Annotated(Unplugged(2, "u"), "u"))
    assert came is not None
    assert went is not None
    assert came.hotplug == pb.TracedHotplug(device_id="u", type="scratch")
    assert went.hotplug == pb.TracedHotplug(device_id="u")


def test_what_only_a_recording_is_concerned_with_is_not_sent() -> None:
    assert convert.event_to_message(Annotated(Learned(1, "u", "now", 5), "u")) is None


def test_a_hit_says_what_it_stopped_at() -> None:
    held = Hit(1, 2, READ, "uart0", 0, 5, held=True, after=False, remaining_ms=500)
    message = stops.hit_to_message(held, touched)
    assert (message.id, message.breakpoint_id, message.held, message.after) == (1, 2, True, False)
    assert message.remaining_ms == 500
    assert message.event.access.registers[0].name == "LSR"
    nobody = Hit(1, 0, READ, "", 0, 0, held=True, after=False)
    assert not stops.hit_to_message(nobody, touched).event.access.registers
    raised = Hit(
        3, 2, Interrupt(1, 4, InterruptKind.ASSERTED, "u"), "u", 0, 0, held=False, after=True
    )
    assert stops.hit_to_message(raised, touched).event.interrupt.gsi == 4


@pytest.mark.parametrize("why", HoldEnd)
def test_the_end_of_a_hold_says_why(why: HoldEnd) -> None:
    message = stops.news_to_message(HoldEnded(7, why), touched)
    assert message.ended.hit_id == 7
    assert pb.HoldEnd.Name(message.ended.why) == f"HOLD_END_{why.name}"


def test_a_tree_may_hold_text_that_is_none() -> None:
    tree = Node("a\udcff", "b\ud800", (Node("c"),), cut=True)
    message = convert.node_to_message(tree)
    assert (message.name, message.value, message.cut) == ("a?", "b?", True)
    assert not message.nodes[0].HasField("value")


def test_activity_comes_as_it_was_counted() -> None:
    place = PlaceActivity("uart0", "LSR", Space.PIO, 0x3FD, 5, 6, 1, 900, 300)
    activity = Activity(10**9, (place,), (InterruptActivity(4, 2, asserted=True),), (0, 3, 8))
    assert activity_to_message(activity) == pb.WatchActivityResponse(
        interval_ns=10**9,
        places=[
            pb.PlaceActivity(
                device_id="uart0",
                register="LSR",
                space=io_pb.SPACE_PIO,
                address=0x3FD,
                reads=5,
                writes=6,
                failures=1,
                took_ns=900,
                longest_ns=300,
            )
        ],
        interrupts=[pb.InterruptActivity(gsi=4, count=2, asserted=True)],
        latency=[0, 3, 8],
    )


# Streams.


def events(count: int, size: int = 1) -> list[pb.TraceEvent]:
    return [
        pb.TraceEvent(time_ns=number, access=pb.TracedAccess(data=bytes(size)))
        for number in range(count)
    ]


def test_a_trace_comes_in_messages_of_so_many_events_and_none_is_lost() -> None:
    found = list(trace_responses(3, events(EVENTS_MAX * 2 + 1)))
    assert [len(each.events) for each in found] == [EVENTS_MAX, EVENTS_MAX, 1]
    assert [each.lost for each in found] == [3, 0, 0]
    times = [event.time_ns for each in found for event in each.events]
    assert times == list(range(EVENTS_MAX * 2 + 1))


def test_a_message_of_a_trace_has_a_bounded_size() -> None:
    found = list(trace_responses(0, events(40, size=100_000)))
    assert sum(len(each.events) for each in found) == 40
    assert max(each.ByteSize() for each in found) < EVENTS_SIZE + 200_000


def test_that_nothing_was_seen_is_not_sent_but_that_something_was_lost_is() -> None:
    assert list(trace_responses(0, [])) == []
    assert list(trace_responses(5, [])) == [pb.TraceResponse(lost=5)]


@given(st.lists(st.sampled_from([0, 1, CHUNK_MAX, CHUNK_MAX * 2 + 5]), max_size=4))
def test_a_recording_is_cut_into_chunks_that_are_never_empty(sizes: list[int]) -> None:
    pieces = [bytes([number]) * size for number, size in enumerate(sizes)]
    found = list(chunks(pieces))
    assert b"".join(found) == b"".join(pieces)
    assert all(0 < len(chunk) <= CHUNK_MAX for chunk in found)
