"""The host's end of a guest's serial line."""

from __future__ import annotations

import socket
import time

WAIT_S = 30.0


class Terminal:
    """Types, and waits for what should come."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = b""

    def type(self, text: str) -> None:
        """Send a text."""
        self.send(text.encode())

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._connection.settimeout(WAIT_S)
        self._connection.sendall(data)

    def expect(self, text: str) -> str:
        """Return what comes up to `text`, and with it.

        Raises:
            TimeoutError: it doesn't come.
        """
        wanted = text.encode()
        deadline = time.monotonic() + WAIT_S
        while wanted not in self._received:
            self._receive(deadline, repr(text))
        end = self._received.index(wanted) + len(wanted)
        return self._take(end).decode(errors="replace")

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes.

        Raises:
            TimeoutError: they don't come.
        """
        deadline = time.monotonic() + WAIT_S
        while len(self._received) < size:
            self._receive(deadline, f"{size} bytes")
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    def _receive(self, deadline: float, what: str) -> None:
        self._connection.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data = self._connection.recv(65536)
        except TimeoutError:
            raise TimeoutError(f"no {what} after {self._received!r}") from None
        if not data:
            raise ConnectionError(f"closed before {what}, after {self._received!r}")
        self._received += data
