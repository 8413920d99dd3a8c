"""What a guest sees of an access that failed: one decision, made by the VMM.

On a real bus nobody answers an access that no device claims, and the lines float high: a
read gives all ones, and a write is gone. That is the default for everything here. A VMM
that would rather stop its guest, say when the server is lost, chooses `RAISE` for it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from devicehost_client.errors import AccessTimeout, ClientError, ConnectionLost, RemoteError


class Answer(enum.Enum):
    """What to do with an access that failed."""

    ONES = "ones"
    """A read gives all ones; a write is dropped."""
    ZEROS = "zeros"
    """A read gives zeros; a write is dropped."""
    RAISE = "raise"
    """The error goes to the VMM."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The answer for each kind of failure.

    Attributes:
        no_device: there is no device at the address.
        failed: there is one, but the access failed: it raised, took too long on the
            server, or the access wasn't one that it takes.
        no_server: the server is lost, draining, or didn't answer in time.
    """

    no_device: Answer = Answer.ONES
    failed: Answer = Answer.ONES
    no_server: Answer = Answer.ONES

    def answer(self, error: ClientError) -> Answer:
        """Return the answer to an access that failed with `error`."""
        if isinstance(error, ConnectionLost | AccessTimeout):
            return self.no_server
        reason = error.reason if isinstance(error, RemoteError) else ""
        if reason == "NO_DEVICE":
            return self.no_device
        return self.no_server if reason == "DRAINING" else self.failed
