"""`devicehostd`, as it is installed: the daemon, or a word on what it takes to have it.

The client comes without the server's dependencies, but with its commands.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run the daemon; return its exit status."""
    try:
        from devicehost_server import daemon  # noqa: PLC0415 # it needs what may be missing
    except ModuleNotFoundError as error:
        sys.stderr.write(f"devicehostd: there is no {error.name}: install devicehost[server]\n")
        return 1
    return daemon.main()
