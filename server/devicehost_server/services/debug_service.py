"""DebugService: what passes between a VM and its devices, and the means to step in."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from devicehost.v1 import debug_service_pb2 as pb
from devicehost.v1.debug_service_pb2_grpc import DebugServiceServicer
from devicehost_server.debug import states
from devicehost_server.debug.debugger import Debugger
from devicehost_server.debug.holds import Hit, HoldEnded
from devicehost_server.model.errors import BadRequest
from devicehost_server.services import debug_convert as convert
from devicehost_server.services import debug_stops as stops
from devicehost_server.services.debug_activity import activity_to_message
from devicehost_server.services.debug_streams import (
    EVENTS_MAX,
    chunks,
    trace_responses,
    when_gone,
    when_half_closed,
)
from devicehost_server.services.feed import Feed
from devicehost_server.services.feeds import Feeds
from devicehost_server.services.pace import Pace

GATHER_S = 0.005
"""How long events are gathered where few come, in seconds: a message each would cost more."""

NEWS_MAX = 2048
"""How much may wait for a watcher of hits; a hit may have all states with it."""

_INTERVAL_MS = 1000
_INTERVALS_MS = range(100, 60_001)


class DebugService(DebugServiceServicer):
    """Shows, and steps in.

    Args:
        debugger: does all of it.
        feeds: the open watches.
    """

    def __init__(self, debugger: Debugger, feeds: Feeds) -> None:
        self._debugger = debugger
        self._feeds = feeds

    # Registers.

    def GetRegisterMap(
        self, request: pb.GetRegisterMapRequest, context: grpc.ServicerContext
    ) -> pb.GetRegisterMapResponse:
        """Return the registers of a device, or of a type of device."""
        del context
        if bool(request.device_id) == bool(request.type):
            raise BadRequest("allowed: a device_id or a type, one of them", field="device_id")
        if request.type:
            found = self._debugger.registers.of_type(request.type)
        else:
            found = self._debugger.registers.of(request.device_id)
        return pb.GetRegisterMapResponse(register_map=convert.register_map_to_text(found))

    def SetRegisterMap(
        self, request: pb.SetRegisterMapRequest, context: grpc.ServicerContext
    ) -> pb.SetRegisterMapResponse:
        """Give a device a register map, or its own again."""
        del context
        text = request.register_map
        given = convert.register_map_from_text(text) if text else None
        self._debugger.registers.set(request.device_id, given)
        return pb.SetRegisterMapResponse()

    def Peek(self, request: pb.PeekRequest, context: grpc.ServicerContext) -> pb.PeekResponse:
        """Look at a register, or at all."""
        del context
        registers = self._debugger.registers
        if request.register:
            found = [registers.peek(request.device_id, request.register)]
        else:
            found = registers.peek_all(request.device_id)
        return pb.PeekResponse(registers=convert.registers_to_messages(found))

    def Poke(self, request: pb.PokeRequest, context: grpc.ServicerContext) -> pb.PokeResponse:
        """Set a register."""
        del context
        self._debugger.registers.poke(request.device_id, request.register, request.value)
        return pb.PokeResponse()

    # What happens.

    def Trace(
        self, request: pb.TraceRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.TraceResponse]:
        """Send what happens, as fast as it can be sent without a guest's noticing."""
        pace, registers = Pace(), convert.RegisterMessages()
        with self._debugger.trace(
            convert.filter_from_message(request.filter),
            accesses=not request.no_accesses,
            interrupts=not request.no_interrupts,
            dma=not request.no_dma,
        ) as feed:
            when_gone(context, pace.end, feed.close)
            yield pb.TraceResponse()
            for lost, events in feed:
                messages = (
                    message
                    for part in pace.parts(events)
                    for each in part
                    if (message := convert.event_to_message(each, registers)) is not None
                )
                yield from trace_responses(lost, messages)
                pace.rest(at_least_s=0 if len(events) >= EVENTS_MAX else GATHER_S)

    def Record(
        self, request_iterator: Iterator[pb.RecordRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.RecordResponse]:
        """Send a recording, as it is made, until the client has enough."""
        request = next(request_iterator, None)
        if request is None:
            raise BadRequest("a recording begins with a request", field="device_ids")
        with self._debugger.record(tuple(request.device_ids)) as feed:
            when_gone(context, feed.close)
            when_half_closed(request_iterator, feed.close)
            for chunk in chunks(feed):
                yield pb.RecordResponse(data=chunk)

    def SetFlightRecorder(
        self, request: pb.SetFlightRecorderRequest, context: grpc.ServicerContext
    ) -> pb.SetFlightRecorderResponse:
        """Keep the last events, or no more."""
        del context
        self._debugger.set_flight_recorder(request.accesses)
        return pb.SetFlightRecorderResponse()

    def GetFlightRecording(
        self, request: pb.GetFlightRecordingRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.GetFlightRecordingResponse]:
        """Send what was kept."""
        del request, context
        for chunk in chunks(self._debugger.flight_recording()):
            yield pb.GetFlightRecordingResponse(data=chunk)

    def WatchActivity(
        self, request: pb.WatchActivityRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchActivityResponse]:
        """Send, at an interval, what was accessed in it."""
        interval_ms = request.interval_ms or _INTERVAL_MS
        if interval_ms not in _INTERVALS_MS:
            raise BadRequest(
                f"interval_ms can't be {interval_ms}; allowed: 0, {_INTERVALS_MS.start} to"
                f" {_INTERVALS_MS[-1]}",
                field="interval_ms",
            )
        with self._debugger.watch_activity(interval_ms / 1000) as feed:
            when_gone(context, feed.close)
            for activity in feed:
                yield activity_to_message(activity)

    # Breakpoints.

    def CreateBreakpoint(
        self, request: pb.CreateBreakpointRequest, context: grpc.ServicerContext
    ) -> pb.CreateBreakpointResponse:
        """Make a breakpoint."""
        del context
        wanted = stops.breakpoint_from_message(request.breakpoint)
        made = self._debugger.breakpoints.create(wanted)
        return pb.CreateBreakpointResponse(breakpoint=stops.breakpoint_to_message(made))

    def DeleteBreakpoint(
        self, request: pb.DeleteBreakpointRequest, context: grpc.ServicerContext
    ) -> pb.DeleteBreakpointResponse:
        """Remove a breakpoint."""
        del context
        self._debugger.breakpoints.delete(request.breakpoint_id)
        return pb.DeleteBreakpointResponse()

    def ListBreakpoints(
        self, request: pb.ListBreakpointsRequest, context: grpc.ServicerContext
    ) -> pb.ListBreakpointsResponse:
        """List the breakpoints."""
        del request, context
        found = self._debugger.breakpoints.list()
        return pb.ListBreakpointsResponse(breakpoints=map(stops.breakpoint_to_message, found))

    def WatchHits(
        self, request: pb.WatchHitsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchHitsResponse]:
        """Send what is held, then each hit, and each end of a hold."""
        del request
        breakpoints, touched = self._debugger.breakpoints, self._debugger.registers.touched
        feed: Feed[Hit | HoldEnded] = Feed(NEWS_MAX)
        with self._feeds.open(feed, context):
            held = breakpoints.subscribe(feed.push)
            try:
                messages = [stops.hit_to_message(hit, touched) for hit in held]
                yield pb.WatchHitsResponse(snapshot=pb.WatchHitsResponse.Snapshot(held=messages))
                for batch in feed.batches():
                    for news in batch:
                        yield stops.news_to_message(news, touched)
            finally:
                breakpoints.unsubscribe(feed.push)

    def Resume(self, request: pb.ResumeRequest, context: grpc.ServicerContext) -> pb.ResumeResponse:
        """Let an access go."""
        del context
        self._debugger.breakpoints.resume(
            request.hit_id,
            stops.resume_action_from_message(request.action),
            request.data if request.HasField("data") else None,
        )
        return pb.ResumeResponse()

    # Faults, interrupts, state.

    def CreateFault(
        self, request: pb.CreateFaultRequest, context: grpc.ServicerContext
    ) -> pb.CreateFaultResponse:
        """Make a device misbehave."""
        del context
        made = self._debugger.faults.create(stops.fault_from_message(request.fault))
        return pb.CreateFaultResponse(fault=stops.fault_to_message(made))

    def DeleteFault(
        self, request: pb.DeleteFaultRequest, context: grpc.ServicerContext
    ) -> pb.DeleteFaultResponse:
        """End a fault."""
        del context
        self._debugger.faults.delete(request.fault_id)
        return pb.DeleteFaultResponse()

    def ListFaults(
        self, request: pb.ListFaultsRequest, context: grpc.ServicerContext
    ) -> pb.ListFaultsResponse:
        """List the faults."""
        del request, context
        found = self._debugger.faults.list()
        return pb.ListFaultsResponse(faults=map(stops.fault_to_message, found))

    def InjectInterrupt(
        self, request: pb.InjectInterruptRequest, context: grpc.ServicerContext
    ) -> pb.InjectInterruptResponse:
        """Change an interrupt."""
        del context
        kind = convert.interrupt_kind_from_message(request.kind)
        self._debugger.inject_interrupt(request.gsi, kind)
        return pb.InjectInterruptResponse()

    def Inspect(
        self, request: pb.InspectRequest, context: grpc.ServicerContext
    ) -> pb.InspectResponse:
        """Return a part of the live state."""
        del context
        node = self._debugger.inspect(request.path, request.depth)
        return pb.InspectResponse(node=convert.node_to_message(node))

    def SaveState(
        self, request: pb.SaveStateRequest, context: grpc.ServicerContext
    ) -> pb.SaveStateResponse:
        """Return the state of devices."""
        del context
        saved = self._debugger.states.save(request.device_ids)
        return pb.SaveStateResponse(states=states.to_text(saved))

    def RestoreState(
        self, request: pb.RestoreStateRequest, context: grpc.ServicerContext
    ) -> pb.RestoreStateResponse:
        """Give devices a state that was saved."""
        del context
        self._debugger.states.restore(states.from_text(request.states))
        return pb.RestoreStateResponse()
