"""`Debug`: remote debugging of a server's devices, as `DeviceHost.debug`.

    debug = host.debug
    print(debug.peek("com1", "LSR"))        # LSR = 0x60 (THRE=1, TEMT=1)
    with debug.trace(AccessFilter(devices={"com1"})) as trace:
        print(next(trace))
    with debug.record_to(Path("boot.rec")):
        run_the_guest()

Safe to use from any thread. All methods raise `RemoteError` with a reason of theirs (with
NOT_OFFERED if the server has no DebugService), `ConnectionLost` and `AccessTimeout`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import grpc

from devicehost.recording.events import InterruptKind, Lost
from devicehost.registers import RegisterMap, from_json, to_json
from devicehost.v1 import debug_service_pb2 as pb
from devicehost.v1.debug_service_pb2_grpc import DebugServiceStub
from devicehost_client.debug import wire
from devicehost_client.debug.calls import debug_call
from devicehost_client.debug.events import AccessFilter, RegisterValue, TraceEvent
from devicehost_client.debug.feeds import Feed, FinishableFeed
from devicehost_client.debug.recorder import FileRecorder
from devicehost_client.debug.spoils import Fault
from devicehost_client.debug.stops import Breakpoint, Hit, HoldEnded
from devicehost_client.debug.views import Activity, DeviceState, Node

_EVERYTHING = AccessFilter()


class Debug:
    """Looks into a server, and steps in. `DeviceHost.debug` is one."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = DebugServiceStub(channel)

    # What passes

    def trace(
        self,
        wanted: AccessFilter = _EVERYTHING,
        *,
        accesses: bool = True,
        interrupts: bool = True,
        dma: bool = True,
    ) -> Feed[TraceEvent | Lost]:
        """Return what happens from now on. It never makes a guest wait.

        Args:
            wanted: which accesses. With devices in it, only their interrupts and DMA.
            accesses: False to leave them out.
            interrupts: likewise.
            dma: likewise.

        Returns:
            The events. `Lost` stands where some are missing: the reader was too slow.
        """
        request = pb.TraceRequest(
            filter=wire.to_filter(wanted),
            no_accesses=not accesses,
            no_interrupts=not interrupts,
            no_dma=not dma,
        )
        return Feed(self._stub.Trace, request, wire.from_trace)

    def record(self, devices: Collection[str] = ()) -> FinishableFeed[bytes]:
        """Record all that happens from now on, to be replayed.

        Args:
            devices: ids; none for all.

        Returns:
            The parts of a recording file, in order. When it is closed, what came is a
            recording that was cut; `record_to` ends it well.

        Raises:
            RemoteError: from the feed, RECORDING_TOO_SLOW: what came is a recording that
                was cut.
        """
        request = pb.RecordRequest(device_ids=sorted(devices))
        return FinishableFeed(self._stub.Record, request, lambda response: (response.data,))

    def record_to(self, path: Path, devices: Collection[str] = ()) -> FileRecorder:
        """Record into a file until what is returned is closed: use it as a context manager.

        Raises:
            OSError: the file can't be written.
        """
        return FileRecorder(path, lambda: self.record(devices))

    def set_flight_recorder(self, accesses: int) -> None:
        """Keep at least the last `accesses` accesses from now on; 0 for none."""
        debug_call(self._stub.SetFlightRecorder, pb.SetFlightRecorderRequest(accesses=accesses))

    def flight_recording(self) -> Feed[bytes]:
        """Return what the flight recorder holds: the parts of a recording file, in order.

        Raises:
            RemoteError: NOT_ARMED.
        """
        request = pb.GetFlightRecordingRequest()
        return Feed(self._stub.GetFlightRecording, request, lambda response: (response.data,))

    def activity(self, interval_s: float = 1.0) -> Feed[Activity]:
        """Return, at an interval of 0.1 to 60 seconds, what was accessed in it."""
        request = pb.WatchActivityRequest(interval_ms=round(interval_s * 1000))
        return Feed(self._stub.WatchActivity, request, wire.from_activity, has_first=False)

    # Registers

    def register_map(self, device: str) -> RegisterMap:
        """Return the registers of a device.

        Raises:
            RemoteError: NO_SUCH_DEVICE, NO_REGISTER_MAP.
            BadRegisterMap: the server has one that can't be.
        """
        return self._register_map(pb.GetRegisterMapRequest(device_id=device))

    def register_map_of_type(self, device_type: str) -> RegisterMap:
        """Return the registers of a type of device, as it is without any configuration.

        Raises:
            RemoteError: UNKNOWN_DEVICE_TYPE, NO_REGISTER_MAP.
            BadRegisterMap: the server has one that can't be.
        """
        return self._register_map(pb.GetRegisterMapRequest(type=device_type))

    def set_register_map(self, device: str, registers: RegisterMap | None) -> None:
        """Give a device a register map in place of its own; None for its own again.

        Raises:
            RemoteError: NO_SUCH_DEVICE, BAD_REQUEST.
        """
        text = "" if registers is None else json.dumps(to_json(registers))
        request = pb.SetRegisterMapRequest(device_id=device, register_map=text)
        debug_call(self._stub.SetRegisterMap, request)

    def peek(self, device: str, register: str) -> RegisterValue:
        """Return the value of a register, without the effects that a read has.

        Raises:
            RemoteError: NO_SUCH_DEVICE, NO_REGISTER_MAP, NO_SUCH_REGISTER, NOT_PEEKABLE.
        """
        request = pb.PeekRequest(device_id=device, register=register)
        response: pb.PeekResponse = debug_call(self._stub.Peek, request)
        return wire.from_register(response.registers[0])

    def peek_all(self, device: str) -> list[RegisterValue]:
        """Return the values of all registers that can be told, in the order of the map.

        Raises:
            RemoteError: NO_SUCH_DEVICE, NO_REGISTER_MAP.
        """
        response: pb.PeekResponse = debug_call(self._stub.Peek, pb.PeekRequest(device_id=device))
        return [wire.from_register(each) for each in response.registers]

    def poke(self, device: str, register: str, value: int) -> None:
        """Set a register, without the effects that a write has.

        Raises:
            RemoteError: NO_SUCH_DEVICE, NO_SUCH_REGISTER, NOT_PEEKABLE, BAD_REQUEST.
        """
        request = pb.PokeRequest(device_id=device, register=register, value=value)
        debug_call(self._stub.Poke, request)

    # Breakpoints

    def create_breakpoint(self, wanted: Breakpoint) -> Breakpoint:
        """Make a breakpoint; return it with its number. It is in effect at once.

        Raises:
            RemoteError: NO_SUCH_DEVICE, NO_SUCH_REGISTER, BAD_REQUEST.
        """
        request = pb.CreateBreakpointRequest(breakpoint=wire.to_breakpoint(wanted))
        response: pb.CreateBreakpointResponse = debug_call(self._stub.CreateBreakpoint, request)
        return wire.from_breakpoint(response.breakpoint)

    def delete_breakpoint(self, breakpoint_id: int) -> None:
        """Remove a breakpoint, and let go of what it holds.

        Raises:
            RemoteError: NO_SUCH_BREAKPOINT.
        """
        request = pb.DeleteBreakpointRequest(breakpoint_id=breakpoint_id)
        debug_call(self._stub.DeleteBreakpoint, request)

    def breakpoints(self) -> list[Breakpoint]:
        """Return all breakpoints, in the order of their making."""
        request = pb.ListBreakpointsRequest()
        response: pb.ListBreakpointsResponse = debug_call(self._stub.ListBreakpoints, request)
        return [wire.from_breakpoint(each) for each in response.breakpoints]

    def hits(self) -> Feed[Hit | HoldEnded]:
        """Return the accesses that are held, then each hit, and each end of a hold.

        Those of all breakpoints, whoever made them.

        Raises:
            RemoteError: from the feed, DRAINING, WATCH_TOO_SLOW.
        """
        return Feed(self._stub.WatchHits, pb.WatchHitsRequest(), wire.from_hits)

    def resume(self, hit_id: int, *, step: bool = False, data: bytes | None = None) -> None:
        """Let go of an access that is held.

        Args:
            hit_id: the hit that holds it.
            step: hold the next access of the same vCPU, to any device.
            data: of a write that the device hasn't got yet, write this instead; after a
                read, return this instead. It has the length of the access.

        Raises:
            RemoteError: NO_SUCH_HIT: nothing is held by this number, maybe no longer.
        """
        action = pb.RESUME_ACTION_STEP if step else pb.RESUME_ACTION_CONTINUE
        debug_call(self._stub.Resume, pb.ResumeRequest(hit_id=hit_id, action=action, data=data))

    # State

    def inspect(self, path: str = "", depth: int = 0) -> Node:
        """Return a part of the server's live state.

        Args:
            path: where in the tree, with "/" between names; empty for the root.
            depth: how many levels below that; 0 for all.

        Raises:
            RemoteError: NO_SUCH_PATH.
        """
        request = pb.InspectRequest(path=path, depth=depth)
        response: pb.InspectResponse = debug_call(self._stub.Inspect, request)
        return wire.from_node(response.node)

    def save_state(self, devices: Collection[str] = ()) -> dict[str, DeviceState]:
        """Return the state of devices by id; none for all.

        Raises:
            RemoteError: NO_SUCH_DEVICE.
        """
        request = pb.SaveStateRequest(device_ids=sorted(devices))
        response: pb.SaveStateResponse = debug_call(self._stub.SaveState, request)
        return wire.from_states(response.states)

    def restore_state(self, states: Mapping[str, DeviceState]) -> None:
        """Give devices a state that they had.

        Raises:
            RemoteError: NO_SUCH_DEVICE, BAD_STATE.
        """
        request = pb.RestoreStateRequest(states=wire.to_states(states))
        debug_call(self._stub.RestoreState, request)

    # Misbehaviour

    def create_fault(self, wanted: Fault) -> Fault:
        """Make a device misbehave; return the fault with its number. It is in effect at once.

        Raises:
            RemoteError: NO_SUCH_DEVICE, NO_SUCH_REGISTER, BAD_REQUEST.
            ValueError: it has no kind.
        """
        request = pb.CreateFaultRequest(fault=wire.to_fault(wanted))
        response: pb.CreateFaultResponse = debug_call(self._stub.CreateFault, request)
        return wire.from_fault(response.fault)

    def delete_fault(self, fault_id: int) -> None:
        """End a fault.

        Raises:
            RemoteError: NO_SUCH_FAULT.
        """
        debug_call(self._stub.DeleteFault, pb.DeleteFaultRequest(fault_id=fault_id))

    def faults(self) -> list[Fault]:
        """Return all faults, in the order of their making."""
        response: pb.ListFaultsResponse = debug_call(self._stub.ListFaults, pb.ListFaultsRequest())
        return [wire.from_fault(each) for each in response.faults]

    def inject_interrupt(self, gsi: int, kind: InterruptKind) -> None:
        """Change an interrupt, as a device would that has a line to it.

        What is asserted here stays so until it is deasserted here.
        """
        request = pb.InjectInterruptRequest(gsi=gsi, kind=wire.to_interrupt_kind(kind))
        debug_call(self._stub.InjectInterrupt, request)

    def _register_map(self, request: pb.GetRegisterMapRequest) -> RegisterMap:
        response: pb.GetRegisterMapResponse = debug_call(self._stub.GetRegisterMap, request)
        return from_json(json.loads(response.register_map))
