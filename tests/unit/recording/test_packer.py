"""Events go into blocks as a whole or not at all, and come out as they were."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from devicehost.access_status import AccessStatus
from devicehost.recording import (
    Access,
    Dma,
    Event,
    Interrupt,
    InterruptKind,
    Learned,
    Operation,
    Packer,
    Plugged,
    Space,
    Told,
    Unplugged,
    decode_block,
)
from devicehost.recording.layout import BLOCK_MAX
from devicehost.recording.packer import CAPACITY_MIN, ReadableBuffer
from unit.recording.samples import ACCESSES, EVENTS, OTHERS, T0, read, write


def pack(packer: Packer, access: Access, data: ReadableBuffer | None = None) -> bool:
    """Pack an access by the hot path; its data as it is, or in another buffer."""
    return packer.access(
        access.time_ns,
        access.took_ns,
        -1 if access.vcpu is None else access.vcpu,
        access.operation is Operation.WRITE,
        access.space is Space.PIO,
        access.address,
        access.size,
        access.data if data is None else data,
        access.status,
    )


def taken(packer: Packer) -> list[Event]:
    return list(decode_block(packer.take()))


@pytest.mark.parametrize("event", [*ACCESSES.values(), *OTHERS.values()], ids=[*ACCESSES, *OTHERS])
def test_an_event_comes_out_of_a_block_as_it_went_in(event: Event) -> None:
    packer = Packer()
    assert packer.event(event)
    assert taken(packer) == [event]


@pytest.mark.parametrize("access", ACCESSES.values(), ids=ACCESSES)
def test_an_access_is_the_same_by_the_quick_way_at_the_front_and_behind_another(
    access: Access,
) -> None:
    packer = Packer(4 << 20)
    for first in (access, read(), write()):
        for each in (first, access, access):
            assert pack(packer, each)
        assert taken(packer) == [first, access, access]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_buffer_can_be_packed(kind: type[bytes | bytearray | memoryview]) -> None:
    packer = Packer()
    accesses = [read(data=b"abcd"), read(data=b"abcde")] * 2
    assert all(pack(packer, each, kind(each.data)) for each in accesses)
    assert taken(packer) == accesses


def test_what_was_packed_does_not_change_with_the_buffer_that_it_came_from() -> None:
    packer, data = Packer(), bytearray(b"abcd")
    pack(packer, read(), memoryview(data))
    pack(packer, read(), data)
    data[:] = b"wxyz"
    assert taken(packer) == [read()] * 2


def test_events_of_all_kinds_keep_their_order_in_one_block_and_in_the_next() -> None:
    packer = Packer(4 << 20)
    for seed in range(3):
        events = [*EVENTS] * 2
        random.Random(seed).shuffle(events)
        assert all(packer.event(event) for event in events)
        assert packer.count == len(events)
        assert taken(packer) == events
        assert packer.count == 0


def test_a_block_without_events_is_no_bytes() -> None:
    packer = Packer()
    assert packer.take() == b""
    assert list(decode_block(b"")) == []


@pytest.mark.parametrize("last_ns", [T0 - 1, T0 - (1 << 31), 0, T0 + (1 << 33), (1 << 64) - 1])
def test_times_may_go_anywhere_and_back(last_ns: int) -> None:
    packer = Packer()
    events: list[Event] = []
    for time_ns in (T0, last_ns, last_ns, T0):
        events += [read(time_ns), Interrupt(time_ns, 4, InterruptKind.ASSERTED, "a")]
        assert all(packer.event(event) for event in events[-2:])
    assert taken(packer) == events


def test_an_access_that_began_a_little_before_the_first_one_is_as_short_as_any() -> None:
    packer = Packer()
    assert pack(packer, read(T0))
    assert pack(packer, read(T0 - 1_000_000_000))
    assert len(packer.take()) == 12 + 2 * 16


# A full block.


def fill(packer: Packer, access: Access) -> list[Access]:
    """Pack accesses like one, each at a later time, until one is refused."""
    packed: list[Access] = []
    while pack(packer, each := read(T0 + len(packed), access.address, access.data)):
        packed.append(each)
    return packed


@pytest.mark.parametrize("size", [1, 4, 8, 3, 100])
def test_a_full_block_takes_no_access_and_is_as_it_was(size: int) -> None:
    packer = Packer(4096)
    packed = fill(packer, read(data=bytes(size)))
    assert packed
    assert packer.count == len(packed)
    assert not packer.event(read(data=bytes(size)))
    block = packer.take()
    assert 4096 - 24 - size - 12 < len(block) <= 4096
    assert list(decode_block(block)) == packed
    assert pack(packer, packed[0])


def test_is_full_says_that_the_next_access_might_be_refused() -> None:
    packer = Packer(4096)
    access = read(data=bytes(8), address=1 << 40)
    while not packer.is_full:
        assert pack(packer, access)
    packer.take()
    assert not packer.is_full


@pytest.mark.parametrize("event", OTHERS.values(), ids=OTHERS)
def test_another_event_that_does_not_fit_is_refused_and_leaves_nothing_behind(event: Event) -> None:
    packer = Packer(CAPACITY_MIN)
    while packer.event(write(data=b"a")):
        pass
    count = packer.count
    assert not packer.event(event)
    assert packer.count == count
    block = packer.take()
    assert list(decode_block(block)) == [write(data=b"a")] * count
    assert packer.event(event)
    assert taken(packer) == [event]


def test_a_name_that_was_refused_with_its_event_is_given_with_the_next_one() -> None:
    packer = Packer(64)
    assert packer.event(Unplugged(T0, "first"))
    assert not packer.event(Told(T0, "second", bytes(64)))
    assert packer.event(Unplugged(T0, "second"))
    assert taken(packer) == [Unplugged(T0, "first"), Unplugged(T0, "second")]


def test_an_event_larger_than_a_block_has_one_of_its_own_and_the_next_is_small_again() -> None:
    packer = Packer(4096)
    large = Dma(T0, "disk", Operation.READ, 0, bytes(range(256)) * 4096)
    assert packer.event(large)
    assert packer.is_full
    assert not packer.event(read())
    assert taken(packer) == [large]
    assert 200 < len(fill(packer, read())) <= 256


def test_a_name_is_written_once_in_a_block() -> None:
    packer = Packer()
    sizes = []
    for _ in range(3):
        packer.event(Learned(T0, "a device of that name", "a source of that name", 1))
        sizes.append(len(packer.take()))
        for _ in range(100):
            packer.event(Learned(T0, "a device of that name", "a source of that name", 1))
        assert len(packer.take()) == sizes[-1] + 99 * 8
    assert len(set(sizes)) == 1


# What can't be.


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (read(-1), "time_ns is -1"),
        (read(1 << 64), "time_ns is 18446744073709551616"),
        (read(took_ns=-1), "took_ns is -1"),
        (read(vcpu=-7), "vcpu"),
        (read(address=-1), "address is -1"),
        (read(address=1 << 64), "address is 18446744073709551616"),
        (read(size=-1), "size is -1"),
        (Interrupt(T0, -1, InterruptKind.PULSED, ""), "gsi is -1"),
        (Learned(T0, "a", "now", 1 << 63), "value is 9223372036854775808"),
        (Learned(T0, "a", "now", -(1 << 63) - 1), "value is -9223372036854775809"),
        (Told(T0, "\ud800", b""), "surrogates not allowed"),
        (Plugged(T0, {"id": {1, 2}}), "isn't JSON"),
        (Plugged(T0, {"id": float("nan")}), "isn't JSON"),
        (Plugged(T0, {"id": "a" * (16 << 20)}), "but may have 16777216"),
        (Told(T0, "a", bytes(BLOCK_MAX)), "at most 67108864"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_is_refused_by_name_and_changes_nothing(event: Event, message: str) -> None:
    packer = Packer()
    if not isinstance(event, Told):  # too long a one is refused when it is alone
        packer.event(read())
    with pytest.raises(ValueError, match=message):
        packer.event(event)
    packer.event(read())
    assert set(taken(packer)) == {read()}


@pytest.mark.parametrize("status", [8, -1, 256])
def test_a_status_that_there_is_not_is_refused(status: int) -> None:
    with pytest.raises(ValueError, match="is not a valid AccessStatus"):
        pack(Packer(), replace(read(), status=status))  # type: ignore[arg-type]


@pytest.mark.parametrize("capacity", [0, CAPACITY_MIN - 1, BLOCK_MAX + 1])
def test_a_capacity_that_cannot_be_is_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match=f"capacity is {capacity}: must be from 36 to 67108864"):
        Packer(capacity)


def test_every_status_can_be_packed() -> None:
    packer = Packer()
    accesses = [read(status=status) for status in AccessStatus]
    assert all(pack(packer, access) for access in accesses)
    assert taken(packer) == accesses
