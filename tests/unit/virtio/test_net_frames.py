"""Frames of hostile drivers are refused, and what senders leave undone is done right."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_server.devices.virtio.net.frames import (
    FRAME_MAX,
    HEADER_SIZE,
    PLAIN,
    BadFrame,
    Feature,
    Frame,
    Gso,
    is_accepted,
    take,
)
from devicehost_server.devices.virtio.net.offload import checksum, completed

MACS = bytes.fromhex("525400000001 525400000002")
ALL = Feature.CSUM | Feature.HOST_TSO4 | Feature.HOST_TSO6
FIN_PSH_ACK, CWR = 0x19, 0x80


def header(
    flags: int = 0,
    gso: int = 0,
    gso_size: int = 0,
    start: int = 0,
    offset: int = 0,
    *,
    size: int = 0,
) -> bytes:
    return struct.pack("<BBHHHH", flags, gso, size, gso_size, start, offset)


def taken(head: bytes, frame: bytes, features: int = ALL) -> Frame:
    whole = memoryview(head + b"\0\0" + frame)
    return take((whole,), len(whole), features)


def joined(frame: Frame) -> bytes:
    return b"".join(frame.parts)


def ones_complement_sum(data: bytes) -> int:
    """The sum of RFC 1071, as it is written there."""
    total = 0
    for index in range(0, len(data), 2):
        total += int.from_bytes(data[index : index + 2].ljust(2, b"\0"), "big")
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def tcp_frame(payload: bytes, *, version: int, vlan: bool = False, flags: int = 0x10) -> bytes:
    """A TCP segment whose checksum holds the sum of the pseudo header, as a sender leaves it."""
    tcp_size = 32 + len(payload)
    if version == 4:
        source, target = (ipaddress.ip_address(f"192.0.2.{n}").packed for n in (1, 2))
        network = struct.pack(
            ">BBHHHBBH4s4s", 0x45, 0, 20 + tcp_size, 7, 0x4000, 64, 6, 0, source, target
        )
    else:
        source, target = (ipaddress.ip_address(f"2001:db8::{n}").packed for n in (1, 2))
        network = struct.pack(">IHBB16s16s", 6 << 28, tcp_size, 6, 64, source, target)
    pseudo = source + target + struct.pack(">II", tcp_size, 6)
    left = ones_complement_sum(pseudo)
    tcp = struct.pack(">HHIIBBHHH", 80, 81, 0xFFFF_FF00, 5, 0x80, flags, 512, left, 0) + bytes(12)
    tag = b"\x81\x00\x00\x05" if vlan else b""
    ethertype = b"\x08\x00" if version == 4 else b"\x86\xdd"
    return MACS + tag + ethertype + network + tcp + payload


def tcp_offset(version: int, *, vlan: bool) -> int:
    return 14 + 4 * vlan + (20 if version == 4 else 40)


def is_valid_tcp(frame: bytes, version: int, *, vlan: bool) -> bool:
    """Whether all checksums and lengths of a frame hold."""
    transport = tcp_offset(version, vlan=vlan)
    network = 14 + 4 * vlan
    if version == 4:
        length_is_right = int.from_bytes(frame[network + 2 : network + 4], "big") == (
            len(frame) - network
        )
        ip_is_right = ones_complement_sum(frame[network:transport]) == 0xFFFF
        addresses = frame[network + 12 : network + 20]
    else:
        length_is_right = int.from_bytes(frame[network + 4 : network + 6], "big") == (
            len(frame) - transport
        )
        ip_is_right = True
        addresses = frame[network + 8 : network + 40]
    segment = frame[transport:]
    pseudo = addresses + struct.pack(">II", len(segment), 6)
    return length_is_right and ip_is_right and ones_complement_sum(pseudo + segment) == 0xFFFF


def test_a_frame_is_what_follows_the_header_wherever_it_is_cut() -> None:
    text = bytes(range(60))
    whole = PLAIN + b"\0\0" + text
    for cut in range(1, len(whole)):
        parts = (memoryview(whole[:cut]), memoryview(whole[cut:]))
        frame = take(parts, len(whole), 0)
        assert joined(frame) == text
        assert frame.size == len(text)
        assert frame.start(12) == text[:12]
    crumbs = tuple(memoryview(whole[n : n + 1]) for n in range(len(whole)))
    assert joined(take(crumbs, len(whole), 0)) == text


@pytest.mark.parametrize(
    ("size", "reason"),
    [(0, "short"), (HEADER_SIZE + 13, "short"), (HEADER_SIZE + FRAME_MAX + 1, "long")],
)
def test_a_frame_that_is_too_short_or_too_long_is_refused(size: int, reason: str) -> None:
    parts = (memoryview(bytes(size)),) if size else ()
    with pytest.raises(BadFrame, match=reason):
        take(parts, size, 0)


@pytest.mark.parametrize(
    ("head", "features"),
    [
        (header(flags=1, start=14, offset=46), ALL),  # the checksum is one byte too far out
        (header(flags=1, start=0xFFFF, offset=0xFFFF), ALL),
        (header(flags=1, start=14, offset=6), 0),  # not negotiated
        (header(flags=1, gso=1, gso_size=100, start=34, offset=16), Feature.CSUM),
        (header(flags=1, gso=4, gso_size=100, start=34, offset=16), Feature.CSUM | 1 << 11),
        (header(flags=1, gso=1, gso_size=0, start=34, offset=16), ALL),
        (header(flags=0, gso=1, gso_size=100, start=34, offset=16), ALL),
        (header(flags=1, gso=2, gso_size=100, start=34, offset=16), ALL),  # there is none
        (header(flags=1, gso=0x81, gso_size=100, start=34, offset=16), ALL),  # ECN: not offered
    ],
)
def test_a_header_that_asks_for_what_it_may_not_is_refused(head: bytes, features: int) -> None:
    with pytest.raises(BadFrame, match="bad_header"):
        taken(head, bytes(61), features)


def test_flags_that_are_not_for_devices_are_ignored() -> None:
    assert taken(header(flags=2), bytes(60)).header == PLAIN
    assert taken(header(flags=0xFF, start=14, offset=6), bytes(60)).header[0] == 1


def test_what_is_untrue_or_for_nobody_is_not_passed_on() -> None:
    lies = taken(header(flags=0xFF, size=61, gso_size=7, start=14, offset=6), bytes(60), ALL)
    assert lies.header == header(flags=1, start=14, offset=6)
    for size, passed_on in ((54, 54), (60, 60), (61, 0), (0xFFFF, 0)):
        frame = taken(
            header(flags=1, gso=1, size=size, gso_size=100, start=34, offset=16), bytes(60), ALL
        )
        expected = header(flags=1, gso=1, size=passed_on, gso_size=100, start=34, offset=16)
        assert frame.header == expected


def test_a_driver_gets_undone_only_what_it_negotiated() -> None:
    undone = header(flags=1, start=34, offset=16)
    cut_v4 = header(flags=1, gso=1, gso_size=100, start=34, offset=16)
    cut_v6 = header(flags=1, gso=4, gso_size=100, start=54, offset=16)
    assert is_accepted(PLAIN, 0)
    assert not is_accepted(undone, 0)
    assert is_accepted(undone, Feature.GUEST_CSUM)
    assert not is_accepted(cut_v4, Feature.GUEST_CSUM | Feature.GUEST_TSO6)
    assert is_accepted(cut_v4, Feature.GUEST_CSUM | Feature.GUEST_TSO4)
    assert not is_accepted(cut_v6, Feature.GUEST_TSO6)
    assert is_accepted(cut_v6, Feature.GUEST_CSUM | Feature.GUEST_TSO6)


@given(st.binary(max_size=2000))
def test_the_checksum_is_that_of_rfc_1071_and_never_zero(data: bytes) -> None:
    expected = 0xFFFF - ones_complement_sum(data)
    assert checksum(data) in {expected, 0xFFFF if expected == 0 else expected}
    assert checksum(data) != 0


@pytest.mark.parametrize("version", [4, 6])
@given(payload=st.binary(max_size=200), vlan=st.booleans())
def test_a_checksum_left_undone_is_completed(version: int, payload: bytes, vlan: bool) -> None:  # noqa: FBT001 # hypothesis gives it
    transport = tcp_offset(version, vlan=vlan)
    data = tcp_frame(payload, version=version, vlan=vlan)
    if version == 4:  # whose own checksum a driver does itself
        network = 14 + 4 * vlan
        value = (0xFFFF - ones_complement_sum(data[network:transport])).to_bytes(2, "big")
        data = data[: network + 10] + value + data[network + 12 :]
    (frame,) = completed(taken(header(flags=1, start=transport, offset=16), data))
    assert is_valid_tcp(joined(frame), version, vlan=vlan)
    assert joined(frame)[transport + 18 :] == data[transport + 18 :]


@pytest.mark.parametrize(("version", "gso"), [(4, Gso.TCPV4), (6, Gso.TCPV6)])
@given(size=st.integers(0, 30_000), segment=st.integers(48, 9000), vlan=st.booleans())
def test_tcp_is_cut_into_segments_that_say_the_same(
    version: int,
    gso: Gso,
    size: int,
    segment: int,
    vlan: bool,  # noqa: FBT001 # hypothesis gives it
) -> None:
    payload = bytes(n * 7 & 0xFF for n in range(size))
    transport = tcp_offset(version, vlan=vlan)
    data = tcp_frame(payload, version=version, vlan=vlan, flags=FIN_PSH_ACK | CWR)
    undone = taken(header(1, gso, segment, transport, 16), data)
    frames = [joined(frame) for frame in completed(undone)]
    assert len(frames) == max(1, -(-size // segment))
    assert b"".join(frame[transport + 32 :] for frame in frames) == payload
    for number, frame in enumerate(frames):
        assert is_valid_tcp(frame, version, vlan=vlan)
        sequence = int.from_bytes(frame[transport + 4 : transport + 8], "big")
        assert sequence == (0xFFFF_FF00 + number * segment) & 0xFFFF_FFFF
        last = number == len(frames) - 1
        expected = 0x10 | (0x09 if last else 0) | (0 if number else CWR)
        assert frame[transport + 13] == expected
        if version == 4:
            network = 14 + 4 * vlan
            assert int.from_bytes(frame[network + 4 : network + 6], "big") == 7 + number


@given(data=st.binary(min_size=14, max_size=300), head=st.binary(min_size=10, max_size=10))
def test_no_header_and_no_frame_does_harm(data: bytes, head: bytes) -> None:
    try:
        frames = list(completed(taken(head, data)))
    except BadFrame:
        return
    assert all(frame.header == PLAIN and frame.size == len(joined(frame)) for frame in frames)


@pytest.mark.parametrize(
    ("version", "gso", "change"),
    [
        (4, Gso.TCPV6, {}),  # the other version
        (6, Gso.TCPV4, {}),
        (4, Gso.TCPV4, {23: 17}),  # UDP
        (4, Gso.TCPV4, {14: 0x46}),  # an IP header that ends elsewhere
        (4, Gso.TCPV4, {46: 0x40}),  # a TCP header of 16 bytes
        (4, Gso.TCPV4, {46: 0xF0}),  # a TCP header past the end
    ],
)
def test_what_is_not_tcp_as_announced_is_not_cut(
    version: int, gso: Gso, change: dict[int, int]
) -> None:
    data = bytearray(tcp_frame(b"", version=version))
    for offset, value in change.items():
        data[offset] = value
    frame = taken(header(1, gso, 100, tcp_offset(version, vlan=False), 16), bytes(data))
    with pytest.raises(BadFrame):
        list(completed(frame))


def test_a_frame_is_not_cut_into_crumbs() -> None:
    data = tcp_frame(bytes(60_000), version=4)
    with pytest.raises(BadFrame):
        list(completed(taken(header(1, 1, 1, 34, 16), data)))


def test_the_longest_frame_in_one_segment_is_no_ip_packet() -> None:
    data = tcp_frame(b"", version=6) + bytes(65_500)
    with pytest.raises(BadFrame):
        list(completed(taken(header(1, 4, 0xFFFF, 54, 16), data[:FRAME_MAX])))
