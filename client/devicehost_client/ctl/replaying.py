"""The replayer as a child process: it is part of the server, which a client never imports.

What it is asked and what it says is documented in `devicehost_server.replay.__main__`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, TypeAlias

from devicehost_client.ctl.command import CommandFailed

Said: TypeAlias = tuple[str, dict[str, Any]]
"""What the replayer said: `progress`, `difference` or `summary`, and the facts."""

_MODULE = "devicehost_server.replay"
_BAD_INPUT = 2
_NEEDED = ("devicehost_server", "structlog")


class BadInput(CommandFailed):
    """The replayer can't do that: the recording isn't one, or can't be replayed."""


def replayer(*arguments: str) -> Iterator[Said]:
    """Run the replayer; yield what it says, up to the summary.

    Raises:
        BadInput: the recording, or what is asked for, can't be.
        CommandFailed: there is nothing to shrink; the server isn't installed; or the replayer
            has ended in some way that it shouldn't have.
    """
    if any(find_spec(package) is None for package in _NEEDED):
        raise CommandFailed(
            "replaying needs the server, which has the devices: pip install 'devicehost[server]'"
        )
    # It isn't to say anything there; if it does all the same, that tells why it ended.
    with tempfile.TemporaryFile() as errors:
        command = [sys.executable, "-m", _MODULE, *arguments]
        with subprocess.Popen(  # noqa: S603 # it is our own program
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as child:
            try:
                name = ""
                for name, facts in _said(child):
                    yield name, facts
            finally:
                child.kill()  # if it hasn't ended, nobody wants the rest
        errors.seek(0)
        complaint = errors.read().decode(errors="replace").strip().splitlines()
    if name != "summary":
        why = f": {complaint[-1]}" if complaint else ""
        raise CommandFailed(f"the replayer ended with status {child.returncode}{why}")


def _said(child: subprocess.Popen[str]) -> Iterator[Said]:
    """Yield what a replayer says, and wait for its end."""
    assert child.stdout is not None  # noqa: S101 # it is a pipe
    for line in child.stdout:
        ((name, facts),) = json.loads(line).items()
        if name == "error":
            raise (BadInput if child.wait() == _BAD_INPUT else CommandFailed)(facts["message"])
        yield name, facts
    child.wait()
