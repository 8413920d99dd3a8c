"""Differences that a replay found, as lines for people and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from devicehost_client.ctl.output import Json

DIFFERENCE_HELP = """\
DIFFERENCE is {"index", "event" (its number in the recording), "time_ns", "device", "what"
(read, status, interrupt, dma, output, timer, asked), "expected", "got", "access" (null, or
"space", "operation", "address", "size", "vcpu", "range", "offset"), "registers_expected" and
"registers_got" (each "register", "value", "text", "fields"), "cause", "unsure", "text"}.
"""


def difference_lines(difference: Mapping[str, Any]) -> list[str]:
    """Return a difference as lines: where it is; what was expected, what came; and why."""
    lines = [f"event {difference['event']}: {_place(difference)}: another {difference['what']}"]
    expected, got = difference["registers_expected"], difference["registers_got"]
    if expected and got:
        for wanted, found in zip_longest(expected, got, fillvalue={"text": "nothing"}):
            if wanted == found:
                lines.append(f"  as expected  {wanted['text']}")
            else:
                lines += [f"  expected     {wanted['text']}", f"  got          {found['text']}"]
    else:
        lines += [f"  while        {each['text']}" for each in expected]
        lines += [
            f"  expected     {difference['expected']}",
            f"  got          {difference['got']}",
        ]
    if difference["cause"]:
        lines.append(f"  {difference['cause']}")
    if difference["unsure"]:
        lines.append("  unsure: events were lost before it")
    return lines


def difference_shape(difference: Mapping[str, Any]) -> dict[str, Json]:
    """Return a difference as JSON, with addresses and values in 0x form."""
    access = difference["access"]
    shape = dict(difference)
    if access is not None:
        shape["access"] = {
            **access,
            **{name: hex(access[name]) for name in ("address", "size", "offset")},
        }
    for name in ("registers_expected", "registers_got"):
        shape[name] = [_register(each) for each in difference[name]]
    return shape


def _register(register: Mapping[str, Any]) -> dict[str, Json]:
    fields: list[Json] = [{**field, "value": hex(field["value"])} for field in register["fields"]]
    return {**register, "value": hex(register["value"]), "fields": fields}


def _place(difference: Mapping[str, Any]) -> str:
    device = difference["device"] or "no device"
    access = difference["access"]
    if access is None:
        return device
    names = ", ".join(
        each["register"] for each in difference["registers_expected"] if each["register"]
    )
    what = names or f"{access['size']} bytes"
    return f"{device}: {access['operation']} of {what} at {access['space']} {access['address']:#x}"
