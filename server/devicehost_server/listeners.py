"""Where the gRPC server listens: a Unix socket, and TCP if it is asked for.

A Unix socket's path is ours only while we hold a lock on the file beside it (`PATH.lock`):
a second gRPC server would silently take over the path of the first. With the lock, a
socket that is there is left over from a server that died, and is replaced.

TCP is for peers that prove who they are, by a certificate (mTLS). Without TLS it is for
loopback only, and only if asked for in as many words.
"""

from __future__ import annotations

import fcntl
import grp
import ipaddress
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import grpc

UNIX_PATH_MAX = 107
"""The length of a Unix socket's path (unix(7), sun_path), in bytes."""


class ListenError(Exception):
    """The server can't listen where it should; the message says why."""


@dataclass(frozen=True, slots=True)
class UnixListener:
    """A Unix socket.

    Attributes:
        path: where.
        mode: its permissions.
        group: the group that owns it, or "" for the process's own.
    """

    path: Path
    mode: int = 0o600
    group: str = ""


@dataclass(frozen=True, slots=True)
class TcpListener:
    """A TCP socket.

    Attributes:
        host: an address or a name.
        port: a port; 0 for any free one.
        certificate: PEM file with the server's certificate chain; None for no TLS.
        key: PEM file with its key.
        client_ca: PEM file with the authorities that vouch for clients.
    """

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None


class BoundUnixSocket:
    """A Unix socket that a gRPC server listens on, until `close`.

    Raises:
        ListenError: the path is too long, in use, not a socket, or not ours to make.
    """

    def __init__(self, server: grpc.Server, listener: UnixListener) -> None:
        self.path = listener.path
        if not self.path.name:
            raise ListenError(f"socket path {str(self.path)!r} doesn't name a file")
        if len(os.fsencode(self.path)) > UNIX_PATH_MAX:
            raise ListenError(f"socket path {self.path} is longer than {UNIX_PATH_MAX} bytes")
        self._lock_path = self.path.with_name(self.path.name + ".lock")
        self._lock_fd = self._take_lock()
        self._is_ours = False
        try:
            self._bind(server, listener)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the socket, if there is one of ours, and its lock file."""
        with suppress(OSError):
            if self._is_ours:
                self.path.unlink()
        with suppress(OSError):
            self._lock_path.unlink()
        os.close(self._lock_fd)

    def _take_lock(self) -> int:
        while True:
            try:
                fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise ListenError(f"can't make {self._lock_path}: {error.strerror}") from error
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
                os.close(fd)
                raise ListenError(
                    f"socket {self.path} is in use by another devicehostd (pid {holder})"
                ) from None
            # The holder before may have removed the file between our open and our lock.
            with suppress(FileNotFoundError):
                if os.fstat(fd).st_ino == self._lock_path.stat().st_ino:
                    break
            os.close(fd)
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        return fd

    def _bind(self, server: grpc.Server, listener: UnixListener) -> None:
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self.path.lstat().st_mode):
                raise ListenError(f"{self.path} exists and is not a socket")
        # gRPC binds here and now; the umask keeps others out until the mode is set.
        before = os.umask(0o177)
        try:
            server.add_insecure_port(f"unix:{quote(os.fsencode(self.path))}")
        except RuntimeError as error:
            raise ListenError(f"can't listen on {self.path}: {error}") from error
        finally:
            os.umask(before)
        self._is_ours = True
        try:
            if listener.group:
                os.chown(self.path, -1, grp.getgrnam(listener.group).gr_gid)
            self.path.chmod(listener.mode)
        except KeyError:
            raise ListenError(f"there is no group {listener.group!r}") from None
        except OSError as error:
            raise ListenError(f"can't set the owner of {self.path}: {error.strerror}") from error


def bind_tcp(server: grpc.Server, listener: TcpListener) -> int:
    """Listen on TCP.

    Returns:
        The port.

    Raises:
        ListenError: a certificate can't be read, no TLS on an address that isn't
            loopback, or the port isn't to be had.
    """
    host = f"[{listener.host}]" if ":" in listener.host else listener.host
    address = f"{host}:{listener.port}"
    try:
        if listener.certificate is None:
            if not _is_loopback(listener.host):
                raise ListenError(
                    f"TCP without TLS is for loopback addresses only, and {listener.host!r} is"
                    " not one: give --tls-cert, --tls-key and --tls-client-ca"
                )
            return server.add_insecure_port(address)
        return server.add_secure_port(address, _credentials(listener))
    except RuntimeError as error:
        raise ListenError(f"can't listen on {address}: {error}") from error


def _credentials(listener: TcpListener) -> grpc.ServerCredentials:
    """The server's certificate, and the demand for one of the client's."""
    files = {
        "--tls-cert": listener.certificate,
        "--tls-key": listener.key,
        "--tls-client-ca": listener.client_ca,
    }
    contents = {}
    for flag, path in files.items():
        if path is None:
            raise ListenError(f"TCP with TLS needs {flag} as well: peers prove who they are")
        try:
            contents[flag] = path.read_bytes()
        except OSError as error:
            raise ListenError(f"{flag}: can't read {path}: {error.strerror}") from error
    return grpc.ssl_server_credentials(
        [(contents["--tls-key"], contents["--tls-cert"])],
        root_certificates=contents["--tls-client-ca"],
        require_client_auth=True,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
