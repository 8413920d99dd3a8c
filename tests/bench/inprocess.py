"""The device in the process of the bench itself: what no way to another process can beat.

The server's parts are those of a `devicehostd`: IoManager, counted accesses, a device with
its lock.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path

from lab import ADDRESS, LONG, SIZES
from ledger import Ledger
from measure import Case, Effort, Result, measure

from devicehost_server import logs
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.listeners import UnixListener
from devicehost_server.model.initiator import Initiator
from devicehost_server.model.io_manager import IoManager
from devicehost_server.server import DeviceServer, ServerConfig


def results(effort: Effort) -> Iterator[Result]:
    """Measure reads and writes of all sizes."""
    logs.set_up("warning", "console")
    with tempfile.TemporaryDirectory(prefix="devicehost-bench-") as folder:
        listener = UnixListener(Path(folder) / "devices.sock")  # nobody will connect
        server = DeviceServer(ServerConfig(unix=listener), DeviceTypes([Ledger]))
        server.devices.plug(Ledger.type_name, {})
        cases = [
            Case(
                f"inprocess.{operation}{size}",
                f"{size}-byte {operation} by IoManager, as in the server",
                calls(server.io, size),
            )
            for operation, calls in (("read", _reads), ("write", _writes))
            for size in (*SIZES, LONG)
        ]
        unarmed = server.io.initiator(0)  # what all ways make their accesses by
        note = "4-byte read by an initiator, with nothing armed"
        cases.append(
            Case("inprocess.read4.unarmed", note, _reads(unarmed, 4), beside="inprocess.read4")
        )
        found = measure(cases, effort)
        server.stop()
    return found.results()


def _reads(io: IoManager | Initiator, size: int) -> Callable[[int], None]:
    data = memoryview(bytearray(size))

    def read(times: int) -> None:
        mmio_read = io.mmio_read
        for _ in repeat(None, times):
            mmio_read(ADDRESS, data)

    return read


def _writes(io: IoManager, size: int) -> Callable[[int], None]:
    data = bytes(size)

    def write(times: int) -> None:
        mmio_write = io.mmio_write
        for _ in repeat(None, times):
            mmio_write(ADDRESS, data)

    return write
