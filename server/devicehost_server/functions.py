"""Who lets clients at PCI functions, as the device manager needs it.

The manager knows when a function comes and goes; how a client gets to it, the endpoints know.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from devicehost_server.devices.base import Hosted
from devicehost_server.pci.function import PciFunction


class FunctionSocket(Protocol):
    """The socket of one function. It is taken, but nobody is served until `start`."""

    def start(self) -> None:
        """Serve clients."""

    def retire(self, timeout_s: float) -> None:
        """Serve no more clients; ask the one that is attached to leave, and wait for that.

        It returns at once if there is none, or if it can't be asked.

        Args:
            timeout_s: how long to wait at most, in seconds.
        """

    def drain(self) -> None:
        """Refuse clients, and their accesses and resets; what is being made goes on."""

    def close(self) -> None:
        """Let go of the client that is still attached, and remove the socket; once is enough."""


class Functions(Protocol):
    """Lets clients at functions."""

    def listen(
        self, path: Path, device_id: str, device: Hosted[Any], function: PciFunction
    ) -> FunctionSocket:
        """Take a socket for a function.

        Args:
            path: where.
            device_id: what the device is called.
            device: the device; it isn't assigned yet.
            function: it as a function.

        Raises:
            BadConfig: it can't listen there.
        """
