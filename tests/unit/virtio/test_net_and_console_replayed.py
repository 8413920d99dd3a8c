"""In a replay nothing is opened, and what the driver sees is what it saw."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from daemonlab import wait_until
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
from replaylab import Bench, replayed

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


def drive(bench: Bench, device: VirtioDevice[Any]) -> int:
    """Set DRIVER_OK, without queues; return where the registers are."""
    base = device.get_assigned_resources().get_mmio_address_ranges()[0].base
    for status in (1, 3):
        bench.mmio_out(base + 0x70, status)
    bench.mmio_out(base + 0x24, 1)
    bench.mmio_out(base + 0x20, 1)  # VIRTIO_F_VERSION_1
    for status in (0xB, 0xF):
        bench.mmio_out(base + 0x70, status)
    return base


def read_config(bench: Bench, base: int, offset: int, size: int) -> int:
    """Read it as a driver does after an interrupt."""
    bench.mmio_in(base + 0x60)
    bench.mmio_out(base + 0x64, 3)
    bench.mmio_in(base + 0xFC)
    return bench.mmio_in(base + CONFIG + offset, size)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with capture_logs():
        running = Bench()
        yield running
        running.close()


def test_a_recording_of_a_link_that_comes_and_goes_replays(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "lan.sock"
    device = bench.plug("virtio-net", "net0", netdev=f"unix-listen:{path}")
    bench.begin()
    base = drive(bench, device)
    for _ in range(3):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.connect(bytes(path))
            wait_until(lambda: read_config(bench, base, 6, 2) == 1)
        wait_until(lambda: read_config(bench, base, 6, 2) == 0)
    assert replayed(bench.recording) == []


def test_a_recording_of_a_terminal_that_is_resized_replays(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "console"
    device = bench.plug("virtio-console", "console0", chardev=f"pty:{path}")
    bench.begin()
    base = drive(bench, device)
    terminal = os.open(path, os.O_RDWR | os.O_NOCTTY)
    try:
        for columns, rows in ((100, 40), (132, 43)):
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            wait_until(lambda: read_config(bench, base, 0, 4) == rows << 16 | columns)  # noqa: B023 # called now
        bench.mmio_out(base + CONFIG + 8, ord("!"))
    finally:
        os.close(terminal)
    assert replayed(bench.recording) == []
