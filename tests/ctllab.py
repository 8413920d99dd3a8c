"""`devicehostctl` as a process, against a `devicehostd` of `daemonlab`.

with daemon(tmp_path, "--device", COM1) as running:
    assert Ctl(running).ok("peek", "com1.LCR")
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daemonlab import WAIT_S, Clients, environment

DEVICEHOSTCTL = Path(sys.executable).with_name("devicehostctl")

COM1 = "uart16550,id=com1,chardev=null"
RAM = "scratch,id=ram,base=0xd0000000,size=0x1000,irq=5"
RAM_BASE = 0xD000_0000

LCR, LSR, SCR = 0x3FB, 0x3FD, 0x3FF


class Ctl:
    """Runs commands against one server."""

    def __init__(self, server: Clients) -> None:
        self._variables = environment(DEVICEHOST_ENDPOINT=server.endpoint)

    def run(self, *arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [DEVICEHOSTCTL, *arguments],
            env=self._variables,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )

    def ok(self, *arguments: str | Path, stdin: str = "") -> list[str]:
        """Run a command that ends well; return the lines of stdout."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def json(self, *arguments: str | Path) -> Any:
        """Run a command that ends well; return what it says in JSON."""
        return json.loads("\n".join(self.ok(*arguments, "--output", "json")))

    def refused(self, *arguments: str | Path) -> str:
        """Run a command that the server refuses; return the reason."""
        done = self.run(*arguments)
        assert (done.returncode, done.stdout) == (1, ""), done
        message, *facts = done.stderr.splitlines()
        assert message.startswith("devicehostctl: ")
        (reason,) = [fact for fact in facts if fact.startswith("  reason: ")]
        return reason.removeprefix("  reason: ")

    @contextmanager
    def running(
        self, *arguments: str | Path, stdin: int = subprocess.DEVNULL
    ) -> Iterator[subprocess.Popen[str]]:
        """Run a command that goes on."""
        with subprocess.Popen(
            [DEVICEHOSTCTL, *arguments],
            env=self._variables,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def line(process: subprocess.Popen[str]) -> str:
    """The next line of stdout; it comes, or the test times out."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")
