"""What stands in the list of capabilities in configuration space.

A capability begins with its identifier and the pointer to the next one; these are the
list's. Then comes its body. A driver writes the bits of it that it may, and the capability
is told before somebody reads, and after somebody has written.

Source: PCI Local Bus Specification 3.0, section 6.7 and appendix H.
"""

from __future__ import annotations

from devicehost_server.model.device_io import ReadableBuffer
from devicehost_server.model.errors import BadConfig
from devicehost_server.model.pci import VendorCapability

ID_VENDOR = 0x09

_POINTERS_SIZE = 2  # identifier and next
_LENGTH_MAX = 0xFF


class Capability:
    """One capability.

    Args:
        identifier: which one, 8 bits.
        body: what it is after power-on.
        writable: the bits of `body` that a driver can write; none beyond its end.
        lead: bytes that never change, between the pointers and the body.

    Attributes:
        identifier, writable, lead: as above; `writable` is as long as the body.
        body: what it is now; it is changed in place.
    """

    def __init__(self, identifier: int, body: bytes, writable: bytes, lead: bytes = b"") -> None:
        self.identifier = identifier
        self.writable = writable.ljust(len(body), b"\0")
        self.lead = lead
        self.body = bytearray(body)
        self._power_on = bytes(body)

    @property
    def body_offset(self) -> int:
        """Where the body begins, in bytes from the capability's first."""
        return _POINTERS_SIZE + len(self.lead)

    @property
    def size(self) -> int:
        """All bytes of it."""
        return self.body_offset + len(self.body)

    def read_body(self, offset: int, size: int) -> bytes:
        """Return `size` bytes at `offset` of the body, which are all within it."""
        self.before_read(offset, size)
        return bytes(self.body[offset : offset + size])

    def write_body(self, offset: int, data: ReadableBuffer) -> None:
        """Take `data` to `offset` of the body, all within it, as far as it is writable."""
        self.store(offset, data)
        self.after_write(offset, len(data))

    def store(self, offset: int, data: ReadableBuffer) -> None:
        """Change the writable bits, and nothing besides."""
        for at, new in enumerate(data, offset):
            mask = self.writable[at]
            self.body[at] = self.body[at] & ~mask | new & mask

    def before_read(self, offset: int, size: int) -> None:
        """`size` bytes at `offset` of the body are about to be read: bring them up to date."""

    def after_write(self, offset: int, size: int) -> None:
        """`size` bytes at `offset` of the body were written, as far as they are writable."""

    def reset(self) -> None:
        """Return to what it was after power-on."""
        self.body[:] = self._power_on

    def number(self, offset: int, size: int) -> int:
        """Return the little-endian number of `size` bytes at `offset` of the body."""
        return int.from_bytes(self.body[offset : offset + size], "little")


class Vendor(Capability):
    """A capability of which only the device knows what it means.

    Raises:
        BadConfig: it is too long, or more is writable than there is.
    """

    def __init__(self, described: VendorCapability) -> None:
        length = _POINTERS_SIZE + 1 + len(described.body)
        if length > _LENGTH_MAX:
            raise BadConfig(
                f"PCI vendor capability: it is {length} bytes long, allowed: at most {_LENGTH_MAX}",
                field="capabilities",
                size=length,
            )
        if len(described.writable) > len(described.body):
            raise BadConfig(
                f"PCI vendor capability: {len(described.writable)} bytes are writable, "
                f"allowed: at most those of the body, {len(described.body)}",
                field="capabilities",
            )
        super().__init__(ID_VENDOR, described.body, described.writable, lead=bytes([length]))
        self._hook = described.hook

    def before_read(self, offset: int, size: int) -> None:
        """Ask the device."""
        if self._hook is not None:
            self._hook.before_read(self.body, offset, size)

    def after_write(self, offset: int, size: int) -> None:
        """Tell the device."""
        if self._hook is not None:
            self._hook.after_write(self.body, offset, size)
