"""Clients that are turned away: each is told why, and none of them can hold us up.

The reason is the error number in the reply to their first message. A client may never
send one, or send it a byte at a time, or rubbish: it has `TIME_S` for all of it. No more
than `AT_ONCE` are told at a time; who comes when there are so many finds the connection
closed.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

from devicehost.bus_regions import LIMITS
from devicehost.vfio_user import ServerSession, State

TIME_S = 1.0
"""How long one may take, in seconds."""

AT_ONCE = 8
"""How many are told at a time."""

_CHUNK = 1 << 12


class TurnedAway:
    """Tells clients why there is no place for them, each on a thread of its own."""

    def __init__(self) -> None:
        self._places = threading.BoundedSemaphore(AT_ONCE)

    def tell(self, client: socket.socket, errno: int) -> None:
        """Tell a client, and close its connection; return at once."""
        if not self._places.acquire(blocking=False):
            client.close()
            return
        try:
            threading.Thread(
                target=self._tell, args=(client, errno), name="turned away", daemon=True
            ).start()
        except RuntimeError:  # there can't be one more thread
            self._places.release()
            client.close()

    def _tell(self, client: socket.socket, errno: int) -> None:
        try:
            with client, suppress(OSError):
                _turn_away(client, errno, time.monotonic() + TIME_S)
        finally:
            self._places.release()


def _turn_away(client: socket.socket, errno: int, deadline: float) -> None:
    session = ServerSession(LIMITS, turn_away=errno)
    while session.state is not State.OVER and (data := _receive(client, deadline)):
        for event in session.receive_data(data):
            answer = getattr(event, "answer", None)
            if answer is not None:
                client.sendall(answer.data)
    # What it still sends is thrown away: to close with unread data would take our answer
    # away from it.
    client.shutdown(socket.SHUT_WR)
    while _receive(client, deadline):
        pass


def _receive(client: socket.socket, deadline: float) -> bytes:
    """Read; nothing at the end, or when the time is up. Descriptors that come are closed."""
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        return b""
    client.settimeout(left_s)
    return client.recv(_CHUNK)
