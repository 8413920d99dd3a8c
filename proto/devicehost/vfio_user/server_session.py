"""A server's end of a connection."""

from __future__ import annotations

from typing import ClassVar

from devicehost.vfio_user import negotiation
from devicehost.vfio_user.errors import BadHandshake, BadMessage
from devicehost.vfio_user.events import Event, Negotiated, Outgoing
from devicehost.vfio_user.fast_access import AccessFields, take_access
from devicehost.vfio_user.framing import Message
from devicehost.vfio_user.header import REPLY_TYPE, Command, ReadableBuffer, encode_message
from devicehost.vfio_user.limits import Limits
from devicehost.vfio_user.messages import Role
from devicehost.vfio_user.session import Session, State


class ServerSession(Session):
    """The session of a server with one client. What it serves is its owner's business.

    Args:
        limits: what is taken from the client.
        turn_away: an errno to answer the client's VERSION with, where there is no place for
            it, so that it learns why: EBUSY, EPERM. The session ends with that.
    """

    ROLE: ClassVar[Role] = Role.SERVER

    def __init__(self, limits: Limits | None = None, *, turn_away: int | None = None) -> None:
        super().__init__(limits)
        self._turn_away = turn_away

    def next_access(self, buffer: ReadableBuffer, start: int, end: int) -> AccessFields | None:
        """Take a REGION_READ or REGION_WRITE by the fast way. See `fast_access`.

        Use it on a read that brought no file descriptors, as long as it returns something,
        and give the rest to `receive_data`. The owner packs the reply itself, unless the
        flags say that none is wanted.

        Args:
            buffer: what was read.
            start: where the next message begins.
            end: where the bytes end.

        Returns:
            Its fields, of which the size says where it ends; None if only the general way
            can tell what is there.
        """
        if self._buffer.empty:
            return take_access(buffer, start, end, self._max_count)
        return None

    def _receive_early_command(self, message: Message) -> Event:
        header = message.header
        if header.command != Command.VERSION:
            raise BadHandshake(f"{header!r} came before VERSION")
        if header.posted:
            raise BadHandshake("VERSION came without the wish for an answer")
        if self._turn_away is not None:
            raise BadHandshake("the client was turned away", errno=self._turn_away)
        try:
            proposed = self._decode_version(message)
            proposed.check_fds(len(message.fds))
        except BadMessage as fault:
            raise BadHandshake(str(fault)) from fault
        answered = negotiation.answer(proposed, self.limits)
        self._agreement = negotiation.agreement(answered, proposed.capabilities, self.limits)
        self._max_count = self.limits.max_data_xfer_size
        self._state = State.OPEN
        data = encode_message(header.message_id, header.command, REPLY_TYPE, answered.encode())
        return Negotiated(self._agreement, Outgoing(header.message_id, data))
