"""Where the gRPC server listens: a Unix socket, and TCP if it is asked for.

TCP is for peers that prove who they are, by a certificate (mTLS). Without TLS it is for
loopback only, and only if asked for in as many words. For the Unix socket's path see
`unix_socket`.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import grpc

from devicehost_server.unix_socket import ListenError, SocketPath, UnixListener

__all__ = ["ListenError", "TcpListener", "UnixListener", "bind_tcp", "bind_unix"]


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


def bind_unix(server: grpc.Server, listener: UnixListener) -> SocketPath:
    """Listen on a Unix socket.

    Returns:
        Its path, to be closed when the server has stopped.

    Raises:
        ListenError: the path is too long, in use, not a socket, or not ours to make.
    """
    # gRPC binds here and now.
    address = f"unix:{quote(os.fsencode(listener.path))}"
    return SocketPath(listener, lambda: server.add_insecure_port(address))


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
