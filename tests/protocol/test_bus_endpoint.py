"""The bus endpoint, as a vfio-user client sees it: a real socket, and the client's session."""

from __future__ import annotations

import os
import select
import uuid
from collections.abc import Iterator
from errno import EINVAL, ENODEV
from pathlib import Path

import pytest

from buslab import READ_WRITE, Client, RingQueue
from daemonlab import WAIT_S, wait_until
from devicehost.access_status import AccessStatus
from devicehost.bus_regions import (
    GSI_COUNT,
    INSTANCE_ID,
    IRQ_GSI,
    LIMITS,
    OPEN_QUEUE,
    POSTED_FAILURE,
    POSTED_FAILURES,
    REGION_MMIO,
    REGION_RING,
    REGION_STATUS,
    STATUS_SIZE,
)
from devicehost.vfio_user import (
    DeviceInfo,
    DmaMap,
    DmaUnmap,
    Failed,
    GetDeviceInfo,
    GetIrqInfo,
    GetRegionInfo,
    GetRegionIoFds,
    IrqInfo,
    RegionData,
    RegionInfo,
    RegionIoFds,
    RegionRead,
    RegionWrite,
    Reply,
)
from devicehost_server.endpoints.bus import Bus
from devicehost_server.endpoints.sockets import VfioUserSocket
from devicehost_server.model.errors import MemoryNotMapped
from devicehost_server.model.guest_memory import GuestMemory
from devicehost_server.model.holds import Holds
from devicehost_server.model.interrupts import InterruptController
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.resources import MmioAddressRange
from devicehost_server.unix_socket import UnixListener
from testdevices import Register, RegisterConfig

BASE = 0xD000_0000


class Server:
    """A bus with one device, on a socket."""

    def __init__(self, directory: Path) -> None:
        self.io = IoManager()
        self.interrupts = InterruptController()
        self.memory = GuestMemory()
        self.instance_id = uuid.uuid4().bytes
        self.io.register_device_io(
            Register(RegisterConfig(base=BASE, size=0x1000)), [MmioAddressRange(BASE, 0x1000)]
        )
        self.path = directory / "bus.sock"
        bus = Bus(self.io, self.interrupts, Holds(), self.memory, self.instance_id, spin_s=0)
        self.socket = VfioUserSocket(UnixListener(self.path), bus)
        self.socket.start()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    yield running
    running.socket.close()
    assert not running.path.exists()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.path) as connected:
        yield connected


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
    assert isinstance(client.call(DmaMap(0x8000, 0x2000, READ_WRITE), fd), Reply)
    server.memory.write(0x8FFE, b"wxyz")
    assert os.pread(fd, 4, 0xFFE) == b"wxyz"
    assert isinstance(client.call(DmaMap(0x9000, 0x1000, READ_WRITE), fd), Failed), "it overlaps"
    assert isinstance(client.call(DmaUnmap(0x8000, 0x2000)), Reply)
    with pytest.raises(MemoryNotMapped):
        server.memory.read(0x8000, 1)
    assert isinstance(client.call(DmaMap(0x8000, 0x2000, READ_WRITE), fd), Reply)
    client.close()
    wait_until(lambda: not server.memory.blocks())
    os.close(fd)


def test_an_interrupt_signals_the_eventfd_that_is_connected_to_it(
    server: Server, client: Client
) -> None:
    fd = os.eventfd(0)
    client.connect_irq(4, fd)
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


def test_an_access_by_the_ring_is_made_on_the_same_bus(client: Client) -> None:
    client.write(BASE + 8, b"\x78\x56\x34\x12")
    queue = RingQueue(client)
    assert queue.read(BASE + 8) == (False, 0x12345678)
    assert queue.read(0x10) == (True, AccessStatus.NO_DEVICE)
    queue.close()


def test_the_instance_is_the_same_for_all_clients(server: Server) -> None:
    for _ in range(2):
        with Client(server.path) as client:
            assert client.read(INSTANCE_ID, 16, REGION_STATUS) == server.instance_id


def test_posted_writes_that_fail_are_counted(client: Client) -> None:
    client.send(RegionWrite(REGION_MMIO, 0x10, b"abcd"), posted=True)
    client.send(RegionWrite(9, 0, b"abcd"), posted=True)
    assert client.read(POSTED_FAILURES, 8, REGION_STATUS) == (2).to_bytes(8, "little")
    status = client.read(POSTED_FAILURE, 8, REGION_STATUS)
    assert status == AccessStatus.BAD_ACCESS.to_bytes(8, "little")


@pytest.mark.parametrize(
    ("offset", "count"),
    [(OPEN_QUEUE, 8), (POSTED_FAILURE, 16), (INSTANCE_ID, 17), (STATUS_SIZE, 1), (1 << 40, 8)],
)
def test_what_is_no_status_register_can_not_be_read(
    client: Client, offset: int, count: int
) -> None:
    assert client.refused(RegionRead(REGION_STATUS, offset, count)) == EINVAL
