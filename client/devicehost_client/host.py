"""`DeviceHost`: the one object that a VMM holds.

    with connect("unix:/run/vm1/devices.sock") as host:
        host.hotplug.plug("uart16550", {"chardev": "file:/tmp/console.log"})
        host.memory.add(0, ram.size, ram.fd)
        host.interrupts.start(on_level=vm.set_irq_line)
        vm.run(host.vcpu(0))

Accesses take the fastest way that both sides offer: the shared-memory ring, the local
socket, or a gRPC stream. `host.transport` says which it is.

Each vCPU takes a port of its own, `vcpu(n)`, and makes its accesses through it, on its
thread. The host itself makes single accesses as well, for tools: from any thread, one at
a time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc

from devicehost.v1 import io_service_pb2, session_service_pb2
from devicehost.v1.io_service_pb2_grpc import IoServiceStub
from devicehost.v1.session_service_pb2_grpc import SessionServiceStub
from devicehost_client.endpoint import Tls, local_sockets, open_channel
from devicehost_client.errors import ConnectionLost
from devicehost_client.hotplug import Hotplug
from devicehost_client.interrupts import Interrupts
from devicehost_client.irqfds import IrqFds
from devicehost_client.memory import Memory
from devicehost_client.policy import Policy
from devicehost_client.resources import Resources
from devicehost_client.rpc import call, pages
from devicehost_client.transports import TOOL_VCPU, Transport
from devicehost_client.transports.grpc_stream import GrpcStreamTransport
from devicehost_client.transports.local import LocalTransport
from devicehost_client.vcpu import Vcpu

if TYPE_CHECKING:
    from devicehost_client.debug import Debug

_log = logging.getLogger(__name__)

ACCESS_TIMEOUT_S = 5.0
SPIN_S = 100e-6

_TIMEOUTS_S = (0.001, 3600)
_SPINS_S = (0, 0.01)

TRANSPORTS = ("auto", "ring", "socket", "grpc-stream")
"""The ways for accesses: the best there is, or one of them."""


@dataclass(frozen=True, slots=True)
class AccessOptions:
    """How accesses are made; see `connect`."""

    policy: Policy
    transport: str
    timeout_s: float
    spin_s: float
    on_new_server: Callable[[], None] | None


def connect(
    endpoint: str,
    *,
    policy: Policy | None = None,
    access_timeout_s: float = ACCESS_TIMEOUT_S,
    tls: Tls | None = None,
    on_new_server: Callable[[], None] | None = None,
    transport: str = "auto",
    spin_s: float = SPIN_S,
) -> DeviceHost:
    """Connect to a device server.

    Args:
        endpoint: `unix:PATH` or `tcp:HOST:PORT`.
        policy: what a guest sees of accesses that fail; by default all ones.
        access_timeout_s: how long an access may take before the policy answers it, in
            seconds, 0.001 to 3600.
        tls: who we are, for TCP.
        on_new_server: called when the server turns out to be another one than before: it
            was restarted, and its devices are new. No vCPU's access goes there until it
            returns, but over gRPC only that of the vCPU on whose thread it is called.
        transport: `ring`, `socket` or `grpc-stream` for that and no other way; `auto` for
            the first of them that both sides offer.
        spin_s: the longest that an access looks for its end before its thread sleeps, in
            seconds, up to 0.01; 0 to sleep at once. By the ring and the socket only.

    Raises:
        ConnectionLost: there is no server at the endpoint, or it doesn't offer `transport`.
        RemoteError: it doesn't want us.
        ValueError: the endpoint isn't one, there is no such transport, or a time is too
            short or too long.
    """
    if transport not in TRANSPORTS:
        allowed = ", ".join(TRANSPORTS)
        raise ValueError(f"transport {transport!r} is not allowed; allowed: {allowed}")
    _check_time("access_timeout_s", access_timeout_s, *_TIMEOUTS_S)
    _check_time("spin_s", spin_s, *_SPINS_S)
    options = AccessOptions(policy or Policy(), transport, access_timeout_s, spin_s, on_new_server)
    channel = open_channel(endpoint, tls)
    try:
        return DeviceHost(endpoint, channel, options)
    except BaseException:
        channel.close()
        raise


def _check_time(name: str, seconds: float, least: float, most: float) -> None:
    if not least <= seconds <= most:  # nor is it, if it is no number
        raise ValueError(f"{name} {seconds:g} is not allowed; allowed: {least:g} to {most:g}")


def _is_socket(path: Path) -> bool:
    try:
        return path.is_socket()
    except OSError:  # not ours to look at
        return False


class DeviceHost:
    """A connection to a device server; `connect` makes it.

    Attributes:
        hotplug: devices come and go.
        resources: the pools.
        interrupts: delivery of interrupts to callbacks, or to eventfds.
        memory: the guest's memory, shared with the devices.
        debug: remote debugging: trace, breakpoints, recording, and more.
        transport: the way that accesses take: `ring`, `socket` or `grpc-stream`.
    """

    def __init__(self, endpoint: str, channel: grpc.Channel, options: AccessOptions) -> None:
        self._channel = channel
        self._options = options
        self._session = SessionServiceStub(channel)
        self._io = IoServiceStub(channel)
        self._lock = threading.Lock()
        # Re-entrant: an access may find a new server, whose callback makes accesses.
        self._tool_lock = threading.RLock()
        self._vcpus: dict[int, Vcpu] = {}
        self._irqfds = IrqFds()
        self.hotplug = Hotplug(channel)
        self.resources = Resources(channel)
        self.interrupts = Interrupts(channel, self._irqfds)
        self.memory = Memory()
        server = self.server()
        self._instance_id = server.instance_id
        self._transport = self._open_transport(local_sockets(endpoint, server.local_socket))
        self.transport = self._transport.name

    def server(self) -> session_service_pb2.GetServerResponse:
        """Ask the server who it is.

        Raises:
            ConnectionLost: it isn't there.
        """
        response: session_service_pb2.GetServerResponse = call(
            self._session.GetServer, session_service_pb2.GetServerRequest()
        )
        return response

    @cached_property
    def debug(self) -> Debug:
        """Remote debugging: trace, breakpoints, recording, and more."""
        # A VMM that runs its guest has no use for it, nor for what it needs.
        from devicehost_client.debug import Debug  # noqa: PLC0415 # see above

        return Debug(self._channel)

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
                self._vcpus[index] = Vcpu(index, queue, self._options.policy)
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
        self._irqfds.close()
        self.memory.close()
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

    def _open_transport(self, sockets: Sequence[Path]) -> Transport:
        """Open the way that was asked for, or the best there is."""
        wanted = self._options.transport
        if wanted != "grpc-stream":
            try:
                return self._open_local(sockets)
            except ConnectionLost as error:
                if wanted != "auto":
                    raise
                _log.info("accesses go over gRPC: %s", error)
        return GrpcStreamTransport(
            self._channel,
            self._options.timeout_s,
            on_opened=self._opened,
            after_access=self.interrupts.wait_for,
        )

    def _open_local(self, sockets: Sequence[Path]) -> LocalTransport:
        """Open the local way.

        Raises:
            ConnectionLost: there is none.
        """
        path = next((path for path in sockets if _is_socket(path)), None)
        if path is None:
            looked = " or ".join(map(str, sockets))
            raise ConnectionLost(f"no local socket: {looked}" if looked else "no local socket")
        wanted = self._options.transport
        local = LocalTransport(
            path,
            use_ring=wanted != "socket",
            timeout_s=self._options.timeout_s,
            spin_s=self._options.spin_s,
            handed_over=(self.memory, self._irqfds),
            dma=self.memory,
            on_opened=self._opened,
            after_access=self.interrupts.wait_for,
        )
        problem = ""
        if local.instance_id != self._instance_id:
            problem = "is another server's"
        elif wanted == "ring" and local.name != "ring":
            problem = "offers no ring"
        if problem:
            local.close()
            raise ConnectionLost(f"local socket {path} {problem}")
        self.memory.use(local)
        self._irqfds.use(local)
        self.interrupts.on_started = local.watch_interrupts
        return local

    def _opened(self, instance_id: str) -> None:
        """Notice that the server is another one."""
        with self._lock:
            is_new = instance_id != self._instance_id
            self._instance_id = instance_id
        if is_new and self._options.on_new_server is not None:
            self._options.on_new_server()
