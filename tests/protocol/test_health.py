"""grpc.health.v1.Health: what a load balancer, systemd or Kubernetes asks."""

from __future__ import annotations

import threading
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1.health_pb2_grpc import HealthStub

from daemonlab import Lab, serving, wait_until
from devicehost_client import DeviceHost
from testdevices import Blocker
from wire import CALL_S, RawStream, mmio_read

SERVING, NOT_SERVING = pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.NOT_SERVING

SERVICES = (
    "",
    "devicehost.v1.HotplugService",
    "devicehost.v1.InterruptService",
    "devicehost.v1.IoService",
    "devicehost.v1.ResourceService",
    "devicehost.v1.SessionService",
)


def check(lab: Lab, service: str = "") -> int:
    request = pb.HealthCheckRequest(service=service)
    status: int = HealthStub(lab.channel()).Check(request, timeout=CALL_S).status
    return status


@pytest.mark.parametrize("service", SERVICES)
def test_a_server_that_serves_is_healthy(lab: Lab, service: str) -> None:
    assert check(lab, service) == SERVING


def test_a_service_that_is_not_there_is_not_found(lab: Lab) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        check(lab, "devicehost.v1.Nothing")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_watch_sees_the_server_stop(lab: Lab, host: DeviceHost) -> None:
    base = host.hotplug.plug("blocker", device_id="b").resources[0].mmio.base
    device = lab.server.devices.device("b")
    assert isinstance(device, Blocker)
    watching = HealthStub(lab.channel()).Watch(pb.HealthCheckRequest(), timeout=CALL_S)
    assert next(watching).status == SERVING
    with RawStream(lab.channel()) as stream:
        stream.send(mmio_read(1, base, 1))
        assert device.entered.wait(CALL_S)
        stopping = threading.Thread(target=lab.server.stop)
        stopping.start()
        assert next(watching).status == NOT_SERVING
        assert {check(lab, service) for service in SERVICES} == {NOT_SERVING}
        device.release.set()
        stopping.join()
    with pytest.raises(grpc.RpcError):  # with the server the watch ends
        next(watching)


def test_a_watch_takes_the_place_of_a_stream_and_gives_it_back(tmp_path: Path) -> None:
    with serving(tmp_path, streams_max=1) as lab:
        stub = HealthStub(lab.channel())

        def watched() -> bool:
            watching = stub.Watch(pb.HealthCheckRequest(), timeout=CALL_S)
            try:
                return bool(next(watching).status == SERVING)
            except grpc.RpcError:
                return False
            finally:
                watching.cancel()

        for _ in range(5):
            wait_until(watched, "a place for a watch")
