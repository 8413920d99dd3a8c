"""MSI: up to 32 messages, masked and pending in configuration space.

The capability has a 64-bit address and masks. A driver may enable fewer vectors than there
are: then the number of an interrupt keeps its low bits, as the data of its message does.
Where the messages go is the client's matter, and the address and data are only stored.

Source: PCI Local Bus Specification 3.0, section 6.8.1.
"""

from __future__ import annotations

import struct

from devicehost_server.pci.messages import Messages

ID_MSI = 0x05
COUNT_MAX = 32

# Message control.
_CONTROL = struct.Struct("<H")
ENABLE = 0x0001
MULTIPLE_CAPABLE_SHIFT = 1  # the logarithm of how many there are
MULTIPLE_ENABLE = 0x0070  # the logarithm of how many may be used
MULTIPLE_ENABLE_SHIFT = 4
ADDRESS_64BIT = 0x0080
PER_VECTOR_MASKING = 0x0100

# Control, address, upper address, data, reserved, mask bits, pending bits.
_BODY = struct.Struct("<HIIHHII")
_MASK_OFFSET = 14
_PENDING_OFFSET = 18
_BITS_SIZE = 4
_DWORDS = 0xFFFF_FFFC  # an address ends in 00


class Msi(Messages):
    """The capability of a function with `count` messages, 1 to 32.

    A function has a power of two of them: those beyond `count` are never sent.
    """

    def __init__(self, count: int) -> None:
        exponent = (count - 1).bit_length()
        control = exponent << MULTIPLE_CAPABLE_SHIFT | ADDRESS_64BIT | PER_VECTOR_MASKING
        masks = (1 << (1 << exponent)) - 1
        super().__init__(
            ID_MSI,
            _BODY.pack(control, 0, 0, 0, 0, 0, 0),
            _BODY.pack(ENABLE | MULTIPLE_ENABLE, _DWORDS, 0xFFFF_FFFF, 0xFFFF, 0, masks, 0),
            1 << exponent,
        )

    @property
    def enabled(self) -> bool:
        """Whether the driver has enabled MSI."""
        return bool(self._control & ENABLE)

    @property
    def masked(self) -> int:
        """The mask bits."""
        return self.number(_MASK_OFFSET, _BITS_SIZE)

    @property
    def allowed(self) -> int:
        """How many vectors the driver lets the function use, though there may be fewer."""
        exponent = (self._control & MULTIPLE_ENABLE) >> MULTIPLE_ENABLE_SHIFT
        return 1 << exponent

    def vector(self, number: int) -> int:
        """Return the vector on which the device's interrupt `number` is delivered."""
        return number % self.allowed

    def before_read(self, offset: int, size: int) -> None:
        """Show the pending bits."""
        del offset, size
        self.body[_PENDING_OFFSET:] = self.pending.to_bytes(_BITS_SIZE, "little")

    @property
    def _control(self) -> int:
        return self.number(0, _CONTROL.size)
