"""Which accesses somebody wants to see: conditions, and how they are looked up."""

from __future__ import annotations

from dataclasses import dataclass

from devicehost.recording.events import Operation, Space


@dataclass(frozen=True, slots=True)
class AccessFilter:
    """Conditions that an access has to meet, all of them. By default there is none.

    Attributes:
        devices: ids of devices; empty for any.
        registers: as "DEVICE.REGISTER", or "DEVICE.REGISTER[3]"; empty for any.
        space: the address space; None for both.
        base: the first address, with `size`.
        size: the access touches a byte of so many from `base`; 0 for any address.
        operation: read or write; None for both.
        value: what the access carries, little-endian, under `mask`.
        mask: the bits of `value` that count; 0 for any value.
        vcpus: vCPUs; empty for any.
        failed: failed accesses only.
    """

    devices: frozenset[str] = frozenset()
    registers: tuple[str, ...] = ()
    space: Space | None = None
    base: int = 0
    size: int = 0
    operation: Operation | None = None
    value: int = 0
    mask: int = 0
    vcpus: frozenset[int] = frozenset()
    failed: bool = False
