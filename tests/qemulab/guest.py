"""A shell in the guest: init.sh is at the other end of a serial port."""

from __future__ import annotations

import base64
import re
import secrets
import socket
import time
from pathlib import Path

from qemulab.qmp import Gone

WAIT_S = 30.0
_POLL_S = 0.05


class CommandFailed(Exception):
    """A command in the guest has ended with a status other than 0."""


class Guest:
    """What runs commands in the guest, one at a time."""

    def __init__(self, connection: socket.socket, console: Path) -> None:
        """Take the host's end of the port, and where the kernel's messages are."""
        self._connection = connection
        self._console = console
        self._received = b""

    def wait_until_booted(self, wait_s: float = WAIT_S) -> None:
        """Return when the guest takes commands."""
        self._read_until(re.compile(rb"ready\n"), "boots", wait_s)

    def run(self, command: str, wait_s: float = WAIT_S) -> str:
        """Run a command, or a script, and return what it writes to stdout and stderr.

        A script ends at the first command in it that fails.

        Raises:
            CommandFailed: its status isn't 0.
            TimeoutError: it still runs. The guest takes no other one then.
            Gone: QEMU has ended.
        """
        token = secrets.token_hex(8).encode()
        encoded = base64.b64encode(command.encode())
        self._connection.settimeout(wait_s)
        try:
            self._connection.sendall(token + b" " + encoded + b"\n")
        except BrokenPipeError:
            raise Gone(f"QEMU has ended before {command}\n{self.console_tail()}") from None
        ended = re.compile(rb"\n%b (\d+)\n" % token)
        output, match = self._read_until(ended, command, wait_s)
        said = output.decode(errors="replace")
        if status := int(match[1]):
            raise CommandFailed(f"status {status} of: {command}\n{said}\n{self.console_tail()}")
        return said

    def wait_until(self, condition: str, wait_s: float = WAIT_S) -> None:
        """Return when a command of the guest's shell succeeds."""
        self.run(
            f"""
            for i in $(seq {int(wait_s / _POLL_S)}); do
                {{ {condition}; }} 2> /dev/null && exit
                usleep {int(_POLL_S * 1e6)}
            done
            exit 1
            """,
            2 * wait_s,
        )

    def console(self) -> str:
        """What the kernel has said so far, and what was written to /dev/ttyS0."""
        return self._console.read_text(errors="replace")

    def console_tail(self) -> str:
        """The end of what is on the console."""
        return self.console()[-2000:]

    def _read_until(
        self, end: re.Pattern[bytes], what: str, wait_s: float
    ) -> tuple[bytes, re.Match[bytes]]:
        deadline = time.monotonic() + wait_s
        while not (match := end.search(self._received)):
            self._connection.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self._connection.recv(65536)
            except TimeoutError:
                said = self._received.decode(errors="replace")
                problem = f"after {wait_s:g} s the guest still {what}"
                raise TimeoutError(f"{problem}\n{said}\n{self.console_tail()}") from None
            except ConnectionResetError:
                data = b""
            if not data:
                raise Gone(f"QEMU has ended while the guest {what}\n{self.console_tail()}")
            self._received += data
        output = self._received[: match.start()]
        self._received = self._received[match.end() :]
        return output, match
