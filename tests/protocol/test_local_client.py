"""The end of a client of the local socket, and of its server: what is answered, what is left."""

from __future__ import annotations

import os
import resource
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from errno import ESHUTDOWN
from pathlib import Path
from typing import Any

import pytest

from buslab import (
    Client,
    RingQueue,
    client_threads,
    error_of,
    local_socket,
    memfd,
    plug,
)
from daemonlab import WAIT_S, Lab, daemon, wait_until
from devicehost.access_status import AccessStatus
from devicehost.bus_regions import (
    LIMITS,
    REGION_MMIO,
)
from devicehost.v1 import session_service_pb2 as pb
from devicehost.vfio_user import (
    ClientSession,
    Failed,
    RegionData,
    RegionRead,
    RegionWrite,
    Reply,
)
from devicehost_client import connect

BASE = 0xD000_0000
SCRATCH = ("--device", f"scratch,id=s,base={BASE:#x}")


# A device that hangs.


def test_a_client_that_goes_while_a_device_hangs_makes_room_for_the_next(
    local_lab: Lab, local: Path
) -> None:
    hanging, blocker = plug(local_lab, "blocker")
    base, register = plug(local_lab, "register")
    memory = memfd(0x1000)
    with Client(local) as first:
        first.map(0x1000, 0x1000, memory)
        irq = os.eventfd(0)
        first.connect_irq(7, irq)
        # The write comes behind the read in the same message to the kernel.
        read = first.session.request(RegionRead(REGION_MMIO, hanging, 4))
        write = first.session.request(RegionWrite(REGION_MMIO, base, b"late"), posted=True)
        first.socket.sendall(read.data + write.data)
        assert blocker.entered.wait(WAIT_S)
    began = time.monotonic()
    with Client(local) as second:
        assert time.monotonic() - began < 5
        assert not local_lab.server.memory.blocks()
        second.map(0x1000, 0x1000, memory)
        assert second.read(base) == bytes(4)
        local_lab.server.interrupts.line(7, "x").pulse()
        assert not select.select([irq], [], [], 0)[0]
        blocker.release.set()
        wait_until(lambda: client_threads().count("local client") == 1)
        assert register.written == [], "what a client asked that is gone comes too late"
        assert second.read(base) == bytes(4)
    os.close(irq)
    os.close(memory)


def test_a_client_that_gives_up_while_a_device_hangs_may_come_again(
    local_lab: Lab, local: Path
) -> None:
    hanging, blocker = plug(local_lab, "blocker")
    base, _ = plug(local_lab, "register")
    for _ in range(3):
        with Client(local) as client:
            client.send(RegionRead(REGION_MMIO, hanging, 4))
            assert blocker.entered.wait(WAIT_S)
            blocker.entered.clear()
    with Client(local) as client:
        assert client.read(base) == bytes(4)
    blocker.release.set()
    wait_until(lambda: not client_threads())


def test_a_device_that_hangs_in_the_ring_keeps_nobody_out(local_lab: Lab, local: Path) -> None:
    hanging, blocker = plug(local_lab, "blocker")
    base, _ = plug(local_lab, "register")
    memory = memfd(0x1000)
    with Client(local) as first:
        first.map(0x1000, 0x1000, memory)
        queue = RingQueue(first)
        queue.start_read(hanging)
        assert blocker.entered.wait(WAIT_S)
    began = time.monotonic()
    with Client(local) as second:
        assert time.monotonic() - began < 2
        second.map(0x1000, 0x1000, memory)
        own = RingQueue(second)
        assert own.read(base) == (False, 0)
        blocker.release.set()
        wait_until(lambda: client_threads().count("ring") == 1)
        assert own.read(base) == (False, 0)
        own.close()
    queue.close()
    os.close(memory)


# Its end with the server.


def test_who_is_in_an_access_when_the_server_stops_is_answered(local_lab: Lab, local: Path) -> None:
    hanging, blocker = plug(local_lab, "blocker")
    base, _ = plug(local_lab, "register")
    host = local_lab.host(transport="grpc-stream")
    with Client(local) as client:
        queue = RingQueue(client)
        assert queue.read(base) == (False, 0)
        first = client.send(RegionRead(REGION_MMIO, hanging, 4))
        assert blocker.entered.wait(WAIT_S)
        stopping = threading.Thread(target=local_lab.server.stop)
        stopping.start()
        wait_until(lambda: host.server().state == pb.SERVER_STATE_DRAINING)
        assert queue.read(base) == (True, AccessStatus.DRAINING)
        assert f"error {ESHUTDOWN}" in error_of(Client(local))
        second = client.send(RegionRead(REGION_MMIO, base, 4))
        blocker.release.set()
        events: list[Any] = []
        while data := client.socket.recv(4096):
            events += client.session.receive_data(data)
        answered, refused = events
        assert isinstance(answered, Reply)
        assert (answered.message_id, answered.payload) == (first, RegionData(b"\x5a" * 4))
        assert isinstance(refused, Failed)
        assert (refused.message_id, refused.errno) == (second, ESHUTDOWN)
        stopping.join()
        queue.close()
    assert not local.exists()
    wait_until(lambda: not client_threads())


def test_a_client_that_is_idle_is_cut_when_the_server_stops(local_lab: Lab, local: Path) -> None:
    with Client(local) as client:
        began = time.monotonic()
        local_lab.server.stop()
        assert time.monotonic() - began < 2
        assert client.socket.recv(1) == b""
        assert not local.exists()


def test_a_client_that_takes_no_answers_does_not_keep_the_server(
    local_lab: Lab, local: Path
) -> None:
    base, _ = plug(local_lab, "register")
    with Client(local) as client:
        client.socket.settimeout(0)
        with suppress(BlockingIOError):
            while True:
                client.send(RegionRead(REGION_MMIO, base, 0x1000))
        began = time.monotonic()
        local_lab.server.stop()
        assert time.monotonic() - began < 5


# What it costs.


@pytest.mark.parametrize("spin", ["0", "0.01"])
def test_a_client_that_is_idle_costs_nothing(tmp_path: Path, spin: str) -> None:
    with daemon(tmp_path, "--spin", spin, *SCRATCH) as running:
        pid = running.process.pid
        with Client(local_socket(running.socket)) as client:
            queue = RingQueue(client)
            assert queue.read(BASE) == (False, 0)
            before = processor_seconds(pid)
            assert not select.select([client.socket], [], [], 1)[0]
            assert processor_seconds(pid) - before < 0.1
            queue.close()


def processor_seconds(pid: int) -> float:
    """The processor time that a process has taken (proc(5), stat: utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_server_without_a_descriptor_left_serves_again_when_it_has_one(tmp_path: Path) -> None:
    with daemon(tmp_path, *SCRATCH) as running:
        pid = running.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
        waiting = socket.socket(socket.AF_UNIX)
        waiting.settimeout(WAIT_S)
        waiting.connect(str(local_socket(running.socket)))
        wait_until(lambda: "accept_failed" in running.log.read_text())
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        session = ClientSession(LIMITS)
        waiting.sendall(session.propose().data)
        session.receive_data(waiting.recv(4096))
        assert session.agreement.minor == 9
        waiting.close()


# What is left of clients.


def footprint(pid: int) -> tuple[int, int, int]:
    """Open files, threads but for gRPC's own, and mappings of a process."""
    process = Path(f"/proc/{pid}")
    names = []
    for task in process.glob("task/*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            names.append((task / "comm").read_text().strip())
    return (
        len(list((process / "fd").iterdir())),
        names.count("devicehostd"),
        len((process / "maps").read_text().splitlines()),
    )


def live_once(path: Path, number: int, fds: tuple[int, int, int]) -> None:
    """Do all that a client does, and go: half of the time in the middle of something."""
    memory, *eventfds = fds
    client = Client(path)
    client.map(0x10_0000, 0x10_0000, memory)
    client.connect_irq(4, *eventfds)
    client.write(BASE, number.to_bytes(4, "little"))
    queue = RingQueue(client)
    assert queue.read(BASE) == (False, number)
    if number % 4 == 1:
        client.send(RegionRead(REGION_MMIO, BASE, 4))  # its answer isn't read
    elif number % 4 == 3:
        queue.start_read(BASE)
        client.socket.sendall(b"\1\0\2\0\60")  # half a message
    client.close()
    queue.close()


def test_a_thousand_clients_leave_nothing_behind(tmp_path: Path) -> None:
    memory, *eventfds = fds = (memfd(0x10_0000), os.eventfd(0), os.eventfd(0))
    with daemon(tmp_path, "--log-level", "warning", *SCRATCH) as running:
        path, pid = local_socket(running.socket), running.process.pid
        for number in range(50):  # what is kept for good is there then: arenas, say
            live_once(path, number, fds)
        files, threads, maps = settle(lambda: footprint(pid))
        for number in range(1000):
            live_once(path, number, fds)
        now = settle(lambda: footprint(pid))
        assert now[:2] == (files, threads)
        assert "memfd" not in Path(f"/proc/{pid}/maps").read_text()
        assert now[2] < maps + 20, "the allocator may have taken a bit more"
        with connect(running.endpoint) as host:
            assert host.server().pid == pid
    for fd in (memory, *eventfds):
        os.close(fd)


def settle(look: Callable[[], tuple[int, int, int]]) -> tuple[int, int, int]:
    """Return what `look` sees when it has seen the same thing for a while."""
    seen: deque[tuple[int, int, int]] = deque(maxlen=50)

    def is_settled() -> bool:
        seen.append(look())
        return len(seen) == seen.maxlen and len(set(seen)) == 1

    wait_until(is_settled)
    return seen[-1]
