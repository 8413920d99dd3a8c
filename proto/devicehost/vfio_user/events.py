"""What `receive_data` tells the owner of a session.

    Negotiated      the session is open
    Request         the peer asks for something: `session.reply` or `session.fail` it
    Rejected        the peer asked for something that can't be: nothing but `answer` to do
    Reply           a request of ours was carried out
    Failed          a request of ours was not
    StrayFds        close these
    Violation       the end: send `answer`, if there is one, and close the connection
    Ended           the peer closed the connection

Where an event has an `answer`, it is to be sent, in the order of the events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from devicehost.vfio_user.errors import BadMessage, ProtocolViolation
from devicehost.vfio_user.framing import StrayFds
from devicehost.vfio_user.header import Header
from devicehost.vfio_user.negotiation import Agreement
from devicehost.vfio_user.payload import Printed, ReplyPayload, RequestPayload


@dataclass(frozen=True, slots=True, repr=False)
class Outgoing(Printed):
    """A message to send.

    File descriptors have to go by the same call as the first byte, and the call has to
    send this message alone: peers read the header by itself, and take as the message's
    what came with it. Messages without any may be joined to one send.

    Attributes:
        message_id: the message's id.
        data: all its bytes.
        fds: the file descriptors to go with it. They stay the caller's.
    """

    message_id: int
    data: bytes
    fds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Negotiated(Printed):
    """Both sides agreed. On the server, `answer` tells the client."""

    agreement: Agreement
    answer: Outgoing | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Request(Printed):
    """A command from the peer.

    Attributes:
        message_id: the peer's id. Ids may repeat, even among unanswered requests.
        serial: the session's own number of the request, which doesn't repeat.
        payload: what it asks.
        posted: whether the peer wants no reply. A failure is then to be counted, not sent.
        fds: the file descriptors that came with it. They are the owner's now, to close.
    """

    message_id: int
    serial: int
    payload: RequestPayload
    posted: bool = False
    fds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Rejected(Printed):
    """A command from the peer that is refused.

    Attributes:
        header: the command's header.
        fault: why.
        answer: the error reply, or None if the command was posted: then count it.
    """

    header: Header
    fault: BadMessage
    answer: Outgoing | None


@dataclass(frozen=True, slots=True, repr=False)
class Reply(Printed):
    """What came of a request of ours.

    Attributes:
        message_id: the request's.
        payload: what the reply says.
        fds: the file descriptors that came with it. They are the owner's now, to close.
    """

    message_id: int
    payload: ReplyPayload[Any]
    fds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Failed(Printed):
    """A request of ours failed.

    Attributes:
        message_id: the request's.
        errno: the error number that the peer gave; EIO if it gave none, EPROTO if its
            reply can't be understood.
        fault: in that case, why it can't.
    """

    message_id: int
    errno: int
    fault: BadMessage | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Violation(Printed):
    """The peer broke the protocol so that the connection can't go on.

    Attributes:
        fault: how.
        answer: an error reply to send before closing, if there is somebody to read it.
    """

    fault: ProtocolViolation
    answer: Outgoing | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Ended(Printed):
    """The peer closed the connection.

    Attributes:
        unanswered: the ids of our requests that will never be answered, oldest first.
        within_message: whether it did so in the middle of a message.
    """

    unanswered: tuple[int, ...]
    within_message: bool


Event: TypeAlias = Negotiated | Request | Rejected | Reply | Failed | StrayFds | Violation | Ended
