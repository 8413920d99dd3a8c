"""The port that firmware reports its progress to: POST codes, on a PC at port 0x80.

A write is a code. A read returns the last one, as a card with two digits would show it.
The last 64 codes and their times are remembered, and part of the saved state, which so
tells how far a boot got:

    >>> PostCode(0x0A, 1_700_000_000_000_000_000)
    PostCode(code=0x0a, wall_ns=1700000000000000000)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from devicehost.registers import Register, RegisterMap
from devicehost_server.devices.base import State
from devicehost_server.devices.config import option
from devicehost_server.devices.peeking import Peekable, Views, attribute
from devicehost_server.devices.state import StateReader
from devicehost_server.model.device_io import ReadableBuffer, WritableBuffer
from devicehost_server.model.errors import BadState
from devicehost_server.model.resources import PioAddressConstraint, ResourceConstraint

HISTORY_SIZE = 64
"""How many codes are remembered."""

MAP = RegisterMap(
    "postcode",
    help="the port that firmware reports its progress to",
    registers=(Register("CODE", 0, help="the last code; 0 before the first"),),
)


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of a `postcode`."""

    base: int = option(0x80, "the port", minimum=0, maximum=0xFFFF)


@dataclass(frozen=True, slots=True)
class PostCode:
    """A code, and when it was written, in nanoseconds since 1970-01-01 00:00:00 UTC."""

    code: int
    wall_ns: int

    def __repr__(self) -> str:
        return f"PostCode(code={self.code:#04x}, wall_ns={self.wall_ns})"


class PostCodePort(Peekable[Config]):
    """The POST code port: what firmware reports of its progress."""

    type_name = "postcode"
    config_type = Config
    register_map = MAP

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._last = 0
        self._history: deque[PostCode] = deque(maxlen=HISTORY_SIZE)

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        """One port."""
        return [PioAddressConstraint.exact(self.config.base, 1)]

    @property
    def history(self) -> list[PostCode]:
        """The last 64 codes, oldest first."""
        with self.lock:
            return list(self._history)

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:  # noqa: ARG002 # one port
        """Read the last code."""
        data[0] = self._last

    def pio_write(self, base: int, offset: int, data: ReadableBuffer) -> None:  # noqa: ARG002 # one port
        """Write a code."""
        self._last = data[0]
        self._history.append(PostCode(self._last, self.context.clock.wall_ns()))

    def reset(self) -> None:
        """Return to code 0. The history stays: it tells what led to the reset."""
        with self.lock:
            self._last = 0

    def views(self) -> Views:
        """How to tell and set the code. One that is set is none that firmware reported."""
        return {"CODE": attribute(self, "_last")}

    def save(self) -> State:
        """Return the last code, and the history: a code and a time each, oldest first."""
        with self.lock:
            history = [{"code": past.code, "wall_ns": past.wall_ns} for past in self._history]
            return {"last": self._last, "history": history}

    def restore(self, state: State) -> None:
        """Take over a saved state.

        Raises:
            BadState: it doesn't fit; the device is as it was.
        """
        fields = dict(state)
        history = self._read_history(fields.pop("history", None))
        reader = StateReader(self.name, fields)
        last = reader.integer("last", maximum=0xFF)
        reader.finish()
        with self.lock:
            self._last = last
            self._history = deque(history, maxlen=HISTORY_SIZE)

    def _read_history(self, entries: object) -> list[PostCode]:
        if not isinstance(entries, list) or len(entries) > HISTORY_SIZE:
            raise self._bad_history(f"is {entries!r}, allowed: a list of at most {HISTORY_SIZE}")
        return [self._read_post_code(entry) for entry in entries]

    def _read_post_code(self, entry: object) -> PostCode:
        if not isinstance(entry, Mapping):
            raise self._bad_history(f"has {entry!r}, allowed: a code and a wall_ns")
        reader = StateReader(f"{self.name}/history", dict(entry))
        code = reader.integer("code", maximum=0xFF)
        wall_ns = reader.integer("wall_ns", maximum=(1 << 63) - 1)
        reader.finish()
        return PostCode(code, wall_ns)

    def _bad_history(self, why: str) -> BadState:
        facts: dict[str, Any] = {"device": self.name, "field": "history"}
        return BadState(f"state of device {self.name!r}: field 'history' {why}", **facts)
