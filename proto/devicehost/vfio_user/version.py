"""The VERSION message, and the capabilities in it.

    offset  size
         0     2  major
         2     2  minor
         4     -  JSON in UTF-8 with a NUL behind it, or nothing

The JSON is an object; its member "capabilities" is one as well. Each capability may be
left out, and has a default then. Those that aren't known here are passed over.

A number that limits something (file descriptors, data bytes, mappings) says what its
sender takes, not what it sends.

Source: vfio-user protocol specification 0.9, "VFIO_USER_VERSION"; `migration` from its
earlier versions and QEMU's client.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from struct import Struct
from typing import Any, ClassVar, Final, NoReturn

from devicehost.vfio_user.errors import MalformedMessage
from devicehost.vfio_user.header import Command
from devicehost.vfio_user.limits import PAGE_4K, Limits
from devicehost.vfio_user.payload import Printed, RequestPayload, check_room

FIXED: Final = Struct("<HH")

DEFAULT_MAX_MSG_FDS: Final = 1
DEFAULT_MAX_DATA_XFER_SIZE: Final = 1 << 20
DEFAULT_MAX_DMA_MAPS: Final = 65535

_NAME = Command.VERSION.name
_LARGEST_NUMBER = (1 << 64) - 1
_SHOWN = 40


def _bad(field: str, value: object, allowed: str) -> NoReturn:
    text = repr(value)
    raise MalformedMessage(_NAME, field, text[:_SHOWN] + "…" * (len(text) > _SHOWN), allowed)


def _object(field: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        _bad(field, value, "a JSON object")
    return value


def _member(source: dict[str, Any], field: str) -> dict[str, Any] | None:
    value = source.get(field)
    return None if value is None else _object(field, value)


def _number(source: dict[str, Any], field: str, least: int) -> int | None:
    value = source.get(field)
    if value is None:
        return None
    if type(value) is not int or not least <= value <= _LARGEST_NUMBER:  # a bool is an int, too
        _bad(field, value, f"a whole number from {least} to 2**64 - 1")
    return value


def _flag(source: dict[str, Any], field: str) -> bool | None:
    value = source.get(field)
    if value is not None and not isinstance(value, bool):
        _bad(field, value, "true or false")
    return value


def _pages(source: dict[str, Any], field: str) -> int | None:
    value = _number(source, field, PAGE_4K)
    if value is not None and value % PAGE_4K:
        _bad(field, value, "a multiple of 4096")
    return value


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Migration(Printed):
    """What the sender does for migration."""

    pgsize: int | None = None
    max_bitmap_size: int | None = None

    @classmethod
    def from_json(cls, source: dict[str, Any]) -> Migration:
        """Check and take the members."""
        return cls(
            pgsize=_pages(source, "pgsize"),
            max_bitmap_size=_number(source, "max_bitmap_size", 0),
        )


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class TwinSocket(Printed):
    """Whether server-to-client commands go by a socket of their own, and by which."""

    supported: bool | None = None
    fd_index: int | None = None

    @classmethod
    def from_json(cls, source: dict[str, Any]) -> TwinSocket:
        """Check and take the members."""
        return cls(supported=_flag(source, "supported"), fd_index=_number(source, "fd_index", 0))


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Capabilities(Printed):
    """What one side said of itself. None is what it didn't speak of."""

    max_msg_fds: int | None = None
    max_data_xfer_size: int | None = None
    max_dma_maps: int | None = None
    pgsizes: int | None = None
    migration: Migration | None = None
    twin_socket: TwinSocket | None = None
    write_multiple: bool | None = None

    @classmethod
    def of(cls, limits: Limits, *, write_multiple: bool = True) -> Capabilities:
        """Tell `limits` to the peer."""
        return cls(
            max_msg_fds=limits.max_msg_fds,
            max_data_xfer_size=limits.max_data_xfer_size,
            max_dma_maps=limits.max_dma_maps,
            pgsizes=limits.page_sizes,
            write_multiple=write_multiple,
        )

    @classmethod
    def from_json(cls, source: dict[str, Any]) -> Capabilities:
        """Check and take the members."""
        migration, twin = _member(source, "migration"), _member(source, "twin_socket")
        return cls(
            max_msg_fds=_number(source, "max_msg_fds", 0),
            max_data_xfer_size=_number(source, "max_data_xfer_size", 1),
            max_dma_maps=_number(source, "max_dma_maps", 1),
            pgsizes=_pages(source, "pgsizes"),
            migration=None if migration is None else Migration.from_json(migration),
            twin_socket=None if twin is None else TwinSocket.from_json(twin),
            write_multiple=_flag(source, "write_multiple"),
        )


def _to_json(value: object) -> object:
    """Turn capabilities into what `json` takes, without what isn't spoken of."""
    if not isinstance(value, Printed):
        return value
    members = {field.name: _to_json(getattr(value, field.name)) for field in fields(value)}
    return {name: member for name, member in members.items() if member is not None}


@dataclass(frozen=True, slots=True, repr=False)
class Version(RequestPayload):
    r"""A proposal, or the answer to one.

    Example:
        >>> Version(0, 9, Capabilities(max_msg_fds=8)).encode()[4:]
        b'{"capabilities":{"max_msg_fds":8}}\x00'
    """

    COMMAND: ClassVar[Command] = Command.VERSION

    major: int
    minor: int
    capabilities: Capabilities = Capabilities()

    @classmethod
    def decode(cls, payload: memoryview, /) -> Version:
        """Decode the numbers and the JSON. The caller has limited its length."""
        check_room(_NAME, payload, FIXED.size)
        major, minor = FIXED.unpack_from(payload)
        data = bytes(payload[FIXED.size :])
        if not data:
            return cls(major, minor)
        if data[-1]:
            _bad("last byte of the data", data[-1], "0")
        try:
            whole = json.loads(data[:-1].decode(), parse_constant=_refuse_constant)
        except (ValueError, RecursionError):  # not UTF-8, not JSON, or nested without end
            _bad("data", data[:-1], "JSON in UTF-8")
        capabilities = _object("data", whole).get("capabilities", {})
        known = Capabilities.from_json(_object("capabilities", capabilities))
        return cls(major, minor, known)

    def encode(self) -> bytes:
        """Encode the numbers and the JSON, in its shortest form.

        Short, because QEMU takes no answer that is longer than its proposal.
        """
        whole = {"capabilities": _to_json(self.capabilities)}
        data = json.dumps(whole, separators=(",", ":")).encode()
        return FIXED.pack(self.major, self.minor) + data + b"\0"


def _refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python takes for JSON."""
    raise ValueError(name)
