"""`devicehostctl` in a real terminal: tmux, with a server of its own for each terminal.

with terminal(TOP, columns=80, rows=24, DEVICEHOST_ENDPOINT=endpoint) as shown:
    shown.wait_for("com1")
    shown.type("q")
    assert shown.ended() == 0
"""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ctllab import DEVICEHOSTCTL
from daemonlab import environment, wait_until

TMUX = Path("/usr/bin/tmux")
TOP = f"{shlex.quote(str(DEVICEHOSTCTL))} top --interval 0.2"

_ENDED = "it ended with"
_COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-7]|4[0-7]|38|48|9[0-7]|10[0-7])(?:;[0-9;]*)?m")


class Terminal:
    """A terminal in which a command runs, and after it a shell."""

    def __init__(self, name: str, variables: dict[str, str]) -> None:
        self._tmux = [str(TMUX), "-L", name, "-f", "/dev/null"]
        self._variables = variables

    def start(self, command: str, columns: int, rows: int) -> None:
        """Run a command."""
        then = f"{command}; echo {_ENDED} $?.; exec sh"
        size = ["-x", str(columns), "-y", str(rows)]
        self._run("new-session", "-d", *size, then)

    def kill(self) -> None:
        """End it, with all that runs in it."""
        subprocess.run(
            [*self._tmux, "kill-server"], env=self._variables, check=False, capture_output=True
        )

    def text(self) -> str:
        """What is on the screen."""
        return self._run("capture-pane", "-p")

    def lines(self) -> list[str]:
        """The lines on the screen."""
        return self.text().splitlines()

    def styled(self) -> str:
        """What is on the screen, with its colours as a terminal takes them."""
        return self._run("capture-pane", "-p", "-e")

    def has_colours(self) -> bool:
        """Whether anything on the screen is in colour."""
        return _COLOUR.search(self.styled()) is not None

    def pid(self) -> int:
        """The process that the command is."""
        shell = self._run("display-message", "-p", "#{pane_pid}").strip()
        return int(Path(f"/proc/{shell}/task/{shell}/children").read_text().split()[0])

    def flags(self) -> dict[str, bool]:
        """What the terminal is told to do."""
        names = ("alternate_on", "cursor_flag", "mouse_any_flag", "keypad_flag")
        shown = self._run("display-message", "-p", " ".join(f"#{{{name}}}" for name in names))
        return {name: flag == "1" for name, flag in zip(names, shown.split(), strict=True)}

    def type(self, *keys: str) -> None:
        """Press keys, by tmux's names."""
        self._run("send-keys", *keys)

    def click(self, column: int, row: int) -> None:
        """Press the left mouse button, and let it go; from 0 on."""
        at = f"{column + 1};{row + 1}"
        self._run("send-keys", "-l", f"\x1b[<0;{at}M\x1b[<0;{at}m")

    def resize(self, columns: int, rows: int) -> None:
        """Give it another size."""
        self._run("resize-window", "-x", str(columns), "-y", str(rows))

    def wait_for(self, *texts: str) -> str:
        """Wait until all of these are on the screen; return what is."""
        return self.wait_until(lambda shown: all(text in shown for text in texts), *texts)

    def wait_matching(self, *patterns: str) -> str:
        """Wait until all of these match in a line of the screen; return what is on it."""
        return self.wait_until(
            lambda shown: all(re.search(each, shown) for each in patterns), *patterns
        )

    def wait_until(self, condition: Callable[[str], object], *what: str) -> str:
        """Wait until the screen is as it should be; return what is on it."""
        seen = ""

        def holds() -> object:
            nonlocal seen
            seen = self.text()
            return condition(seen)

        try:
            wait_until(holds)
        except AssertionError:
            raise AssertionError(f"not shown: {what}; but:\n{seen}") from None
        return seen

    def ended(self) -> int:
        """Wait until the command has ended; return its exit status."""
        shown = self.wait_for(_ENDED)
        return int(shown.rpartition(_ENDED)[2].split(".")[0])

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments],
            env=self._variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def terminal(
    command: str, *, columns: int = 120, rows: int = 40, **variables: str
) -> Iterator[Terminal]:
    """Run a command in a terminal of a size, and a shell after it.

    Args:
        command: as a shell takes it.
        columns: how wide it is.
        rows: how high.
        variables: of the environment, in addition.
    """
    if not TMUX.exists():
        pytest.skip(f"needs {TMUX}")
    own = environment(LC_ALL="C.UTF-8", **variables)
    for name in ("TMUX", "NO_COLOR", "COLORFGBG"):
        if name not in variables:
            own.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="tmux-") as sockets:
        own["TMUX_TMPDIR"] = sockets  # tmux leaves its socket behind
        shown = Terminal(f"devicehost-{uuid.uuid4().hex[:8]}", own)
        try:
            shown.start(command, columns, rows)
            yield shown
        finally:
            shown.kill()
