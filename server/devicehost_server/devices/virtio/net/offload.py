"""What a sender left undone, done here, for a receiver that doesn't want to.

A frame with metadata (`frames.Metadata`) becomes one or several that are complete: TCP is
cut into segments (RFC 9293), and checksums are filled in (RFC 1071).

The sum of the 16-bit words of a text, with the carry added at the low end, is the text as
one big number, modulo 0xFFFF; which is how Python sums 1500 bytes in a microsecond.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from devicehost_server.devices.virtio.net.frames import (
    PLAIN,
    BadFrame,
    Frame,
    Gso,
    Metadata,
    plain,
)
from devicehost_server.model.device_io import ReadableBuffer

SEGMENT_MIN = 48
"""The least payload of a segment, in bytes: what Linux takes for the least it sends. Without
a bound one hostile frame could be made into 65,000."""

_ETHERTYPE_OFFSET = 12
_VLAN_TAGS = (b"\x81\x00", b"\x88\xa8")
_ETHERTYPES = {Gso.TCPV4: b"\x08\x00", Gso.TCPV6: b"\x86\xdd"}
_IP_LENGTH_MAX = 0xFFFF
_TCP = 6
_TCP_CHECKSUM_OFFSET = 16
_IPV4_HEADER_MIN = 20
_IPV6_HEADER_SIZE = 40
_TCP_HEADER_MIN = 20
_FIN, _PSH, _CWR = 0x01, 0x08, 0x80


def checksum(data: ReadableBuffer) -> int:
    """Return the Internet checksum of `data`; never 0, which to UDP means that there is none."""
    number = int.from_bytes(data, "big")
    return 0xFFFF - ((number << 8 if len(data) % 2 else number) % 0xFFFF)


def completed(frame: Frame) -> Iterator[Frame]:
    """Make complete frames of one that needn't be; one that is complete is returned as it is.

    Raises:
        BadFrame: it isn't what its header says.
    """
    if frame.header == PLAIN:
        yield frame
        return
    metadata = Metadata.parse(frame.header)
    data = bytearray(b"").join(frame.parts)
    if metadata.gso is not Gso.NONE:
        yield from _segments(bytes(data), metadata)
        return
    field = metadata.checksum_start + metadata.checksum_offset
    data[field : field + 2] = checksum(data[metadata.checksum_start :]).to_bytes(2, "big")
    yield plain(data)


@dataclass(frozen=True, slots=True)
class _Layers:
    """Where the headers of a TCP segment begin, in bytes: network, TCP, payload."""

    network: int
    transport: int
    payload: int


def _layers(data: bytes, metadata: Metadata) -> _Layers:
    """Find the headers.

    Raises:
        BadFrame: they aren't what the metadata says, or don't fit.
    """
    network = _ETHERTYPE_OFFSET
    while data[network : network + 2] in _VLAN_TAGS:
        network += 4
    ethertype = data[network : network + 2]
    network += 2
    transport = metadata.checksum_start
    if metadata.gso is Gso.TCPV4:
        header_min, protocol_offset = _IPV4_HEADER_MIN, 9
    else:
        header_min, protocol_offset = _IPV6_HEADER_SIZE, 6
    if (
        ethertype != _ETHERTYPES[metadata.gso]
        or metadata.checksum_offset != _TCP_CHECKSUM_OFFSET
        or metadata.gso_size < SEGMENT_MIN
        or transport < network + header_min
        or transport + _TCP_HEADER_MIN > len(data)
    ):
        raise BadFrame("bad_header")
    if metadata.gso is Gso.TCPV4:
        header_size = (data[network] & 0xF) * 4
        if header_size != transport - network or data[network + protocol_offset] != _TCP:
            raise BadFrame("bad_header")
    tcp_size = (data[transport + 12] >> 4) * 4
    payload = transport + tcp_size
    longest = payload - network + metadata.gso_size
    if tcp_size < _TCP_HEADER_MIN or payload > len(data) or longest > _IP_LENGTH_MAX:
        raise BadFrame("bad_header")
    return _Layers(network, transport, payload)


def _segments(data: bytes, metadata: Metadata) -> Iterator[Frame]:
    layers = _layers(data, metadata)
    network, transport, payload = layers.network, layers.transport, layers.payload
    sequence = int.from_bytes(data[transport + 4 : transport + 8], "big")
    flags = data[transport + 13]
    first, size = payload, metadata.gso_size
    number = 0
    while number == 0 or first < len(data):
        piece = data[first : first + size]
        is_last = first + size >= len(data)
        header = bytearray(data[:payload])
        offset = first - payload
        header[transport + 4 : transport + 8] = (sequence + offset & 0xFFFF_FFFF).to_bytes(4, "big")
        header[transport + 13] = flags & ~(0 if is_last else _FIN | _PSH) & ~(_CWR if number else 0)
        if metadata.gso is Gso.TCPV4:
            addresses = _set_ipv4(header, network, transport, len(piece), number)
        else:
            addresses = _set_ipv6(header, network, len(piece))
        _set_tcp_checksum(header, transport, addresses, piece)
        yield Frame(PLAIN, (header, piece), len(header) + len(piece))
        first += size
        number += 1


def _set_ipv4(header: bytearray, network: int, transport: int, size: int, number: int) -> bytes:
    """Fill in length, identification and checksum (RFC 791); return both addresses."""
    total = len(header) - network + size
    header[network + 2 : network + 4] = total.to_bytes(2, "big")
    identification = int.from_bytes(header[network + 4 : network + 6], "big") + number & 0xFFFF
    header[network + 4 : network + 6] = identification.to_bytes(2, "big")
    header[network + 10 : network + 12] = b"\0\0"
    ip_checksum = checksum(header[network:transport])
    header[network + 10 : network + 12] = ip_checksum.to_bytes(2, "big")
    return bytes(header[network + 12 : network + 20])


def _set_ipv6(header: bytearray, network: int, size: int) -> bytes:
    """Fill in the length of what follows the IPv6 header (RFC 8200); return both addresses."""
    following = len(header) - network - _IPV6_HEADER_SIZE + size
    header[network + 4 : network + 6] = following.to_bytes(2, "big")
    return bytes(header[network + 8 : network + 40])


def _set_tcp_checksum(header: bytearray, transport: int, addresses: bytes, piece: bytes) -> None:
    field = transport + _TCP_CHECKSUM_OFFSET
    header[field : field + 2] = b"\0\0"
    segment = header[transport:] + piece
    pseudo = addresses + _TCP.to_bytes(4, "big") + len(segment).to_bytes(4, "big")
    header[field : field + 2] = checksum(pseudo + segment).to_bytes(2, "big")
