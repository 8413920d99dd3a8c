"""A client's end of a connection."""

from __future__ import annotations

import struct
from typing import ClassVar

from devicehost.vfio_user import negotiation
from devicehost.vfio_user.errors import BadHandshake, BadMessage, BadValue, NotOpen, OverPeerLimit
from devicehost.vfio_user.events import Event, Negotiated, Outgoing
from devicehost.vfio_user.fast_access import (
    WritableBuffer,
    is_reply,
    pack_posted_write,
    pack_read,
    pack_write,
)
from devicehost.vfio_user.framing import Message
from devicehost.vfio_user.header import (
    COMMAND_TYPE,
    ERROR,
    Command,
    ReadableBuffer,
    encode_message,
    error_text,
)
from devicehost.vfio_user.limits import Limits
from devicehost.vfio_user.messages import Role
from devicehost.vfio_user.session import Session, State


class ClientSession(Session):
    """The session of a client with its server.

    Accesses go the general way, by `request`, or the fast way: `start_read` or
    `start_write`, a read from the socket, and `finish`. Any number may be in flight.
    """

    ROLE: ClassVar[Role] = Role.CLIENT

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits)
        self._proposed = negotiation.proposal(self.limits)

    def propose(self) -> Outgoing:
        """Begin: the VERSION message, which is the first one to send.

        Raises:
            NotOpen: it was sent before.
        """
        if self._state is not State.NEW:
            raise NotOpen(f"the session is {self._state.value}: VERSION is sent once, and first")
        message_id = self._in_flight.new_id()
        self._in_flight.waiting[message_id] = self._proposed
        self._state = State.PROPOSED
        body = self._proposed.encode()
        data = encode_message(message_id, Command.VERSION, COMMAND_TYPE, body)
        return Outgoing(message_id, data)

    def start_read(self, buffer: WritableBuffer, region: int, offset: int, count: int) -> int:
        """Pack a REGION_READ, 32 bytes, into `buffer`.

        Returns:
            Its id.

        Raises:
            NotOpen: the session isn't open.
            BadValue: there can be no such region or offset, or `buffer` is too short.
            OverPeerLimit: `count` is 0, or more than the peer takes.
            TooManyInFlight: no id is free.
        """
        self._check_count(count)
        message_id = self._in_flight.new_id()
        try:
            _, reply = pack_read(buffer, message_id, region, offset, count)
        except struct.error as error:
            raise _bad_access(region, offset, error) from error
        self._in_flight.waiting[message_id] = reply
        return message_id

    def start_write(self, buffer: WritableBuffer, region: int, offset: int, count: int) -> int:
        """Pack a REGION_WRITE around the data in `buffer`, which is at offset 32 already.

        Its size is 32 bytes more than `count`. Returns and raises likewise.
        """
        self._check_count(count)
        message_id = self._in_flight.new_id()
        try:
            _, reply = pack_write(buffer, message_id, region, offset, count)
        except struct.error as error:
            raise _bad_access(region, offset, error) from error
        self._in_flight.waiting[message_id] = reply
        return message_id

    def post_write(self, buffer: WritableBuffer, region: int, offset: int, count: int) -> int:
        """Pack a REGION_WRITE that isn't answered. Likewise; nothing waits for it."""
        self._check_count(count)
        message_id = self._in_flight.new_id()
        try:
            pack_posted_write(buffer, message_id, region, offset, count)
        except struct.error as error:
            raise _bad_access(region, offset, error) from error
        return message_id

    def finish(self, buffer: ReadableBuffer, received: int, message_id: int) -> bool:
        """Whether what was read is the plain reply to an access that was started.

        Use it on a read that brought no file descriptors. If it says no, give what was read
        to `receive_data`: the reply may be among the events.

        Args:
            buffer: what was read. After a read of a region, the data is at offset 32.
            received: how many bytes that were.
            message_id: the access's.
        """
        waiting = self._in_flight.waiting.get(message_id)
        if type(waiting) is tuple and self._buffer.empty and is_reply(buffer, received, waiting):
            del self._in_flight.waiting[message_id]
            return True
        return False

    def _check_count(self, count: int) -> None:
        if not 0 < count <= self._max_count:
            most = self._open_agreement().max_data_xfer_size
            raise OverPeerLimit(f"an access of {count} bytes, where the peer takes 1 to {most}")

    def _receive_early_command(self, message: Message) -> Event:
        raise BadHandshake(f"{message.header!r} came before the reply to VERSION")

    def _receive_reply(self, message: Message) -> Event | None:
        if self._state is State.PROPOSED:
            return self._receive_answer(message)
        return super()._receive_reply(message)

    def _receive_answer(self, message: Message) -> Negotiated:
        """Take the reply to VERSION."""
        header = message.header
        self._check_asked(header)
        if header.flags & ERROR:
            why = error_text(header.error)
            raise BadHandshake(f"the server refused VERSION: error {why}", errno=header.error)
        try:
            answered = self._decode_version(message)
        except BadMessage as fault:
            raise BadHandshake(str(fault)) from fault
        negotiation.check_answer(answered, self._proposed)
        self._in_flight.take(header.message_id)
        self._agreement = negotiation.agreement(answered, answered.capabilities, self.limits)
        self._max_count = self._agreement.max_data_xfer_size
        self._state = State.OPEN
        return Negotiated(self._agreement)


def _bad_access(region: int, offset: int, error: struct.error) -> BadValue:
    return BadValue(f"an access to region {region} at {offset:#x} can't be packed: {error}")
