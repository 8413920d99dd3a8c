"""Two sessions that are told the same: one as the socket has it, one message by message.

The first gets the reads as they come, cut anywhere, and the buffer is overwritten after
each; plain accesses go by its fast way. Its twin gets each message by itself, by the
general way. Whatever the input, both have to say the same.

What holds:
    Nothing is raised but an `OurFault`, by both or by neither.
    Both report the same events, after each read.
    A right reply is what comes of its request, and of no other.
    Each file descriptor that goes in comes out exactly once.
    After a violation nothing happens any more, and nothing before the end is lost.
    A session that is open at the end understands a good request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from struct import Struct
from typing import Any, Final, Generic, TypeVar

from devicehost.vfio_user import (
    ClientSession,
    DeviceReset,
    DmaRead,
    Ended,
    Event,
    Failed,
    Negotiated,
    OurFault,
    Outgoing,
    Rejected,
    Reply,
    ReplyPayload,
    Request,
    RequestPayload,
    Role,
    ServerSession,
    Session,
    State,
    StrayFds,
    Violation,
)
from devicehost.vfio_user.header import HEADER, HEADER_SIZE
from devicehost.vfio_user.in_flight import Abandoned
from fuzz.framer import Framer
from fuzz.messages import SMALL, some_reply, some_request
from fuzz.source import Source

S = TypeVar("S", bound=Session)

FLAGS: Final = (0x00, 0x01, 0x10, 0x21)
"""Plain commands and replies, a posted command, and an error."""

_NUMBER: Final = Struct("<I")
_OVERWRITTEN: Final = 0xAA

HELD: Final = 0x08
IN_PIECES: Final = 0x10
IN_TWO: Final = 0x20
"""Bits of how a message is delivered; the lowest three are its number of fds."""

CHANGED: Final = 0x01
BROKEN: Final = 0x02
"""Bits of how a reply is made: with another number in it, or right, but not in one piece."""


def said(event: Event) -> object:
    """What an event says, without what may differ between the twins."""
    match event:
        case Request():
            return Request, event.message_id, event.payload, event.posted, event.fds
        case Rejected(header, fault, answer):
            return Rejected, header, repr(fault), answer
        case Failed(message_id, errno, fault):
            return Failed, message_id, errno, repr(fault)
        case Violation(fault, answer):
            return Violation, repr(fault), answer
    return event


class Twins(Generic[S]):
    """Both sessions, and the books on them.

    Args:
        make: makes a session.

    Attributes:
        first: the one that gets reads.
        second: the one that gets messages.
    """

    def __init__(self, make: Callable[[], S]) -> None:
        self.first, self.second = make(), make()
        self.waiting: dict[int, RequestPayload] = {}  # for the peer's reply, by id
        self._framer = Framer(SMALL)
        self._held = b""
        self._fed: list[int] = []
        self._out: tuple[list[int], list[int]] = ([], [])  # fds that came out of each
        self._asked: list[tuple[Request | None, Request]] = []  # by the peer

    # What can be overridden: the fast way of either side.

    def fast(self, chunk: bytes) -> tuple[int, list[object]]:
        """Take what the fast way takes; return how many bytes, and what they said."""
        del chunk
        return 0, []

    # Operations, by what the input says.

    def deliver(self, source: Source, message: bytes) -> None:
        """Hand `message` over, in one piece or more, alone or with the next one."""
        how = source.byte()
        whole = self._held + message
        self._held = b""
        if how & HELD:
            self._held = whole
        elif how & IN_PIECES:
            size = 1 + len(whole) // 128  # a byte each, unless those are too many
            for at in range(0, len(whole), size):
                self.read(whole[at : at + size], how & 1)
        elif how & IN_TWO:
            cut = source.number(2) % (len(whole) + 1)
            self.read(whole[:cut], source.byte() & 7)
            self.read(whole[cut:], how & 7)
        else:
            self.read(whole, how & 7)

    def message(self, source: Source) -> None:
        """A message whose size is right; the rest of it may be anything."""
        message_id, command = source.byte(), source.byte()
        flags, error = source.choose((*FLAGS, source.byte())), source.byte()
        payload = source.blob()
        header = HEADER.pack(message_id, command, HEADER_SIZE + len(payload), flags, error)
        self.deliver(source, header + payload)

    def raw(self, source: Source) -> None:
        """Bytes, whatever they are."""
        self.deliver(source, source.blob())

    def long(self, source: Source) -> None:
        """A message around the limits of length; its payload may be missing."""
        size = source.number(2)
        there = source.number(2) % (SMALL.max_drained_size + 1)
        header = HEADER.pack(1, source.byte(), size, source.choose(FLAGS), 0)
        self.deliver(source, header + bytes(there))

    def ask(self, source: Source) -> None:
        """A request of ours."""
        payload = some_request(source, self.first.ROLE)
        posted, fds = bool(source.byte() & 1), range(source.byte() % 4)
        if payload is not None:
            sent = self.both(lambda session: session.request(payload, fds, posted=posted))
            if isinstance(sent, Outgoing) and not posted:
                self.waiting[sent.message_id] = payload

    def abandon(self, source: Source) -> None:
        """A request of ours that we don't wait for any more."""
        message_id = source.number(2)
        self.both(lambda session: session.abandon(message_id))

    def reply(self, source: Source) -> None:
        """A reply to a request of ours that is nearly right: one number may be changed."""
        if not self.waiting:
            return
        message_id = source.choose(sorted(self.waiting))
        payload = self.waiting[message_id]
        try:
            body = some_reply(source, payload).encode(payload)
        except OurFault:
            return
        data = bytearray(HEADER.pack(message_id, payload.COMMAND, HEADER_SIZE + len(body), 1, 0))
        data += body
        mode = source.byte()
        if mode & CHANGED:
            at = source.number(2) % (len(data) - 3)
            _NUMBER.pack_into(data, at, source.number(4))
        elif (
            not mode & BROKEN
            and not self._held
            and self._framer.empty
            and self.first.state is State.OPEN
        ):
            self._right_reply(message_id, bytes(data))
            return
        self.deliver(source, bytes(data))

    def _right_reply(self, message_id: int, data: bytes) -> None:
        """A reply with nothing wrong about it: it is what comes of the request, and all of it."""
        asked = self.first._in_flight.waiting.get(message_id)
        heard = self.read(data, 0)
        if isinstance(asked, Abandoned):
            assert heard == []
        elif asked is not None:
            [event] = heard
            assert isinstance(event, Reply) or (isinstance(event, tuple) and event[0] is Failed)

    def answer(self, source: Source) -> None:
        """An answer to a request of the peer's: right, wrong, late or the second one."""
        if not self._asked:
            return
        first, second = source.choose(self._asked)
        how = source.byte()
        if how & 1:
            errno = source.number(2)
            if first is None:
                self.second.fail(second, 5)
            else:
                self.both_answer(first, second, lambda each, to: each.fail(to, errno))
        elif first is not None:
            payload: ReplyPayload[Any] = some_reply(source, second.payload)
            fds = range(source.byte() % 4)
            self.both_answer(first, second, lambda each, to: each.reply(to, payload, fds))
        if first is None or not how & 2:
            self._asked.remove((first, second))

    # What they are made of.

    def read(self, chunk: bytes, count: int) -> list[object]:
        """One read from the socket: `chunk`, with so many file descriptors.

        Returns:
            What the sessions said.
        """
        fds = [len(self._fed) + at for at in range(count)]
        self._fed += fds
        buffer = bytearray(chunk)
        start, heard = (0, []) if fds else self.fast(chunk)
        requests: list[Request | None] = [None for each in heard if not isinstance(each, Reply)]
        if start < len(chunk) or fds:
            events = self.first.receive_data(memoryview(buffer)[start:], fds)
            heard += self._take(events, 0)
            requests += [event for event in events if isinstance(event, Request)]
        buffer[:] = bytes([_OVERWRITTEN]) * len(buffer)
        others: list[Event] = []
        for piece, belonging in self._framer.feed(chunk, fds):
            others += self.second.receive_data(piece, belonging)
        assert heard == self._take(others, 1), f"{heard} by reads, {others} by messages"
        asked = [event for event in others if isinstance(event, Request)]
        for first, second in zip(requests, asked, strict=True):
            if not second.posted:
                self._asked.append((first, second))
        assert self.first.state is self.second.state
        return heard

    def both(self, call: Callable[[S], object]) -> object:
        """Have both do the same, and compare what they return, or raise."""
        return self._same(lambda: call(self.first), lambda: call(self.second))

    def both_answer(
        self, first: Request, second: Request, call: Callable[[S, Request], object]
    ) -> None:
        """Likewise, for an answer to a request of the peer's."""
        self._same(lambda: call(self.first, first), lambda: call(self.second, second))

    def finish(self) -> None:
        """End the connection, and check the books."""
        if self._framer.empty and self.first.state is State.OPEN:
            good = DeviceReset() if self.first.ROLE is Role.SERVER else DmaRead(0x1000, 4)
            body = good.encode()
            self.read(HEADER.pack(7, good.COMMAND, HEADER_SIZE + len(body), 0, 0) + body, 0)
            assert self._asked
            assert self._asked[-1][1].payload == good
        assert self._take(self.second.receive_data(*self._framer.rest()), 1) == []
        ends = [session.receive_eof() for session in (self.first, self.second)]
        heard = [self._take(events, side) for side, events in enumerate(ends)]
        assert heard[0] == heard[1]
        assert [type(event) for event in heard[0]] == [Ended]
        for out in self._out:
            assert Counter(out) == Counter(self._fed), "each fd exactly once"

    def _take(self, events: list[Event], side: int) -> list[object]:
        """Enter file descriptors in the books; return what the events say."""
        heard: list[object] = []
        for event in events:
            if isinstance(event, StrayFds | Request | Reply):
                self._out[side].extend(event.fds)
            if isinstance(event, Reply | Failed):
                self.waiting.pop(event.message_id, None)
            if not isinstance(event, StrayFds):
                heard.append(said(event))
        over = [type(event) for event in events if not isinstance(event, StrayFds)]
        assert Violation not in over[:-1], "it is the last thing to happen"
        return heard

    def _same(self, *calls: Callable[[], object]) -> object:
        outcomes: list[object] = []
        for call in calls:
            try:
                outcomes.append(call())
            except OurFault as fault:
                outcomes.append(type(fault))
        assert outcomes[0] == outcomes[1]
        return outcomes[0]


def opening(session: ClientSession, server: ServerSession) -> bytes:
    """Have both agree; return the server's answer, which the client hasn't got yet."""
    [opened] = server.receive_data(session.propose().data)
    assert isinstance(opened, Negotiated)
    assert opened.answer is not None
    return opened.answer.data
