"""Between the messages of DebugService and values, both ways: breakpoints, hits, faults."""

from __future__ import annotations

from collections.abc import Callable

from devicehost.recording.events import Access
from devicehost.registers import Decoded
from devicehost.v1 import debug_service_pb2 as pb
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
    FaultKind,
    Gone,
    StuckAtOne,
    StuckAtZero,
)
from devicehost_server.debug.holds import Hit, HoldEnd, HoldEnded
from devicehost_server.model.errors import BadRequest
from devicehost_server.services.debug_convert import (
    access_to_message,
    chosen,
    filter_from_message,
    filter_to_message,
    interrupt_to_message,
    registers_to_messages,
    text,
)

_EVENTS = {
    BreakpointEvent.ACCESS: pb.BREAKPOINT_EVENT_ACCESS,
    BreakpointEvent.INTERRUPT: pb.BREAKPOINT_EVENT_INTERRUPT,
    BreakpointEvent.FAULT: pb.BREAKPOINT_EVENT_FAULT,
}
_EVENTS_BACK: dict[int, BreakpointEvent] = {
    pb.BREAKPOINT_EVENT_UNSPECIFIED: BreakpointEvent.ACCESS,
    **{number: event for event, number in _EVENTS.items()},
}
_ACTIONS = {
    BreakpointAction.HOLD: pb.BREAKPOINT_ACTION_HOLD,
    BreakpointAction.LOG: pb.BREAKPOINT_ACTION_LOG,
    BreakpointAction.SAVE_STATE: pb.BREAKPOINT_ACTION_SAVE_STATE,
    BreakpointAction.RECORD: pb.BREAKPOINT_ACTION_RECORD,
}
_ACTIONS_BACK: dict[int, BreakpointAction] = {
    pb.BREAKPOINT_ACTION_UNSPECIFIED: BreakpointAction.HOLD,
    **{number: action for action, number in _ACTIONS.items()},
}
_RESUME_ACTIONS: dict[int, ResumeAction] = {
    pb.RESUME_ACTION_UNSPECIFIED: ResumeAction.CONTINUE,
    pb.RESUME_ACTION_CONTINUE: ResumeAction.CONTINUE,
    pb.RESUME_ACTION_STEP: ResumeAction.STEP,
}
_HOLD_ENDS = {
    HoldEnd.RESUMED: pb.HOLD_END_RESUMED,
    HoldEnd.LIMIT: pb.HOLD_END_LIMIT,
    HoldEnd.DRAINING: pb.HOLD_END_DRAINING,
}

Touched = Callable[[str, int, int, Access], tuple[Decoded, ...]]
"""Tells the registers that an access touches, as `RegisterMaps.touched` does."""


def breakpoint_from_message(message: pb.Breakpoint) -> Breakpoint:
    """Turn a message into its breakpoint.

    Raises:
        BadRequest: an enum's number is unknown, or a list is too long.
    """
    return Breakpoint(
        filter=filter_from_message(message.filter),
        event=chosen("event", message.event, _EVENTS_BACK),
        gsi=message.gsi if message.HasField("gsi") else None,
        ignore=message.ignore,
        hits_max=message.hits_max,
        action=chosen("action", message.action, _ACTIONS_BACK),
        after=message.after,
        limit_ms=message.limit_ms,
    )


def breakpoint_to_message(breakpoint_: Breakpoint) -> pb.Breakpoint:
    """Turn a breakpoint into its message."""
    return pb.Breakpoint(
        id=breakpoint_.id,
        event=_EVENTS[breakpoint_.event],
        filter=filter_to_message(breakpoint_.filter),
        gsi=breakpoint_.gsi,
        ignore=breakpoint_.ignore,
        hits_max=breakpoint_.hits_max,
        action=_ACTIONS[breakpoint_.action],
        after=breakpoint_.after,
        limit_ms=breakpoint_.limit_ms,
        matches=breakpoint_.matches,
        hits=breakpoint_.hits,
    )


def resume_action_from_message(number: int) -> ResumeAction:
    """Return how an access is to go on.

    Raises:
        BadRequest: the number is unknown.
    """
    return chosen("action", number, _RESUME_ACTIONS)


def hit_to_message(hit: Hit, touched: Touched) -> pb.Hit:
    """Turn a hit into its message, with the registers that its access touches."""
    event = hit.event
    if isinstance(event, Access):
        registers = touched(hit.device, hit.range, hit.offset, event) if hit.device else ()
        messages = registers_to_messages(registers)
        access = access_to_message(event, hit.device, hit.offset, messages)
        happened = pb.TraceEvent(time_ns=event.time_ns, access=access)
    else:
        happened = interrupt_to_message(event)
    return pb.Hit(
        id=hit.id,
        breakpoint_id=hit.breakpoint_id,
        event=happened,
        held=hit.held,
        after=hit.after,
        remaining_ms=hit.remaining_ms,
        states=text(hit.states),
    )


def news_to_message(news: Hit | HoldEnded, touched: Touched) -> pb.WatchHitsResponse:
    """Turn a hit, or the end of a hold, into what a watcher gets."""
    if isinstance(news, Hit):
        return pb.WatchHitsResponse(hit=hit_to_message(news, touched))
    ended = pb.WatchHitsResponse.Ended(hit_id=news.hit_id, why=_HOLD_ENDS[news.why])
    return pb.WatchHitsResponse(ended=ended)


def fault_from_message(message: pb.Fault) -> Fault:
    """Turn a message into its fault.

    Raises:
        BadRequest: it is of no kind, an enum's number is unknown, or a list is too long.
    """
    return Fault(
        kind=_kind_from_message(message),
        filter=filter_from_message(message.filter),
        percent=message.percent,
        seed=message.seed,
    )


def fault_to_message(fault: Fault) -> pb.Fault:
    """Turn a fault into its message."""
    message = pb.Fault(
        id=fault.id,
        filter=filter_to_message(fault.filter),
        percent=fault.percent,
        seed=fault.seed,
        count=fault.count,
    )
    match fault.kind:
        case Delay(us):
            message.delay_us = us
        case StuckAtOne(bits):
            message.stuck_at_one = bits
        case StuckAtZero(bits):
            message.stuck_at_zero = bits
        case Gone():
            message.gone = True
        case Failing():
            message.failing = True
    return message


def _kind_from_message(message: pb.Fault) -> FaultKind:
    kind = message.WhichOneof("kind")
    match kind:
        case "delay_us":
            return Delay(message.delay_us)
        case "stuck_at_one":
            return StuckAtOne(message.stuck_at_one)
        case "stuck_at_zero":
            return StuckAtZero(message.stuck_at_zero)
        case "gone" if message.gone:
            return Gone()
        case "failing" if message.failing:
            return Failing()
    raise BadRequest(
        f"a fault of no kind{f': {kind} is false' if kind else ''}; allowed: delay_us,"
        " stuck_at_one, stuck_at_zero, gone, failing",
        field=kind or "kind",
    )
