"""The local socket: where vfio-user clients connect, and which of them may.

One client at a time. A second one is refused with a reason, as the reply to its first
message, rather than left waiting. Who may connect is decided twice: by the mode of the
socket, and by the user of the peer (SO_PEERCRED, unix(7)): ours, root, or one of the
socket's group.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from contextlib import suppress
from errno import EACCES, EBUSY
from pathlib import Path

import structlog

from devicehost.vfio_user import Command
from devicehost.vfio_user.header import encode_error
from devicehost_server.endpoints.connection import Connection
from devicehost_server.model.guest_memory import GuestMemory
from devicehost_server.model.interrupts import InterruptController
from devicehost_server.model.io_manager import IoManager

_log = structlog.get_logger(__name__)

_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid
_HEADER_SIZE = 16
_REFUSAL_TIMEOUT_S = 1.0


class BusSocket:
    """Listens for clients of the bus, until `close`.

    Args:
        path: where. What is there is replaced: the caller holds a lock on the path.
        mode: permissions.
        group: the group that owns it, by number, or None for the process's own.
        io: makes the accesses.
        interrupts: what eventfds signal.
        memory: where devices find the memory that clients share.
    """

    def __init__(
        self,
        path: Path,
        mode: int,
        group: int | None,
        *,
        io: IoManager,
        interrupts: InterruptController,
        memory: GuestMemory,
    ) -> None:
        self.path = path
        self._group = group
        self._io = io
        self._interrupts = interrupts
        self._memory = memory
        self._client: Connection | None = None
        self._lock = threading.Lock()
        self._closed = False
        with suppress(FileNotFoundError):
            path.unlink()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)  # nobody connects until the mode is set
        try:
            self._socket.bind(str(path))
        finally:
            os.umask(before)
        if group is not None:
            os.chown(path, -1, group)
        path.chmod(mode)
        self._socket.listen()
        self._accepting = threading.Thread(target=self._accept, name="local socket", daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """End the client's connection, and remove the socket."""
        with self._lock:
            self._closed = True
            client = self._client
        if client is not None:
            client.shut_down()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._socket.close()
        with suppress(FileNotFoundError):
            self.path.unlink()

    def _accept(self) -> None:
        while not self._closed:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(
                target=self._welcome, args=(peer,), name="local client", daemon=True
            ).start()

    def _welcome(self, peer: socket.socket) -> None:
        """Serve a client, or refuse it."""
        pid, uid, gid = _CREDENTIALS.unpack(
            peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        log = _log.bind(pid=pid, uid=uid)
        if uid not in (0, os.geteuid()) and gid != self._group:
            log.warning("client_refused", reason="PEER_DENIED")
            _refuse(peer, EACCES)
            return
        with self._lock:
            busy = self._client is not None or self._closed
            if not busy:
                client = Connection(peer, self._io, self._interrupts, self._memory)
                self._client = client
        if busy:
            log.warning("client_refused", reason="BUSY")
            _refuse(peer, EBUSY)
            return
        log.info("client_connected")
        try:
            client.run()
        finally:
            with self._lock:
                self._client = None
            log.info("client_gone")


def _refuse(peer: socket.socket, errno: int) -> None:
    """Answer a client's first message, whatever it is, with an error, and hang up."""
    with peer, suppress(OSError):
        peer.settimeout(_REFUSAL_TIMEOUT_S)
        header = peer.recv(_HEADER_SIZE, socket.MSG_WAITALL)
        message_id = int.from_bytes(header[:2], "little")
        peer.sendall(encode_error(message_id, Command.VERSION, errno))
        # What it still sends is thrown away, for a close with unread data would take our
        # answer away from it.
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(1 << 16):
            pass
