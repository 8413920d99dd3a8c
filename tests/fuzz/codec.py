"""Fuzz target: whatever bytes a payload has, it is decoded or refused, and means one thing.

An input is the number of a payload in `KINDS`, the bytes of its request if it is a reply,
and its own bytes.

What holds:
    Decoding raises nothing but a `BadMessage`, whose errno is one.
    What was decoded encodes to bytes that decode to the same, and these bytes, encoded
    again, are the same bytes. (The first ones may differ from those of a reply and of
    VERSION: what isn't known is passed over.)
    A request encodes to the bytes that it came from, but for its `argsz` and for padding.
    It takes or refuses any number of file descriptors, and prints itself.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, TypeAlias

from devicehost.vfio_user import (
    BadMessage,
    DmaMap,
    DmaUnmap,
    GetRegionInfo,
    GetRegionIoFds,
    RegionInfo,
    RegionIoFds,
    RegionWriteMulti,
    ReplyPayload,
    RequestPayload,
    SetIrqs,
    Version,
)
from devicehost.vfio_user.header import MAX_ERRNO
from devicehost.vfio_user.messages import EXCHANGES
from fuzz.source import Source

Kind: TypeAlias = tuple[type[RequestPayload], type[ReplyPayload[Any]] | None]
"""A request, or a reply to it."""

_REQUESTS: list[Kind] = [(exchange.request, None) for exchange in EXCHANGES.values()]
_REPLIES: list[Kind] = [(exchange.request, exchange.reply) for exchange in EXCHANGES.values()]
KINDS: Final[list[Kind]] = [(Version, None), *_REQUESTS, *_REPLIES]
"""All payloads."""

_ROOM: Final = (1 << 32) - 1


def test_one_input(data: bytes) -> RequestPayload | ReplyPayload[Any] | None:
    """Decode a payload; return what was decoded, or None if it was refused."""
    source = Source(data)
    request_kind, reply_kind = source.choose(KINDS)
    try:
        if reply_kind is None:
            return _checked_request(request_kind, source.blob())
        request = request_kind.decode(memoryview(source.blob()))
        return _checked_reply(reply_kind, request, source.blob())
    except BadMessage as error:
        refused = error
    assert 1 <= refused.errno <= MAX_ERRNO
    assert str(refused)
    return None


def _checked_request(kind: type[RequestPayload], payload: bytes) -> RequestPayload:
    request = kind.decode(memoryview(payload))
    encoded = request.encode()
    again = kind.decode(memoryview(encoded))
    assert again == request, f"{request!r} became {again!r}"
    assert again.encode() == encoded
    if kind is not Version:
        assert encoded[_ignored(kind) :] == _unpadded(request, payload)[_ignored(kind) :]
    assert request.data_size >= 0
    _check_fds_and_print(request)
    return request


def _ignored(kind: type[RequestPayload]) -> int:
    """How many bytes at the front of a request are not kept: an `argsz` that may be larger."""
    return 4 if kind in (DmaMap, DmaUnmap, SetIrqs) else 0


def _unpadded(request: RequestPayload, payload: bytes) -> bytes:
    """The bytes of a request, with zeros for padding."""
    if not isinstance(request, RegionWriteMulti):
        return payload
    number, writes = payload[:8], memoryview(payload)[8:]
    return number + b"".join(
        bytes(writes[at : at + 16 + write.count]).ljust(24, b"\0")
        for at, write in zip(range(0, len(writes), 24), request.writes, strict=True)
    )


def _checked_reply(
    kind: type[ReplyPayload[Any]], request: Any, payload: bytes
) -> ReplyPayload[Any]:
    reply = kind.decode(memoryview(payload), request)
    _check_fds_and_print(reply)
    if isinstance(reply, RegionInfo | RegionIoFds) and reply.needs_argsz:
        return reply  # without what didn't fit: it can't be said again
    if isinstance(request, GetRegionInfo | GetRegionIoFds):
        request = replace(request, argsz=_ROOM)  # capabilities may have shared their bytes
    encoded = reply.encode(request)
    again = kind.decode(memoryview(encoded), request)
    assert again == reply, f"{reply!r} became {again!r}"
    assert again.encode(request) == encoded
    return reply


def _check_fds_and_print(payload: RequestPayload | ReplyPayload[Any]) -> None:
    assert repr(payload).startswith(type(payload).__name__)
    for count in range(4):
        with suppress(BadMessage):
            payload.check_fds(count)
