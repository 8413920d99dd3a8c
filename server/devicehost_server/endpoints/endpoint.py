"""What a local socket offers, and what one client of it has: the seam to the connection.

A socket offers one `Endpoint`: the bus, or a PCI function. For each client the endpoint makes
what that client is attached to, an `Attached`. The connection reads and writes there, passes
on what else the client asks, and says when the client is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from devicehost.access_status import AccessStatus
from devicehost.vfio_user import ReplyPayload, RequestPayload

ReadDma: TypeAlias = Callable[[int, int], bytes]
"""Asks the client for so many bytes at a guest-physical address of its memory."""

WriteDma: TypeAlias = Callable[[int, bytes], None]
"""Gives the client bytes for a guest-physical address of its memory."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes of a request.

    Attributes:
        payload: the reply.
        fds: file descriptors to go with it; they stay ours.
        kept: whether those that came with the request are ours now.
    """

    payload: ReplyPayload[Any]
    fds: tuple[int, ...] = ()
    kept: bool = False


class Attached(Protocol):
    """What one client is attached to. Its thread calls all that may raise."""

    def read(self, region: int, offset: int, data: memoryview) -> None:
        """Fill `data` from a region.

        Raises:
            Refused: there is nothing to be read there.
            DeviceHostError: the access failed.
        """

    def write(self, region: int, offset: int, data: bytes | memoryview) -> None:
        """Write `data` to a region. Raises as `read` does."""

    def serve(self, request: RequestPayload, fds: tuple[int, ...]) -> Answer:
        """Do what else the client asks.

        Args:
            request: what it asks.
            fds: the file descriptors that came with it.

        Raises:
            Refused: it can't be done.
            DeviceHostError: it failed.
        """

    def count_posted_failure(self, status: AccessStatus) -> None:
        """Keep account of a posted write that failed."""

    def drain(self) -> None:
        """Refuse accesses from here on."""

    def ask_to_leave(self) -> bool:
        """Ask the client to leave; return whether it can be asked."""

    def close(self) -> None:
        """Take back what the client shared, and make none of its accesses; once is enough.

        Whatever another thread does for the client, and may hang in, goes on.
        """

    def release(self) -> None:
        """Take back the rest, which accesses that are being made may still use."""

    def view(self) -> dict[str, int]:
        """What somebody who debugs sees of the client."""


class Endpoint(Protocol):
    """What a socket offers to its clients."""

    @property
    def spin_s(self) -> float:
        """The longest that a connection looks for the next message before it sleeps."""

    def attach(self, read: ReadDma, write: WriteDma) -> Attached:
        """Return what one more client is attached to; `read` and `write` transfer its memory."""
