"""Our own requests that wait for a reply, by their message ids.

An id is 16 bits, chosen by us, and unique among the requests in flight. A request made the
fast way is kept as the bare fields of the reply that is expected: no object is made for it,
unless its reply comes the general way after all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from devicehost.vfio_user.errors import BadValue, TooManyInFlight
from devicehost.vfio_user.fast_access import AccessFields
from devicehost.vfio_user.payload import RegionSpan, RequestPayload

IDS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Abandoned:
    """In the place of a request whose reply nobody waits for any more."""

    command: int


@dataclass(frozen=True, slots=True)
class FastAccess:
    """What a request made the fast way was about."""

    region: int
    offset: int
    count: int


Waiting: TypeAlias = RequestPayload | AccessFields | Abandoned


class InFlight:
    """The requests in flight.

    Attributes:
        waiting: what waits, by id, oldest first. The fast way puts its own in, and takes
            them out.
    """

    __slots__ = ("_next_id", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[int, Waiting] = {}
        self._next_id = 0

    def new_id(self) -> int:
        """Choose an id that none of the requests in flight has.

        Raises:
            TooManyInFlight: they have all.
        """
        waiting = self.waiting
        message_id = self._next_id
        if message_id in waiting:
            message_id = self._search(message_id)
        self._next_id = (message_id + 1) % IDS
        return message_id

    def _search(self, message_id: int) -> int:
        """Find the next free id: rare, as most of the 65,536 are free."""
        if len(self.waiting) == IDS:
            raise TooManyInFlight(f"{IDS} requests wait for a reply")
        while message_id in self.waiting:
            message_id = (message_id + 1) % IDS
        return message_id

    def command(self, message_id: int) -> int | None:
        """The command of the request with this id, if there is one."""
        waiting = self.waiting.get(message_id)
        match waiting:
            case None:
                return None
            case RequestPayload():
                return waiting.COMMAND
            case Abandoned():
                return waiting.command
            case _:
                return waiting[1]

    def take(self, message_id: int) -> RequestPayload | RegionSpan | None:
        """Take out the request with this id, for its reply; None if it was abandoned."""
        waiting = self.waiting.pop(message_id)
        match waiting:
            case RequestPayload():
                return waiting
            case Abandoned():
                return None
            case _:
                *_, offset, region, count = waiting
                return FastAccess(region, offset, count)

    def abandon(self, message_id: int) -> None:
        """Wait no longer for the request with this id. The id stays taken until the reply.

        Raises:
            BadValue: there is no such request.
        """
        command = self.command(message_id)
        if command is None or isinstance(self.waiting[message_id], Abandoned):
            raise BadValue(f"no request with the id {message_id} is in flight")
        self.waiting[message_id] = Abandoned(command)

    def clear(self) -> tuple[int, ...]:
        """Take out all; return the ids of those that somebody waits for, oldest first."""
        waiting, self.waiting = self.waiting, {}
        return tuple(key for key, value in waiting.items() if not isinstance(value, Abandoned))
