"""Ethernet frames on their way between a guest and a backend, and the header before them.

Before each frame in a queue stands a header (virtio 1.2 section 5.1.6). It says what the
sender has left undone: a checksum that is still to be completed, a TCP segment that is
still to be cut to the size of the wire. Between two ends that both know of this, nobody
ever does it, which is what makes a virtual network fast.

    offset  size
    0       1     flags: bit 0, the checksum is to be completed
    1       1     GSO type: 0 none, 1 TCP over IPv4, 4 TCP over IPv6
    2       2     length of all headers, a hint
    4       2     GSO size: the payload of each segment
    6       2     where the sum begins, in bytes from the beginning of the frame
    8       2     where the checksum stands, in bytes from there
    10      2     number of buffers that the frame takes; for received frames only

Numbers are little-endian. The header is read once, since a guest may change it at any time.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag

from devicehost_server.model.device_io import ReadableBuffer

HEADER_SIZE = 12
"""Bytes before each frame, of a modern device (section 5.1.6.1)."""

NUM_BUFFERS_OFFSET = 10
"""Where the header has the number of buffers. What comes before goes with the frame."""

PLAIN = bytes(NUM_BUFFERS_OFFSET)
"""The metadata of a frame that is complete as it is."""

FRAME_MIN = 14
"""Bytes of the shortest frame: two addresses and a type."""

FRAME_MAX = 14 + 4 + 0xFFFF
"""Bytes of the longest frame: an Ethernet header with a VLAN tag, and the longest IP packet."""

NEEDS_CHECKSUM = 1

_METADATA = struct.Struct("<BBHHHH")


class Feature(IntFlag):
    """Features of a network device (virtio 1.2 section 5.1.3)."""

    CSUM = 1 << 0  # the device completes checksums
    GUEST_CSUM = 1 << 1  # the driver takes frames without one
    MTU = 1 << 3
    MAC = 1 << 5
    GUEST_TSO4 = 1 << 7  # the driver takes TCP segments that weren't cut
    GUEST_TSO6 = 1 << 8
    HOST_TSO4 = 1 << 11  # the device cuts TCP segments
    HOST_TSO6 = 1 << 12
    MRG_RXBUF = 1 << 15  # a frame may take several receive buffers
    STATUS = 1 << 16  # the configuration tells whether the link is up


FEATURE_NAMES = {feature.bit_length() - 1: feature.name or "" for feature in Feature}
"""What the bits are called, by their numbers."""


class Gso(IntEnum):
    """What is to be cut (section 5.1.6, `gso_type`)."""

    NONE = 0
    TCPV4 = 1
    TCPV6 = 4


class BadFrame(Exception):
    """The frame can't be sent on; the message is the reason, as counters call it."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a header says that is still to be done.

    Attributes:
        needs_checksum: whether a checksum is to be completed. Where it stands is the sum
            of what isn't in the frame itself.
        gso: what is to be cut.
        headers_size: bytes of all headers, if the sender likes to tell. Nothing is done by it.
        gso_size: bytes of payload in each segment.
        checksum_start: the first byte that is summed, from the beginning of the frame.
        checksum_offset: where the checksum stands, from there.
    """

    needs_checksum: bool
    gso: Gso
    headers_size: int
    gso_size: int
    checksum_start: int
    checksum_offset: int

    @classmethod
    def parse(cls, header: bytes) -> Metadata:
        """Read a header's first 10 bytes.

        Raises:
            BadFrame: it asks for something that no feature stands for.
        """
        flags, gso_type, headers_size, gso_size, start, offset = _METADATA.unpack(header)
        try:
            gso = Gso(gso_type)
        except ValueError:
            raise BadFrame("bad_header") from None
        return cls(bool(flags & NEEDS_CHECKSUM), gso, headers_size, gso_size, start, offset)

    def pack(self) -> bytes:
        """Return a header's first 10 bytes."""
        return _METADATA.pack(
            NEEDS_CHECKSUM if self.needs_checksum else 0,
            self.gso,
            self.headers_size,
            self.gso_size,
            self.checksum_start,
            self.checksum_offset,
        )


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame, in memory that belongs to somebody else: valid while it is being sent.

    Attributes:
        header: the first 10 bytes of the header before it, checked.
        parts: the frame itself, in pieces of any size.
        size: its bytes.
    """

    header: bytes
    parts: tuple[ReadableBuffer, ...]
    size: int

    def kept(self) -> Frame:
        """Return a copy that stays as it is."""
        return Frame(self.header, (b"".join(self.parts),), self.size)

    def start(self, size: int) -> bytes:
        """Return the first `size` bytes, however they are cut into parts."""
        first = self.parts[0]
        if len(first) >= size:
            return bytes(first[:size])
        return b"".join(self.parts)[:size]


def plain(data: ReadableBuffer) -> Frame:
    """Return the frame that consists of `data`, complete as it is."""
    return Frame(PLAIN, (data,), len(data))


def take(parts: tuple[memoryview, ...], size: int, features: int) -> Frame:
    """Make a frame of what a driver has put into the transmit queue.

    Args:
        parts: header and frame, cut anywhere.
        size: bytes of both.
        features: what the driver has negotiated.

    Raises:
        BadFrame: too short or too long, or a header that asks for what it may not.
    """
    if size < HEADER_SIZE + FRAME_MIN:
        raise BadFrame("short")
    if size > HEADER_SIZE + FRAME_MAX:
        raise BadFrame("long")
    head = parts[0]
    rest: tuple[memoryview, ...]
    if len(head) < HEADER_SIZE:
        whole = memoryview(b"".join(parts))
        header, rest = bytes(whole[:NUM_BUFFERS_OFFSET]), (whole[HEADER_SIZE:],)
    elif len(head) == HEADER_SIZE:
        header, rest = bytes(head[:NUM_BUFFERS_OFFSET]), parts[1:]
    else:
        header, rest = bytes(head[:NUM_BUFFERS_OFFSET]), (head[HEADER_SIZE:], *parts[1:])
    size -= HEADER_SIZE
    if header != PLAIN:
        header = _checked(header, size, features)
    return Frame(header, rest, size)


_NEEDED = {Gso.TCPV4: Feature.HOST_TSO4, Gso.TCPV6: Feature.HOST_TSO6}


def _checked(header: bytes, size: int, features: int) -> bytes:
    """Return `header` without what devices have to ignore, and with nothing that is untrue.

    Raises:
        BadFrame: it points outside of the frame, or asks for what wasn't negotiated.
    """
    metadata = Metadata.parse(header)
    if not metadata.needs_checksum:
        if metadata.gso is not Gso.NONE:  # section 5.1.6.2: it has to be set then
            raise BadFrame("bad_header")
        return PLAIN
    if not features & Feature.CSUM:
        raise BadFrame("bad_header")
    if metadata.checksum_start + metadata.checksum_offset + 2 > size:
        raise BadFrame("bad_header")
    if metadata.gso is Gso.NONE:
        metadata = replace(metadata, headers_size=0, gso_size=0)
    elif not (features & _NEEDED[metadata.gso] and metadata.gso_size):
        raise BadFrame("bad_header")
    elif metadata.headers_size > size:
        metadata = replace(metadata, headers_size=0)
    return metadata.pack()


_ACCEPTED = {
    Gso.NONE: Feature.GUEST_CSUM,
    Gso.TCPV4: Feature.GUEST_CSUM | Feature.GUEST_TSO4,
    Gso.TCPV6: Feature.GUEST_CSUM | Feature.GUEST_TSO6,
}


def is_accepted(header: bytes, features: int) -> bool:
    """Whether a driver that negotiated `features` takes a frame with this checked header."""
    if header == PLAIN:
        return True
    wanted = _ACCEPTED[Gso(header[1])]
    return features & wanted == wanted
