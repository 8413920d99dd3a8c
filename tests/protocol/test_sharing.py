"""What a client on the same host shares with its servers: memory and eventfds."""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from daemonlab import WAIT_S, Daemon, Lab, daemon, wait_until
from devicehost_client import DeviceHost, NotLocal, RemoteError, Vcpu, connect
from devicehost_server.model.errors import MemoryNotMapped
from testdevices import COPY_IN, COPY_OUT, LEVEL

BASE = 0xD000_0000
LAST = BASE + 0xFF
"""The byte of a `scratch` whose bit 0 is the level of its interrupt."""
SCRATCH = f"scratch,id=s,base={BASE:#x},irq=9"
PAGE = 0x1000


@contextmanager
def memory_file(size: int, name: str = "guest") -> Iterator[int]:
    """A file of memory that nobody can cut short."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        yield fd
    finally:
        os.close(fd)


@pytest.fixture(params=["ring", "socket"])
def local(lab: Lab, request: pytest.FixtureRequest) -> DeviceHost:
    """A client by each of the local ways."""
    return lab.host(transport=request.param)


# Memory.


def test_memory_in_a_file_is_the_devices_until_it_is_taken_back(
    lab: Lab, local: DeviceHost
) -> None:
    with memory_file(4 * PAGE) as fd:
        local.memory.add(0x8000, 2 * PAGE, fd, offset=2 * PAGE)
        os.pwrite(fd, b"hello", 2 * PAGE + 7)
        assert lab.server.memory.read(0x8007, 5) == b"hello"
        lab.server.memory.write(0x9000, b"world")
        assert os.pread(fd, 5, 3 * PAGE) == b"world"
        local.memory.remove(0x8000, 2 * PAGE)
        with pytest.raises(MemoryNotMapped):
            lab.server.memory.read(0x8007, 1)
        with pytest.raises(RemoteError, match="no such block"):
            local.memory.remove(0x8000, 2 * PAGE)


def test_memory_that_is_not_writable_is_read_only_for_devices(lab: Lab, local: DeviceHost) -> None:
    with memory_file(PAGE) as fd:
        local.memory.add(0, PAGE, fd, writable=False)
        assert lab.server.memory.read(0, 4) == bytes(4)
        with pytest.raises(MemoryNotMapped):
            lab.server.memory.write(0, b"x")


def test_memory_that_is_shared_twice_is_refused_and_the_first_stays(
    lab: Lab, local: DeviceHost
) -> None:
    with memory_file(2 * PAGE) as fd:
        local.memory.add(0x8000, PAGE, fd)
        with pytest.raises(RemoteError) as caught:
            local.memory.add(0x7000, 2 * PAGE, fd)
        assert caught.value.reason == "MEMORY_MAPPED"
        assert caught.value.metadata == {
            "base": "0x7000",
            "size": "0x2000",
            "other_range": "0x8000-0x8fff",
        }
        assert [block.base for block in local.memory.blocks()] == [0x8000]
        assert lab.server.memory.read(0x8000, 1) == b"\0"


@pytest.mark.parametrize(
    ("base", "size"), [(0x123, PAGE), (0, 0), (0, 100), (-PAGE, PAGE), (1 << 64, PAGE)]
)
def test_memory_that_is_not_in_whole_pages_is_refused(
    local: DeviceHost, base: int, size: int
) -> None:
    with memory_file(PAGE) as fd, pytest.raises(RemoteError) as caught:
        local.memory.add(base, size, fd)
    assert caught.value.reason == "BAD_RANGE"
    assert not local.memory.blocks()


@pytest.mark.parametrize("offset", [5, -PAGE, (1 << 63) - PAGE, 1 << 63, 1 << 64])
def test_memory_at_an_offset_that_no_file_has_is_refused(local: DeviceHost, offset: int) -> None:
    with memory_file(PAGE) as fd, pytest.raises(RemoteError, match=r"offset .* is not allowed"):
        local.memory.add(0, PAGE, fd, offset=offset)
    assert not local.memory.blocks()


def test_a_file_that_does_not_hold_the_memory_is_refused(lab: Lab, local: DeviceHost) -> None:
    with memory_file(PAGE) as fd, pytest.raises(RemoteError) as caught:
        local.memory.add(0, 2 * PAGE, fd)
    assert caught.value.reason == "BAD_RANGE"
    assert not local.memory.blocks()
    assert not lab.server.memory.blocks()


def test_memory_of_this_process_goes_there_and_back_in_messages(
    lab: Lab, local: DeviceHost
) -> None:
    with mmap.mmap(-1, 3 << 20) as memory:
        buffer = memoryview(memory)
        local.memory.add_buffer(1 << 20, buffer)
        pattern = bytes(range(256)) * (len(memory) // 256)
        memory[:] = pattern
        assert lab.server.memory.read(1 << 20, 3 << 20) == pattern, "longer than one message"
        lab.server.memory.write((1 << 20) + 5, b"written")
        assert memory[5:12] == b"written"
        local.close()
        buffer.release()


def test_memory_that_was_released_without_being_taken_back_is_refused_to_devices(
    lab: Lab, local: DeviceHost
) -> None:
    lab.server.devices.plug("register", {"base": str(BASE)})
    local.memory.add_buffer(0, memoryview(bytearray(PAGE)))
    [block] = local.memory.blocks()
    assert block.buffer is not None
    block.buffer.release()
    with pytest.raises(MemoryNotMapped):
        lab.server.memory.read(0, 4)
    local.vcpu(0).mmio_write(BASE, 4, 7)
    assert local.mmio_read(BASE, 4) == 7, "the connection goes on"


@pytest.mark.parametrize("in_file", [True, False], ids=["file", "messages"])
def test_a_device_reaches_memory_in_the_middle_of_an_access(
    lab: Lab, local: DeviceHost, *, in_file: bool
) -> None:
    lab.server.devices.plug("copier", {"base": str(BASE)})
    content = bytearray(PAGE)
    with memory_file(PAGE) as fd:
        if in_file:
            local.memory.add(0x4000, PAGE, fd)
            os.pwrite(fd, b"12345678", 0x10)
        else:
            local.memory.add_buffer(0x4000, memoryview(content))
            content[0x10:0x18] = b"12345678"
        for vcpu in (local.vcpu(0), local.vcpu(1)):
            vcpu.mmio_write(BASE + COPY_IN, 8, 0x4010)
            read = bytearray(8)
            vcpu.mmio_read_into(BASE, read)
            assert read == b"12345678"
            vcpu.mmio_write(BASE + COPY_OUT, 8, 0x4800)
            found = os.pread(fd, 8, 0x800) if in_file else content[0x800:0x808]
            assert found == b"12345678"
            assert vcpu.last_failure is None


def test_memory_goes_with_the_client(lab: Lab, local: DeviceHost) -> None:
    with memory_file(PAGE) as fd:
        local.memory.add(0, PAGE, fd)
        assert lab.server.memory.blocks()
        local.close()
        wait_until(lambda: not lab.server.memory.blocks())


def test_memory_and_eventfds_need_a_local_way(lab: Lab) -> None:
    host = lab.host(transport="grpc-stream")
    with memory_file(PAGE) as fd:
        with pytest.raises(NotLocal):
            host.memory.add(0, PAGE, fd)
        with pytest.raises(NotLocal):
            host.memory.add_buffer(0, memoryview(bytearray(PAGE)))
        with pytest.raises(NotLocal):
            host.interrupts.attach({4: fd})
    assert not host.interrupts.takes_eventfds


# Interrupts.


def test_an_interrupt_signals_its_eventfd_before_the_access_that_caused_it_returns(
    lab: Lab, local: DeviceHost
) -> None:
    lab.server.devices.plug("register", {"base": str(BASE), "irq": "9"})
    fds = {gsi: os.eventfd(0, os.EFD_NONBLOCK) for gsi in range(24)}
    local.interrupts.attach(fds)
    for _ in range(100):
        local.vcpu(0).mmio_write(BASE + LEVEL, 1, 1)
        assert os.eventfd_read(fds[9]) == 1
        local.vcpu(0).mmio_write(BASE + LEVEL, 1, 0)
    local.interrupts.detach([9])
    local.vcpu(0).mmio_write(BASE + LEVEL, 1, 1)
    assert not any(select.select(list(fds.values()), [], [], 0))
    local.interrupts.attach({9: fds[9]})
    assert os.eventfd_read(fds[9]) == 1, "it is asserted already"
    for fd in fds.values():
        os.close(fd)


def test_what_is_no_eventfd_or_no_interrupt_is_refused(local: DeviceHost) -> None:
    with memory_file(PAGE) as fd:
        with pytest.raises(ValueError, match="eventfds"):
            local.interrupts.attach({4: fd})
        with pytest.raises(ValueError, match="GSI 5000 is not allowed; allowed: 0 to 1023"):
            local.interrupts.attach({5000: fd})


def test_eventfds_of_which_one_is_refused_are_all_refused(lab: Lab, local: DeviceHost) -> None:
    lab.server.devices.plug("register", {"base": str(BASE), "irq": "9"})
    eventfd = os.eventfd(0, os.EFD_NONBLOCK)
    with memory_file(PAGE) as fd:
        before = len(list(Path("/proc/self/fd").iterdir()))
        for other in (fd, 1 << 20):  # no eventfd; nothing at all
            with pytest.raises(ValueError, match="eventfds"):
                local.interrupts.attach({9: eventfd, 100: other})
            local.vcpu(0).mmio_write(BASE + LEVEL, 1, 1)
            local.vcpu(0).mmio_write(BASE + LEVEL, 1, 0)
            assert not any(select.select([eventfd], [], [], 0))
        assert len(list(Path("/proc/self/fd").iterdir())) <= before
    os.close(eventfd)


# Loss and return.


def mapped(running: Daemon, name: str) -> int:
    """How many maps the server has of a file of memory."""
    maps = Path(f"/proc/{running.process.pid}/maps").read_text()
    return sum(f"memfd:{name}" in line for line in maps.splitlines())


@pytest.mark.parametrize("way", ["ring", "socket"])
def test_a_new_server_gets_memory_and_eventfds_before_any_access(tmp_path: Path, way: str) -> None:
    eventfd = os.eventfd(0, os.EFD_NONBLOCK)
    with (
        memory_file(2 * PAGE, "vm1-ram") as fd,
        daemon(tmp_path, "--device", SCRATCH, status=None) as first,
    ):
        host = first.host(transport=way)
        host.memory.add(0, PAGE, fd)
        host.memory.add(0x10000, PAGE, fd, offset=PAGE)
        host.interrupts.attach({9: eventfd})
        vcpu = host.vcpu(0)
        vcpu.mmio_write(LAST, 1, 1)
        assert os.eventfd_read(eventfd) == 1
        assert mapped(first, "vm1-ram") == 2
        first.kill()
        assert vcpu.mmio_read(BASE, 4) == 0xFFFF_FFFF
        with daemon(tmp_path, "--device", SCRATCH) as second:
            wait_until(lambda: vcpu.mmio_read(BASE, 4) == 0, "the new server to be found")
            assert mapped(second, "vm1-ram") == 2
            vcpu.mmio_write(LAST, 1, 1)
            assert os.eventfd_read(eventfd) == 1
            host.close()
    os.close(eventfd)


def test_memory_that_is_added_while_no_server_is_there_goes_to_the_next(tmp_path: Path) -> None:
    with (
        memory_file(PAGE, "vm2-ram") as fd,
        daemon(tmp_path, "--device", SCRATCH, status=None) as first,
    ):
        host = first.host()
        first.kill()
        wait_until(lambda: host.vcpu(0).mmio_read(BASE, 4) == 0xFFFF_FFFF)
        host.memory.add(0, PAGE, fd)
        with daemon(tmp_path, "--device", SCRATCH) as second:
            wait_until(lambda: host.vcpu(0).mmio_read(BASE, 4) == 0)
            assert mapped(second, "vm2-ram") == 1
            host.close()


def test_an_idle_client_finds_a_new_server_by_itself(tmp_path: Path) -> None:
    told = threading.Event()
    with daemon(tmp_path, "--device", SCRATCH, status=None) as first:
        host = first.host(on_new_server=told.set)
        assert host.transport == "ring"
        first.kill()
        with daemon(tmp_path, "--device", SCRATCH):
            assert told.wait(WAIT_S)
            host.close()


@pytest.mark.parametrize("way", ["ring", "socket"])
def test_losses_leave_nothing_behind_in_the_client(tmp_path: Path, way: str) -> None:
    def left() -> tuple[int, int, int]:
        maps = Path("/proc/self/maps").read_text()
        fds = len(list(Path("/proc/self/fd").iterdir()))
        return fds, maps.count("devicehost-ring"), threading.active_count()

    after: list[tuple[int, int, int]] = []
    with ExitStack() as closing:
        vcpus: list[Vcpu] = []
        for _ in range(6):
            with daemon(tmp_path, "--device", SCRATCH, status=None) as running:
                if not vcpus:
                    host = connect(running.endpoint, transport=way)
                    closing.enter_context(host)
                    vcpus = [host.vcpu(index) for index in range(3)]
                for vcpu in vcpus:
                    wait_until(lambda vcpu=vcpu: vcpu.mmio_read(BASE, 4) == 0)
                after.append(left())
                running.kill()
    assert len(set(after[2:])) == 1, after


def test_closing_twice_does_no_harm(local: DeviceHost) -> None:
    local.vcpu(0).mmio_read(BASE, 4)
    local.close()
    local.close()
