from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_server.devices.virtio.blk.request import Refused, Request, Segment
from devicehost_server.devices.virtio.blk.spec import HEADER, SECTOR, SEGMENT, Kind, Status
from devicehost_server.devices.virtio.chain import Chain
from devicehost_server.devices.virtio.queue import VirtQueue


class Owner:
    def interrupt(self, index: int) -> None:
        raise AssertionError

    def violated(self, index: int, reason: str) -> None:
        raise AssertionError(reason)

    def look_again(self, index: int, delay_s: float) -> None:
        raise AssertionError


QUEUE = VirtQueue(0, 4, Owner())


def cut(data: bytearray, cuts: list[int]) -> tuple[memoryview, ...]:
    """Windows on `data`, none of them empty."""
    places = sorted({0, len(data), *(each % (len(data) + 1) for each in cuts)})
    return tuple(memoryview(data)[a:b] for a, b in pairwise(places))


def request(readable: bytes, writable: bytearray, *cuts: list[int]) -> Request:
    of_readable, of_writable = cuts or ([], [])
    chain = Chain(
        0,
        cut(bytearray(readable), of_readable),
        cut(writable, of_writable),
        len(readable),
        len(writable),
    )
    return Request(QUEUE, chain)


def segments(
    *fields: tuple[int, int, int], flags: int = 0, count_max: int = 4, tail: bytes = b""
) -> list[Segment]:
    data = b"".join(SEGMENT.pack(*each) for each in fields) + tail
    made = request(HEADER.pack(Kind.DISCARD, 0) + data, bytearray(1))
    return made.segments(count_max=count_max, sectors_max=100, flags=flags, capacity=1000 * SECTOR)


CUTS = st.lists(st.integers(0, 10_000), max_size=30)


@given(data=st.binary(max_size=1500), room=st.integers(0, 1500), out_cuts=CUTS, in_cuts=CUTS)
def test_it_is_the_same_however_the_driver_cuts_it(
    data: bytes, room: int, out_cuts: list[int], in_cuts: list[int]
) -> None:
    writable = bytearray(room + 1)
    made = request(HEADER.pack(77, 1234) + data, writable, out_cuts, in_cuts)
    assert (made.kind, made.offset) == (77, 1234 * SECTOR)
    assert b"".join(made.outgoing) == data
    assert made.outgoing_size == len(data)
    assert sum(len(each) for each in made.incoming) == made.incoming_size == room
    assert all(len(each) for each in (*made.incoming, *made.outgoing))
    for window in made.incoming:
        window[:] = b"d" * len(window)
    made._status[0] = 9
    assert writable == b"d" * room + b"\x09"


@given(size=st.integers(0, 15), cuts=CUTS)
def test_without_a_whole_header_it_is_no_request(size: int, cuts: list[int]) -> None:
    with pytest.raises(ValueError, match=f"{size} bytes; allowed: at least 16"):
        request(bytes(size), bytearray(1), cuts, [])


def test_without_room_for_a_status_it_is_no_request() -> None:
    with pytest.raises(ValueError, match="without room for a status"):
        request(bytes(16), bytearray())


@pytest.mark.parametrize(("sector", "size"), [(0, 100 * SECTOR), (99, SECTOR), (100, 0)])
def test_a_range_may_end_where_the_disk_does(sector: int, size: int) -> None:
    made = request(HEADER.pack(0, sector), bytearray(1))
    made.take(size, 100 * SECTOR)
    assert made.size == size


@pytest.mark.parametrize(
    ("sector", "size"),
    [(0, 101 * SECTOR), (100, SECTOR), (101, 0), ((1 << 64) - 1, SECTOR), (0, 511), (0, 1)],
)
def test_a_range_past_the_end_or_of_broken_sectors_is_refused(sector: int, size: int) -> None:
    made = request(HEADER.pack(0, sector), bytearray(1))
    with pytest.raises(Refused) as caught:
        made.take(size, 100 * SECTOR)
    assert caught.value.status == Status.IOERR


def test_segments_are_ranges_in_bytes() -> None:
    assert segments((1, 2, 0), (900, 100, 1), flags=1) == [
        Segment(512, 1024, unmap=False),
        Segment(900 * 512, 100 * 512, unmap=True),
    ]


@pytest.mark.parametrize(
    ("fields", "tail"),
    [
        ([], b""),
        ([], bytes(15)),
        ([(0, 1, 0)], bytes(1)),
        ([(0, 1, 0)] * 5, b""),
        ([(0, 101, 0)], b""),
        ([(1000, 1, 0)], b""),
        ([(0, 1, 0), (950, 51, 0)], b""),
        ([((1 << 64) - 1, 1, 0)], b""),
    ],
)
def test_ranges_that_arent_allowed_are_errors(
    fields: list[tuple[int, int, int]], tail: bytes
) -> None:
    with pytest.raises(Refused) as caught:
        segments(*fields, tail=tail)
    assert caught.value.status == Status.IOERR


@pytest.mark.parametrize(("bits", "allowed"), [(1, 0), (2, 1), (3, 1), (1 << 31, 1)])
def test_flags_that_arent_allowed_are_unsupported(bits: int, allowed: int) -> None:
    with pytest.raises(Refused) as caught:
        segments((0, 1, 0), (0, 5000, bits), flags=allowed)
    assert caught.value.status == Status.UNSUPP
