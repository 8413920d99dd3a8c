"""Hits of breakpoints, and breakpoints, as lines for people."""

from __future__ import annotations

from collections.abc import Sequence

from devicehost_client.ctl.event_text import registers_text, value_text, vcpu_text
from devicehost_client.ctl.where import filter_text
from devicehost_client.debug import (
    Breakpoint,
    BreakpointAction,
    BreakpointEvent,
    Hit,
    HoldEnd,
    Interrupt,
    Operation,
    RegisterValue,
    TracedAccess,
)

_ENDS = {
    HoldEnd.UNKNOWN: "it went on",
    HoldEnd.RESUMED: "somebody else let it go on",
    HoldEnd.LIMIT: "its time is up: it went on",
    HoldEnd.DRAINING: "the server stops: it went on",
}


def hit_lines(hit: Hit, now: Sequence[RegisterValue], remaining_s: float) -> list[str]:
    """Return a hit as lines: what happened; where exactly; and each register.

    Args:
        hit: the hit.
        now: what the registers of the access hold.
        remaining_s: how long it will be held yet, in seconds.
    """
    by = f"breakpoint {hit.breakpoint_id}" if hit.breakpoint_id else "step"
    match hit.event:
        case TracedAccess():
            lines = [f"hit {hit.id}, {by}: {_access(hit.event, hit)}{_held(hit, remaining_s)}"]
            lines += _details(hit.event, hit, now)
        case Interrupt(_, gsi, kind, device):
            owner = f" by {device}" if device else ""
            lines = [f"hit {hit.id}, {by}: interrupt {gsi} {kind.value}{owner}"]
            lines[0] += _held(hit, remaining_s)
        case _:
            lines = [f"hit {hit.id}, {by}{_held(hit, remaining_s)}"]
    if hit.states:
        lines.append(f"  state of {', '.join(hit.states)} saved; -o json has it")
    return lines


def ended_text(hit_id: int, why: HoldEnd) -> str:
    """Say that a hold has ended by other than our doing."""
    return f"hit {hit_id}: {_ENDS[why]}"


def breakpoint_text(each: Breakpoint) -> str:
    """Return a breakpoint in a line."""
    match each.event:
        case BreakpointEvent.ACCESS:
            what = filter_text(each.filter)
        case BreakpointEvent.FAULT:
            what = f"fault of {filter_text(each.filter)}"
        case BreakpointEvent.INTERRUPT:
            what = "any interrupt" if each.gsi is None else f"interrupt {each.gsi}"
    words = [f"breakpoint {each.id}: {what}"]
    if each.action is not BreakpointAction.HOLD:
        words.append(each.action.value)
    if each.after:
        words.append("after the device")
    if each.matches:
        words.append(f"matched {each.matches}, hit {each.hits}")
    return ", ".join(words)


def _access(access: TracedAccess, hit: Hit) -> str:
    who = vcpu_text(access.vcpu)
    who = f"vCPU {who}" if who.isdigit() else who or "somebody"
    if access.operation is Operation.WRITE:
        return f"{who} writes {value_text(access)} to {access.place}"
    if hit.after or access.data:
        return f"{who} read {value_text(access) or 'nothing'} from {access.place}"
    return f"{who} reads {access.place}"


def _held(hit: Hit, remaining_s: float) -> str:
    if not hit.held:
        return ""
    return f"; held {'after' if hit.after else 'before'} the device, {remaining_s:.1f} s remain"


def _details(access: TracedAccess, hit: Hit, now: Sequence[RegisterValue]) -> list[str]:
    """Each register of an access: what it holds, and what is written to it or was read."""
    size = f"{len(access.data) or access.size} bytes"
    lines = [
        f"  {access.space.value} {access.address:#x}, {'1 byte' if size == '1 bytes' else size}"
    ]
    if access.failure:
        lines[0] += f", failed: {access.failure}"
    held = {each.name: each for each in now}
    arrow = "->" if access.operation is Operation.WRITE and not hit.after else "now"
    for each in access.registers:
        old = held.pop(each.name, None)
        if not access.data:
            lines.append(f"  {old if old is not None else registers_text((each,))}")
        elif old is None:
            lines.append(f"  {each}")
        elif arrow == "->":
            lines.append(f"  {old} -> {_value(each)}")
        else:
            lines.append(f"  {each}, now {_value(old)}")
    return lines


def _value(register: RegisterValue) -> str:
    return str(register).partition(" = ")[2]
