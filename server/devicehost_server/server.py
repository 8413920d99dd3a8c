"""One device server: the parts of one VM, put together, its gRPC API and its local sockets.

    server = DeviceServer(ServerConfig(unix=UnixListener(Path("/run/vm1/devices.sock"))))
    server.start()
    ...
    server.stop()

It is what `devicehostd` runs. A test, or a VMM that wants its devices in its own process,
uses it the same way.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from devicehost.v1 import (
    debug_service_pb2,
    debug_service_pb2_grpc,
    hotplug_service_pb2,
    hotplug_service_pb2_grpc,
    interrupt_service_pb2,
    interrupt_service_pb2_grpc,
    io_service_pb2,
    io_service_pb2_grpc,
    resource_service_pb2,
    resource_service_pb2_grpc,
    session_service_pb2,
    session_service_pb2_grpc,
)
from devicehost_server import VERSION
from devicehost_server.allocation import PoolConfig, ResourceManager
from devicehost_server.debug.debugger import Debugger
from devicehost_server.debug.inspection import Look
from devicehost_server.debug.views import (
    DevicesView,
    interrupts_view,
    memory_view,
    ranges_view,
    resources_view,
    threads_view,
)
from devicehost_server.device_info import SavedDevice
from devicehost_server.device_manager import DeviceManager
from devicehost_server.devices.doors import Doors
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.endpoints.bus import Bus
from devicehost_server.endpoints.pci_sockets import PciSockets
from devicehost_server.endpoints.sockets import VfioUserSocket
from devicehost_server.inherited import InheritedSocket
from devicehost_server.listeners import TcpListener, UnixListener, bind_tcp, bind_unix
from devicehost_server.model.clock import SystemClock
from devicehost_server.model.guest_memory import GuestMemory
from devicehost_server.model.holds import Holds
from devicehost_server.model.interrupts import InterruptController
from devicehost_server.model.io_manager import IoManager
from devicehost_server.services.debug_service import DebugService
from devicehost_server.services.feeds import Feeds
from devicehost_server.services.gate import Gate
from devicehost_server.services.hotplug_service import HotplugService
from devicehost_server.services.idempotency import RequestLog
from devicehost_server.services.interrupt_service import InterruptService
from devicehost_server.services.io_service import IoService
from devicehost_server.services.resource_service import ResourceService
from devicehost_server.services.session_service import SessionService
from devicehost_server.unix_socket import SocketPath

_log = structlog.get_logger(__name__)

SPIN_S = 200e-6
"""The longest that the local ways look for the next access, unless told otherwise."""

UNARY_WORKERS = 4
"""Workers that streams can't take, so that other calls always find one."""

_SERVICES = frozenset(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (hotplug_service_pb2, "HotplugService"),
        (interrupt_service_pb2, "InterruptService"),
        (io_service_pb2, "IoService"),
        (resource_service_pb2, "ResourceService"),
        (session_service_pb2, "SessionService"),
    )
)
_DEBUG = debug_service_pb2.DESCRIPTOR.services_by_name["DebugService"].full_name


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How a server is set up.

    Attributes:
        unix: the Unix socket of the gRPC API, if any.
        local: the local socket (vfio-user), if any.
        fd: an inherited Unix socket, if any.
        tcp: the TCP socket to listen on, if any.
        allowed_names: names in certificates of TCP clients that may call; empty for all
            that the authority vouches for.
        streams_max: how many streams (vCPUs and watches) may be open at once.
        access_timeout_s: how long one access may take, in seconds.
        drain_timeout_s: how long to wait for accesses in flight, in seconds.
        debug: whether to offer DebugService.
        debug_names: names in certificates of TCP clients that may use it; empty for all that
            may call.
        flight_recorder: how many of the last accesses to keep from the start; 0 for none.
        dump_folder: where the flight recorder is dumped when a device faults, if anywhere.
        spin_s: the longest that the local ways look for the next access before they sleep,
            in seconds; 0 to sleep at once.
        pools: what there is to allocate.
    """

    unix: UnixListener | None = None
    local: UnixListener | None = None
    fd: int | None = None
    tcp: TcpListener | None = None
    allowed_names: frozenset[str] = frozenset()
    streams_max: int = 60
    access_timeout_s: float = 1.0
    drain_timeout_s: float = 5.0
    spin_s: float = SPIN_S
    debug: bool = True
    debug_names: frozenset[str] = frozenset()
    flight_recorder: int = 0
    dump_folder: Path | None = None
    pools: PoolConfig = field(default_factory=PoolConfig)


class DeviceServer:
    """A device server in this process.

    Attributes:
        io: the bus.
        resources: the pools.
        interrupts: the state of all interrupts.
        memory: the guest's memory, as far as a client of the local socket shares it.
        devices: the devices.
        debugger: sees what passes, and steps in.
        tcp_port: the TCP port that it listens on, or None.

    Raises:
        ListenError: it can't listen where it should.
    """

    def __init__(self, config: ServerConfig, types: DeviceTypes | None = None) -> None:
        self._config = config
        self.io = IoManager(
            drain_timeout_s=config.drain_timeout_s, lock_timeout_s=config.access_timeout_s
        )
        self.resources = ResourceManager(config.pools)
        self.interrupts = InterruptController()
        self._holds = Holds()
        self.memory = GuestMemory()
        self._clock = SystemClock(on_error=lambda error: _log.error("timer_failed", exc_info=error))
        doors = Doors()
        listener = config.local or config.unix or UnixListener(Path())
        self._functions = PciSockets(
            self.io,
            self.interrupts,
            doors,
            mode=listener.mode,
            group=listener.group,
            spin_s=config.spin_s,
            reset_timeout_s=config.access_timeout_s,
        )
        self.devices = DeviceManager(
            types=types or DeviceTypes(),
            io=self.io,
            resources=self.resources,
            interrupts=self.interrupts,
            memory=self.memory,
            clock=self._clock,
            on_fault=lambda device, error: _log.error(
                "device_close_failed", device=device, exc_info=error
            ),
            doors=doors,
            functions=self._functions,
        )
        self.debugger = Debugger(
            self.io,
            self.devices,
            self.interrupts,
            self._holds,
            dump_folder=config.dump_folder,
            lock_timeout_s=config.access_timeout_s,
        )
        self.debugger.set_flight_recorder(config.flight_recorder)
        self._gate = Gate(
            config.allowed_names or None,
            config.streams_max,
            of_service={_DEBUG: config.debug_names} if config.debug_names else {},
        )
        self._feeds = Feeds()
        self._health = health.HealthServicer()
        workers = ThreadPoolExecutor(
            config.streams_max + UNARY_WORKERS, thread_name_prefix="worker"
        )
        self._grpc = grpc.server(
            workers,
            interceptors=[self._gate],
            # Two servers must never share a port: the second is to fail.
            options=[("grpc.so_reuseport", 0)],
        )
        self._services = _SERVICES | {_DEBUG} if config.debug else _SERVICES
        self._instance_id = uuid.uuid4()
        self._started_s = time.monotonic()
        self._add_services()
        self._unix: SocketPath | None = None
        self._local: VfioUserSocket | None = None
        self._is_listening = False
        self._inherited: InheritedSocket | None = None
        self.tcp_port: int | None = None

    def listen(self) -> None:
        """Take the sockets, so that nobody else does. Clients wait until `start`.

        Devices are plugged after this: a server that finds its socket taken must not have
        touched what belongs to the other one, the file of a console say.

        Raises:
            ListenError: it can't listen where it should.
        """
        self._is_listening = True
        if self._config.unix is not None:
            self._unix = bind_unix(self._grpc, self._config.unix)
        if self._config.local is not None:
            self._local = VfioUserSocket(self._config.local, self._bus())
        if self._config.fd is not None:
            self._inherited = InheritedSocket(self._grpc, self._config.fd)
        if self._config.tcp is not None:
            self.tcp_port = bind_tcp(self._grpc, self._config.tcp)

    def start(self) -> None:
        """Serve; listen first, if that wasn't done. Returns at once.

        Raises:
            ListenError: it can't listen where it should.
        """
        if not self._is_listening:
            self.listen()
        self._grpc.start()
        if self._inherited is not None:
            self._inherited.start()
        if self._local is not None:
            self._local.start()
        self._set_health(health_pb2.HealthCheckResponse.SERVING)

    def stop(self, keep: Callable[[SavedDevice], None] | None = None) -> list[str]:
        """Take no new work, finish what is in flight, unplug everything, and close.

        Args:
            keep: given each device as it was at its end, the last plugged first.

        Returns:
            The devices that didn't end, or couldn't be saved, by id.
        """
        _log.info("draining")
        self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        if self._local is not None:
            self._local.drain()
        self._functions.drain()
        self._gate.drain()
        self.debugger.drain()  # no access may be held now
        self._feeds.drain()
        try:
            # Unplugging waits for accesses in flight; streams that are idle are then cut.
            failed = self.devices.close(keep)
            if self._local is not None:
                self._local.close()
            self._grpc.stop(grace=0.1).wait()
            self._clock.close()
        finally:
            self.close_sockets()
        _log.info("stopped")
        return failed

    def close_sockets(self) -> None:
        """Remove the sockets, whatever else is still going on."""
        if self._unix is not None:
            self._unix.close()
        if self._local is not None:
            self._local.unlisten()
        self._functions.unlisten()
        if self._inherited is not None:
            self._inherited.close()

    def _bus(self) -> Bus:
        """What clients of the local socket reach."""
        return Bus(
            self.io,
            self.interrupts,
            self._holds,
            self.memory,
            instance_id=self._instance_id.bytes,
            spin_s=self._config.spin_s,
        )

    def _show_state(self) -> None:
        """Have the debugger show what there is."""
        debugger, config = self.debugger, self._config
        tree = debugger.inspection
        tree.add(
            "server",
            lambda: {
                "version": VERSION,
                "instance_id": str(self._instance_id),
                "draining": self._gate.draining,
                "uptime_s": int(time.monotonic() - self._started_s),
                "flight_recorder": config.flight_recorder,
            },
        )
        tree.add(
            "devices",
            DevicesView(
                self.devices,
                self.io,
                debugger.registers,
                debugger.states,
                clients=self._functions.view,
            ),
        )
        tree.add("ranges", ranges_view(self.io))
        tree.add("interrupts", interrupts_view(self.interrupts, self.resources))
        tree.add("resources", resources_view(self.resources))
        tree.add("memory", memory_view(self.memory))
        tree.add("sessions", self._sessions)
        tree.add("debug", debugger.view)
        tree.add("threads", threads_view)

    def _sessions(self) -> Look:
        """Who is connected, for the debugger's tree."""
        local = self._local.view() if self._local is not None else None
        functions = self._functions.view()
        return {"streams": self._gate.streams, "local": local, "functions": functions}

    def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for service in ("", *self._services):
            self._health.set(service, status)

    def _add_services(self) -> None:
        requests = RequestLog()
        instance_id = str(self._instance_id)
        local = self._config.local
        io_service = IoService(
            self.io,
            self.interrupts,
            self._holds,
            instance_id=instance_id,
            access_timeout_s=self._config.access_timeout_s,
            gate=self._gate,
        )
        hotplug = HotplugService(self.devices, self.io.counts, requests, self._feeds)
        interrupts = InterruptService(self.interrupts, self._feeds)
        resources = ResourceService(self.resources, requests)
        session = SessionService(
            instance_id,
            lambda: self._gate.draining,
            local_socket=str(local.path.absolute()) if local else "",
        )
        server = self._grpc
        io_service_pb2_grpc.add_IoServiceServicer_to_server(io_service, server)
        hotplug_service_pb2_grpc.add_HotplugServiceServicer_to_server(hotplug, server)
        interrupt_service_pb2_grpc.add_InterruptServiceServicer_to_server(interrupts, server)
        resource_service_pb2_grpc.add_ResourceServiceServicer_to_server(resources, server)
        session_service_pb2_grpc.add_SessionServiceServicer_to_server(session, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._config.debug:
            debug = DebugService(self.debugger, self._feeds)
            debug_service_pb2_grpc.add_DebugServiceServicer_to_server(debug, server)
            self._show_state()
        reflected = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(reflected, server)
