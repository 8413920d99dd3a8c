"""Where there is no guest memory to be had, as in a replay, nothing is opened."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from devicehost_server.allocation import ResourceManager
from devicehost_server.devices.base import DeviceContext
from devicehost_server.devices.virtio.console import Config as ConsoleConfig
from devicehost_server.devices.virtio.console import VirtioConsole
from devicehost_server.devices.virtio.device import VirtioDevice
from devicehost_server.devices.virtio.net import Config as NetConfig
from devicehost_server.devices.virtio.net import VirtioNet
from devicehost_server.model.clock import ManualClock
from devicehost_server.model.guest_memory import GuestMemory
from devicehost_server.model.interrupts import InterruptController

CONFIG = 0x100


class Stage:
    """A device without guest memory, and the ways into it."""

    def __init__(self, device: VirtioDevice[Any]) -> None:
        self.ways: dict[str, Callable[[], None]] = {}
        self.device = device
        resources = ResourceManager().allocate(list(device.get_resource_constraints()), "dut")
        context = DeviceContext(
            "dut",
            resources,
            ManualClock(),
            InterruptController(),
            GuestMemory(),
            entrance=self._entrance,
        )
        threads = threading.active_count()
        device.assign(context)
        device.start()
        assert threading.active_count() == threads

    def _entrance(self, name: str, callback: Callable[[], None]) -> Callable[[], None]:
        self.ways[name] = callback
        return callback

    def config(self, offset: int, size: int) -> int:
        data = bytearray(size)
        self.device.read(0, CONFIG + offset, data)
        return int.from_bytes(data, "little")


def test_a_network_card_opens_nothing_and_learns_of_the_link_by_its_entrances(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lan.sock"
    stage = Stage(VirtioNet(NetConfig(netdev=f"unix-listen:{path}")))
    assert not path.exists()
    assert stage.config(6, 2) == 0
    stage.ways["link-up"]()
    assert stage.config(6, 2) == 0, "the driver is told first"
    stage.ways["config"]()
    assert stage.config(6, 2) == 1
    stage.ways["link-down"]()
    stage.ways["config"]()
    assert stage.config(6, 2) == 0
    stage.device.restore({**stage.device.save(), "device": {"link": True}})
    assert stage.config(6, 2) == 1
    stage.device.close()


def test_a_console_opens_nothing_and_learns_of_its_size_by_its_entrances(tmp_path: Path) -> None:
    path = tmp_path / "console"
    stage = Stage(VirtioConsole(ConsoleConfig(chardev=f"unix:{path}", cols=80, rows=25)))
    assert not path.exists()
    change = (80 << 16 | 25) ^ (132 << 16 | 43)
    for bit in range(32):
        if change >> bit & 1:
            stage.ways[f"size-bit-{bit}"]()
    stage.ways["config"]()
    assert (stage.config(0, 2), stage.config(2, 2)) == (132, 43)
    data = bytearray(b"!\0\0\0")
    stage.device.write(0, CONFIG + 8, data)  # an emergency that nobody sees
    stage.device.close()
