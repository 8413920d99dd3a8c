"""The sockets of PCI functions: one for each, where one client at a time attaches.

All have the mode and the group of the server's own local socket. Interrupts reach all
functions by one listener, which finds the function that a change is for by its number:
whom it doesn't concern, it costs nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from devicehost_server.debug.entered import entered
from devicehost_server.devices.base import Hosted
from devicehost_server.devices.doors import Doors
from devicehost_server.endpoints.pci import PciEndpoint
from devicehost_server.endpoints.sockets import VfioUserSocket
from devicehost_server.model.device_io import DeviceIo
from devicehost_server.model.errors import BadConfig
from devicehost_server.model.interrupts import InterruptController, InterruptEvent
from devicehost_server.model.io_manager import IoManager
from devicehost_server.pci.function import PciFunction
from devicehost_server.pci.interrupts import Vectors
from devicehost_server.unix_socket import ListenError, UnixListener

RESET = "reset"
"""What a journal is told when a device is reset."""


class PciSockets:
    """The sockets of all functions of one server: the device manager's `Functions`.

    Args:
        io: the bus that the devices' registers are on.
        interrupts: where their interrupts end.
        doors: what the devices see the world through.
        mode: the permissions of a socket.
        group: the group that owns it, or "" for the process's own.
        spin_s: the longest that a connection looks for the next access before it sleeps, in
            seconds.
        reset_timeout_s: how long a reset waits for a device that another thread is in, in
            seconds. Clients wait for its reply as they do for that of an access: QEMU 5 s.
    """

    def __init__(
        self,
        io: IoManager,
        interrupts: InterruptController,
        doors: Doors,
        *,
        mode: int,
        group: str,
        spin_s: float,
        reset_timeout_s: float,
    ) -> None:
        self._io = io
        self._doors = doors
        self._mode = mode
        self._group = group
        self._spin_s = spin_s
        self._reset_timeout_s = reset_timeout_s
        self._lock = threading.Lock()  # of the next three
        self._sockets: dict[str, PciSocket] = {}  # by device
        self._routes: dict[int, Vectors] = {}  # by GSI; replaced as a whole
        self._draining = False
        interrupts.subscribe(self._interrupt_changed)

    def listen(
        self, path: Path, device_id: str, device: Hosted[Any], function: PciFunction
    ) -> PciSocket:
        """Take a socket for a function; see `Functions.listen`.

        Raises:
            BadConfig: it can't listen there.
        """
        endpoint = PciEndpoint(
            function,
            device,
            self._io,
            reset=lambda: self._reset(device_id, device),
            spin_s=self._spin_s,
        )
        with self._lock:
            for other in self._sockets.values():
                if other.path.resolve() == path.resolve():
                    raise _bad(device_id, f"socket {path} is that of device {other.device_id!r}")
            try:
                listening = VfioUserSocket(UnixListener(path, self._mode, self._group), endpoint)
            except ListenError as error:
                raise _bad(device_id, str(error)) from error
            if self._draining:
                listening.drain()
            socket = PciSocket(device_id, function.vectors, path, listening, forget=self._forget)
            self._sockets[device_id] = socket
            gsis = dict.fromkeys(function.vectors.gsis, function.vectors)
            self._routes = {**self._routes, **gsis}
        return socket

    def drain(self) -> None:
        """Make no more accesses: refuse them, and new clients."""
        with self._lock:
            self._draining = True
            sockets = tuple(self._sockets.values())
        for socket in sockets:
            socket.drain()

    def unlisten(self) -> None:
        """Take no more clients, and remove the sockets, whatever else goes on."""
        for socket in tuple(self._sockets.values()):
            socket.unlisten()

    def view(self) -> dict[str, dict[str, int] | None]:
        """What somebody who debugs sees of the clients, by device; None for no client."""
        return {device_id: socket.view() for device_id, socket in tuple(self._sockets.items())}

    def _interrupt_changed(self, event: InterruptEvent) -> None:
        vectors = self._routes.get(event.gsi)
        if vectors is not None:
            vectors.changed(event.gsi, event.kind)

    def _reset(self, device_id: str, device: Hosted[Any]) -> None:
        """Reset a device, so that who records it knows."""
        in_it = entered(
            cast("DeviceIo", device),
            device_id,
            "while it was reset",
            is_recorded=True,
            timeout_s=self._reset_timeout_s,
        )
        with in_it, self._doors.calling(device, RESET):
            device.reset()

    def _forget(self, socket: PciSocket) -> None:
        """A socket is closed, and its function goes."""
        with self._lock:
            if self._sockets.get(socket.device_id) is socket:
                del self._sockets[socket.device_id]
                gsis = set(socket.vectors.gsis)
                self._routes = {
                    gsi: vectors for gsi, vectors in self._routes.items() if gsi not in gsis
                }


class PciSocket:
    """The socket of one function: the device manager's `FunctionSocket`.

    Args:
        device_id: what the device is called.
        vectors: the function's interrupts.
        path: where the socket is.
        listening: the socket.
        forget: told when it is closed.

    Attributes:
        device_id, vectors, path: as above.
    """

    def __init__(
        self,
        device_id: str,
        vectors: Vectors,
        path: Path,
        listening: VfioUserSocket,
        forget: Callable[[PciSocket], None],
    ) -> None:
        self.device_id = device_id
        self.vectors = vectors
        self.path = path
        self._listening = listening
        self._forget = forget

    def start(self) -> None:
        """Serve clients."""
        self._listening.start()

    def retire(self, timeout_s: float) -> None:
        """Serve no more clients; ask the one that is attached to leave, and wait for that."""
        self._listening.retire(timeout_s)

    def drain(self) -> None:
        """Make no more accesses: refuse them, and new clients."""
        self._listening.drain()

    def unlisten(self) -> None:
        """Take no more clients, and remove the socket, whatever else goes on."""
        self._listening.unlisten()

    def view(self) -> dict[str, int] | None:
        """What somebody who debugs sees of the client; None if there is none."""
        return self._listening.view()

    def close(self) -> None:
        """Let go of the client that is still attached, and remove the socket; once is enough."""
        self._listening.close()
        self._forget(self)


def _bad(device_id: str, why: str) -> BadConfig:
    return BadConfig(f"device {device_id!r}: 'pci-socket': {why}", field="pci-socket")
