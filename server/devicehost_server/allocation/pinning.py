"""Constraints that leave no choice: what a device had before is what it is to get again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from devicehost_server.model.errors import BadState
from devicehost_server.model.resources import (
    AddressConstraint,
    AddressRange,
    KvmMemSlot,
    KvmMemSlotConstraint,
    LegacyIrq,
    LegacyIrqConstraint,
    MsiConstraint,
    MsiIrq,
    Resource,
    ResourceConstraint,
)


def pinned(
    constraints: Sequence[ResourceConstraint], resources: Iterable[Resource]
) -> list[ResourceConstraint]:
    """Return constraints that only `resources` meet.

    An interrupt of a PCI function may be a legacy IRQ for the device, where the server has
    an MSI number for it.

    Args:
        constraints: what the device needs.
        resources: what it had, in the same order.

    Raises:
        BadState: they don't belong together: it needs something else than it had.
    """
    left = list(resources)
    result = [_pinned(constraint, left) for constraint in constraints]
    if left:
        raise _bad(f"it had {left[0]!r}, and needs no such thing now")
    return result


def _pinned(constraint: ResourceConstraint, left: list[Resource]) -> ResourceConstraint:
    """Return what only the first of the resources meets, and take it away."""
    if not left:
        raise _bad(f"it needs {constraint!r}, and had no such thing")
    first = left.pop(0)
    match constraint, first:
        case AddressConstraint(size=size), AddressRange(base, had) if (
            had == size and constraint.space_name == first.space_name
        ):
            return constraint.exact(base, size)
        case LegacyIrqConstraint(), LegacyIrq(irq):
            return LegacyIrqConstraint(irq)
        case MsiConstraint(), LegacyIrq(irq):
            return replace(constraint, base=irq)
        case MsiConstraint(size=size), MsiIrq(_, base, had) if had == size:
            return replace(constraint, base=base)
        case KvmMemSlotConstraint(size=size), KvmMemSlot(slot):
            rest = [KvmMemSlot(slot + number) for number in range(1, size)]
            if left[: size - 1] == rest:
                del left[: size - 1]
                return KvmMemSlotConstraint(slot, size)
    raise _bad(f"it had {first!r}, and needs {constraint!r} now")


def _bad(why: str) -> BadState:
    return BadState(f"resources of a snapshot: {why}", field="resources")
