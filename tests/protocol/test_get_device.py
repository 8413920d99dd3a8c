"""HotplugService.GetDevice: one device."""

from __future__ import annotations

import grpc

from daemonlab import refused
from devicehost.v1 import hotplug_service_pb2 as pb
from devicehost_client import DeviceHost

BASE = 0xD000_0000


def test_a_device_is_as_it_was_plugged(host: DeviceHost) -> None:
    plugged = host.hotplug.plug("register", {"base": str(BASE), "irq": "9"}, device_id="r")
    assert host.hotplug.get("r") == plugged


def test_what_is_not_there_is_refused(host: DeviceHost) -> None:
    with refused(grpc.StatusCode.NOT_FOUND, "NO_SUCH_DEVICE") as metadata:
        host.hotplug.get("r")
    assert metadata == {"device": "r"}


def test_its_accesses_are_counted(host: DeviceHost) -> None:
    host.hotplug.plug("register", {"base": str(BASE), "port": "0x700"}, device_id="r")
    for _ in range(3):
        host.mmio_read(BASE, 4)
    for _ in range(2):
        host.pio_write(0x700, 1, 0)
    host.mmio_read(BASE + 0xFF8, 1)  # raises
    host.mmio_read(BASE + 0xFFE, 4)  # never gets there
    accesses = host.hotplug.get("r").accesses
    assert accesses == pb.AccessCounts(reads=4, writes=2, faults=1)
