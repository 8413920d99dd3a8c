"""What `-o json` says of remote debugging, and how `--help` explains it.

See `shapes` for what is promised.
"""

from __future__ import annotations

from devicehost_client.ctl.output import Json
from devicehost_client.ctl.where import filter_text
from devicehost_client.debug import (
    AccessFilter,
    Breakpoint,
    Fault,
    Hit,
    Hotplugged,
    Interrupt,
    Lost,
    Node,
    RegisterValue,
    TracedAccess,
    TracedDma,
    TraceEvent,
)

REGISTER_HELP = """\
REGISTER is {"name", "value", "fields": {NAME: {"value", "meaning"}}, "reserved"}; reserved
are bits that are set but belong to no field. The name is empty where no register is.
"""
EVENT_HELP = f"""\
EVENT is {{"kind", "time_ns", "device", ...}}, with times in ns of the server's monotonic clock,
and an empty device if there is none; the rest is by kind:
  access     "vcpu" (null if unknown), "space", "operation", "address", "size", "data"
             (hexadecimal), "values": [VALUE], "failure" (null if none), "took_ns", "offset",
             "registers": [REGISTER]
  interrupt  "gsi", "change": asserted, deasserted or pulsed
  dma        "operation", "address", "size", "data": the first 64 bytes
  plugged    "type"
  unplugged  nothing else
  lost       "count": so many events are missing here; it has no time and no device
{REGISTER_HELP}"""
FILTER_HELP = """\
FILTER is {"text", "devices", "registers", "space", "base", "size", "operation", "value",
"mask", "vcpus", "failed"}; space and operation are null for any.
"""
BREAKPOINT_HELP = f"""\
BREAKPOINT is {{"id", "event" (access, interrupt, fault), "filter": FILTER, "gsi", "ignore",
"hits_max", "action" (hold, log, save-state, record), "after", "limit_ms", "matches",
"hits"}}.
{FILTER_HELP}"""
FAULT_HELP = f"""\
FAULT is {{"id", "kind", "filter": FILTER, "percent", "seed", "count"}}; the kind is as in a
table, and null if it is a newer one.
{FILTER_HELP}"""


def register_shape(register: RegisterValue) -> dict[str, Json]:
    """What a register holds."""
    return {
        "name": register.name,
        "value": hex(register.value),
        "fields": {
            each.name: {"value": hex(each.value), "meaning": each.meaning}
            for each in register.fields
        },
        "reserved": hex(register.reserved),
    }


def event_shape(event: TraceEvent | Lost) -> dict[str, Json]:
    """Something that happened."""

    def shape(kind: str, **members: Json) -> dict[str, Json]:
        if isinstance(event, Lost):
            return {"kind": kind, **members}
        return {"kind": kind, "time_ns": event.time_ns, "device": event.device, **members}

    match event:
        case TracedAccess():
            return shape(
                "access",
                vcpu=event.vcpu,
                space=event.space.value,
                operation=event.operation.value,
                address=hex(event.address),
                size=hex(event.size),
                data=event.data.hex(),
                values=[hex(value) for value in event.values],
                failure=event.failure or None,
                took_ns=event.took_ns,
                offset=hex(event.offset),
                registers=[register_shape(each) for each in event.registers],
            )
        case Interrupt():
            return shape("interrupt", gsi=event.gsi, change=event.kind.value)
        case TracedDma():
            return shape(
                "dma",
                operation=event.operation.value,
                address=hex(event.address),
                size=hex(event.size),
                data=event.data.hex(),
            )
        case Hotplugged(type=""):
            return shape("unplugged")
        case Hotplugged():
            return shape("plugged", type=event.type)
        case Lost():
            return shape("lost", count=event.count)


def filter_shape(wanted: AccessFilter) -> dict[str, Json]:
    """Which accesses."""
    return {
        "text": filter_text(wanted),
        "devices": list(wanted.devices),
        "registers": list(wanted.registers),
        "space": wanted.space.value if wanted.space else None,
        "base": hex(wanted.base),
        "size": hex(wanted.size),
        "operation": wanted.operation.value if wanted.operation else None,
        "value": hex(wanted.value),
        "mask": hex(wanted.mask),
        "vcpus": list(wanted.vcpus),
        "failed": wanted.failed,
    }


def breakpoint_shape(each: Breakpoint) -> dict[str, Json]:
    """A breakpoint."""
    return {
        "id": each.id,
        "event": each.event.value,
        "filter": filter_shape(each.filter),
        "gsi": each.gsi,
        "ignore": each.ignore,
        "hits_max": each.hits_max,
        "action": each.action.value,
        "after": each.after,
        "limit_ms": each.limit_ms,
        "matches": each.matches,
        "hits": each.hits,
    }


def hit_shape(hit: Hit) -> dict[str, Json]:
    """A hit."""
    return {
        "event": "hit",
        "id": hit.id,
        "breakpoint_id": hit.breakpoint_id,
        "at": event_shape(hit.event) if hit.event is not None else None,
        "held": hit.held,
        "after": hit.after,
        "remaining_ms": hit.remaining_ms,
        "states": {
            device: {"type": each.type, "state": each.state} for device, each in hit.states.items()
        },
    }


def fault_shape(fault: Fault) -> dict[str, Json]:
    """A fault."""
    return {
        "id": fault.id,
        "kind": str(fault.kind) if fault.kind is not None else None,
        "filter": filter_shape(fault.filter),
        "percent": fault.percent,
        "seed": fault.seed,
        "count": fault.count,
    }


def node_shape(node: Node) -> dict[str, Json]:
    """A node of the tree of a server's state."""
    return {
        "name": node.name,
        "value": node.value,
        "nodes": [node_shape(each) for each in node.nodes],
        "cut": node.cut,
    }
