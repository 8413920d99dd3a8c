"""The layout, byte by byte, as its docstring has it for other languages.

The two ends by hand, `pack_into` and `unpack_from`, know nothing but the docstring.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from devicehost.access_status import AccessStatus
from devicehost.ring.consumer import BadEntry, Consumer
from devicehost.ring.layout import (
    CONTROL_SIZE,
    CONTROLS,
    ENTRIES,
    INTERRUPT_GENERATION,
    LOOK_AGAIN_S,
    NEED_WAKEUP,
    QUEUES_MAX,
    BadRing,
    Entries,
    Operation,
    RingLayout,
)
from devicehost.ring.producer import AccessFailed, Producer

QUEUES, COUNT = 3, 4
LAYOUT = RingLayout(QUEUES, COUNT)
QUEUE = 1
CONTROL = 0x100 + QUEUE * 0x80
FIRST = 0x1000 + QUEUE * COUNT * 64


class Refusal(Exception):
    """What the accesses of these tests fail with."""


def status_of(error: BaseException) -> AccessStatus:
    return error.status if isinstance(error, BadEntry) else AccessStatus.DEVICE_FAULT


class Echo:
    """Reads of the address itself; what is below 0x1000 fails."""

    def __init__(self) -> None:
        self.written: list[tuple[str, int, bytes]] = []

    def mmio_read(self, address: int, data: memoryview) -> None:
        if address < 0x1000:
            raise Refusal
        data[:] = address.to_bytes(32, "little")[: len(data)]

    def mmio_write(self, address: int, data: bytes) -> None:
        if address < 0x1000:
            raise Refusal
        self.written.append(("mmio", address, data))

    def pio_read(self, port: int, data: memoryview) -> None:
        data[:] = bytes([port]) * len(data)

    def pio_write(self, port: int, data: bytes) -> None:
        self.written.append(("pio", port, data))


@pytest.fixture
def memory() -> memoryview:
    memory = memoryview(bytearray(LAYOUT.size))
    LAYOUT.write_header(memory)
    return memory


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def consumer(memory: memoryview, echo: Echo) -> Consumer:
    return Consumer(
        memory,
        LAYOUT,
        QUEUE,
        echo,
        status_of=status_of,
        wake=lambda: None,
    )


def producer_of(
    memory: memoryview,
    consumer: Consumer | None = None,
    *,
    doorbell: Callable[[], None] = lambda: None,
    wait: Callable[[float], bool] | None = None,
) -> Producer:
    """A producer that lets the consumer work while it sleeps."""
    return Producer(
        memory,
        QUEUE,
        doorbell=doorbell,
        wait=wait or (lambda _timeout_s: consumer is not None and consumer.serve(1) > 0),
        barrier=lambda: None,
        timeout_s=10,
        spin_s=0,
    )


def everything_but(memory: memoryview, *areas: tuple[int, int]) -> bytes:
    """All bytes but those of some areas, each a base and a size."""
    rest = bytearray(memory)
    for base, size in areas:
        rest[base : base + size] = bytes(size)
    return bytes(rest)


# The shape.


def test_the_header_says_magic_version_queues_and_entries(memory: memoryview) -> None:
    assert memory[:20] == b"DHRING\0\0" + struct.pack("<III", 1, QUEUES, COUNT)
    assert not any(memory[20:])
    assert RingLayout.read_header(memory) == LAYOUT


@pytest.mark.parametrize(
    ("queues", "entries", "size"),
    [(1, 2, 0x2000), (1, 64, 0x2000), (3, 64, 0x4000), (1, 128, 0x3000), (16, 256, 0x41000)],
)
def test_the_size_is_the_headers_page_and_whole_pages_of_entries(
    queues: int, entries: int, size: int
) -> None:
    assert RingLayout(queues, entries).size == size


def test_the_places_are_those_of_the_docstring(memory: memoryview) -> None:
    for queue in range(QUEUES):
        LAYOUT.control(memory, queue)[0] = 0xC0 + queue
        LAYOUT.queue_entries(memory, queue)[0] = 0xE0 + queue
        LAYOUT.queue_entries(memory, queue)[COUNT * 64 - 1] = 0xF0 + queue
    assert [memory[0x100 + queue * 0x80] for queue in range(QUEUES)] == [0xC0, 0xC1, 0xC2]
    assert [memory[0x1000 + queue * 256] for queue in range(QUEUES)] == [0xE0, 0xE1, 0xE2]
    assert [memory[0x10FF + queue * 256] for queue in range(QUEUES)] == [0xF0, 0xF1, 0xF2]


def test_the_controls_of_all_queues_fit_before_the_entries() -> None:
    assert CONTROLS + QUEUES_MAX * CONTROL_SIZE == ENTRIES == 0x1000
    memory = memoryview(bytearray(RingLayout(QUEUES_MAX).size))
    assert len(RingLayout(QUEUES_MAX).control(memory, QUEUES_MAX - 1)) * 8 == CONTROL_SIZE


def test_the_numbers_of_operations_and_statuses_never_change() -> None:
    assert {operation.name: operation.value for operation in Operation} == {
        "PIO_READ": 1,
        "PIO_WRITE": 2,
        "MMIO_READ": 3,
        "MMIO_WRITE": 4,
        "PIO_POST": 5,
        "MMIO_POST": 6,
    }
    assert {status.name: status.value for status in AccessStatus} == {
        "OK": 0,
        "NO_DEVICE": 1,
        "ACCESS_OUT_OF_RANGE": 2,
        "BAD_ACCESS_SIZE": 3,
        "BAD_ACCESS": 4,
        "DEVICE_FAULT": 5,
        "DEVICE_TIMEOUT": 6,
        "DRAINING": 7,
    }


def test_a_window_is_as_long_as_it_says_and_where_the_data_is(memory: memoryview) -> None:
    entries = Entries(LAYOUT.queue_entries(memory, QUEUE))
    assert len(entries.data) == COUNT
    for slot, of_size in enumerate(entries.data):
        assert [len(window) for window in of_size] == list(range(33))
        of_size[32][:] = bytes([slot + 1]) * 32
        start = FIRST + slot * 64 + 0x20
        assert memory[start : start + 32] == bytes([slot + 1]) * 32


def test_a_field_has_a_number_for_each_entry(memory: memoryview) -> None:
    entries = Entries(LAYOUT.queue_entries(memory, QUEUE))
    for slot in range(COUNT):
        entries.sequences[slot] = 0x10 + slot
        entries.completions[slot] = 0x20 + slot
        entries.addresses[slot] = 0x30 + slot
        entries.whats[slot] = 0x40 + slot
        entries.statuses[slot] = 0x50 + slot
    for slot in range(COUNT):
        assert struct.unpack_from("<QQQII", memory, FIRST + slot * 64) == (
            0x10 + slot,
            0x20 + slot,
            0x30 + slot,
            0x40 + slot,
            0x50 + slot,
        )


def test_released_entries_let_go_of_the_memory() -> None:
    whole = bytearray(LAYOUT.size)
    memory = memoryview(whole)
    entries = Entries(LAYOUT.queue_entries(memory, QUEUE))
    memory.release()
    with pytest.raises(BufferError):
        whole.clear()
    entries.release()
    whole.clear()


# What a producer stores.


def test_an_entry_of_a_read_has_its_fields_at_their_offsets(memory: memoryview) -> None:
    producer = producer_of(memory)
    before = everything_but(memory, (FIRST + 64, 64))
    producer.post(Operation.MMIO_READ, 0x1122334455667788, b"\xaa\xbb\xcc")
    entry = bytes(memory[FIRST + 64 : FIRST + 128])
    assert entry == bytes.fromhex(
        "0100000000000000"  # sequence 1, in entry 1
        "0000000000000000"  # no completion yet
        "8877665544332211"  # address
        "03030000"  # MMIO_READ of 3 bytes
        "00000000"  # status
        "aabbcc"
    ) + bytes(29)
    assert everything_but(memory, (FIRST + 64, 64)) == before


def test_the_nth_access_is_in_entry_n_modulo_their_number(memory: memoryview) -> None:
    producer = producer_of(memory)
    for number in range(1, COUNT + 1):
        producer.post(Operation.MMIO_POST, number, b"x")
        assert struct.unpack_from("<Q", memory, FIRST + number % COUNT * 64) == (number,)
        assert struct.unpack_from("<Q", memory, FIRST + number % COUNT * 64 + 0x10) == (number,)


def test_a_status_that_an_entry_had_is_cleared_with_the_next_access_in_it(
    memory: memoryview, consumer: Consumer
) -> None:
    producer = producer_of(memory, consumer)
    producer.post(Operation.MMIO_POST, 0, b"x")
    consumer.serve(1)
    assert struct.unpack_from("<I", memory, FIRST + 64 + 0x1C) == (AccessStatus.DEVICE_FAULT,)
    for _ in range(COUNT):
        producer.post(Operation.MMIO_POST, 0x1000, b"x")
    assert struct.unpack_from("<I", memory, FIRST + 64 + 0x1C) == (0,)


def test_a_sleeping_client_says_for_which_access_it_waits_and_clears_that(
    memory: memoryview, consumer: Consumer
) -> None:
    waiting: list[int] = []

    def serve(_timeout_s: float) -> bool:
        waiting.extend(struct.unpack_from("<Q", memory, CONTROL))
        return consumer.serve(1) > 0

    producer = producer_of(memory, wait=serve)
    for _ in range(3):
        producer.post(Operation.MMIO_POST, 0x1000, b"x")
    producer.flush()
    producer.read(Operation.MMIO_READ, 0x1000, bytearray(1))
    assert waiting == [3, 4]
    assert struct.unpack_from("<Q", memory, CONTROL) == (0,)


def test_a_client_rings_only_while_the_server_says_that_it_sleeps(memory: memoryview) -> None:
    rung: list[str] = []
    producer = producer_of(memory, doorbell=lambda: rung.append("bell"))
    producer.post(Operation.MMIO_POST, 0x1000, b"x")
    assert rung == []
    struct.pack_into("<Q", memory, 0x40, 1)
    producer.post(Operation.MMIO_POST, 0x1000, b"x")
    assert rung == ["bell"]
    assert NEED_WAKEUP * 8 == 0x40


# A client by hand.


def put(memory: memoryview, sequence: int, what: int, address: int, data: bytes = b"") -> None:
    """Fill an entry as a client in another language would, from the docstring alone."""
    entry = FIRST + sequence % COUNT * 64
    struct.pack_into("<QII32s", memory, entry + 0x10, address, what, 0, data)
    struct.pack_into("<Q", memory, entry, sequence)


def completion(memory: memoryview, sequence: int) -> tuple[int, int, bytes]:
    """Completion, status and data of an entry."""
    entry = FIRST + sequence % COUNT * 64
    number, status, data = struct.unpack_from("<8xQ12xI32s", memory, entry)
    return number, status, data


def test_a_client_by_hand_reads_and_writes(
    memory: memoryview, consumer: Consumer, echo: Echo
) -> None:
    put(memory, 1, 3 | 4 << 8, 0xFEC0_1234)
    put(memory, 2, 4 | 2 << 8, 0x2000, b"ab")
    put(memory, 3, 1 | 1 << 8, 0x3F)
    put(memory, 4, 2 | 4 << 8, 0x40, b"abcd")
    assert consumer.serve(1) == 4
    assert completion(memory, 1) == (2, 0, (0xFEC0_1234).to_bytes(32, "little"))
    assert completion(memory, 2)[:2] == (4, 0)
    assert completion(memory, 3) == (6, 0, b"\x3f" + bytes(31))
    assert completion(memory, 4)[:2] == (8, 0)
    assert echo.written == [("mmio", 0x2000, b"ab"), ("pio", 0x40, b"abcd")]


def test_a_client_by_hand_sees_a_failure_and_uses_the_entry_again(
    memory: memoryview, consumer: Consumer
) -> None:
    for lap in range(3):
        first = lap * COUNT + 1
        for sequence in range(first, first + COUNT):
            put(memory, sequence, 3 | 1 << 8, 0x1000 if sequence % 3 else 0)
        consumer.serve(1)
        for sequence in range(first, first + COUNT):
            failed = sequence % 3 == 0
            status = AccessStatus.DEVICE_FAULT if failed else AccessStatus.OK
            assert completion(memory, sequence)[:2] == (2 * sequence + failed, status)


def test_failed_posted_writes_are_counted_in_the_control(
    memory: memoryview, consumer: Consumer
) -> None:
    put(memory, 1, 6 | 1 << 8, 0)
    put(memory, 2, 4 | 1 << 8, 0)  # its client waits for it
    put(memory, 3, 6 | 0 << 8, 0x1000)  # of no size at all
    consumer.serve(1)
    assert struct.unpack_from("<QQ", memory, CONTROL + 0x40) == (2, AccessStatus.BAD_ACCESS_SIZE)
    assert [completion(memory, n)[0] for n in (1, 2, 3)] == [3, 5, 7]


def test_only_the_entry_of_the_next_number_is_taken(memory: memoryview, consumer: Consumer) -> None:
    pending = []
    taken = []
    for sequence in (2, 1):
        put(memory, sequence, 3 | 1 << 8, 0x1000)
        pending.append(consumer.is_pending)
        taken.append(consumer.serve(10))
    assert pending == [False, True]
    assert taken == [0, 2]
    assert not consumer.is_pending


# A server by hand.


def test_a_server_by_hand_is_understood(memory: memoryview) -> None:
    def serve(_timeout_s: float) -> bool:
        (waiting,) = struct.unpack_from("<Q", memory, CONTROL)
        entry = FIRST + waiting % COUNT * 64
        (sequence,) = struct.unpack_from("<Q", memory, entry)
        assert sequence == waiting
        failed = sequence == 2
        struct.pack_into("<I", memory, entry + 0x1C, AccessStatus.NO_DEVICE if failed else 0)
        struct.pack_into("<3s", memory, entry + 0x20, b"abc")
        struct.pack_into("<Q", memory, entry + 8, sequence * 2 + failed)
        return True

    producer = producer_of(memory, wait=serve)
    data = bytearray(3)
    producer.read(Operation.MMIO_READ, 0, data)
    assert data == b"abc"
    with pytest.raises(AccessFailed, match="NO_DEVICE") as caught:
        producer.read(Operation.MMIO_READ, 0, data)
    assert caught.value.status is AccessStatus.NO_DEVICE
    producer.read(Operation.MMIO_READ, 0, data)
    struct.pack_into("<QQ", memory, CONTROL + 0x40, 7, AccessStatus.BAD_ACCESS)
    assert (producer.posted_failures, producer.posted_failure) == (7, AccessStatus.BAD_ACCESS)


def test_a_status_that_a_newer_server_may_have_is_a_fault(memory: memoryview) -> None:
    def serve(_timeout_s: float) -> bool:
        struct.pack_into("<I", memory, FIRST + 64 + 0x1C, 200)
        struct.pack_into("<Q", memory, FIRST + 64 + 8, 3)
        return True

    producer = producer_of(memory, wait=serve)
    with pytest.raises(AccessFailed, match="DEVICE_FAULT"):
        producer.read(Operation.MMIO_READ, 0, bytearray(1))


def test_the_generation_of_interrupts_is_a_word_of_the_servers_line(memory: memoryview) -> None:
    producer = producer_of(memory)
    assert producer.interrupt_generation == 0
    struct.pack_into("<Q", memory, 0x50, (1 << 64) - 1)
    assert producer.interrupt_generation == (1 << 64) - 1
    assert INTERRUPT_GENERATION * 8 == 0x50


# What isn't a ring.


@pytest.mark.parametrize(
    ("queues", "entries", "message"),
    [
        (0, 256, "ring of 0 queues; allowed: 1 to 30"),
        (31, 256, "ring of 31 queues; allowed: 1 to 30"),
        (-1, 256, "ring of -1 queues"),
        (1, 1, "queues of 1 entries; allowed: powers of two, 2 to 4096"),
        (1, 0, "queues of 0 entries"),
        (1, 3, "queues of 3 entries"),
        (1, 8192, "queues of 8192 entries"),
    ],
)
def test_a_shape_that_is_not_allowed_is_refused(queues: int, entries: int, message: str) -> None:
    with pytest.raises(BadRing, match=message):
        RingLayout(queues, entries)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (struct.pack("<8sIII", b"DHRINGS\0", 1, 1, 2), r"not a ring of version 1: b'DHRINGS\\x00'"),
        (struct.pack("<8sIII", b"DHRING\0\0", 2, 1, 2), "version 2"),
        (struct.pack("<8sIII", b"DHRING\0\0", 1, 99, 2), "99 queues"),
        (struct.pack("<8sIII", b"DHRING\0\0", 1, 1, 5), "5 entries"),
        (struct.pack("<8sIII", b"DHRING\0\0", 1, 30, 4096), "bytes in 8192 bytes of memory"),
    ],
)
def test_a_header_that_is_not_a_rings_is_refused(header: bytes, message: str) -> None:
    memory = memoryview(bytearray(0x2000))
    memory[: len(header)] = header
    with pytest.raises(BadRing, match=message):
        RingLayout.read_header(memory)
    with pytest.raises(BadRing, match=message):
        producer_of(memory)


def test_too_little_memory_for_a_ring_is_refused() -> None:
    with pytest.raises(BadRing, match="4095 bytes of memory are too few"):
        RingLayout.read_header(memoryview(bytearray(4095)))


@pytest.mark.parametrize("queue", [-1, QUEUES, 1000])
def test_a_queue_that_the_ring_does_not_have_is_refused(memory: memoryview, queue: int) -> None:
    for find in (LAYOUT.control, LAYOUT.queue_entries):
        with pytest.raises(BadRing, match=f"queue {queue} of a ring of 3"):
            find(memory, queue)


def test_looking_again_is_soon_enough_for_a_guest() -> None:
    assert 0.01 <= LOOK_AGAIN_S <= 0.2
