"""One end of a PS/2 cable: what a keyboard and a mouse have in common.

The controller `write`s commands and their options to a device, one byte at a time, and
`take`s its bytes. `ps2_keyboard` and `ps2_mouse` are the two devices.

Invariants:
    Replies to commands go before reports of what the user did.
    A new command drops replies that weren't taken yet.
    Nothing takes time: a reply is there at once.

After IBM's Personal System/2 Hardware Interface Technical Reference: "Keyboard and
Auxiliary Device Controller", and "Keyboards (101- and 102-Key)".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection
from typing import ClassVar

from devicehost_server.devices.base import State
from devicehost_server.devices.state import StateReader
from devicehost_server.model.errors import BadState

ACK = 0xFA
RESEND = 0xFE  # as a command: say it again; as a reply: that was nonsense
SELF_TEST_PASSED = 0xAA

REPORTS_SIZE = 16
"""How many bytes of reports a device holds."""

NOTHING = 0
"""No command waits for its option."""

_REPLIES_SIZE = 5
"""The longest reply: an ACK, and a report of a mouse with a wheel."""


class Ps2Device(ABC):
    """A keyboard or a mouse, as the controller sees it.

    Attributes:
        kind: what the names of its fields in a state begin with.
        commands_with_option: those that another byte follows.
    """

    kind: ClassVar[str]
    commands_with_option: ClassVar[Collection[int]]

    def __init__(self) -> None:
        self._replies: deque[int] = deque()
        self._reports: deque[int] = deque()
        self._expects = NOTHING  # the command whose option comes next
        self._last = SELF_TEST_PASSED  # the byte that was taken last

    @abstractmethod
    def write(self, octet: int) -> None:
        """Take a command, or the option of one."""

    def take(self) -> int | None:
        """Give up the next byte, if there is one."""
        queue = self._replies or self._reports
        if not queue:
            return None
        self._last = queue.popleft()
        return self._last

    def save(self) -> State:
        """Return the state: fields whose names begin with `kind`."""
        return {
            f"{self.kind}_replies": bytes(self._replies).hex(),
            f"{self.kind}_reports": bytes(self._reports).hex(),
            f"{self.kind}_expects": self._expects,
            f"{self.kind}_last": self._last,
        }

    def restore(self, reader: StateReader) -> None:
        """Take over a state that `save` returned; for a device that is not in use yet.

        Raises:
            BadState: it doesn't fit.
        """
        self._replies = deque(reader.octets(f"{self.kind}_replies", size_max=_REPLIES_SIZE))
        self._reports = deque(reader.octets(f"{self.kind}_reports", size_max=REPORTS_SIZE + 1))
        expected = (NOTHING, *self.commands_with_option)
        self._expects = one_of(reader, f"{self.kind}_expects", expected)
        self._last = reader.integer(f"{self.kind}_last", maximum=0xFF)

    def _reply(self, *octets: int) -> None:
        self._replies = deque(octets)


def one_of(reader: StateReader, field: str, allowed: Collection[int]) -> int:
    """Read the integer `field`, which must be one of `allowed`.

    Raises:
        BadState: it isn't.
    """
    value = reader.integer(field, maximum=max(allowed))
    if value not in allowed:
        choices = ", ".join(f"{choice:#x}" for choice in sorted(allowed))
        raise BadState(f"field {field!r} is {value:#x}, allowed: {choices}", field=field)
    return value
