"""Everything that can go wrong in a vfio-user session, as one tree.

    VfioUserError
    ├── PeerFault                   what the peer did
    │   ├── BadMessage              (abstract: well framed, so the stream goes on)
    │   │   ├── MalformedMessage    MALFORMED_MESSAGE
    │   │   ├── MessageTooLong      MESSAGE_TOO_LONG
    │   │   ├── UnknownCommand      UNKNOWN_COMMAND
    │   │   ├── UnsupportedCommand  UNSUPPORTED_COMMAND
    │   │   └── MisplacedCommand    MISPLACED_COMMAND
    │   └── ProtocolViolation       (abstract: the connection has to end)
    │       ├── OutOfStep           OUT_OF_STEP
    │       ├── BadHandshake        BAD_HANDSHAKE
    │       └── UnexpectedReply     UNEXPECTED_REPLY
    └── OurFault                    what the caller of this package did
        ├── BadValue                BAD_VALUE
        ├── NotOpen                 NOT_OPEN
        ├── OverPeerLimit           OVER_PEER_LIMIT
        ├── TooManyInFlight         TOO_MANY_IN_FLIGHT
        └── AlreadyAnswered         ALREADY_ANSWERED

A `BadMessage` carries the errno that its error reply has. A `ProtocolViolation` ends the
connection, because after it nobody can tell what the next bytes mean. An `OurFault` is
raised by the call that causes it; a `PeerFault` never is: it arrives in an event.

Each error has a `reason`, which is stable and for programs, a message, which is for
people, and `metadata`, the facts of the message as strings.
"""

from __future__ import annotations

from errno import E2BIG, EINVAL, ENOSYS
from typing import ClassVar, TypeAlias

Fact: TypeAlias = str | int


class VfioUserError(Exception):
    """The root. `str(error)` is the message.

    Attributes:
        reason: an UPPER_SNAKE_CASE name that never changes.
        metadata: the facts, by name, as strings.
    """

    reason: ClassVar[str] = "UNKNOWN"

    def __init__(self, message: str, /, **facts: Fact) -> None:
        super().__init__(message)
        self.metadata: dict[str, str] = {name: str(fact) for name, fact in facts.items()}


class PeerFault(VfioUserError):
    """The peer broke the protocol, or asked for what this side doesn't do."""


class BadMessage(PeerFault):
    """One message is refused. Where it ends is known, so the stream goes on behind it.

    Attributes:
        errno: the error number for the reply.
    """

    def __init__(self, message: str, /, errno: int, **facts: Fact) -> None:
        super().__init__(message, errno=errno, **facts)
        self.errno = errno


class MalformedMessage(BadMessage):
    """A field of a message has a value that the specification doesn't allow.

    Example:
        >>> print(MalformedMessage("REGION_READ", "count", 0, "1 or more"))
        REGION_READ: count is 0, but must be 1 or more
    """

    reason = "MALFORMED_MESSAGE"

    def __init__(
        self, message: str, field: str, value: object, allowed: str, errno: int = EINVAL
    ) -> None:
        text = f"{message}: {field} is {value}, but must be {allowed}"
        facts = {"message": message, "field": field, "value": str(value), "allowed": allowed}
        super().__init__(text, errno, **facts)


class MessageTooLong(BadMessage):
    """A message is longer than this side takes. Its payload was read and thrown away."""

    reason = "MESSAGE_TOO_LONG"

    def __init__(self, message: str, size: int, limit: int) -> None:
        text = f"{message}: a message of {size} bytes, where at most {limit} are taken"
        super().__init__(text, E2BIG, message=message, size=size, limit=limit)


class UnknownCommand(BadMessage):
    """There is no command with this number, or it isn't one that the peer may send."""

    reason = "UNKNOWN_COMMAND"

    def __init__(self, command: str) -> None:
        super().__init__(f"{command} is no command that can be sent to this side", ENOSYS)


class UnsupportedCommand(BadMessage):
    """The command is in the specification, but not in what this side does."""

    reason = "UNSUPPORTED_COMMAND"

    def __init__(self, command: str, errno: int) -> None:
        super().__init__(f"{command} isn't supported", errno)


class MisplacedCommand(BadMessage):
    """A command that would be right at another moment."""

    reason = "MISPLACED_COMMAND"

    def __init__(self, command: str, why: str) -> None:
        super().__init__(f"{command} {why}", EINVAL)


class ProtocolViolation(PeerFault):
    """The connection can't go on."""


class OutOfStep(ProtocolViolation):
    """A header can't be one. Where the next message begins is unknown."""

    reason = "OUT_OF_STEP"


class BadHandshake(ProtocolViolation):
    """The peers can't agree on a version, or one of them spoke before they did.

    Attributes:
        errno: the error number that the server answers with, or did.
    """

    reason = "BAD_HANDSHAKE"

    def __init__(self, message: str, /, errno: int = EINVAL, **facts: Fact) -> None:
        super().__init__(message, errno=errno, **facts)
        self.errno = errno


class UnexpectedReply(ProtocolViolation):
    """A reply to a request that isn't in flight, or to another command than its own."""

    reason = "UNEXPECTED_REPLY"


class OurFault(VfioUserError):
    """The caller of this package is at fault. Nothing was changed by the call."""


class BadValue(OurFault):
    """A value that can't be sent."""

    reason = "BAD_VALUE"


class NotOpen(OurFault):
    """The session isn't in a state in which this can be sent."""

    reason = "NOT_OPEN"


class OverPeerLimit(OurFault):
    """The peer said that it doesn't take so much, or doesn't take this at all."""

    reason = "OVER_PEER_LIMIT"


class TooManyInFlight(OurFault):
    """Each of the 65,536 message ids belongs to a request that waits for its reply."""

    reason = "TOO_MANY_IN_FLIGHT"


class AlreadyAnswered(OurFault):
    """The request was answered before, or is another session's."""

    reason = "ALREADY_ANSWERED"
