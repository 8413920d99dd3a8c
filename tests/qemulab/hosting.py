"""Devices of a `devicehostd`, as QEMU attaches to them.

    with hosting(tmp_path) as server:
        disk = server.plug("virtio-blk", "disk0", file="disk.img")
        machine.qmp.device_add({**disk, "bus": "port0"})

Or, for a guest that runs already, and until the end of the block:

    with attached(machine, server, "virtio-blk", "disk0", file="disk.img"):
        machine.guest.run("mount /dev/vda /mnt")
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemonlab import Daemon, daemon
from qemulab.machine import Device, Machine


class Server:
    """A server of PCI functions.

    Attributes:
        daemon: its process.
        host: a client of its API.
    """

    def __init__(self, running: Daemon, folder: Path) -> None:
        self.daemon = running
        self.host = running.host()
        self._folder = folder

    def plug(self, type_name: str, device_id: str, **config: str | Path) -> Device:
        """Plug a function into the server, and return what QEMU attaches to it by."""
        socket = self._folder / f"{device_id}.pci"
        keys = {key.replace("_", "-"): str(value) for key, value in config.items()}
        keys["pci-socket"] = str(socket)
        self.host.hotplug.plug(type_name, keys, device_id=device_id)
        address = {"type": "unix", "path": str(socket)}
        return {"driver": "vfio-user-pci", "id": device_id, "socket": address}

    def unplug(self, device_id: str) -> None:
        """Take a function away."""
        self.host.hotplug.unplug(device_id)


@contextmanager
def hosting(folder: Path, *arguments: str, status: int | None = 0) -> Iterator[Server]:
    """Run a server.

    Args:
        folder: where its files go.
        arguments: of `devicehostd`.
        status: what it exits with at the end; None if the block ends it.
    """
    folder.mkdir(exist_ok=True)
    with daemon(folder, *arguments, status=status) as running:
        yield Server(running, folder)


@contextmanager
def attached(
    machine: Machine, server: Server, type_name: str, device_id: str, **config: str | Path
) -> Iterator[None]:
    """Plug a function into the server and into the machine's first root port; then back."""
    device = server.plug(type_name, device_id, **config)
    machine.qmp.device_add({**device, "bus": "port0"})
    yield
    machine.qmp.device_del(device_id)
    server.unplug(device_id)
