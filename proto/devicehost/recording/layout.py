"""The numbers of the format: chunks of a file, records of a block. The package says the rest.

Invariants:
    A number that is in files already never gets another meaning: what changes is VERSION.
    An access of a usual size has one struct for each form, so that its record is packed, or
    unpacked, by one call.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from devicehost.recording.events import Operation, Space


class BadRecording(ValueError):
    """This isn't a recording, or not one that can be read: another version, or nonsense."""


# A file: MAGIC and VERSION, then chunks.

MAGIC: Final = b"\x89DHREC\r\n"
"""No text, and spoilt by what takes it for text."""

VERSION: Final = 1
START: Final = Struct("<8sI")

CHUNK: Final = Struct("<4sIIII")
"""Type, length of the payload, events in it, CRC-32 of the payload, CRC-32 of these four."""

CHUNK_CHECKED: Final = CHUNK.size - 4
HEAD: Final = b"HEAD"
EVENTS: Final = b"EVTS"
END: Final = b"END "

HEADER_MAX: Final = 16 << 20
"""Bytes of JSON: of the header, or of a device that was plugged."""

BLOCK_MAX: Final = 64 << 20
"""The longest block, in bytes. One is so long only for the sake of one long event."""

CAPACITY: Final = 256 << 10
"""The longest block of more than one event, in bytes."""

# A block: BLOCK, then records.

BLOCK: Final = Struct("<QI")
"""What times are counted from, in ns of the monotonic clock; how many events."""

# The first byte of a record. That of an access: one of these forms, and the bits below.

SHORT: Final = 0x00
FAR: Final = 0x10
WIDE: Final = 0x20
LONG: Final = 0x30

WRITE: Final = 0x01
PIO: Final = 0x02
SIZES: Final = {1: 0x00, 2: 0x04, 4: 0x08, 8: 0x0C}
"""The bits of a size in bytes. LONG has none: it says its size."""

# The other records.

TIME: Final = 0x40
NAME: Final = 0x41
INTERRUPT: Final = 0x50
DMA: Final = 0x51
PLUGGED: Final = 0x52
UNPLUGGED: Final = 0x53
LEARNED_NUMBER: Final = 0x54
LEARNED_BYTES: Final = 0x55
WOKEN: Final = 0x56
TOLD: Final = 0x57
LOST: Final = 0x58

# Kind, vCPU, took, time, address, data.
SHORT_MMIO: Final = {size: Struct(f"<BbHII{size}s") for size in SIZES}
SHORT_PIO: Final = {size: Struct(f"<BbHIH{size}s") for size in SIZES}
FAR_MMIO: Final = {size: Struct(f"<BbHIQ{size}s") for size in SIZES}
# Kind, status, vCPU, took, time, address, data.
WIDE_ANY: Final = {size: Struct(f"<BBhIII{size}s") for size in SIZES}
# Kind, status, time; varints and data follow.
LONG_HEAD: Final = Struct("<BBI")
# Kind, time; what the event has follows.
EVENT_HEAD: Final = Struct("<BI")
# Kind, what times are counted from.
TIME_RECORD: Final = Struct("<BQ")

ACCESS_MAX: Final = FAR_MMIO[8].size
"""The longest record of an access with at most 8 bytes, unless all about it is odd."""

U8_LAST: Final = (1 << 8) - 1
U16_LAST: Final = (1 << 16) - 1
U32_LAST: Final = (1 << 32) - 1
U64_LAST: Final = (1 << 64) - 1
I8_LAST: Final = (1 << 7) - 1
I16_LAST: Final = (1 << 15) - 1

BASE_LAST: Final = U64_LAST - U32_LAST
"""The last moment that times are counted from: none has more than 64 bits."""

WINDOW: Final = 1 << 32
"""Bytes of memory that a short address is in."""

OPERATIONS: Final = (Operation.READ, Operation.WRITE)
"""By the bit WRITE, and as a number in other records."""

SPACES: Final = (Space.MMIO, Space.PIO)
"""By the bit PIO."""

VARINT_MAX: Final = 10
"""Bytes of the longest varint."""

VARINT_MORE: Final = 0x80
"""The bit of a byte of a varint that says that another one follows."""


def varint(name: str, value: int) -> bytes:
    """Encode a number, seven bits to a byte, the low ones first; all but the last have bit 7.

    Raises:
        ValueError: it doesn't fit into 64 bits.
    """
    if 0 <= value < VARINT_MORE:
        return bytes((value,))
    if not 0 <= value <= U64_LAST:
        raise ValueError(f"{name} is {value}: it must be from 0 to {U64_LAST:#x}")
    out = bytearray()
    while value >= VARINT_MORE:
        out.append(value & (VARINT_MORE - 1) | VARINT_MORE)
        value >>= 7
    out.append(value)
    return bytes(out)
