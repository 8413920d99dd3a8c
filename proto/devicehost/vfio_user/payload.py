"""What all payloads have in common.

A request's payload is decoded from its bytes alone. What depends on more than them is
asked afterwards: `check_fds` for the file descriptors that came along, `data_size` for the
data that it moves. A reply's payload is decoded against its request, and holds only what
the request doesn't say: fields that a reply echoes are filled in and checked here.

Decoding raises `MalformedMessage`, which names the field, its value and what is allowed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, ClassVar, Final, Generic, Protocol, Self, TypeVar

from devicehost.vfio_user.errors import MalformedMessage
from devicehost.vfio_user.header import Command

ADDRESS_SPACE: Final = 1 << 64

_IN_HEX = frozenset({"address", "offset", "size", "shadow_offset", "datamatch", "user_data"})
_BYTES_SHOWN = 16


def _shown(name: str, value: object) -> str:
    if isinstance(value, bytes):
        dots = "…" if len(value) > _BYTES_SHOWN else ""
        return (
            f"<{len(value)} bytes: {value[:_BYTES_SHOWN].hex(' ')}{dots}>" if value else "<empty>"
        )
    if isinstance(value, Enum):
        return value.name or "0"
    if isinstance(value, int) and name in _IN_HEX:
        return f"{value:#x}"
    return repr(value)


@dataclass(frozen=True, slots=True, repr=False)
class Printed:
    """A value that prints itself for people: addresses in hex, long data cut short."""

    def __repr__(self) -> str:
        parts = (
            f"{field.name}={_shown(field.name, getattr(self, field.name))}"
            for field in fields(self)
        )
        return f"{type(self).__name__}({', '.join(parts)})"


class RequestPayload(Printed, ABC):
    """What a command carries."""

    __slots__ = ()

    COMMAND: ClassVar[Command]

    @classmethod
    @abstractmethod
    def decode(cls, payload: memoryview, /) -> Self:
        """Decode a payload.

        Raises:
            MalformedMessage: it isn't one of this command.
        """

    @abstractmethod
    def encode(self) -> bytes:
        """Encode the payload."""

    @property
    def data_size(self) -> int:
        """How many data bytes this moves, in either direction."""
        return 0

    def check_fds(self, count: int) -> None:
        """Check the number of file descriptors that came with the message.

        Raises:
            MalformedMessage: it isn't what this payload says.
        """
        if count:
            raise MalformedMessage(self.COMMAND.name, "number of fds", count, "0")


RequestT = TypeVar("RequestT")


class ReplyPayload(Printed, ABC, Generic[RequestT]):
    """What a reply carries beyond the echo of its request."""

    __slots__ = ()

    NAME: ClassVar[str]

    @classmethod
    @abstractmethod
    def decode(cls, payload: memoryview, request: RequestT, /) -> Self:
        """Decode the payload of the reply to `request`.

        Raises:
            MalformedMessage: it isn't one.
        """

    @abstractmethod
    def encode(self, request: RequestT, /) -> bytes:
        """Encode the payload of the reply to `request`."""

    def check_fds(self, count: int) -> None:
        """Check the number of file descriptors that came with the message.

        Raises:
            MalformedMessage: it isn't what this payload says.
        """
        if count:
            raise MalformedMessage(self.NAME, "number of fds", count, "0")


@dataclass(frozen=True, slots=True, repr=False)
class Done(ReplyPayload[Any]):
    """The reply that says no more than that the command was carried out."""

    NAME: ClassVar[str] = "reply without a payload"

    @classmethod
    def decode(cls, payload: memoryview, _request: object, /) -> Done:
        """Decode an empty payload."""
        check_size(cls.NAME, payload, 0)
        return cls()

    def encode(self, _request: object, /) -> bytes:
        """Encode an empty payload."""
        return b""


class RegionSpan(Protocol):
    """What a read and a write of a region have in common, for their replies."""

    @property
    def region(self) -> int:
        """The region's index."""

    @property
    def offset(self) -> int:
        """Distance from the region's base, in bytes."""

    @property
    def count(self) -> int:
        """The number of bytes."""


def check_size(name: str, payload: memoryview, size: int) -> None:
    """Check that a payload has one size and no other, in bytes."""
    if len(payload) != size:
        raise MalformedMessage(name, "payload size", len(payload), f"{size}")


def check_room(name: str, payload: memoryview, size: int) -> None:
    """Check that a payload has the fixed part that it begins with, in bytes."""
    if len(payload) < size:
        raise MalformedMessage(name, "payload size", len(payload), f"{size} or more")


def check_argsz(name: str, argsz: int, least: int) -> None:
    """Check `argsz`, which must have room for a structure of `least` bytes."""
    if argsz < least:
        raise MalformedMessage(name, "argsz", argsz, f"{least} or more")


def check_zero(name: str, **reserved: int) -> None:
    """Check fields that must be zero."""
    for field, value in reserved.items():
        if value:
            raise MalformedMessage(name, field, value, "0")


def check_echo(name: str, field: str, value: int, expected: int) -> None:
    """Check a field of a reply that repeats one of its request."""
    if value != expected:
        raise MalformedMessage(name, field, f"{value:#x}", f"{expected:#x}, as in the request")


def check_span(name: str, field: str, base: int, size: int) -> None:
    """Check a range of at least one byte, which doesn't run past the end of 64 bits."""
    if size == 0:
        raise MalformedMessage(name, "size", 0, "1 or more")
    if base + size > ADDRESS_SPACE:
        raise MalformedMessage(name, f"{field} + size", f"{base + size:#x}", "at most 2**64")
