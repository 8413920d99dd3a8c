"""A `devicehostd` as a process of its own, ready when we say so, and gone at the end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

READY_TIMEOUT_S = 10.0


class StartFailed(Exception):
    """The server didn't start; the message is what it said."""


@contextmanager
def device_server(folder: Path) -> Iterator[str]:
    """Run a device server for as long as the block runs.

    Args:
        folder: for its socket and its log, `server.log`.

    Yields:
        Its endpoint.

    Raises:
        StartFailed: it ended instead of becoming ready, or took too long.
    """
    beside = Path(sys.executable).with_name("devicehostd")
    program = str(beside) if beside.exists() else shutil.which("devicehostd")
    if program is None:
        raise StartFailed("there is no devicehostd: install devicehost[server]")
    path = folder / "devices.sock"
    log_path = folder / "server.log"
    with (
        log_path.open("wb") as log,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
    ):
        notify.bind(str(folder / "notify"))
        notify.settimeout(READY_TIMEOUT_S)
        process = subprocess.Popen(  # noqa: S603 # our own program
            [program, "--socket-path", str(path)],
            stderr=log,
            env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify")},
        )
        try:
            _wait_until_ready(process, notify, log_path)
            yield f"unix:{path}"
        finally:
            process.terminate()
            process.wait()


def _wait_until_ready(
    process: subprocess.Popen[bytes], notify: socket.socket, log_path: Path
) -> None:
    try:
        while b"READY=1" not in notify.recv(4096):
            pass
    except TimeoutError:
        process.kill()
        said = log_path.read_text(errors="replace").strip()
        raise StartFailed(f"devicehostd did not become ready: {said}") from None
