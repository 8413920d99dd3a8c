"""The same request twice has one effect, and one answer.

A client that didn't hear the answer sends its request again, with the same id. The log
keeps the last answers by id. A request that failed isn't kept: to try again is to try
again. Two equal requests at the same moment: the second waits for the first.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Any, TypeVar

from google.protobuf.message import Message

from devicehost_server.model.errors import BadRequest, RequestIdReused

ENTRIES_MAX = 4096
"""How many answers are kept; the oldest goes first."""

ID_MAX = 128
"""The length of an id, in characters: ids are kept, too."""


_Response = TypeVar("_Response", bound=Message)


class _Entry:
    def __init__(self, fingerprint: bytes) -> None:
        self.fingerprint = fingerprint
        self.lock = threading.Lock()
        self.response: Any = None
        self.users = 0  # calls that are at it now


class RequestLog:
    """The answers by request id. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def run(self, request: Any, action: Callable[[], _Response]) -> _Response:
        """Return the answer to `request`: the one it got before, or that of `action`.

        Args:
            request: a message with a `request_id`; an empty one means no idempotency.
            action: does what is asked.

        Raises:
            BadRequest: the id is too long.
            RequestIdReused: the id came before, with another request.
        """
        if not request.request_id:
            return action()
        if len(request.request_id) > ID_MAX:
            raise BadRequest(
                f"request_id has {len(request.request_id)} characters; allowed: at most {ID_MAX}",
                field="request_id",
            )
        entry = self._enter(request)
        try:
            with entry.lock:
                if entry.response is None:
                    entry.response = action()
                response: _Response = entry.response
        finally:
            self._leave(request.request_id, entry)
        return response

    def _leave(self, request_id: str, entry: _Entry) -> None:
        """Forget a request that nobody is at any more, if it failed, or is too long ago."""
        with self._lock:
            entry.users -= 1
            if not entry.users and entry.response is None:
                del self._entries[request_id]
            settled = (each for each, other in self._entries.items() if not other.users)
            for oldest in list(islice(settled, max(0, len(self._entries) - ENTRIES_MAX))):
                del self._entries[oldest]

    def _enter(self, request: Any) -> _Entry:
        content = request.SerializeToString(deterministic=True)
        name = request.DESCRIPTOR.full_name.encode()
        fingerprint = hashlib.sha256(name + b"\0" + content).digest()
        with self._lock:
            entry = self._entries.setdefault(request.request_id, _Entry(fingerprint))
            if entry.fingerprint != fingerprint:
                raise RequestIdReused(
                    f"request_id {request.request_id!r} was used for another request",
                    request_id=request.request_id,
                )
            entry.users += 1
            return entry
