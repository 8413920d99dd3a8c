"""The bus as one client reaches it, by the socket and by the ring: until it is shut.

A shut one refuses every access as DRAINING. That is so while the server stops, and for
what is left of a client that is gone: a device that comes back after a long time must not
find accesses of it mixed with those of the next client.
"""

from __future__ import annotations

import threading
from typing import NoReturn

from devicehost_server.model.errors import Draining
from devicehost_server.model.initiator import Initiator
from devicehost_server.model.io_manager import IoManager


class Shutter:
    """Gives out the initiators of one client, and shuts them all.

    Args:
        io: the bus.
    """

    def __init__(self, io: IoManager) -> None:
        self._io = io
        self._lock = threading.Lock()
        self._initiators: list[Initiator] = []
        self._shut = False

    def initiator(self, vcpu: int | None = None) -> Initiator:
        """Return what makes the accesses of a vCPU, or of nobody in particular."""
        initiator = self._io.initiator(vcpu)
        with self._lock:
            self._initiators.append(initiator)
            if self._shut:
                initiator.shut(_refuse)
        return initiator

    def shut(self) -> None:
        """Refuse what comes from here on. What is being made goes on."""
        with self._lock:
            self._shut = True
            for initiator in self._initiators:
                initiator.shut(_refuse)


def _refuse(address: int, data: bytes | memoryview) -> NoReturn:
    del address, data
    raise Draining("the server is stopping and takes no new accesses")
