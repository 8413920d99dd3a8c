"""vfio-user messages and sessions under bytes that nobody thought of."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from devicehost.vfio_user import (
    BadMessage,
    Capabilities,
    ClientSession,
    Command,
    DeviceFlags,
    DeviceInfo,
    DeviceReset,
    DmaData,
    DmaFlags,
    DmaMap,
    DmaRead,
    DmaUnmap,
    DmaUnmapped,
    DmaWrite,
    DmaWritten,
    Done,
    Ended,
    Event,
    Failed,
    GetDeviceInfo,
    GetIrqInfo,
    GetRegionInfo,
    GetRegionIoFds,
    IoEventFd,
    IoEventFdFlags,
    IoRegionFd,
    IoRegionFdFlags,
    IrqAction,
    IrqData,
    IrqFlags,
    IrqInfo,
    Limits,
    MalformedMessage,
    Migration,
    MmapArea,
    Negotiated,
    OutOfStep,
    ReceiveBuffer,
    RegionData,
    RegionFlags,
    RegionInfo,
    RegionIoFds,
    RegionRead,
    RegionType,
    RegionWrite,
    RegionWriteMulti,
    RegionWritesDone,
    RegionWritten,
    Rejected,
    Reply,
    ReplyPayload,
    Request,
    RequestPayload,
    ServerSession,
    Session,
    SetIrqs,
    ShadowIoEventFd,
    SparseMmap,
    State,
    StrayFds,
    TwinSocket,
    Version,
    Violation,
)
from devicehost.vfio_user.fast_access import (
    DATA,
    pack_read_reply,
    pack_write_reply,
)
from devicehost.vfio_user.framing import Message
from devicehost.vfio_user.messages import EXCHANGES, Role

SMALL = Limits(max_data_xfer_size=256, max_version_data=256, max_msg_fds=3, max_drained_size=2000)
"""Limits that are reached quickly."""

# Payloads.

u16 = st.integers(0, (1 << 16) - 1)
u32 = st.integers(0, (1 << 32) - 1)
u64 = st.integers(0, (1 << 64) - 1)
data = st.binary(min_size=1, max_size=40)


@st.composite
def spans(draw: st.DrawFn, most: int = 1 << 64) -> tuple[int, int]:
    """A base and a size that fit into 64 bits."""
    base = draw(u64)
    return base, draw(st.integers(1, min(most, (1 << 64) - base)))


def reads() -> st.SearchStrategy[RegionRead]:
    return st.builds(lambda region, at: RegionRead(region, *at), u32, spans(1 << 20))


def writes(longest: int = 40) -> st.SearchStrategy[RegionWrite]:
    offsets = st.integers(0, (1 << 64) - longest)
    return st.builds(RegionWrite, u32, offsets, st.binary(min_size=1, max_size=longest))


dma_flags = st.sampled_from([DmaFlags(flags) for flags in (1, 2, 3, 5, 6, 7, 9, 10, 11)])
dma_maps = st.builds(
    lambda at, flags, offset: DmaMap(at[0], at[1], flags, offset), spans(), dma_flags, u64
)
dma_unmaps = st.builds(lambda at: DmaUnmap(*at), spans()) | st.just(DmaUnmap(0, 0, everything=True))
dma_reads = st.builds(lambda at: DmaRead(*at), spans(1 << 20))
dma_writes = st.builds(DmaWrite, st.integers(0, (1 << 64) - 40), data)
multis = st.builds(RegionWriteMulti, st.lists(writes(8), min_size=1, max_size=9).map(tuple))


@st.composite
def set_irqs(draw: st.DrawFn) -> SetIrqs:
    kind = draw(st.sampled_from(IrqData))
    count = draw(st.integers(1, 8))
    start = draw(st.integers(0, (1 << 32) - count))
    bools = bytes(draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)))
    action = draw(st.sampled_from(IrqAction))
    if draw(st.booleans()) and kind is IrqData.NONE and action is IrqAction.TRIGGER:
        return SetIrqs(draw(u32), 0, 0, action, kind)
    return SetIrqs(draw(u32), start, count, action, kind, bools if kind is IrqData.BOOL else b"")


versions = st.builds(
    Version,
    u16,
    u16,
    st.builds(
        Capabilities,
        max_msg_fds=st.none() | u64,
        max_data_xfer_size=st.none() | st.integers(1, (1 << 64) - 1),
        max_dma_maps=st.none() | st.integers(1, (1 << 64) - 1),
        pgsizes=st.none() | st.integers(1, 1 << 40).map(lambda pages: pages * 4096),
        migration=st.none() | st.builds(Migration, max_bitmap_size=st.none() | u64),
        twin_socket=st.none()
        | st.builds(TwinSocket, supported=st.none() | st.booleans(), fd_index=st.none() | u32),
        write_multiple=st.none() | st.booleans(),
    ),
)

client_requests: st.SearchStrategy[RequestPayload] = st.one_of(
    dma_maps,
    dma_unmaps,
    st.builds(GetDeviceInfo, st.integers(16, 1 << 20)),
    st.builds(GetRegionInfo, u32, st.integers(32, 1 << 20)),
    st.builds(GetRegionIoFds, u32, st.integers(16, 1 << 20)),
    st.builds(GetIrqInfo, u32, st.integers(16, 1 << 20)),
    set_irqs(),
    reads(),
    writes(),
    multis,
    st.just(DeviceReset()),
)
server_requests: st.SearchStrategy[RequestPayload] = dma_reads | dma_writes


@st.composite
def region_infos(draw: st.DrawFn) -> RegionInfo:
    size = draw(u64)
    areas = []
    for _ in range(draw(st.integers(0, 3)) if size else 0):
        offset = draw(st.integers(0, size - 1))
        areas.append(MmapArea(offset, draw(st.integers(1, size - offset))))
    sparse = st.just(SparseMmap(tuple(areas)))
    chain = draw(st.lists(sparse | st.builds(RegionType, u32, u32), max_size=5))
    flags = RegionFlags(draw(st.integers(0, 7)))
    return RegionInfo(size, flags, draw(u64), tuple(chain))


@st.composite
def sub_regions(draw: st.DrawFn) -> tuple[IoEventFd | ShadowIoEventFd | IoRegionFd, ...]:
    made: list[IoEventFd | ShadowIoEventFd | IoRegionFd] = []
    for kind in draw(
        st.lists(st.sampled_from([IoEventFd, ShadowIoEventFd, IoRegionFd]), max_size=5)
    ):
        span = draw(spans())
        if kind is IoRegionFd:
            flags = IoRegionFdFlags(draw(st.integers(0, 3)))
            made.append(IoRegionFd(*span, draw(u32), flags, draw(u64)))
        elif kind is IoEventFd:
            made.append(IoEventFd(*span, draw(u32), IoEventFdFlags(draw(u32)), draw(u64)))
        else:
            event = IoEventFdFlags(draw(u32))
            shadow = (draw(u32), draw(u64))
            made.append(ShadowIoEventFd(*span, draw(u32), *shadow, event, draw(u64)))
    return tuple(made)


@st.composite
def access_replies(draw: st.DrawFn, request: RequestPayload) -> ReplyPayload[Any]:
    """A reply to a request that moves data."""
    match request:
        case RegionRead():
            return RegionData(draw(st.binary(max_size=min(request.count, 40))))
        case RegionWrite():
            return RegionWritten(draw(st.integers(0, request.count)))
        case RegionWriteMulti():
            return RegionWritesDone(draw(st.integers(0, len(request.writes))))
        case DmaRead():
            return DmaData(draw(st.binary(max_size=min(request.count, 40))))
        case _:
            return DmaWritten(draw(st.integers(0, request.data_size)))


@st.composite
def exchanges(draw: st.DrawFn) -> tuple[RequestPayload, ReplyPayload[Any]]:
    """A request, and a reply that fits it."""
    request = draw(client_requests | server_requests)
    match request:
        case DmaUnmap():
            return request, DmaUnmapped()
        case GetDeviceInfo():
            return request, DeviceInfo(DeviceFlags(draw(u32)), draw(u32), draw(u32))
        case GetRegionInfo():
            return GetRegionInfo(request.index, 1 << 20), draw(region_infos())
        case GetRegionIoFds():
            return GetRegionIoFds(request.index, 1 << 20), RegionIoFds(draw(sub_regions()))
        case GetIrqInfo():
            return request, IrqInfo(IrqFlags(draw(u32)), draw(u32))
        case DmaMap() | SetIrqs() | DeviceReset():
            return request, Done()
        case _:
            return request, draw(access_replies(request))


@given(client_requests | server_requests | versions)
def test_a_request_is_decoded_to_what_was_encoded(payload: RequestPayload) -> None:
    assert type(payload).decode(memoryview(payload.encode())) == payload
    assert repr(payload).startswith(type(payload).__name__)


@given(exchanges())
def test_a_reply_is_decoded_to_what_was_encoded(
    exchange: tuple[RequestPayload, ReplyPayload[Any]],
) -> None:
    request, reply = exchange
    assert type(reply).decode(memoryview(reply.encode(request)), request) == reply
    assert repr(reply).startswith(type(reply).__name__)


@given(st.sampled_from(sorted(EXCHANGES)), st.binary(max_size=100))
def test_any_payload_is_decoded_or_malformed(command: int, payload: bytes) -> None:
    try:
        request = EXCHANGES[command].request.decode(memoryview(payload))
    except MalformedMessage:
        return
    assert EXCHANGES[command].request.decode(memoryview(request.encode())) == request


@given(exchanges(), st.data())
def test_any_reply_is_decoded_or_malformed(
    exchange: tuple[RequestPayload, ReplyPayload[Any]], source: st.DataObject
) -> None:
    request, reply = exchange
    payload = bytearray(reply.encode(request))
    for at in source.draw(st.lists(st.integers(0, max(0, len(payload) - 1)), max_size=3)):
        payload[at : at + 1] = source.draw(st.binary(max_size=2))
    try:
        decoded = type(reply).decode(memoryview(payload), request)
    except MalformedMessage:
        return
    assert type(decoded) is type(reply)


@given(st.binary(max_size=200))
def test_any_version_is_decoded_or_malformed(payload: bytes) -> None:
    try:
        version = Version.decode(memoryview(payload))
    except MalformedMessage:
        return
    assert Version.decode(memoryview(version.encode())) == version


# Framing: any cut of the stream, with file descriptors as Linux hands them out.


@dataclass
class Sent:
    """A message of `size` bytes, sent by a call of its own with `fds`."""

    message_id: int
    size: int
    fds: tuple[int, ...]

    @property
    def bytes(self) -> bytes:
        body = bytes((self.message_id + at) % 256 for at in range(self.size - 16))
        return struct.pack("<HHIII", self.message_id, 13, self.size, 0, 0) + body


@st.composite
def streams(draw: st.DrawFn) -> list[Sent]:
    sizes = draw(st.lists(st.integers(16, 60) | st.integers(280, 2000), max_size=12))
    counts = draw(st.lists(st.integers(0, 4), min_size=len(sizes), max_size=len(sizes)))
    fd = 10
    sent = []
    for message_id, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        sent.append(Sent(message_id, size, tuple(range(fd, fd + count))))
        fd += count
    return sent


def read(stream: Sequence[Sent], sizes: Sequence[int]) -> list[tuple[bytes, tuple[int, ...]]]:
    """Read a stream as Linux does, the n-th time at most `sizes[n]` bytes, over and over.

    File descriptors come with the first byte of their message that is read, and a read
    doesn't go past a message that had some.
    """
    waiting = [(message.bytes, message.fds) for message in stream]
    reads: list[tuple[bytes, tuple[int, ...]]] = []
    turn = 0
    while waiting:
        fds: tuple[int, ...] = ()
        room, chunk = sizes[turn % len(sizes)], b""
        turn += 1
        while waiting and room and not fds:
            body, fds = waiting.pop(0)
            chunk += body[:room]
            if body[room:]:
                waiting.insert(0, (body[room:], ()))
            room -= min(room, len(body))
        reads.append((chunk, fds))
    return reads


@given(streams(), st.lists(st.integers(1, 3000), min_size=1, max_size=8))
def test_any_cut_of_a_stream_gives_the_same_messages_and_fds(
    stream: list[Sent], sizes: list[int]
) -> None:
    buffer = ReceiveBuffer(SMALL)
    messages: list[Message] = []
    stray: list[int] = []
    for chunk, fds in read(stream, sizes):
        for item in buffer.feed(chunk, fds):
            if isinstance(item, StrayFds):
                stray += item.fds
            else:
                assert isinstance(item, Message)
                messages.append(
                    Message(item.header, memoryview(bytes(item.payload)), item.fds, item.fault)
                )
    assert buffer.empty
    assert [message.header.message_id for message in messages] == [
        sent.message_id for sent in stream
    ]
    expected_stray: list[int] = []
    for message, sent in zip(messages, stream, strict=True):
        too_long, too_many = sent.size > SMALL.max_message_size, len(sent.fds) > SMALL.max_msg_fds
        assert (message.fault is not None) is (too_long or too_many)
        assert bytes(message.payload) == (b"" if too_long else sent.bytes[16:])
        if too_long or too_many:
            expected_stray += sent.fds
            assert message.fds == ()
        else:
            assert message.fds == sent.fds
    assert stray == expected_stray


# Sessions: whatever comes, nothing is raised, and no file descriptor is lost.

Chunk: TypeAlias = tuple[bytes, int]
"""Bytes, and how many file descriptors come with them."""


def fds_of(events: Sequence[Event]) -> list[int]:
    """The file descriptors that events hand over."""
    found: list[int] = []
    for event in events:
        if isinstance(event, StrayFds | Request | Reply):
            found += event.fds
    return found


class Fed:
    """Feeds a session, and counts what goes in and comes out."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.events: list[Event] = []
        self.passed: list[int] = []

    def feed(self, chunk: bytes, count: int = 0) -> list[Event]:
        fds = [len(self.passed) + at for at in range(count)]
        self.passed += fds
        events = self.session.receive_data(chunk, fds)
        self.events += events
        return events

    def end(self) -> None:
        """End the connection, and check the books."""
        self.events += self.session.receive_eof()
        assert Counter(fds_of(self.events)) == Counter(self.passed), "each exactly once"
        ends = [type(event) for event in self.events]
        assert ends.count(Ended) == 1
        assert ends[-1] is Ended
        assert ends.count(Violation) <= 1
        happened = [kind for kind in ends if kind is not StrayFds]
        assert Violation not in happened or happened.index(Violation) == len(happened) - 2


def opened(limits: Limits | None = None) -> tuple[ClientSession, ServerSession]:
    client, server = ClientSession(limits), ServerSession(limits)
    [negotiated] = server.receive_data(client.propose().data)
    assert isinstance(negotiated, Negotiated)
    assert negotiated.answer is not None
    client.receive_data(negotiated.answer.data)
    return client, server


def any_session(kind: int) -> Session:
    """A session in one of five states."""
    client, server = opened(SMALL)
    match kind:
        case 0:
            return ServerSession(SMALL)
        case 1:
            proposed = ClientSession(SMALL)
            proposed.propose()
            return proposed
        case 2:
            for request in (RegionRead(0, 0, 8), DeviceReset(), GetRegionInfo(0, 100)):
                client.request(request)
            return client
        case 3:
            server.request(DmaRead(0, 8))
            return server
        case _:
            return server


headers = st.builds(
    lambda message_id, command, size, flags, error: struct.pack(
        "<HHIII", message_id, command, size, flags, error
    ),
    st.integers(0, 4) | u16,
    st.integers(0, 20) | u16,
    st.integers(0, 80) | u32,
    st.sampled_from([0, 1, 0x10, 0x20, 0x21, 0x11, 2, 0x40]) | u32,
    st.just(0) | u32,
)


@st.composite
def framed(draw: st.DrawFn) -> bytes:
    """A message whose size is right; the rest of it may be anything."""
    payload = draw(st.binary(max_size=60) | exchanges().map(lambda pair: pair[0].encode()))
    message_id, command = draw(st.integers(0, 4)), draw(st.integers(0, 20))
    flags = draw(st.sampled_from([0, 1, 0x10, 0x21, 0x20]))
    return struct.pack("<HHIII", message_id, command, 16 + len(payload), flags, 5) + payload


noise = st.lists(
    st.tuples(
        st.one_of(st.binary(max_size=60), headers, framed()), st.sampled_from([0, 0, 0, 1, 2, 4])
    ),
    max_size=12,
)


@given(st.integers(0, 4), noise)
def test_noise_raises_nothing_and_loses_no_fd(kind: int, chunks: list[Chunk]) -> None:
    fed = Fed(any_session(kind))
    for chunk, count in chunks:
        fed.feed(chunk, count)
    fed.end()
    assert fed.session.state is State.OVER


@given(st.integers(0, 4), noise, st.integers(1, 50))
def test_noise_says_the_same_however_it_is_cut(kind: int, chunks: list[Chunk], size: int) -> None:
    whole = b"".join(chunk for chunk, _ in chunks)
    at_once, in_pieces = Fed(any_session(kind)), Fed(any_session(kind))
    at_once.feed(whole)
    for at in range(0, len(whole), size):
        in_pieces.feed(whole[at : at + size])
    at_once.end()
    in_pieces.end()
    assert list(map(repr, at_once.events)) == list(map(repr, in_pieces.events))


@given(st.lists(framed(), max_size=5), st.sampled_from(["server", "client"]))
def test_a_message_that_is_framed_well_never_hurts_the_next_one(
    messages: list[bytes], side: str
) -> None:
    client, server = opened()
    fed = Fed(server if side == "server" else client)
    good = (
        client.request(DeviceReset()) if side == "server" else server.request(DmaRead(0, 1))
    ).data
    for message in messages:
        fed.feed(message)
    last = fed.feed(good)
    if any(isinstance(event, Violation) for event in fed.events):
        assert last == [] or isinstance(last[-1], Violation)
    else:
        assert isinstance(last[-1], Request)
        for event in fed.events:
            if isinstance(event, Rejected):
                assert isinstance(event.fault, BadMessage)
                assert (event.answer is None) == event.header.posted
    fed.end()


@given(st.integers(0, 4), st.lists(st.binary(min_size=1, max_size=3), max_size=200))
def test_a_slow_peer_raises_nothing(kind: int, chunks: list[bytes]) -> None:
    fed = Fed(any_session(kind))
    for chunk in chunks:
        fed.feed(chunk, 1)
    fed.end()


# The fast way is the general way.


@given(st.binary(max_size=20), framed() | headers | st.binary(max_size=80), st.binary(max_size=20))
@example(b"", struct.pack("<HHIIIQII", 1, 9, 32, 0, 0, 0, 0, 4), b"")
@example(b"xx", struct.pack("<HHIIIQII", 1, 10, 36, 0x10, 0, 0, 0, 4) + b"abcd", b"more")
def test_the_server_takes_by_the_fast_way_what_it_would_take_by_the_general_one(
    before: bytes, message: bytes, behind: bytes
) -> None:
    _, server = opened(SMALL)
    fields = server.next_access(before + message + behind, len(before), len(before + message))
    events = server.receive_data(message)
    first = events[0] if events else None
    general = isinstance(first, Request) and isinstance(first.payload, RegionRead | RegionWrite)
    assert (fields is not None) is general
    if fields is not None and isinstance(first, Request):
        message_id, command, size, flags, _, offset, region, count = fields
        payload = first.payload
        assert isinstance(payload, RegionRead | RegionWrite)
        assert (message_id, command, flags) == (
            first.message_id,
            payload.COMMAND,
            16 * first.posted,
        )
        assert (offset, region, count) == (payload.offset, payload.region, payload.count)
        if isinstance(payload, RegionWrite):
            assert message[DATA:size] == payload.data


accesses = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 5))
"""Region, offset and count."""


@given(st.sampled_from(["read", "write"]), accesses, st.none() | st.binary(max_size=60), st.data())
def test_the_client_finishes_by_the_fast_way_only_what_it_would_by_the_general_one(
    way: str, access: tuple[int, int, int], instead: bytes | None, source: st.DataObject
) -> None:
    client, twin = opened(SMALL)[0], opened(SMALL)[0]
    buffer = bytearray(64)
    message_id = getattr(client, f"start_{way}")(buffer, *access)
    assert getattr(twin, f"start_{way}")(buffer, *access) == message_id
    pack = pack_read_reply if way == "read" else pack_write_reply
    size = pack(buffer, message_id, *access)
    reply = bytes(buffer[:size]) if instead is None else instead
    if reply and source.draw(st.booleans()):
        at = source.draw(st.integers(0, len(reply) - 1))
        reply = reply[:at] + source.draw(st.binary(max_size=1)) + reply[at + 1 :]
    if client.finish(reply, len(reply), message_id):
        [event] = twin.receive_data(reply)
        outcome = RegionData(reply[DATA:]) if way == "read" else RegionWritten(access[2])
        assert event == Reply(message_id, outcome)
        assert client.receive_eof() == twin.receive_eof()


# A conversation: each request has exactly one outcome, and it is its own.


class Conversation(RuleBasedStateMachine):
    """A client and a server that ask each other, in any order, over a stream cut anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions: dict[Role, Session] = dict(
            zip((Role.CLIENT, Role.SERVER), opened(), strict=True)
        )
        self.wires: dict[Role, bytes] = {Role.CLIENT: b"", Role.SERVER: b""}  # to that side
        self.to_answer: dict[Role, list[Request]] = {Role.CLIENT: [], Role.SERVER: []}
        self.expected: dict[tuple[Role, int], object] = {}  # what will come of a request
        self.plans: dict[tuple[Role, int], ReplyPayload[Any] | int] = {}
        self.abandoned: set[tuple[Role, int]] = set()

    def other(self, role: Role) -> Role:
        return Role.SERVER if role is Role.CLIENT else Role.CLIENT

    @rule(exchange=exchanges(), posted=st.booleans(), errno=st.none() | st.integers(1, 4095))
    def ask(
        self,
        exchange: tuple[RequestPayload, ReplyPayload[Any]],
        *,
        posted: bool,
        errno: int | None,
    ) -> None:
        payload, reply = exchange
        role = EXCHANGES[payload.COMMAND].sender
        if isinstance(payload, DmaMap) and payload.flags & (DmaFlags.MMAP | DmaFlags.FILE_IO):
            return  # needs a file descriptor: no business of this test
        if isinstance(reply, RegionIoFds) and reply.sub_regions:
            return
        sent = self.sessions[role].request(payload, posted=posted)
        self.wires[self.other(role)] += sent.data
        key = (role, sent.message_id)
        if not posted:
            assert key not in self.expected
            self.expected[key] = payload
            self.plans[key] = reply if errno is None else errno

    @rule(role=st.sampled_from(Role), size=st.integers(1, 200))
    def deliver(self, role: Role, size: int) -> None:
        chunk, self.wires[role] = self.wires[role][:size], self.wires[role][size:]
        for event in self.sessions[role].receive_data(chunk):
            self.happened(role, event)

    def happened(self, role: Role, event: Event) -> None:
        match event:
            case Request(posted=True):
                assert self.sessions[role].fail(event, 5) is None
            case Request():
                self.to_answer[role].append(event)
            case Reply() | Failed():
                key = (role, event.message_id)
                assert key not in self.abandoned
                del self.expected[key]
                plan = self.plans.pop(key)
                got = event.payload if isinstance(event, Reply) else event.errno
                assert got == plan
            case _:
                raise AssertionError(event)

    @precondition(lambda self: any(self.to_answer.values()))
    @rule(source=st.data())
    def answer(self, source: st.DataObject) -> None:
        role = source.draw(st.sampled_from([role for role in Role if self.to_answer[role]]))
        waiting = self.to_answer[role]
        request = waiting.pop(source.draw(st.integers(0, len(waiting) - 1)))
        key = (self.other(role), request.message_id)
        assert self.expected[key] == request.payload
        plan = self.plans[key]
        session = self.sessions[role]
        sent = (
            session.fail(request, plan) if isinstance(plan, int) else session.reply(request, plan)
        )
        assert sent is not None
        self.wires[key[0]] += sent.data
        if key in self.abandoned:
            # Its reply may be on the way for long: forget it when the stream is through.
            while self.wires[key[0]]:
                self.deliver(key[0], 1000)
            self.abandoned.remove(key)
            del self.expected[key], self.plans[key]

    @precondition(lambda self: self.expected)
    @rule(source=st.data())
    def abandon(self, source: st.DataObject) -> None:
        keys = [
            (self.other(role), request.message_id)
            for role, requests in self.to_answer.items()
            for request in requests
        ]
        for key in source.draw(
            st.lists(st.sampled_from(keys), max_size=1) if keys else st.just([])
        ):
            if key not in self.abandoned:
                self.sessions[key[0]].abandon(key[1])
                self.abandoned.add(key)

    @invariant()
    def both_are_open(self) -> None:
        assert all(session.state is State.OPEN for session in self.sessions.values())

    def teardown(self) -> None:
        for role, session in self.sessions.items():
            [*_, ended] = session.receive_eof()
            assert isinstance(ended, Ended)
            waiting = {key for key in self.expected if key[0] is role} - self.abandoned
            assert {(role, message_id) for message_id in ended.unanswered} == waiting


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_out_of_step_is_told_once_and_every_byte_after_it_is_ignored() -> None:
    buffer = ReceiveBuffer(SMALL)
    [error] = buffer.feed(bytes(16) + struct.pack("<HHIII", 1, Command.DEVICE_RESET, 16, 0, 0))
    assert isinstance(error, OutOfStep)
