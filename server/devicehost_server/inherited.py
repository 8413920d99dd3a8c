"""A Unix socket that somebody else opened for us: `--fd N`.

A service manager opens the socket, so that clients can connect before we run and without
rights to the directory, and hands it over as a file descriptor: listening, or already
connected. That is the convention of QEMU's vhost-user backends.

gRPC for Python can't take a socket over. So the server listens on a private socket, which
nobody else can reach, and the bytes of each connection are carried there and back. That
costs a hop: a server that is to be fast gets `--socket-path`.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import grpc

from devicehost_server.listeners import ListenError

_CHUNK = 1 << 16


class InheritedSocket:
    """Carries the connections of an inherited socket to a gRPC server, until `close`.

    Args:
        server: it isn't started yet.
        fd: a Unix stream socket; ours from here on.

    Raises:
        ListenError: `fd` isn't one.
    """

    def __init__(self, server: grpc.Server, fd: int) -> None:
        try:
            self._socket = socket.socket(fileno=fd)
        except OSError as error:
            raise ListenError(f"--fd {fd} is not a socket: {error.strerror}") from error
        if self._socket.family != socket.AF_UNIX or self._socket.type != socket.SOCK_STREAM:
            raise ListenError(f"--fd {fd} is not a Unix stream socket")
        self._socket.set_inheritable(False)
        self._socket.settimeout(None)  # it may have come to us non-blocking
        self._directory = Path(tempfile.mkdtemp(prefix="devicehostd-"))  # mode 0700
        self._private = str(self._directory / "grpc.sock")
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        server.add_insecure_port(f"unix:{self._private}")

    def start(self) -> None:
        """Take connections; the server has been started."""
        listening = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if listening:
            threading.Thread(target=self._accept, name="accept", daemon=True).start()
        else:
            self._carry(self._socket)

    def close(self) -> None:
        """End all connections, and remove the private socket. The inherited one's path stays."""
        with self._lock:
            self._closed = True
            for connection in (self._socket, *self._connections):
                with suppress(OSError):  # it has ended by itself
                    connection.shutdown(socket.SHUT_RDWR)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed
            self._carry(connection)

    def _carry(self, outside: socket.socket) -> None:
        """Connect `outside` to the server, and copy both ways until one side ends."""
        inside = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with self._lock:
            if self._closed:
                outside.close()
                inside.close()
                return
            self._connections |= {outside, inside}
        inside.connect(self._private)
        for source, sink in ((outside, inside), (inside, outside)):
            threading.Thread(
                target=self._copy, args=(source, sink), name="carry", daemon=True
            ).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # the other side is gone, which ends this one
            while chunk := source.recv(_CHUNK):
                sink.sendall(chunk)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._connections.discard(source)
        source.close()
