"""Dumps of the flight recorder: one for a device that faults, beside files of others."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from daemonlab import wait_until
from devicehost.recording import Recording
from devicehost.recording.events import Access
from devicehost_server.debug import flight
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.model.errors import BadRequest, DeviceFault
from devicehost_server.server import DeviceServer, ServerConfig
from testdevices import FAULT, TEST_DEVICES

BASE = 0xD000_0000


def serving(folder: Path, device_ids: tuple[str, ...] = ("r",)) -> DeviceServer:
    """A server, which listens nowhere, with devices that can fail."""
    server = DeviceServer(
        ServerConfig(flight_recorder=100, dump_folder=folder), DeviceTypes(TEST_DEVICES)
    )
    for number, device_id in enumerate(device_ids):
        base = str(BASE + 0x1000 * number)
        server.devices.plug("register", {"base": base}, device_id=device_id)
    return server


def fail(server: DeviceServer, number: int = 0) -> None:
    with pytest.raises(DeviceFault):
        server.io.initiator(3).mmio_read(BASE + 0x1000 * number + FAULT, bytearray(4))


def wait_for_dumps() -> None:
    for thread in threading.enumerate():
        if thread.name == "flight dump":
            thread.join()


def test_a_device_that_faults_again_and_again_is_dumped_once(tmp_path: Path) -> None:
    server = serving(tmp_path / "dumps")
    for _ in range(50):
        fail(server)
    wait_for_dumps()
    (dump,) = (tmp_path / "dumps").iterdir()
    recording = Recording.open(dump)
    assert "'r' faulted" in recording.header.note
    first, *_ = [event for event in recording if isinstance(event, Access)]
    assert (first.address, first.vcpu) == (BASE + FAULT, 3)
    server.stop()


def test_the_oldest_dumps_go_but_no_file_of_anybody_else(tmp_path: Path) -> None:
    others = {f"{number:02}-boot.dhrec" for number in range(2 * flight.DUMPS_MAX)}
    for name in others:
        (tmp_path / name).write_bytes(b"mine")
    old = [f"20200101T00000{number % 10}.{number:06}-r.dhrec" for number in range(flight.DUMPS_MAX)]
    for name in old:
        (tmp_path / name).write_bytes(b"old")
    server = serving(tmp_path)
    fail(server)
    wait_for_dumps()
    found = {path.name for path in tmp_path.iterdir()}
    assert others <= found
    assert len(found - others) == flight.DUMPS_MAX
    assert min(old) not in found
    server.stop()


def test_a_dump_that_cannot_be_written_is_logged_and_no_trouble_of_the_guest(
    tmp_path: Path,
) -> None:
    (tmp_path / "dumps").write_bytes(b"a file")
    server = serving(tmp_path / "dumps")
    with capture_logs() as logs:
        fail(server)
        wait_for_dumps()
        wait_until(lambda: any(each["event"] == "flight_dump_failed" for each in logs))
    assert any(str(errno.EEXIST) in each.get("error", "") for each in logs)
    server.stop()


def test_no_more_is_kept_than_there_is_room_for(tmp_path: Path) -> None:
    server = serving(tmp_path)
    with pytest.raises(BadRequest, match="1000000"):
        server.debugger.set_flight_recorder(flight.FLIGHT_MAX + 1)
    server.debugger.set_flight_recorder(flight.FLIGHT_MAX)
    assert server.debugger.inspect("debug/flight_recorder/keeps", 0).value == "1000000"
    server.stop()
