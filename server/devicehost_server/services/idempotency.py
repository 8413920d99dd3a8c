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
from typing import Any, TypeVar

from google.protobuf.message import Message

from devicehost_server.model.errors import RequestIdReused

ENTRIES_MAX = 4096
"""How many answers are kept; the oldest goes first."""


_Response = TypeVar("_Response", bound=Message)


class _Entry:
    def __init__(self, fingerprint: bytes) -> None:
        self.fingerprint = fingerprint
        self.lock = threading.Lock()
        self.response: Any = None


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
            RequestIdReused: the id came before, with another request.
        """
        if not request.request_id:
            return action()
        entry = self._entry(request)
        with entry.lock:
            if entry.response is None:
                entry.response = action()
        response: _Response = entry.response
        return response

    def _entry(self, request: Any) -> _Entry:
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
            while len(self._entries) > ENTRIES_MAX:
                self._entries.popitem(last=False)
            return entry
