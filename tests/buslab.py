"""A vfio-user client of the bus, bare: the session, and a socket. One request at a time."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from daemonlab import WAIT_S, Lab, wait_until
from devicehost.bus_regions import (
    DOORBELL_OFFSET,
    IRQ_GSI,
    LIMITS,
    OPEN_QUEUE,
    REGION_MMIO,
    REGION_RING,
    REGION_STATUS,
)
from devicehost.ring.layout import (
    ADDRESS,
    COMPLETION,
    ENTRIES,
    ENTRY_SIZE,
    WHAT,
    Operation,
)
from devicehost.vfio_user import (
    BadHandshake,
    ClientSession,
    DmaFlags,
    DmaMap,
    Failed,
    GetRegionInfo,
    GetRegionIoFds,
    IoEventFd,
    IrqAction,
    IrqData,
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

READ_WRITE = DmaFlags.READ | DmaFlags.WRITE


class Client:
    """A client. It takes what the server sends it while it waits for a reply.

    Attributes:
        opened: what became of its VERSION.
        socket: its socket.
        session: its session.
    """

    def __init__(self, path: Path | str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(WAIT_S)
        self.socket.connect(str(path))
        self.session = ClientSession(LIMITS)
        self.socket.sendall(self.session.propose().data)
        [self.opened] = self.session.receive_data(self.socket.recv(4096))

    def __enter__(self) -> Self:
        assert isinstance(self.opened, Negotiated), self.opened
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, payload: RequestPayload, *fds: int, posted: bool = False) -> int:
        """Send a request; return its id."""
        outgoing = self.session.request(payload, fds, posted=posted)
        socket.send_fds(self.socket, [outgoing.data], list(fds))
        return outgoing.message_id

    def receive(self) -> list[Any]:
        """Return the events of one read."""
        data, received, _, _ = socket.recv_fds(self.socket, 1 << 21, LIMITS.max_msg_fds)
        return list(self.session.receive_data(data, received) if data else [])

    def call(self, payload: RequestPayload, *fds: int) -> Reply | Failed:
        """Make a request; return its only answer."""
        self.send(payload, *fds)
        while not (events := self.receive()):
            pass
        [event] = events
        assert isinstance(event, Reply | Failed)
        return event

    def ask(self, payload: RequestPayload, *fds: int) -> Reply:
        """Make a request that has to succeed."""
        answer = self.call(payload, *fds)
        assert isinstance(answer, Reply), answer
        return answer

    def refused(self, payload: RequestPayload, *fds: int) -> int:
        """Make a request that has to fail; return the error number."""
        answer = self.call(payload, *fds)
        assert isinstance(answer, Failed), answer
        return answer.errno

    def read(self, address: int, count: int = 4, region: int = REGION_MMIO) -> bytes:
        data = self.ask(RegionRead(region, address, count)).payload
        assert isinstance(data, RegionData)
        return data.data

    def write(self, address: int, data: bytes, region: int = REGION_MMIO) -> None:
        self.ask(RegionWrite(region, address, data))

    def map(self, base: int, size: int, fd: int, offset: int = 0) -> None:
        self.ask(DmaMap(base, size, READ_WRITE, offset), fd)

    def connect_irq(self, gsi: int, *eventfds: int) -> None:
        request = SetIrqs(IRQ_GSI, gsi, len(eventfds), IrqAction.TRIGGER, IrqData.EVENTFD)
        self.ask(request, *eventfds)


class RingQueue:
    """Queue 0 of a client's ring, by the layout alone: one access at a time."""

    def __init__(self, client: Client) -> None:
        region = client.ask(GetRegionInfo(REGION_RING))
        assert isinstance(region.payload, RegionInfo)
        bells = client.ask(GetRegionIoFds(REGION_RING, 4096))
        assert isinstance(bells.payload, RegionIoFds)
        first = bells.payload.sub_regions[0]
        assert first.offset == DOORBELL_OFFSET
        assert isinstance(first, IoEventFd)
        self._fds = (*region.fds, *bells.fds)
        self._doorbell = bells.fds[first.fd_index]
        self._memory = mmap.mmap(region.fds[0], region.payload.size)
        self._words = memoryview(self._memory).cast("Q")
        self._sequence = 0
        client.write(OPEN_QUEUE, bytes(8), REGION_STATUS)

    def start_read(self, address: int, size: int = 4) -> int:
        """Ask for a read; return the index of the word that will say that it was made."""
        self._sequence += 1
        entry = (ENTRIES + self._sequence * ENTRY_SIZE) // 8
        self._words[entry + ADDRESS] = address
        self._words[entry + WHAT] = Operation.MMIO_READ | size << 8
        self._words[entry] = self._sequence
        os.eventfd_write(self._doorbell, 1)
        return entry + COMPLETION

    def is_done(self, completion: int) -> bool:
        return self._words[completion] != 0

    def read(self, address: int) -> tuple[bool, int]:
        """Make a read of 4 bytes; return whether it failed, and its value or status."""
        completion = self.start_read(address)
        wait_until(lambda: self.is_done(completion))
        if self._words[completion] & 1:
            return True, self._words[completion + 2] >> 32
        return False, self._words[completion + 3] & 0xFFFF_FFFF

    def close(self) -> None:
        self._words.release()
        self._memory.close()
        for fd in self._fds:
            os.close(fd)


def memfd(size: int, *, sealed: bool = True) -> int:
    """Return a memfd; a sealed one can't be made shorter."""
    fd = os.memfd_create("guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    if sealed:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


def local_socket(path: Path) -> Path:
    return path.with_name(f"{path.name}.vfio-user")


def plug(lab: Lab, type_name: str, **config: str) -> tuple[int, Any]:
    """Plug a device; return where it is, and the device."""
    info = lab.server.devices.plug(type_name, config)
    mmio = info.resources.get_mmio_address_ranges()[0]
    return mmio.base, lab.server.devices.device(info.id)


def error_of(client: Client) -> str:
    """What a client was told instead of a welcome."""
    assert isinstance(client.opened, Violation), client.opened
    assert isinstance(client.opened.fault, BadHandshake)
    client.close()
    return str(client.opened.fault)


def client_threads() -> list[str]:
    names = ("local client", "ring", "let go", "turned away")
    return [each.name for each in threading.enumerate() if each.name in names]
