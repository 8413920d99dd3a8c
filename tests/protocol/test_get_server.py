"""SessionService.GetServer: who the server is."""

from __future__ import annotations

import os
import platform
import threading
import time
from importlib.metadata import version
from pathlib import Path

from daemonlab import Lab, serving, wait_until
from devicehost.v1 import session_service_pb2 as pb
from devicehost_client import DeviceHost
from testdevices import Blocker
from wire import CALL_S, RawStream, mmio_read


def test_the_server_says_who_it_is(host: DeviceHost) -> None:
    server = host.server()
    assert server.version == version("devicehost")
    assert server.pid == os.getpid()
    assert server.state == pb.SERVER_STATE_SERVING
    assert set(server.features) >= {"interrupt-generation", "local-socket", "string-pio"}
    assert ("ring" in server.features) == (platform.machine() == "x86_64")
    assert server.instance_id
    assert abs(server.start_time.ToNanoseconds() / 1e9 - time.time()) < 60
    assert host.server() == server


def test_each_start_is_another_instance(tmp_path: Path) -> None:
    ids = set()
    for _ in range(3):
        with serving(tmp_path) as lab:
            ids.add(lab.host().server().instance_id)
    assert len(ids) == 3


def test_a_server_that_stops_says_so_as_long_as_it_answers(lab: Lab, host: DeviceHost) -> None:
    base = host.hotplug.plug("blocker", device_id="b").resources[0].mmio.base
    device = lab.server.devices.device("b")
    assert isinstance(device, Blocker)
    with RawStream(lab.channel()) as stream:
        stream.send(mmio_read(1, base, 1))
        assert device.entered.wait(CALL_S)
        stopping = threading.Thread(target=lab.server.stop)
        stopping.start()
        wait_until(lambda: host.server().state == pb.SERVER_STATE_DRAINING)
        device.release.set()
        stopping.join()
