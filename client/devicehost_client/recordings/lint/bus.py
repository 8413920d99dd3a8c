"""Rules about the bus: accesses that went nowhere, or wrong."""

from __future__ import annotations

from dataclasses import dataclass

from devicehost.access_status import AccessStatus
from devicehost.recording import Access, Annotated, Space
from devicehost_client.recordings.lint.rule import Rule, Severity, Tally
from devicehost_client.recordings.words import where

_PAGE_BITS = {Space.PIO: 4, Space.MMIO: 12}
"""Accesses without a device are told apart by pages of so many bits of their address."""


@dataclass(slots=True)
class _Touched:
    """The addresses of a page that were accessed; `last` is inclusive."""

    first: int
    last: int


class NoDevice(Rule):
    """An access with no device behind it: it is trapped, floats, and nobody answers.

    Firmware looks for devices like that; a driver that does it has the wrong address.
    """

    name = "no-device"
    severity = Severity.COST

    def __init__(self) -> None:
        super().__init__()
        self._touched: dict[int, _Touched] = {}

    def see(self, number: int, seen: Annotated, access: Access) -> None:
        """Count an access without a device by where it went."""
        if access.status is not AccessStatus.NO_DEVICE:
            return
        space = access.space
        key = (space, access.address >> _PAGE_BITS[space])
        tally = self.tally(key, number, seen, register="", what=space.value)
        tally.cost_ns = (tally.cost_ns or 0) + access.took_ns
        last = access.address + access.size - 1
        touched = self._touched.get(id(tally))
        if touched is None:
            self._touched[id(tally)] = _Touched(access.address, last)
        else:
            touched.first = min(touched.first, access.address)
            touched.last = max(touched.last, last)

    def describe(self, tally: Tally) -> str:
        """Say which addresses were accessed."""
        touched = self._touched[id(tally)]
        size = touched.last - touched.first + 1
        return f"there is no device at {tally.what} {touched.first:#x}+{size:#x}"


class FailedAccess(Rule):
    """An access that failed: its device raised, was too slow, or allows no such access.

    The guest got all ones, or its write was dropped.
    """

    name = "failed-access"
    severity = Severity.ERROR

    def see(self, number: int, seen: Annotated, access: Access) -> None:
        """Count a failed access by its reason and its register."""
        if access.status in {AccessStatus.OK, AccessStatus.NO_DEVICE}:
            return
        target = where(seen)
        reason = access.status.name
        what = f"a {access.operation.value} of {access.size} bytes failed: {reason}"
        key = (seen.device, target, reason, access.operation, access.size)
        self.tally(key, number, seen, register=target, what=what)
