"""What the streams of DebugService have in common: messages of a bounded size, and an end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import grpc

from devicehost.v1 import debug_service_pb2 as pb

EVENTS_MAX = 512
"""The most events in one message of a trace."""

EVENTS_SIZE = 1 << 20
"""How large a message of a trace may be before its last event, in bytes."""

CHUNK_MAX = 256 << 10
"""The most of a recording in one message, in bytes."""


def when_gone(context: grpc.ServicerContext, *ends: Callable[[], None]) -> None:
    """Call `ends` when the client goes, or at once if it has gone. They must return at once."""

    def end_all() -> None:
        for end in ends:
            end()

    if not context.add_callback(end_all):
        end_all()


def when_half_closed(requests: Iterator[object], end: Callable[[], None]) -> None:
    """Call `end` when the client says nothing more, or has gone."""

    def wait() -> None:
        with suppress(Exception):  # whatever it is, the stream is at its end
            for _ in requests:
                pass
        end()

    threading.Thread(target=wait, name="half-close", daemon=True).start()


def trace_responses(lost: int, events: Iterable[pb.TraceEvent]) -> Iterator[pb.TraceResponse]:
    """Put events into messages; the first says how many were lost before."""
    response = pb.TraceResponse(lost=lost)
    size = 0
    for event in events:
        response.events.append(event)
        size += event.ByteSize()
        if size >= EVENTS_SIZE or len(response.events) >= EVENTS_MAX:
            yield response
            response, size = pb.TraceResponse(), 0
    if response.events or response.lost:
        yield response


def chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Cut what is too long for a message, and leave out what is empty."""
    for piece in pieces:
        for at in range(0, len(piece), CHUNK_MAX):
            yield piece[at : at + CHUNK_MAX]
