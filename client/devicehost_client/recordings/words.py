"""Events in words, for people: in a finding, in a report, as the name of a slice."""

from __future__ import annotations

from collections.abc import Iterable

from devicehost.access_status import AccessStatus
from devicehost.recording import (
    Access,
    Annotated,
    Dma,
    Event,
    Interrupt,
    Learned,
    Lost,
    Operation,
    Plugged,
    Told,
    Unplugged,
    Woken,
)
from devicehost.registers import Decoded
from devicehost_client.transports import TOOL_VCPU

_DATA_SHOWN = 16
"""Bytes of a long transfer that are shown."""

_NUMBER_MAX = 8
"""Up to so many bytes are one number."""

_STEP = 1000
_LARGE = 100


def access_text(access: Access) -> str:
    """Say what was accessed: `write pio 0x3fb 1 = 0x83`, as one would type it."""
    text = (
        f"{access.operation.value} {access.space.value} {access.address:#x} {access.size}"
        f"{_result(access)}"
    )
    return text if access.status is AccessStatus.OK else f"{text} failed: {access.status.name}"


def event_text(event: Event) -> str:
    """Say what happened, whatever it was."""
    match event:
        case Access():
            return access_text(event)
        case Interrupt():
            return f"GSI {event.gsi} {event.kind.value}"
        case Dma():
            verb = "reads" if event.operation is Operation.READ else "writes"
            return f"{verb} memory {event.address:#x} +{len(event.data):#x}"
        case Plugged():
            return "plugged"
        case Unplugged():
            return "unplugged"
        case Learned():
            return f"learned {event.source} = {_learned(event.value)}"
        case Woken():
            return f"woken by {event.source}"
        case Told():
            return f"told {data_text(event.data)}"
        case Lost():
            return f"{event.count} events are missing"


def decoded_text(registers: Iterable[Decoded]) -> str:
    """Say what an access means: `LCR = 0x83 (DLAB=1, WLS=3 8 bits)`."""
    return "; ".join(str(each) for each in registers if each.register)


def where(seen: Annotated) -> str:
    """Name what an access went to: its registers, else an offset, else an address."""
    if names := "+".join(each.register for each in seen.registers if each.register):
        return names
    if seen.device:
        prefix = f"[{seen.range}]" if seen.range else ""
        return f"{prefix}+{seen.offset:#x}"
    event = seen.event
    return f"{event.space.value} {event.address:#x}" if isinstance(event, Access) else ""


def vcpu_text(vcpu: int | None) -> str:
    """Say whose an access was: a number, `tool` for one by hand, `unknown`."""
    return "unknown" if vcpu is None else "tool" if vcpu == TOOL_VCPU else str(vcpu)


def data_text(data: bytes) -> str:
    """Show bytes; of many, the first."""
    shown = data[:_DATA_SHOWN].hex(" ")
    return shown if len(data) <= _DATA_SHOWN else f"{shown} ... ({len(data)} bytes)"


def time_text(time_ns: int) -> str:
    """Show how long it took: three digits and a unit, `12.3 us`."""
    value = float(time_ns)
    for unit in ("ns", "us", "ms"):
        if abs(value) < _STEP:
            digits = 0 if unit == "ns" or abs(value) >= _LARGE else 1
            return f"{value:.{digits}f} {unit}"
        value /= _STEP
    return f"{value:.3f} s"


def _result(access: Access) -> str:
    data = access.data
    if not data:
        return ""
    if len(data) != access.size or len(data) > _NUMBER_MAX:
        return f" = {data_text(data)}"
    return f" = {int.from_bytes(data, 'little'):#0{2 + 2 * len(data)}x}"


def _learned(value: int | bytes) -> str:
    return str(value) if isinstance(value, int) else data_text(value)
