"""Telling the service manager how we are: sd_notify(3), the socket in $NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Send `state` (`READY=1`, `STOPPING=1`), if there is somebody to tell.

    A manager that isn't there any more is no reason to fail.
    """
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    if path.startswith("@"):  # an abstract socket (unix(7))
        path = "\0" + path[1:]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
        suppress(OSError),
    ):
        sock.connect(path)
        sock.sendall(state.encode())
