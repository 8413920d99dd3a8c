"""What a device says of itself as a PCI function.

The rest of a function follows from the device's constraints (`devicehost_server.pci`): its
BARs from the PIO, MMIO and memory constraints, INTx from a legacy IRQ, MSI and MSI-X from
the constraints of these names.

Numbers are those of the PCI Local Bus Specification 3.0, section 6.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from devicehost_server.model.errors import BadConfig

_ID_MAX = 0xFFFE  # a vendor of all ones says that no function is there
_BITS_8, _BITS_16, _BITS_24 = 0xFF, 0xFFFF, 0xFF_FFFF


@dataclass(frozen=True, slots=True)
class PciIdentity:
    """The numbers by which a driver finds its function.

    Attributes:
        vendor_id: who made it, 0 to 0xfffe.
        device_id: what it is, of this vendor, 16 bits.
        class_code: what kind of thing it is, 24 bits: class, subclass, programming interface.
        revision: 8 bits.
        subsystem_vendor_id: who made the card, 16 bits.
        subsystem_id: what the card is, 16 bits.

    Raises:
        BadConfig: a number has too many bits.
    """

    vendor_id: int
    device_id: int
    class_code: int
    revision: int = 0
    subsystem_vendor_id: int = 0
    subsystem_id: int = 0

    def __post_init__(self) -> None:
        for name, most in (
            ("vendor_id", _ID_MAX),
            ("device_id", _BITS_16),
            ("class_code", _BITS_24),
            ("revision", _BITS_8),
            ("subsystem_vendor_id", _BITS_16),
            ("subsystem_id", _BITS_16),
        ):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise BadConfig(
                    f"PCI {name} is {value:#x}, allowed: 0 to {most:#x}", field=name, value=value
                )


UNKNOWN_IDENTITY = PciIdentity(0x1B36, 0x0005, 0xFF0000)
"""Of a device that says nothing: Red Hat's test device, of no class. No driver binds to it."""


class CapabilityHook(Protocol):
    """Makes the body of a capability more than storage. Offsets are in bytes, in the body."""

    def before_read(self, body: bytearray, offset: int, size: int) -> None:
        """`size` bytes at `offset` are about to be read: bring them up to date."""

    def after_write(self, body: bytearray, offset: int, size: int) -> None:
        """`size` bytes at `offset` have been written, as far as they are writable."""


@dataclass(frozen=True, slots=True)
class VendorCapability:
    """A vendor-specific capability (ID 0x09) in configuration space.

    Attributes:
        body: what stands behind the identifier, the pointer to the next one, and the length.
        writable: the bits of `body` that a driver can write; none beyond its end.
        hook: told of what is read and written, if anybody is.
    """

    body: bytes
    writable: bytes = b""
    hook: CapabilityHook | None = None


@dataclass(frozen=True, slots=True)
class PciDescription:
    """What a device says of itself as a PCI function.

    Attributes:
        identity: its numbers.
        capabilities: what it has besides those that follow from its interrupts.
    """

    identity: PciIdentity
    capabilities: Sequence[VendorCapability] = field(default=())


@dataclass(frozen=True, slots=True)
class OfferedMemory:
    """The file behind a memory range of a device, so that a client can map it.

    Attributes:
        fd: a descriptor of it, which stays the device's.
        offset: where in the file the range begins, in bytes: whole pages.
        size: how many bytes of it the range has.
        writable: whether a client may write it.
    """

    fd: int
    offset: int
    size: int
    writable: bool = True
