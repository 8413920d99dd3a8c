"""Which accesses somebody wants to see: conditions, and what they may be."""

from __future__ import annotations

from dataclasses import dataclass

from devicehost.recording.events import Operation, Space
from devicehost_server.model.errors import BadRequest, hex_range
from devicehost_server.model.names import check_name

_WORD_BITS = 64
_ADDRESS_BITS = {Space.PIO: 16, Space.MMIO: 64, None: 64}


@dataclass(frozen=True, slots=True)
class AccessFilter:
    """Conditions that an access has to meet, all of them. By default there is none.

    Attributes:
        devices: ids of devices; empty for any. They need not be there yet.
        registers: as "DEVICE.REGISTER", or "DEVICE.REGISTER[3]"; empty for any.
        space: the address space; None for both.
        base: the first address, with `size`.
        size: the access touches a byte of so many from `base`; 0 for any address.
        operation: read or write; None for both.
        value: what the access carries, little-endian, under `mask`. Of a string access, any
            of its operands may carry it.
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


ANY = AccessFilter()
"""The filter that lets all accesses through."""


def check_filter(wanted: AccessFilter) -> None:
    """Check that some access can meet the conditions, as far as they tell by themselves.

    Raises:
        BadRequest: none can. `field` is the condition's name in the API.
    """
    for device in wanted.devices:
        check_name("filter.device_ids", device)
    _check_range(wanted)
    for name, bits in (("value", wanted.value), ("mask", wanted.mask)):
        if not 0 <= bits < 1 << _WORD_BITS:
            raise _bad(name, f"{bits:#x}", f"at most {_WORD_BITS} bits")
    if wanted.value & ~wanted.mask:
        allowed = f"bits of the mask, which is {wanted.mask:#x}"
        raise _bad("value", f"{wanted.value:#x}", allowed)
    for vcpu in wanted.vcpus:
        if vcpu < 0:
            raise _bad("vcpus", str(vcpu), "0 and up")


def _check_range(wanted: AccessFilter) -> None:
    base, size = wanted.base, wanted.size
    if base < 0:
        raise _bad("base", str(base), "0 and up")
    if size < 0:
        raise _bad("size", str(size), "0 and up")
    if base and not size:
        raise _bad("size", "0", f"1 and up, since there is a base, {base:#x}")
    bits = _ADDRESS_BITS[wanted.space]
    if base + size > 1 << bits:
        raise _bad("size", f"{size:#x}", f"addresses of {bits} bits, not {hex_range(base, size)}")


def _bad(field: str, value: str, allowed: str) -> BadRequest:
    return BadRequest(
        f"filter.{field} can't be {value}; allowed: {allowed}",
        field=f"filter.{field}",
        value=value,
    )
