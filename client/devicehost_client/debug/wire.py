"""The values of this package from and to the messages of the API.

A kind of event or fault that a newer server may have is passed over, or shown as unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

from devicehost.recording.events import Interrupt, InterruptKind, Lost, Operation, Space
from devicehost.v1 import debug_service_pb2 as pb
from devicehost.v1 import interrupt_service_pb2, io_service_pb2
from devicehost_client.debug.events import (
    AccessFilter,
    FieldValue,
    Hotplugged,
    RegisterValue,
    TracedAccess,
    TracedDma,
    TraceEvent,
)
from devicehost_client.debug.spoils import (
    Delay,
    Failing,
    Fault,
    FaultKind,
    Gone,
    StuckAtOne,
    StuckAtZero,
)
from devicehost_client.debug.stops import (
    Breakpoint,
    BreakpointAction,
    BreakpointEvent,
    Hit,
    HoldEnd,
    HoldEnded,
)
from devicehost_client.debug.views import (
    Activity,
    DeviceState,
    InterruptActivity,
    Node,
    PlaceActivity,
)

_TO_SPACE = {Space.PIO: io_service_pb2.SPACE_PIO, Space.MMIO: io_service_pb2.SPACE_MMIO}
_TO_OPERATION = {
    Operation.READ: io_service_pb2.OPERATION_READ,
    Operation.WRITE: io_service_pb2.OPERATION_WRITE,
}
_TO_INTERRUPT_KIND = {
    InterruptKind.ASSERTED: interrupt_service_pb2.INTERRUPT_KIND_ASSERTED,
    InterruptKind.DEASSERTED: interrupt_service_pb2.INTERRUPT_KIND_DEASSERTED,
    InterruptKind.PULSED: interrupt_service_pb2.INTERRUPT_KIND_PULSED,
}
_TO_EVENT = {
    BreakpointEvent.ACCESS: pb.BREAKPOINT_EVENT_ACCESS,
    BreakpointEvent.INTERRUPT: pb.BREAKPOINT_EVENT_INTERRUPT,
    BreakpointEvent.FAULT: pb.BREAKPOINT_EVENT_FAULT,
}
_TO_ACTION = {
    BreakpointAction.HOLD: pb.BREAKPOINT_ACTION_HOLD,
    BreakpointAction.LOG: pb.BREAKPOINT_ACTION_LOG,
    BreakpointAction.SAVE_STATE: pb.BREAKPOINT_ACTION_SAVE_STATE,
    BreakpointAction.RECORD: pb.BREAKPOINT_ACTION_RECORD,
}
_SPACES = {number: space for space, number in _TO_SPACE.items()}
_OPERATIONS = {number: operation for operation, number in _TO_OPERATION.items()}
_INTERRUPT_KINDS = {number: kind for kind, number in _TO_INTERRUPT_KIND.items()}
_EVENTS = {number: event for event, number in _TO_EVENT.items()}
_ACTIONS = {number: action for action, number in _TO_ACTION.items()}
_ENDS = {
    pb.HOLD_END_RESUMED: HoldEnd.RESUMED,
    pb.HOLD_END_LIMIT: HoldEnd.LIMIT,
    pb.HOLD_END_DRAINING: HoldEnd.DRAINING,
}


def to_interrupt_kind(kind: InterruptKind) -> interrupt_service_pb2.InterruptKind.ValueType:
    """Return a change of an interrupt as the API has it."""
    return _TO_INTERRUPT_KIND[kind]


def to_filter(wanted: AccessFilter) -> pb.AccessFilter:
    """Return a filter as the API has it."""
    return pb.AccessFilter(
        device_ids=sorted(wanted.devices),
        registers=list(wanted.registers),
        space=_TO_SPACE[wanted.space] if wanted.space else io_service_pb2.SPACE_UNSPECIFIED,
        base=wanted.base,
        size=wanted.size,
        operation=_TO_OPERATION[wanted.operation]
        if wanted.operation
        else io_service_pb2.OPERATION_UNSPECIFIED,
        value=wanted.value,
        mask=wanted.mask,
        vcpus=sorted(wanted.vcpus),
        failed=wanted.failed,
    )


def from_filter(message: pb.AccessFilter) -> AccessFilter:
    """Return a filter of the API's."""
    return AccessFilter(
        devices=tuple(message.device_ids),
        registers=tuple(message.registers),
        space=_SPACES.get(message.space),
        base=message.base,
        size=message.size,
        operation=_OPERATIONS.get(message.operation),
        value=message.value,
        mask=message.mask,
        vcpus=tuple(message.vcpus),
        failed=message.failed,
    )


def from_register(message: pb.DecodedRegister) -> RegisterValue:
    """Return what a register holds."""
    fields = tuple(FieldValue(each.name, each.value, each.meaning) for each in message.fields)
    return RegisterValue(message.name, message.value, fields, message.reserved)


def from_event(message: pb.TraceEvent) -> TraceEvent | None:
    """Return an event; None for one of an unknown kind."""
    match message.WhichOneof("event"):
        case "access":
            return _from_access(message.time_ns, message.access)
        case "interrupt":
            interrupt = message.interrupt
            kind = _INTERRUPT_KINDS.get(interrupt.kind)
            return kind and Interrupt(message.time_ns, interrupt.gsi, kind, interrupt.device_id)
        case "dma":
            dma = message.dma
            operation = _OPERATIONS[dma.operation]
            return TracedDma(
                message.time_ns, dma.device_id, operation, dma.address, dma.size, dma.data
            )
        case "hotplug":
            hotplug = message.hotplug
            return Hotplugged(message.time_ns, hotplug.device_id, hotplug.type)
        case _:
            return None


def _from_access(time_ns: int, message: pb.TracedAccess) -> TracedAccess:
    return TracedAccess(
        time_ns=time_ns,
        took_ns=message.took_ns,
        vcpu=message.vcpu if message.HasField("vcpu") else None,
        space=_SPACES[message.space],
        operation=_OPERATIONS[message.operation],
        address=message.address,
        size=message.size,
        data=message.data,
        device=message.device_id,
        offset=message.offset,
        registers=tuple(map(from_register, message.registers)),
        failure=message.failure,
    )


def from_trace(response: pb.TraceResponse) -> Iterator[TraceEvent | Lost]:
    """Yield the events of a part of a trace, and first how many are missing before them."""
    if response.lost:
        yield Lost(response.lost)
    for message in response.events:
        event = from_event(message)
        if event is not None:
            yield event


def to_breakpoint(wanted: Breakpoint) -> pb.Breakpoint:
    """Return a breakpoint that is to be made as the API has it."""
    return pb.Breakpoint(
        event=_TO_EVENT[wanted.event],
        filter=to_filter(wanted.filter),
        gsi=wanted.gsi,
        ignore=wanted.ignore,
        hits_max=wanted.hits_max,
        action=_TO_ACTION[wanted.action],
        after=wanted.after,
        limit_ms=wanted.limit_ms,
    )


def from_breakpoint(message: pb.Breakpoint) -> Breakpoint:
    """Return a breakpoint of the API's."""
    return Breakpoint(
        filter=from_filter(message.filter),
        event=_EVENTS.get(message.event, BreakpointEvent.ACCESS),
        gsi=message.gsi if message.HasField("gsi") else None,
        ignore=message.ignore,
        hits_max=message.hits_max,
        action=_ACTIONS.get(message.action, BreakpointAction.HOLD),
        after=message.after,
        limit_ms=message.limit_ms,
        id=message.id,
        matches=message.matches,
        hits=message.hits,
    )


def from_hits(response: pb.WatchHitsResponse) -> Iterator[Hit | HoldEnded]:
    """Yield what a message of WatchHits brings."""
    match response.WhichOneof("event"):
        case "snapshot":
            yield from map(_from_hit, response.snapshot.held)
        case "hit":
            yield _from_hit(response.hit)
        case "ended":
            ended = response.ended
            yield HoldEnded(ended.hit_id, _ENDS.get(ended.why, HoldEnd.UNKNOWN))


def _from_hit(message: pb.Hit) -> Hit:
    return Hit(
        id=message.id,
        breakpoint_id=message.breakpoint_id,
        event=from_event(message.event),
        held=message.held,
        after=message.after,
        remaining_ms=message.remaining_ms,
        states=from_states(message.states) if message.states else {},
    )


def to_fault(wanted: Fault) -> pb.Fault:
    """Return a fault that is to be made as the API has it.

    Raises:
        ValueError: it has no kind.
    """
    message = pb.Fault(filter=to_filter(wanted.filter), percent=wanted.percent, seed=wanted.seed)
    match wanted.kind:
        case Delay(microseconds):
            message.delay_us = microseconds
        case StuckAtOne(mask):
            message.stuck_at_one = mask
        case StuckAtZero(mask):
            message.stuck_at_zero = mask
        case Gone():
            message.gone = True
        case Failing():
            message.failing = True
        case None:
            raise ValueError("a fault needs a kind; allowed: Delay, StuckAtOne, StuckAtZero, …")
    return message


def from_fault(message: pb.Fault) -> Fault:
    """Return a fault of the API's."""
    kind: FaultKind | None
    match message.WhichOneof("kind"):
        case "delay_us":
            kind = Delay(message.delay_us)
        case "stuck_at_one":
            kind = StuckAtOne(message.stuck_at_one)
        case "stuck_at_zero":
            kind = StuckAtZero(message.stuck_at_zero)
        case "gone":
            kind = Gone()
        case "failing":
            kind = Failing()
        case _:
            kind = None
    return Fault(
        kind=kind,
        filter=from_filter(message.filter),
        percent=message.percent,
        seed=message.seed,
        id=message.id,
        count=message.count,
    )


def from_node(message: pb.Node) -> Node:
    """Return a node, with all below it."""
    return Node(
        name=message.name,
        value=message.value if message.HasField("value") else None,
        nodes=tuple(map(from_node, message.nodes)),
        cut=message.cut,
    )


def to_states(states: Mapping[str, DeviceState]) -> str:
    """Return states of devices as the API has them."""
    return json.dumps(
        {device: {"type": each.type, "state": each.state} for device, each in states.items()}
    )


def from_states(text: str) -> dict[str, DeviceState]:
    """Return states of devices, by id.

    Raises:
        ValueError: it is no such thing.
    """
    found = json.loads(text)
    try:
        return {
            str(device): DeviceState(str(each["type"]), dict(each["state"]))
            for device, each in found.items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            'not states of devices; allowed: {DEVICE: {"type": TYPE, "state": {…}}}'
        ) from error


def from_activity(response: pb.WatchActivityResponse) -> Iterable[Activity]:
    """Return what was accessed in an interval."""
    places = tuple(
        PlaceActivity(
            device=each.device_id,
            register=each.register,
            space=_SPACES.get(each.space, Space.MMIO),  # of the others, nothing is said
            address=each.address,
            reads=each.reads,
            writes=each.writes,
            failures=each.failures,
            took_ns=each.took_ns,
            longest_ns=each.longest_ns,
        )
        for each in response.places
    )
    interrupts = tuple(
        InterruptActivity(each.gsi, each.count, each.asserted) for each in response.interrupts
    )
    return (Activity(response.interval_ns, places, interrupts, tuple(response.latency)),)
