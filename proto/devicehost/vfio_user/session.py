"""What a server's session and a client's have in common: nearly all.

    state       a command arrives               a reply arrives
    NEW         server: VERSION opens,          violation
                  any other is a violation
                client: violation
    PROPOSED    client: violation               VERSION's opens, any other is a violation
    OPEN        Request or Rejected             Reply or Failed; violation if nothing waits
    OVER        nothing any more                nothing any more

NEW -> PROPOSED (a client that has sent its VERSION) -> OPEN -> OVER. A server goes from NEW
to OPEN at once. A violation leads to OVER, and so does the end of the connection.

Both sides send commands and reply to them on one socket. Ids belong to the sender of a
command: those of the two directions have nothing to do with each other. Ours are unique
among the requests in flight; the peer's may repeat, and nothing here relies on them.

A session isn't safe to use from several threads at a time: the owner has a lock.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum
from errno import EIO, ENOTSUP, EPROTO
from typing import Any, ClassVar, Final

from devicehost.vfio_user.access import RegionWriteMulti
from devicehost.vfio_user.errors import (
    AlreadyAnswered,
    BadHandshake,
    BadMessage,
    BadValue,
    MalformedMessage,
    MisplacedCommand,
    NotOpen,
    OutOfStep,
    OverPeerLimit,
    ProtocolViolation,
    UnexpectedReply,
    UnknownCommand,
    UnsupportedCommand,
)
from devicehost.vfio_user.events import (
    Ended,
    Event,
    Failed,
    Outgoing,
    Rejected,
    Reply,
    Request,
    Violation,
)
from devicehost.vfio_user.framing import Message, ReceiveBuffer, StrayFds
from devicehost.vfio_user.header import (
    COMMAND_TYPE,
    ERROR,
    MAX_ERRNO,
    NO_REPLY,
    REPLY_TYPE,
    TYPE_MASK,
    Command,
    Header,
    ReadableBuffer,
    encode_error,
    encode_message,
)
from devicehost.vfio_user.in_flight import InFlight
from devicehost.vfio_user.limits import Limits
from devicehost.vfio_user.messages import EXCHANGES, UNSUPPORTED, Role
from devicehost.vfio_user.negotiation import Agreement
from devicehost.vfio_user.payload import Done, ReplyPayload, RequestPayload
from devicehost.vfio_user.version import FIXED, Version

DONE: Final = Done()


class State(Enum):
    """How far a session is."""

    NEW = "new"
    PROPOSED = "proposed"
    OPEN = "open"
    OVER = "over"


class Session(ABC):
    """One end of a connection. It does no I/O: bytes and file descriptors go in and out."""

    ROLE: ClassVar[Role]

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._state = State.NEW
        self._agreement: Agreement | None = None
        self._buffer = ReceiveBuffer(self.limits)
        self._in_flight = InFlight()  # ours
        self._unanswered: set[int] = set()  # the peer's, by serial
        self._last_serial = 0
        self._max_count = 0  # of an access by the fast way; nothing, unless the session is open

    @property
    def state(self) -> State:
        """How far the session is."""
        return self._state

    @property
    def agreement(self) -> Agreement:
        """What was negotiated.

        Raises:
            NotOpen: nothing was, yet.
        """
        if self._agreement is None:
            raise NotOpen(f"the session is {self._state.value}: nothing was negotiated yet")
        return self._agreement

    # Receiving.

    def receive_data(self, data: ReadableBuffer, fds: Sequence[int] = ()) -> list[Event]:
        """Take what one read from the socket brought.

        Args:
            data: the bytes. They may be overwritten when this returns.
            fds: the file descriptors that came by the same read. Each of them comes out
                again in one event: then it is the event's owner's.

        Returns:
            What happened, in order. `Violation` is the last thing to happen.
        """
        events: list[Event] = []
        for item in self._buffer.feed(data, fds):
            match item:
                case StrayFds():
                    events.append(item)
                case OutOfStep():
                    events += self._end(item)
                case Message():
                    events += self._receive(item)
        return events

    def receive_eof(self) -> list[Event]:
        """Take note that the connection is closed, by whichever side.

        Returns:
            File descriptors to close, and `Ended`.
        """
        within_message = self._state is not State.OVER and not self._buffer.empty
        self._state, self._max_count = State.OVER, 0
        return [*self._buffer.close(), Ended(self._in_flight.clear(), within_message)]

    def _receive(self, message: Message) -> list[Event]:
        if self._state is State.OVER:  # since an earlier message of the same read
            return _stray(message)
        header = message.header
        event: Event | None
        try:
            if header.type == COMMAND_TYPE:
                event = self._receive_command(message)
            elif header.type == REPLY_TYPE:
                event = self._receive_reply(message)
            else:
                raise OutOfStep(f"{header!r} is neither a command nor a reply")
        except ProtocolViolation as fault:
            return [*_stray(message), *self._end(fault, header)]
        if isinstance(event, (Request, Reply)):
            return [event]
        return _stray(message) if event is None else [*_stray(message), event]

    def _end(self, fault: ProtocolViolation, header: Header | None = None) -> list[Event]:
        """End the session, with an error reply if it is a command that was the wrong beginning."""
        if self._state is State.OVER:  # since an earlier message of the same read
            return []
        self._state, self._max_count = State.OVER, 0
        answer = None
        if header is not None and header.type == COMMAND_TYPE and isinstance(fault, BadHandshake):
            answer = _refusal(header, fault.errno)
        return [*self._buffer.close(), Violation(fault, answer)]

    # Commands from the peer.

    def _receive_command(self, message: Message) -> Event:
        header = message.header
        if self._state is not State.OPEN:
            return self._receive_early_command(message)
        try:
            payload = self._decode_command(message)
        except BadMessage as fault:
            return Rejected(header, fault, _refusal(header, fault.errno))
        self._last_serial = serial = self._last_serial + 1
        if not header.posted:
            self._unanswered.add(serial)
        return Request(header.message_id, serial, payload, header.posted, message.fds)

    @abstractmethod
    def _receive_early_command(self, message: Message) -> Event:
        """Take a command that came before the session is open."""

    def _decode_command(self, message: Message) -> RequestPayload:
        """Decode a command, and check it against the limits and what was agreed."""
        header = message.header
        if message.fault is not None:
            raise message.fault
        if wrong := header.flags & ~(TYPE_MASK | NO_REPLY):
            raise MalformedMessage(header.name, "flags", f"{wrong:#x}", "0, or 0x10 for No_reply")
        exchange = EXCHANGES.get(header.command)
        if exchange is None or exchange.sender is self.ROLE:
            raise self._refuse(header)
        payload = exchange.request.decode(message.payload)
        payload.check_fds(len(message.fds))
        most = self.limits.max_data_xfer_size
        if payload.data_size > most:
            allowed = f"at most {most}, the max_data_xfer_size"
            raise MalformedMessage(header.name, "count", payload.data_size, allowed)
        if isinstance(payload, RegionWriteMulti) and not self.agreement.write_multiple:
            raise UnsupportedCommand(header.name, ENOTSUP)
        return payload

    def _refuse(self, header: Header) -> BadMessage:
        """Say why a command that isn't in the table, or isn't the peer's to send, is refused."""
        if self.ROLE is Role.CLIENT:
            return UnknownCommand(header.name)
        if header.command == Command.VERSION:
            return MisplacedCommand(header.name, "was sent before, and is sent only once")
        if errno := UNSUPPORTED.get(header.command):
            return UnsupportedCommand(header.name, errno)
        return UnknownCommand(header.name)

    def reply(
        self, request: Request, payload: ReplyPayload[Any] = DONE, fds: Sequence[int] = ()
    ) -> Outgoing | None:
        """Say that a request was carried out.

        Returns:
            The message to send, or None if the request was posted.

        Raises:
            BadValue: the payload isn't one for this request.
            OverPeerLimit: these are more file descriptors than the peer takes.
            AlreadyAnswered: the request was, or isn't this session's.
        """
        command = request.payload.COMMAND
        if not isinstance(payload, EXCHANGES[command].reply):
            raise BadValue(f"{payload!r} is no reply to {command.name}")
        self._check_fds(payload, fds)
        try:
            body = payload.encode(request.payload)
        except struct.error as error:
            raise BadValue(f"{payload!r} can't be put in a message: {error}") from error
        if request.posted:
            return None
        self._settle(request)
        data = encode_message(request.message_id, command, REPLY_TYPE, body)
        return Outgoing(request.message_id, data, tuple(fds))

    def fail(self, request: Request, errno: int) -> Outgoing | None:
        """Say that a request failed.

        Returns:
            The message to send. None if the request was posted: then the failure is the
            owner's to count.

        Raises:
            BadValue: there is no such errno.
            AlreadyAnswered: the request was, or isn't this session's.
        """
        if not 1 <= errno <= MAX_ERRNO:
            raise BadValue(f"errno is {errno}, but must be 1 to {MAX_ERRNO}")
        if request.posted:
            return None
        self._settle(request)
        data = encode_error(request.message_id, request.payload.COMMAND, errno)
        return Outgoing(request.message_id, data)

    def _settle(self, request: Request) -> None:
        if request.serial not in self._unanswered:
            raise AlreadyAnswered(f"{request!r} doesn't wait for an answer of this session")
        self._unanswered.remove(request.serial)

    # Commands to the peer.

    def request(
        self, payload: RequestPayload, fds: Sequence[int] = (), *, posted: bool = False
    ) -> Outgoing:
        """Ask the peer for something.

        Args:
            payload: what to ask.
            fds: file descriptors to go with it.
            posted: don't have it answered, neither if it is done nor if it fails.

        Returns:
            The message to send. A `Reply` or `Failed` with its id will come of it.

        Raises:
            NotOpen: the session isn't open.
            BadValue: this side doesn't send such a thing.
            OverPeerLimit: the peer doesn't take so much.
            TooManyInFlight: no id is free.
        """
        agreement = self._open_agreement()
        command = payload.COMMAND
        exchange = EXCHANGES.get(command)
        if exchange is None or exchange.sender is not self.ROLE:
            raise BadValue(f"{command.name} isn't for a {self.ROLE.value} to send")
        self._check_fds(payload, fds)
        if payload.data_size > agreement.max_data_xfer_size:
            raise OverPeerLimit(
                f"{payload!r} moves {payload.data_size} bytes, where the peer takes "
                f"{agreement.max_data_xfer_size}"
            )
        if isinstance(payload, RegionWriteMulti) and not agreement.write_multiple:
            raise OverPeerLimit(f"the peer doesn't take {command.name}")
        try:
            body = payload.encode()
        except struct.error as error:
            raise BadValue(f"{payload!r} can't be put in a message: {error}") from error
        message_id = self._in_flight.new_id()
        if not posted:
            self._in_flight.waiting[message_id] = payload
        data = encode_message(message_id, command, NO_REPLY if posted else COMMAND_TYPE, body)
        return Outgoing(message_id, data, tuple(fds))

    def abandon(self, message_id: int) -> None:
        """Wait no longer for a reply. If it comes after all, it is dropped without an event.

        Until it comes, the id isn't used again.

        Raises:
            BadValue: there is no such request in flight.
        """
        self._in_flight.abandon(message_id)

    def _receive_reply(self, message: Message) -> Event | None:
        header = message.header
        self._check_asked(header)
        request = self._in_flight.take(header.message_id)
        if request is None:
            return None
        if header.flags & ERROR:
            errno = header.error if 1 <= header.error <= MAX_ERRNO else EIO
            return Failed(header.message_id, errno)
        try:
            if message.fault is not None:
                raise message.fault
            payload = EXCHANGES[header.command].reply.decode(message.payload, request)
            payload.check_fds(len(message.fds))
        except BadMessage as fault:
            return Failed(header.message_id, EPROTO, fault)
        return Reply(header.message_id, payload, message.fds)

    def _check_asked(self, header: Header) -> None:
        """Check that a reply answers a request that is in flight."""
        if self._in_flight.command(header.message_id) != header.command:
            raise UnexpectedReply(f"{header!r} answers nothing that was asked")

    def _open_agreement(self) -> Agreement:
        """What was negotiated, if the session is open."""
        if self._state is not State.OPEN:
            raise NotOpen(f"the session is {self._state.value}")
        return self.agreement

    def _check_fds(self, payload: RequestPayload | ReplyPayload[Any], fds: Sequence[int]) -> None:
        """Check file descriptors that are to be sent."""
        try:
            payload.check_fds(len(fds))
        except MalformedMessage as fault:
            raise BadValue(str(fault)) from None
        most = self.agreement.max_msg_fds
        if len(fds) > most:
            raise OverPeerLimit(f"{len(fds)} file descriptors, where the peer takes {most}")

    def _decode_version(self, message: Message) -> Version:
        """Decode either side's VERSION."""
        if message.fault is not None:
            raise message.fault
        most = FIXED.size + self.limits.max_version_data
        if len(message.payload) > most:
            size = len(message.payload)
            raise MalformedMessage("VERSION", "payload size", size, f"at most {most}")
        return Version.decode(message.payload)


def _refusal(header: Header, errno: int) -> Outgoing | None:
    """Encode the error reply to a command, if it wants one."""
    if header.posted:
        return None
    return Outgoing(header.message_id, encode_error(header.message_id, header.command, errno))


def _stray(message: Message) -> list[Event]:
    return [StrayFds(message.fds)] if message.fds else []
