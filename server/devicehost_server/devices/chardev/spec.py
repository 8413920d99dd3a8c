"""The text that says where a stream leads, read and checked without opening anything.

>>> parse_spec("tcp:127.0.0.1:4555")
TcpSpec(host='127.0.0.1', port=4555)
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from devicehost_server.model.errors import BadConfig

ALLOWED = "null, file:PATH, pty, pty:LINK, unix:PATH, tcp:HOST:PORT, stdio"

_UNIX_PATH_MAX = 107
"""Bytes of a socket's path: `sun_path` is 108 long, with a zero at the end (unix(7))."""

_PORT_MAX = 0xFFFF


@dataclass(frozen=True, slots=True)
class NullSpec:
    """Nowhere."""


@dataclass(frozen=True, slots=True)
class FileSpec:
    """Append to the file at `path`."""

    path: Path


@dataclass(frozen=True, slots=True)
class PtySpec:
    """A pseudo-terminal, with a symbolic link to it at `link` unless that is None."""

    link: Path | None


@dataclass(frozen=True, slots=True)
class UnixSpec:
    """Listen on a Unix socket at `path`."""

    path: Path


@dataclass(frozen=True, slots=True)
class TcpSpec:
    """Listen at the loopback address `host`; `port` 0 is any free one."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class StdioSpec:
    """The standard streams of this process."""


Spec: TypeAlias = NullSpec | FileSpec | PtySpec | UnixSpec | TcpSpec | StdioSpec


def bad_spec(text: str, why: str) -> BadConfig:
    """Return the error for the chardev `text`, whatever is wrong with it."""
    return BadConfig(f"chardev {text!r}: {why}", field="chardev", value=text)


def parse_spec(text: str) -> Spec:
    """Read a chardev's text form.

    Raises:
        BadConfig: it is none of the allowed forms.
    """
    kind, colon, rest = text.partition(":")
    if kind == "null" and not colon:
        return NullSpec()
    if kind == "stdio" and not colon:
        return StdioSpec()
    if kind == "pty" and (rest or not colon):
        return PtySpec(Path(rest) if rest else None)
    if kind == "file" and rest:
        return FileSpec(Path(rest))
    if kind == "unix" and rest:
        return UnixSpec(_socket_path(text, rest))
    if kind == "tcp" and rest:
        return TcpSpec(*_loopback_address(text, rest))
    raise bad_spec(text, f"is not allowed; allowed: {ALLOWED}")


def _socket_path(text: str, path: str) -> Path:
    size = len(path.encode())
    if size > _UNIX_PATH_MAX:
        why = f"the path is {size} bytes long; allowed: at most {_UNIX_PATH_MAX}"
        raise bad_spec(text, why)
    return Path(path)


def _loopback_address(text: str, address: str) -> tuple[str, int]:
    """Split HOST:PORT; an IPv6 HOST stands in brackets."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (port.isascii() and port.isdigit() and int(port) <= _PORT_MAX):
        raise bad_spec(text, f"port {port!r} is not allowed; allowed: 0 to {_PORT_MAX}")
    if host == "localhost":
        host = "127.0.0.1"
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        why = f"host {host!r} is not allowed; allowed: localhost and loopback addresses"
        raise bad_spec(text, f"{why}, since the bytes travel unprotected")
    return host, int(port)
