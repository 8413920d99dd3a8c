"""Where a server is, in a word: `unix:/run/vm1/devices.sock`, `tcp:host:port`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import grpc

# The channel looks for a lost server about as often as the access queues do.
_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # No backoff, whatever its name says: how long one attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", 5000),
    # Nothing in between may turn a local socket's calls elsewhere.
    ("grpc.enable_http_proxy", 0),
    # Calls that are idempotent, by their request_id or by nature, are tried again.
    (
        "grpc.service_config",
        json.dumps(
            {
                "methodConfig": [
                    {
                        "name": [
                            {"service": "devicehost.v1.HotplugService"},
                            {"service": "devicehost.v1.ResourceService"},
                            {"service": "devicehost.v1.SessionService"},
                        ],
                        "retryPolicy": {
                            "maxAttempts": 4,
                            "initialBackoff": "0.05s",
                            "maxBackoff": "1s",
                            "backoffMultiplier": 2,
                            "retryableStatusCodes": ["UNAVAILABLE"],
                        },
                    }
                ]
            }
        ),
    ),
]


@dataclass(frozen=True, slots=True)
class Tls:
    """How a client and a TCP server prove to each other who they are. All files are PEM.

    Attributes:
        ca: the authorities that vouch for the server.
        certificate: the client's certificate chain.
        key: the client's key.
        server_name: the name in the server's certificate, if it isn't the endpoint's.
    """

    ca: Path
    certificate: Path
    key: Path
    server_name: str = ""


def open_channel(endpoint: str, tls: Tls | None = None) -> grpc.Channel:
    """Return a channel to `endpoint`; it connects when it is used.

    Args:
        endpoint: `unix:PATH`, or `tcp:HOST:PORT`; a path alone is a Unix socket's.
        tls: for TCP; without it, only servers that were told to do without are reached.

    Raises:
        ValueError: the endpoint isn't of that form, or has TLS where none is.
        OSError: a file of `tls` can't be read.
    """
    kind, rest = _parse(endpoint)
    if kind == "unix":
        if tls is not None:
            raise ValueError(f"endpoint {endpoint!r}: a Unix socket has no TLS")
        return grpc.insecure_channel(f"unix:{quote(os.fsencode(rest))}", options=_OPTIONS)
    if tls is None:
        return grpc.insecure_channel(rest, options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        tls.ca.read_bytes(), tls.key.read_bytes(), tls.certificate.read_bytes()
    )
    options = list(_OPTIONS)
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return grpc.secure_channel(rest, credentials, options=options)


def local_sockets(endpoint: str, told: str) -> list[Path]:
    """Where the local socket of the server at `endpoint` may be, the likeliest first.

    Args:
        endpoint: where its API is.
        told: where it says that its local socket is; "" if it has none.
    """
    kind, rest = _parse(endpoint)
    if kind != "unix" or not told:
        return []
    # In a container of its own, it sees its folder elsewhere than we do.
    beside = Path(rest).with_name(Path(told).name)
    return [beside] if beside == Path(told) else [beside, Path(told)]


def _parse(endpoint: str) -> tuple[str, str]:
    """Return the kind of an endpoint, and where it is."""
    kind, colon, rest = endpoint.partition(":")
    if kind.startswith("/"):
        kind, colon, rest = "unix", ":", endpoint
    if kind not in ("unix", "tcp") or not colon or not rest:
        raise ValueError(f"endpoint {endpoint!r} is not allowed; allowed: unix:PATH, tcp:HOST:PORT")
    return kind, rest
