"""QEMU's control connection.

QMP is JSON objects, one on each line: commands are answered in order, and events come whenever
they like, between answers as well. See QEMU's docs/interop/qmp-spec.rst.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from typing import Any

WAIT_S = 30.0


class QmpError(Exception):
    """QEMU refuses a command."""


class Gone(Exception):
    """QEMU has ended, or closed the connection."""


class Qmp:
    """One connection; for one thread."""

    def __init__(self, connection: socket.socket) -> None:
        """Negotiate; QEMU may not have started yet."""
        self._connection = connection
        self._received = b""
        self._events: list[dict[str, Any]] = []
        assert "QMP" in self._next(time.monotonic() + WAIT_S)
        self.execute("qmp_capabilities")

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, wait_s: float = WAIT_S
    ) -> Any:
        """Run a command and return what it returns.

        Raises:
            QmpError: it is refused.
            TimeoutError: no answer within `wait_s`.
        """
        message = {"execute": command, "arguments": dict(arguments or {})}
        try:
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            raise Gone("QEMU has closed its control connection") from None
        deadline = time.monotonic() + wait_s
        while True:
            answer = self._next(deadline)
            if "event" in answer:
                self._events.append(answer)
            elif "error" in answer:
                raise QmpError(f"{command}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def event(self, name: str, wait_s: float = WAIT_S, **data: object) -> dict[str, Any]:
        """Return the first event of this name with `data` in it that nobody has taken, or wait.

        Raises:
            TimeoutError: none has come within `wait_s`.
        """
        deadline = time.monotonic() + wait_s
        looked_at = 0
        while True:
            for event in self._events[looked_at:]:
                if event["event"] == name and data.items() <= event.get("data", {}).items():
                    self._events.remove(event)
                    return event
            looked_at = len(self._events)
            self._events.append(self._next(deadline))

    def device_add(self, device: Mapping[str, object]) -> None:
        """Plug a device."""
        self.execute("device_add", device)

    def device_del(self, name: str, wait_s: float = WAIT_S) -> None:
        """Ask the guest to let go of a device, and return when it is gone."""
        self.execute("device_del", {"id": name})
        self.event("DEVICE_DELETED", wait_s, device=name)

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._received:
            self._connection.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self._connection.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise Gone("QEMU has closed its control connection")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message
