"""A socket that listens, for one client at a time.

A client has left when its output ends, or when it can't be sent to. What it had written
until then still reaches the device, unless the next client comes first. Whoever comes
while another is there gets a line that says so, and the end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from devicehost_server.devices.chardev.stream import Stream

REFUSAL = b"devicehost: this stream has a client already\r\n"

_ACCEPT_RETRY_S = 1.0
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket.

    Attributes:
        socket: it doesn't block.
        address: what a client connects to: `unix:PATH` or `tcp:HOST:PORT`.
        path: the socket's file, if it has one; it is removed in the end.
        inode: device and inode number of that file.
    """

    socket: socket.socket
    address: str
    path: Path | None = None
    inode: tuple[int, int] = (0, 0)

    def close(self) -> None:
        """Close the socket, and remove its file unless another has taken the name."""
        self.socket.close()
        if self.path is not None:
            with contextlib.suppress(FileNotFoundError):
                if _inode(self.path) == self.inode:
                    self.path.unlink()


def listen_unix(path: Path) -> Listener:
    """Listen at `path`. A socket that nobody listens at any more is replaced.

    Raises:
        OSError: it can't be bound: somebody listens there, or it isn't a socket.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(sock.fileno(), 0o600)  # before the bind: the file never has another mode
        try:
            sock.bind(bytes(path))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _remove_stale(path)
            sock.bind(bytes(path))
        sock.listen()
        sock.settimeout(0)
        return Listener(sock, f"unix:{path}", path, _inode(path))
    except OSError:
        sock.close()
        raise


def listen_tcp(host: str, port: int) -> Listener:
    """Listen at an IP address; port 0 is any free one.

    Raises:
        OSError: the port is taken, or the host has no such address.
    """
    ipv6 = ":" in host
    sock = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen()
        sock.settimeout(0)
        bound_port = sock.getsockname()[1]
        return Listener(sock, f"tcp:[{host}]:{bound_port}" if ipv6 else f"tcp:{host}:{bound_port}")
    except OSError:
        sock.close()
        raise


class SocketStream(Stream):
    """The stream of whoever is connected to `listener`, which it owns."""

    def __init__(self, listener: Listener, capacity: int) -> None:
        super().__init__(capacity, attached=False)
        self._listener = listener
        self._client: socket.socket | None = None
        self._accept_at = 0.0

    @property
    def address(self) -> str:
        """What a client connects to: `unix:PATH` or `tcp:HOST:PORT`."""
        return self._listener.address

    def _transfer(self) -> None:
        self._serve()
        self._accept()
        listening = time.monotonic() >= self._accept_at
        self._watch(self._listener.socket.fileno(), readable=listening)
        if not listening:
            self._wake_in(_ACCEPT_RETRY_S)
        if self._client is not None:
            self._watch(
                self._client.fileno(),
                readable=self._wants_input(),
                writable=self._attached and bool(self._outbox),
            )

    def _serve(self) -> None:
        """Take from the client, and give to it."""
        if self._client is None:
            return
        try:
            if not self._receive(self._client.recv):
                self._part()
                return
        except OSError:
            self._part()
            return
        if self._attached:
            try:
                self._send(self._client.send)
            except OSError:
                self._leave()  # what it wrote before it went is still to be read

    def _accept(self) -> None:
        """Let in whoever knocks, if there is nobody yet."""
        while True:
            try:
                newcomer, _ = self._listener.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:  # no descriptor left, most likely
                self._log.error("chardev_accept_failed", error=error.strerror)
                self._accept_at = time.monotonic() + _ACCEPT_RETRY_S
                return
            newcomer.settimeout(0)
            if newcomer.family != socket.AF_UNIX:
                newcomer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._client is not None and has_gone(self._client):
                self._part()
            if self._client is None:
                self._log.info("chardev_client_came")
                self._client = newcomer
                self._set_attached(attached=True)
            else:
                self._log.warning("chardev_client_refused")
                with contextlib.suppress(OSError):
                    newcomer.send(REFUSAL)
                newcomer.close()

    def _leave(self) -> None:
        """Note that nobody receives any more."""
        if self._attached:
            self._log.info("chardev_client_left")
            self._set_attached(attached=False)

    def _part(self) -> None:
        """Be done with the client."""
        self._drop_client()
        self._leave()

    def _drop_client(self) -> None:
        if self._client is not None:
            self._watch(self._client.fileno())
            self._client.close()
            self._client = None

    def _release(self) -> None:
        self._drop_client()
        if self._started:
            self._watch(self._listener.socket.fileno())
        self._listener.close()


def _inode(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _remove_stale(path: Path) -> None:
    """Remove a socket that no process has any more.

    A socket of another type can't connect to one that is in use, and is told so, while
    nobody notices: a real connection would be that stream's client, and take its backlog.

    Raises:
        OSError: it is no such socket.
    """
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise OSError(errno.EEXIST, "a file is there that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        if probe.connect_ex(bytes(path)) != errno.ECONNREFUSED:
            raise OSError(errno.EADDRINUSE, "somebody listens there already")
    path.unlink()


def has_gone(client: socket.socket) -> bool:
    """Whether `client` has ended its output, or is gone altogether."""
    poll = select.poll()
    poll.register(client, _GONE)
    return bool(poll.poll(0))
