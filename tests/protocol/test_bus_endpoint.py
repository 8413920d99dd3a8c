"""The bus endpoint, as a vfio-user client sees it: a real socket, and the client's session."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from errno import EBUSY, ENODEV
from pathlib import Path

import pytest

from daemonlab import WAIT_S, wait_until
from devicehost.bus_regions import GSI_COUNT, IRQ_GSI, LIMITS, REGION_MMIO, REGION_RING
from devicehost.vfio_user import (
    BadHandshake,
    ClientSession,
    DeviceInfo,
    DmaFlags,
    DmaMap,
    DmaUnmap,
    Failed,
    GetDeviceInfo,
    GetIrqInfo,
    GetRegionInfo,
    GetRegionIoFds,
    IrqAction,
    IrqData,
    IrqInfo,
    Negotiated,
    RegionData,
    RegionInfo,
    RegionIoFds,
    RegionRead,
    RegionWrite,
    Reply,
    RequestPayload,
    SetIrqs,
    Violation,
)
from devicehost_server.endpoints.sockets import BusSocket
from devicehost_server.model.errors import MemoryNotMapped
from devicehost_server.model.guest_memory import GuestMemory
from devicehost_server.model.interrupts import InterruptController
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.resources import MmioAddressRange
from testdevices import Register, RegisterConfig

BASE = 0xD000_0000


class Server:
    """A bus with one device, on a socket."""

    def __init__(self, directory: Path) -> None:
        self.io = IoManager()
        self.interrupts = InterruptController()
        self.memory = GuestMemory()
        self.io.register_device_io(
            Register(RegisterConfig(base=BASE, size=0x1000)), [MmioAddressRange(BASE, 0x1000)]
        )
        self.path = directory / "bus.sock"
        self.socket = BusSocket(
            self.path, 0o600, None, io=self.io, interrupts=self.interrupts, memory=self.memory
        )


class Client:
    """A vfio-user client, one request at a time."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(WAIT_S)
        self.socket.connect(str(path))
        self.session = ClientSession(LIMITS)
        self.socket.sendall(self.session.propose().data)
        [self.opened] = self.session.receive_data(self.socket.recv(4096))

    def call(self, payload: RequestPayload, *fds: int) -> Reply | Failed:
        outgoing = self.session.request(payload, fds)
        socket.send_fds(self.socket, [outgoing.data], list(fds))
        data, received, _, _ = socket.recv_fds(self.socket, 1 << 16, LIMITS.max_msg_fds)
        [event] = self.session.receive_data(data, received)
        assert isinstance(event, Reply | Failed)
        return event

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    yield running
    running.socket.close()
    assert not running.path.exists()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    connected = Client(server.path)
    assert isinstance(connected.opened, Negotiated)
    yield connected
    connected.close()


def test_the_bus_is_a_platform_device_whose_offsets_are_addresses(client: Client) -> None:
    info = client.call(GetDeviceInfo())
    assert isinstance(info, Reply)
    assert isinstance(info.payload, DeviceInfo)
    assert (info.payload.num_regions, info.payload.num_irqs) == (4, 1)
    irqs = client.call(GetIrqInfo(IRQ_GSI))
    assert isinstance(irqs, Reply)
    assert isinstance(irqs.payload, IrqInfo)
    assert irqs.payload.count == GSI_COUNT
    assert isinstance(client.call(RegionWrite(REGION_MMIO, BASE + 4, b"abcd")), Reply)
    found = client.call(RegionRead(REGION_MMIO, BASE + 4, 4))
    assert isinstance(found, Reply)
    assert found.payload == RegionData(b"abcd")


def test_an_access_without_a_device_fails_and_the_next_one_works(client: Client) -> None:
    failed = client.call(RegionRead(REGION_MMIO, 0x10, 4))
    assert isinstance(failed, Failed)
    assert failed.errno == ENODEV
    assert isinstance(client.call(RegionRead(REGION_MMIO, BASE, 4)), Reply)


def test_memory_that_a_client_shares_is_the_devices_until_it_goes(
    server: Server, client: Client
) -> None:
    fd = os.memfd_create("guest")
    os.ftruncate(fd, 0x2000)
    both = DmaFlags.READ | DmaFlags.WRITE
    assert isinstance(client.call(DmaMap(0x8000, 0x2000, both), fd), Reply)
    server.memory.write(0x8FFE, b"wxyz")
    assert os.pread(fd, 4, 0xFFE) == b"wxyz"
    assert isinstance(client.call(DmaMap(0x9000, 0x1000, both), fd), Failed), "it overlaps"
    assert isinstance(client.call(DmaUnmap(0x8000, 0x2000)), Reply)
    with pytest.raises(MemoryNotMapped):
        server.memory.read(0x8000, 1)
    assert isinstance(client.call(DmaMap(0x8000, 0x2000, both), fd), Reply)
    client.close()
    wait_until(lambda: not server.memory.blocks())
    os.close(fd)


def test_an_interrupt_signals_the_eventfd_that_is_connected_to_it(
    server: Server, client: Client
) -> None:
    fd = os.eventfd(0)
    connect = SetIrqs(IRQ_GSI, 4, 1, IrqAction.TRIGGER, IrqData.EVENTFD)
    assert isinstance(client.call(connect, fd), Reply)
    server.interrupts.line(4, "uart").set_level(asserted=True)
    ready, _, _ = select.select([fd], [], [], WAIT_S)
    assert ready
    assert os.eventfd_read(fd) == 1
    os.close(fd)


def test_the_ring_and_its_doorbells_come_with_its_region(client: Client) -> None:
    region = client.call(GetRegionInfo(REGION_RING))
    assert isinstance(region, Reply)
    assert isinstance(region.payload, RegionInfo)
    assert os.fstat(region.fds[0]).st_size == region.payload.size
    doorbells = client.call(GetRegionIoFds(REGION_RING, 4096))
    assert isinstance(doorbells, Reply)
    assert isinstance(doorbells.payload, RegionIoFds)
    assert len(doorbells.fds) == len(doorbells.payload.sub_regions) == LIMITS.max_msg_fds
    for fd in (*region.fds, *doorbells.fds):
        os.close(fd)


def test_a_second_client_is_refused_with_a_reason_and_the_first_goes_on(
    server: Server, client: Client
) -> None:
    second = Client(server.path)
    assert isinstance(second.opened, Violation)
    assert isinstance(second.opened.fault, BadHandshake)
    assert f"error {EBUSY}" in str(second.opened.fault)
    second.close()
    assert isinstance(client.call(RegionRead(REGION_MMIO, BASE, 4)), Reply)


def test_a_client_that_goes_leaves_no_descriptor_and_makes_room_for_the_next(
    server: Server,
) -> None:
    counts = []
    for _ in range(20):
        wait_until(lambda: server.socket._client is None)
        counts.append(len(list(Path("/proc/self/fd").iterdir())))
        client = Client(server.path)
        region = client.call(GetRegionInfo(REGION_RING))
        assert isinstance(region, Reply)
        os.close(region.fds[0])
        client.close()
    assert counts[-1] <= counts[1]
