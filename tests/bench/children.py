"""Processes beside this one: what they are told and what they say are lines of text.

    with child("bare_socket.py", path) as peer:
        peer.tell("1000")
        assert peer.hear() == "done"

A child ends when its standard input does, so it outlives neither the block nor us.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FOLDER = Path(__file__).parent
_END_S = 10.0
_ROUND_MAX_S = 20


class ChildDied(Exception):
    """A process ended instead of saying something."""


class Child:
    """A process that runs one of the programs of this folder."""

    def __init__(self, program: str, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._program = program
        self._stdin = process.stdin
        self._stdout = process.stdout
        self.pid = process.pid

    def tell(self, line: object) -> None:
        """Send a line."""
        self._stdin.write(f"{line}\n")
        self._stdin.flush()

    def hear(self) -> str:
        """Wait for a line.

        Raises:
            ChildDied: none came; why stands on standard error.
        """
        line = self._stdout.readline()
        if not line:
            raise ChildDied(f"{self._program} ended early")
        return line.rstrip("\n")


@contextmanager
def child(
    program: str, *arguments: object, fds: tuple[int, ...] = (), ready: str = "ready"
) -> Iterator[Child]:
    """Run a program of this folder, which has said that it is ready when the block begins.

    Args:
        program: its file.
        arguments: of the command line.
        fds: descriptors that it gets, under the same numbers.
        ready: what it says then.

    Raises:
        ChildDied: it didn't.
    """
    command = [sys.executable, str(_FOLDER / program), *map(str, arguments)]
    with subprocess.Popen(
        command, pass_fds=fds, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            running = Child(program, process)
            if (said := running.hear()) != ready:
                raise ChildDied(f"{program} said {said!r}, not {ready!r}")
            yield running
            with suppress(BrokenPipeError):
                running._stdin.close()
            process.wait(_END_S)
        finally:
            process.kill()


@contextmanager
def one_round() -> Iterator[None]:
    """In a child that spins: end it if the block takes absurdly long, for nobody else would."""
    signal.alarm(_ROUND_MAX_S)
    yield
    signal.alarm(0)


def say(line: object) -> None:
    """Tell the process that started this one."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
