"""DebugService by hand, for tests that look at the API below the client.

wire = DebugWire(lab.channel())
wire.call.Poke(pb.PokeRequest(device_id="uart0", register="SCR", value=5), timeout=CALL_S)
with wire.trace() as trace:
    ...
    (event,) = trace.events(1)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

import grpc

from devicehost.v1 import debug_service_pb2 as pb
from devicehost.v1.debug_service_pb2_grpc import DebugServiceStub
from wire import CALL_S

UART = 0x3F8
RBR, IER, IIR, LCR, MCR, LSR, SCR = 0, 1, 2, 3, 4, 5, 7
"""Offsets of a UART's registers."""


def in_thread(function: Callable[[], object]) -> Future[object]:
    """Do something that may take until somebody lets it, on a thread of its own."""
    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 # whoever asks for the result gets it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


class Streaming:
    """A stream; the block ends it.

    Attributes:
        call: the call.
    """

    def __init__(self, call: Any) -> None:
        self.call = call

    def next(self) -> Any:
        """Return the next message."""
        return next(self.call)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.call)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.call.cancel()


class Trace(Streaming):
    """A trace that is armed.

    Attributes:
        lost: how many events were lost so far.
    """

    def __init__(self, call: Any) -> None:
        super().__init__(call)
        self.lost = 0
        self._pending: list[pb.TraceEvent] = []
        first = self.next()
        assert (first.lost, len(first.events)) == (0, 0)

    def events(self, count: int) -> list[pb.TraceEvent]:
        """Return the next so many events."""
        while len(self._pending) < count:
            message = self.next()
            self.lost += message.lost
            self._pending += message.events
        found, self._pending = self._pending[:count], self._pending[count:]
        return found

    def accesses(self, count: int) -> list[pb.TracedAccess]:
        """Return the next so many events, which are accesses."""
        found = self.events(count)
        assert all(event.HasField("access") for event in found), found
        return [event.access for event in found]


class Hits(Streaming):
    """A watch of hits.

    Attributes:
        held: the first message.
    """

    def __init__(self, call: Any) -> None:
        super().__init__(call)
        first = self.next()
        assert first.WhichOneof("event") == "snapshot"
        self.held: list[pb.Hit] = list(first.snapshot.held)

    def hit(self) -> pb.Hit:
        """Return the next message, which is a hit."""
        message: pb.WatchHitsResponse = self.next()
        assert message.WhichOneof("event") == "hit", message
        return message.hit

    def ended(self) -> tuple[int, int]:
        """Return the next message, which is the end of a hold: of which hit, and why."""
        message = self.next()
        assert message.WhichOneof("event") == "ended", message
        return message.ended.hit_id, message.ended.why


class Recorded(Streaming):
    """A recording, until it is finished."""

    def __init__(self, stub: Any, request: pb.RecordRequest) -> None:
        self._enough = threading.Event()
        super().__init__(stub.Record(self._requests(request), timeout=CALL_S))

    def finish(self) -> None:
        """Half-close."""
        self._enough.set()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._enough.set()
        super().__exit__(kind, error, traceback)

    def _requests(self, request: pb.RecordRequest) -> Iterator[pb.RecordRequest]:
        yield request
        self._enough.wait(CALL_S)


class DebugWire:
    """The service.

    Attributes:
        call: the stub.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self.call: Any = DebugServiceStub(channel)

    def trace(self, **fields: Any) -> Trace:
        """Trace; `fields` are those of the request."""
        return Trace(self.call.Trace(pb.TraceRequest(**fields), timeout=CALL_S))

    def hits(self) -> Hits:
        """Watch hits."""
        return Hits(self.call.WatchHits(pb.WatchHitsRequest(), timeout=CALL_S))

    def record(self, *device_ids: str) -> Recorded:
        """Record."""
        return Recorded(self.call, pb.RecordRequest(device_ids=device_ids))

    def activity(self, interval_ms: int) -> Streaming:
        """Watch activity."""
        request = pb.WatchActivityRequest(interval_ms=interval_ms)
        return Streaming(self.call.WatchActivity(request, timeout=CALL_S))

    def break_at(self, *registers: str, **fields: Any) -> pb.Breakpoint:
        """Make a breakpoint at registers; `fields` are those of it."""
        fields.setdefault("filter", pb.AccessFilter(registers=registers))
        request = pb.CreateBreakpointRequest(breakpoint=pb.Breakpoint(**fields))
        response = self.call.CreateBreakpoint(request, timeout=CALL_S)
        made: pb.Breakpoint = response.breakpoint
        return made

    def breakpoints(self) -> list[pb.Breakpoint]:
        """List the breakpoints."""
        response = self.call.ListBreakpoints(pb.ListBreakpointsRequest(), timeout=CALL_S)
        return list(response.breakpoints)

    def resume(self, hit: pb.Hit, action: int = 0, **fields: Any) -> None:
        """Let an access go."""
        request = pb.ResumeRequest(hit_id=hit.id, **fields)
        request.action = action  # type: ignore[assignment] # a plain number
        self.call.Resume(request, timeout=CALL_S)

    def peek(self, device_id: str, register: str = "") -> list[pb.DecodedRegister]:
        """Look at registers."""
        request = pb.PeekRequest(device_id=device_id, register=register)
        return list(self.call.Peek(request, timeout=CALL_S).registers)

    def poke(self, device_id: str, register: str, value: int) -> None:
        """Set a register."""
        request = pb.PokeRequest(device_id=device_id, register=register, value=value)
        self.call.Poke(request, timeout=CALL_S)

    def fault(self, *registers: str, **fields: Any) -> pb.Fault:
        """Make a fault at registers; `fields` are those of it."""
        fields.setdefault("filter", pb.AccessFilter(registers=registers))
        request = pb.CreateFaultRequest(fault=pb.Fault(**fields))
        made: pb.Fault = self.call.CreateFault(request, timeout=CALL_S).fault
        return made

    def faults(self) -> list[pb.Fault]:
        """List the faults."""
        return list(self.call.ListFaults(pb.ListFaultsRequest(), timeout=CALL_S).faults)

    def inspect(self, path: str = "", depth: int = 0) -> pb.Node:
        """Look at the live state."""
        request = pb.InspectRequest(path=path, depth=depth)
        node: pb.Node = self.call.Inspect(request, timeout=CALL_S).node
        return node

    def value(self, path: str) -> str:
        """Return a value of the live state."""
        return self.inspect(path).value

    def save(self, *device_ids: str) -> str:
        """Save the state of devices."""
        request = pb.SaveStateRequest(device_ids=device_ids)
        states: str = self.call.SaveState(request, timeout=CALL_S).states
        return states

    def restore(self, states: str) -> None:
        """Restore the state of devices."""
        self.call.RestoreState(pb.RestoreStateRequest(states=states), timeout=CALL_S)

    def arm_flight_recorder(self, accesses: int) -> None:
        """Keep the last events, or no more."""
        request = pb.SetFlightRecorderRequest(accesses=accesses)
        self.call.SetFlightRecorder(request, timeout=CALL_S)

    def flight_recording(self) -> bytes:
        """Return what was kept."""
        call = self.call.GetFlightRecording(pb.GetFlightRecordingRequest(), timeout=CALL_S)
        return b"".join(message.data for message in call)
