"""Remote debugging: see, stop, record and change what passes between a VM and its devices.

    with host.debug.trace(AccessFilter(devices={"com1"})) as trace:
        for event in trace:
            print(event)

    debug       `Debug`, which is `DeviceHost.debug`
    events      what a trace brings, and which accesses one wants
    stops       breakpoints and their hits
    spoils      faults, to make a device misbehave
    views       the tree of a server's state, states of devices, activity
    feeds       streams of the server's, as iterators that can be closed
    recorder    a recording that is written to a file while something goes on
    calls       calls, with errors of the client's tree
    wire        all of it from and to the API's messages

Registers are called "DEVICE.REGISTER", or "DEVICE.REGISTER[3]" for one of a row.
"""

from devicehost.recording.events import Interrupt, InterruptKind, Lost, Operation, Space
from devicehost_client.debug.debug import Debug
from devicehost_client.debug.events import (
    AccessFilter,
    FieldValue,
    Hotplugged,
    RegisterValue,
    TracedAccess,
    TracedDma,
    TraceEvent,
)
from devicehost_client.debug.feeds import Feed
from devicehost_client.debug.recorder import FileRecorder
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

__all__ = [
    "AccessFilter",
    "Activity",
    "Breakpoint",
    "BreakpointAction",
    "BreakpointEvent",
    "Debug",
    "Delay",
    "DeviceState",
    "Failing",
    "Fault",
    "FaultKind",
    "Feed",
    "FieldValue",
    "FileRecorder",
    "Gone",
    "Hit",
    "HoldEnd",
    "HoldEnded",
    "Hotplugged",
    "Interrupt",
    "InterruptActivity",
    "InterruptKind",
    "Lost",
    "Node",
    "Operation",
    "PlaceActivity",
    "RegisterValue",
    "Space",
    "StuckAtOne",
    "StuckAtZero",
    "TraceEvent",
    "TracedAccess",
    "TracedDma",
]
