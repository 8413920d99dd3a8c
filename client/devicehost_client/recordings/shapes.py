"""Events as JSON: what `export --format json` writes, a line for each.

Shapes are stable, and follow the conventions of `devicehostctl`: addresses, sizes in bytes
and values are strings in 0x form; times are numbers, in nanoseconds of the server's
monotonic clock; data is hexadecimal, two digits a byte.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from devicehost.recording import (
    Access,
    Annotated,
    Dma,
    Event,
    Interrupt,
    Learned,
    Lost,
    Plugged,
    Told,
    Woken,
)
from devicehost.registers import Decoded

EVENT_HELP = """\
EVENT is {"event": NUMBER, "kind", "time_ns", "device", ...}; the rest is by kind:
  access     "vcpu" (null if unknown), "space", "operation", "address", "size", "data",
             "status", "took_ns", "range", "offset", "registers": [REGISTER]
  interrupt  "gsi", "change": asserted, deasserted or pulsed
  dma        "operation", "address", "data"
  plugged    "description": as in the recording
  unplugged  nothing else
  learned    "source", "value" if it is a number, "data" if it is bytes
  woken      "source"
  told       "data"
  lost       "count"; it has no time and no device
The device is empty if there is none.
REGISTER is {"name", "value", "fields": {NAME: {"value", "meaning"}}, "reserved": the bits
set of no field, "complete": whether all of it was accessed}; the name is empty where the
device has no register.
"""


def event_shape(number: int, seen: Annotated) -> dict[str, Any]:
    """An event."""
    event = seen.event
    if isinstance(event, Lost):
        return {"event": number, "kind": "lost", "count": event.count}
    head = {
        "event": number,
        "kind": type(event).__name__.lower(),
        "time_ns": event.time_ns,
        "device": seen.device,
    }
    if isinstance(event, Access):
        return head | {
            "vcpu": event.vcpu,
            "space": event.space.value,
            "operation": event.operation.value,
            "address": hex(event.address),
            "size": hex(event.size),
            "data": event.data.hex(),
            "status": event.status.name,
            "took_ns": event.took_ns,
            "range": seen.range,
            "offset": hex(seen.offset),
            "registers": registers_shape(seen.registers),
        }
    return head | _rest(event)


def registers_shape(registers: Iterable[Decoded]) -> list[dict[str, Any]]:
    """What an access did to registers."""
    return [
        {
            "name": each.register,
            "value": hex(each.value),
            "fields": {
                field.name: {"value": hex(field.value), "meaning": field.meaning}
                for field in each.fields
            },
            "reserved": hex(each.reserved),
            "complete": each.complete,
        }
        for each in registers
    ]


def _rest(event: Event) -> dict[str, Any]:
    """What only events of this kind have."""
    match event:
        case Interrupt():
            return {"gsi": event.gsi, "change": event.kind.value}
        case Dma():
            return {
                "operation": event.operation.value,
                "address": hex(event.address),
                "data": event.data.hex(),
            }
        case Plugged():
            return {"description": event.device}
        case Learned():
            value = event.value
            return {
                "source": event.source,
                **({"value": hex(value)} if isinstance(value, int) else {"data": value.hex()}),
            }
        case Woken():
            return {"source": event.source}
        case Told():
            return {"data": event.data.hex()}
        case _:
            return {}
