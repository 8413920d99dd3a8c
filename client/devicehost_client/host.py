"""`DeviceHost`: the one object that a VMM holds.

    with connect("unix:/run/vm1/devices.sock") as host:
        host.hotplug.plug("uart16550", {"chardev": "file:/tmp/console.log"})
        host.interrupts.start(on_level=vm.set_irq_line)
        vm.run(host.vcpu(0))

Each vCPU takes a port of its own, `vcpu(n)`, and makes its accesses through it, on its
thread. The host itself makes single accesses as well, for tools: from any thread, one at
a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import grpc

from devicehost.v1 import io_service_pb2, session_service_pb2
from devicehost.v1.io_service_pb2_grpc import IoServiceStub
from devicehost.v1.session_service_pb2_grpc import SessionServiceStub
from devicehost_client.endpoint import Tls, open_channel
from devicehost_client.hotplug import Hotplug
from devicehost_client.interrupts import Interrupts
from devicehost_client.policy import Policy
from devicehost_client.resources import Resources
from devicehost_client.rpc import call, pages
from devicehost_client.transports import Transport
from devicehost_client.transports.grpc_stream import GrpcStreamTransport
from devicehost_client.vcpu import Vcpu

ACCESS_TIMEOUT_S = 5.0
TOOL_VCPU = 0xFFFF_FFFF
"""The vCPU number of accesses that no vCPU makes."""


def connect(
    endpoint: str,
    *,
    policy: Policy | None = None,
    access_timeout_s: float = ACCESS_TIMEOUT_S,
    tls: Tls | None = None,
    on_new_server: Callable[[], None] | None = None,
) -> DeviceHost:
    """Connect to a device server.

    Args:
        endpoint: `unix:PATH` or `tcp:HOST:PORT`.
        policy: what a guest sees of accesses that fail; by default all ones.
        access_timeout_s: how long an access may take before the policy answers it.
        tls: who we are, for TCP.
        on_new_server: called, on the thread of an access, when the server turns out to
            be another one than before: it was restarted, and its devices are new.

    Raises:
        ConnectionLost: there is no server at the endpoint.
        RemoteError: it doesn't want us.
        ValueError: the endpoint isn't one.
    """
    channel = open_channel(endpoint, tls)
    try:
        return DeviceHost(channel, policy or Policy(), access_timeout_s, on_new_server)
    except BaseException:
        channel.close()
        raise


class DeviceHost:
    """A connection to a device server; `connect` makes it.

    Attributes:
        hotplug: devices come and go.
        resources: the pools.
        interrupts: delivery of interrupts to callbacks.
        transport: the way that accesses take, for people: `grpc-stream`.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        policy: Policy,
        access_timeout_s: float,
        on_new_server: Callable[[], None] | None,
    ) -> None:
        self._channel = channel
        self._policy = policy
        self._on_new_server = on_new_server
        self._session = SessionServiceStub(channel)
        self._io = IoServiceStub(channel)
        self._instance_id = self.server().instance_id
        self.hotplug = Hotplug(channel)
        self.resources = Resources(channel)
        self.interrupts = Interrupts(channel)
        self._transport: Transport = GrpcStreamTransport(
            channel,
            access_timeout_s,
            on_opened=self._opened,
            after_access=self.interrupts.wait_for,
        )
        self.transport = self._transport.name
        self._lock = threading.Lock()
        # Re-entrant: an access may find a new server, whose callback makes accesses.
        self._tool_lock = threading.RLock()
        self._vcpus: dict[int, Vcpu] = {}

    def server(self) -> session_service_pb2.GetServerResponse:
        """Ask the server who it is.

        Raises:
            ConnectionLost: it isn't there.
        """
        response: session_service_pb2.GetServerResponse = call(
            self._session.GetServer, session_service_pb2.GetServerRequest()
        )
        return response

    def vcpu(self, index: int) -> Vcpu:
        """Return the access port of vCPU `index`; the same one each time.

        Raises:
            ValueError: `index` isn't a number of 32 bits.
        """
        if not 0 <= index <= TOOL_VCPU:
            raise ValueError(f"vCPU {index} is not allowed; allowed: 0 to {TOOL_VCPU:#x}")
        with self._lock:
            if index not in self._vcpus:
                queue = self._transport.open_queue(index)
                self._vcpus[index] = Vcpu(index, queue, self._policy)
            return self._vcpus[index]

    def ranges(self) -> list[io_service_pb2.ListRangesResponse.Range]:
        """Return the address map: what traps to which device."""
        found = pages(self._io.ListRanges, io_service_pb2.ListRangesRequest())
        return [trapped for page in found for trapped in page.ranges]

    def mmio_read(self, address: int, size: int) -> int:
        """Read `size` bytes at a guest-physical address, as a number."""
        tool = self.vcpu(TOOL_VCPU)
        with self._tool_lock:
            return tool.mmio_read(address, size)

    def mmio_write(self, address: int, size: int, value: int) -> None:
        """Write a number of `size` bytes to a guest-physical address."""
        tool = self.vcpu(TOOL_VCPU)
        with self._tool_lock:
            tool.mmio_write(address, size, value)

    def pio_read(self, port: int, size: int) -> int:
        """Read `size` bytes (1, 2 or 4) from an I/O port, as a number."""
        tool = self.vcpu(TOOL_VCPU)
        with self._tool_lock:
            return tool.pio_read(port, size)

    def pio_write(self, port: int, size: int, value: int) -> None:
        """Write a number of `size` bytes (1, 2 or 4) to an I/O port."""
        tool = self.vcpu(TOOL_VCPU)
        with self._tool_lock:
            tool.pio_write(port, size, value)

    def close(self) -> None:
        """Send what is posted, and end the connection."""
        self.interrupts.close()
        self._transport.close()
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _opened(self, instance_id: str) -> None:
        """Notice that the server is another one."""
        with self._lock:
            is_new = instance_id != self._instance_id
            self._instance_id = instance_id
        if is_new and self._on_new_server is not None:
            self._on_new_server()
