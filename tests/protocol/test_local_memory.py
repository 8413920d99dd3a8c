"""DMA_MAP and SET_IRQS: memory and eventfds that a client hands over."""

from __future__ import annotations

import mmap
import os
import select
import threading
from errno import EINVAL
from pathlib import Path

import pytest

from buslab import (
    READ_WRITE,
    Client,
    client_threads,
    local_socket,
    memfd,
    plug,
)
from daemonlab import WAIT_S, Lab, daemon, wait_until
from devicehost.bus_regions import (
    GSI_COUNT,
    INSTANCE_ID,
    IRQ_GSI,
    LIMITS,
    REGION_MMIO,
    REGION_STATUS,
)
from devicehost.vfio_user import (
    DmaData,
    DmaFlags,
    DmaMap,
    DmaRead,
    DmaUnmap,
    IrqAction,
    IrqData,
    RegionWrite,
    Reply,
    Request,
    SetIrqs,
)
from devicehost_server.model.errors import MemoryNotMapped
from testdevices import Caller

# Its memory.


def test_a_device_has_the_memory_that_a_client_shares(local_lab: Lab, local: Path) -> None:
    base, caller = plug(local_lab, "caller")
    assert isinstance(caller, Caller)
    fd = memfd(0x3000)
    memory = caller.context.memory

    def on_write() -> None:
        memory.write(0x8FFE, memory.read(0x9000, 4)[::-1])

    caller.on_write = on_write
    with Client(local) as client:
        client.map(0x8000, 0x1000, fd, offset=0x2000)
        client.map(0x9000, 0x1000, fd)
        os.pwrite(fd, b"1234", 0)
        client.write(base, b"go")
        assert os.pread(fd, 2, 0x2FFE) == b"43", "the transfer goes across two blocks"
        assert os.pread(fd, 4, 0) == b"2134"
    os.close(fd)


def mappings(name: str) -> list[str]:
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if name in line]


def test_memory_is_unmapped_when_the_last_view_of_it_goes(local_lab: Lab, local: Path) -> None:
    fd = memfd(0x2000)
    with Client(local) as client:
        client.map(0x8000, 0x2000, fd)
        assert len(mappings("memfd:guest")) == 1
        view = local_lab.server.memory.view(0x8FF0, 0x20)
        client.ask(DmaUnmap(0x8000, 0x2000))
        with pytest.raises(MemoryNotMapped):
            local_lab.server.memory.read(0x8000, 1)
        os.pwrite(fd, b"there", 0xFF0)
        assert bytes(view[:5]) == b"there", "what a device holds stays valid"
        view.release()
        assert mappings("memfd:guest") == []
    os.close(fd)


def test_memory_that_can_not_be_shared_is_refused(
    local_lab: Lab, local: Path, tmp_path: Path
) -> None:
    fd, page = memfd(0x4000), 0x1000
    file = tmp_path / "file"
    file.write_bytes(bytes(page))
    pipe, other_end = os.pipe()
    only_read, only_path = os.open(file, os.O_RDONLY), os.open(file, os.O_PATH)
    directory = os.open(tmp_path, os.O_RDONLY)
    with Client(local) as client:
        client.map(0x10000, 2 * page, fd)
        wrong: list[tuple[tuple[int, int, int], int]] = [
            ((0x11000, page, 0), fd),  # overlaps
            ((0xF000, 3 * page, 0), fd),  # overlaps
            ((0x20000, 0x800, 0), fd),  # not a page
            ((0x20800, page, 0), fd),  # not at a page
            ((0x20000, page, 0x800), fd),  # not at one of the file
            ((0x20000, page, 0x4000), fd),  # behind its end
            ((0x20000, 5 * page, 0), fd),  # more than it has
            ((0x20000, page, 0), pipe),
            ((0x20000, page, 0), only_read),
            ((0x20000, page, 0), only_path),
            ((0x20000, page, 0), directory),
        ]
        for (base, size, offset), what in wrong:
            assert client.refused(DmaMap(base, size, READ_WRITE, offset), what)
        assert len(local_lab.server.memory.blocks()) == 1
        client.ask(DmaMap(0x20000, page, DmaFlags.READ), only_read)
        with pytest.raises(MemoryNotMapped):
            local_lab.server.memory.write(0x20000, b"x")
        assert client.refused(DmaUnmap(0x10000, page)), "not all of it"
        client.ask(DmaUnmap(0x10000, 2 * page))
    for number in (fd, pipe, other_end, only_read, only_path, directory):
        os.close(number)


def test_a_client_shares_as_many_blocks_as_it_was_told_and_no_more(tmp_path: Path) -> None:
    fd = memfd(0x1000)
    with daemon(tmp_path) as running, Client(local_socket(running.socket)) as client:
        most = client.session.agreement.max_dma_maps
        for number in range(most):
            client.map(number << 12, 0x1000, fd)
        assert client.refused(DmaMap(most << 12, 0x1000, READ_WRITE), fd) == EINVAL
        client.ask(DmaUnmap(0, 0, everything=True))
        client.map(0, 0x1000, fd)
    os.close(fd)


def test_no_memory_can_be_taken_from_under_a_device(local_lab: Lab, local: Path) -> None:
    sealed, loose = memfd(0x2000), memfd(0x2000, sealed=False)
    memory = local_lab.server.memory
    with Client(local) as client:
        client.map(0x10000, 0x2000, sealed)
        client.map(0x20000, 0x2000, loose)
        view = memory.view(0x11000, 8)
        with pytest.raises(PermissionError):
            os.ftruncate(sealed, 0)
        # The pages may be given back: they are zeros then.
        os.pwrite(sealed, b"x", 0x1000)
        fcntl_punch(sealed, 0x1000, 0x1000)
        assert bytes(view) == bytes(8)
        view.release()
        memory.write(0x21000, b"there")
        assert os.pread(loose, 5, 0x1000) == b"there"
        with pytest.raises(MemoryNotMapped):
            memory.view(0x21000, 8)
        os.ftruncate(loose, 0x1800)
        assert memory.read(0x21000, 0x800)[:5] == b"there"
        with pytest.raises(MemoryNotMapped, match="cut short"):
            memory.read(0x21000, 0x1000)
        assert client.read(INSTANCE_ID, 16, REGION_STATUS), "the server is alive"
    wait_until(lambda: not mappings("memfd:guest"))
    os.close(sealed)
    os.close(loose)


def fcntl_punch(fd: int, offset: int, size: int) -> None:
    """Give pages of a memfd back (madvise(2), MADV_REMOVE)."""
    with mmap.mmap(fd, 0) as mapped:
        mapped.madvise(mmap.MADV_REMOVE, offset, size)


def test_accesses_stay_in_order_while_one_waits_for_memory(local_lab: Lab, local: Path) -> None:
    base, caller = plug(local_lab, "caller")
    other, register = plug(local_lab, "register")
    assert isinstance(caller, Caller)
    found: list[bytes] = []
    caller.on_write = lambda: found.append(local_lab.server.memory.read(0x8000, 8))
    with Client(local) as client:
        client.ask(DmaMap(0x8000, 0x1000, READ_WRITE))
        sent = b""
        for address, data in ((base, b"a"), (other, b"1"), (other, b"2"), (other, b"3")):
            sent += client.session.request(RegionWrite(REGION_MMIO, address, data)).data
        client.socket.sendall(sent[:-8])  # the last one is cut in two
        asked, *answers = client.receive()
        assert isinstance(asked, Request)
        assert asked.payload == DmaRead(0x8000, 8)
        client.socket.sendall(sent[-8:])
        wait_until(lambda: len(register.written) == 3)
        reply = client.session.reply(asked, DmaData(b"guestmem"))
        assert reply is not None
        client.socket.sendall(reply.data)
        while len(answers) < 4:
            answers += client.receive()
        assert all(isinstance(answer, Reply) for answer in answers)
    assert found == [b"guestmem"]
    assert register.written == [b"1", b"2", b"3"]


# Its interrupts.


def test_what_is_no_eventfd_is_refused(local_lab: Lab, local: Path, tmp_path: Path) -> None:
    fakes = [
        os.open(tmp_path / "anon_inode:[eventfd]", os.O_RDWR | os.O_CREAT),
        os.memfd_create("anon_inode:[eventfd]"),
        *os.pipe(),
    ]
    with Client(local) as client:
        for fake in fakes:
            request = SetIrqs(IRQ_GSI, 4, 1, IrqAction.TRIGGER, IrqData.EVENTFD)
            assert client.refused(request, fake) == EINVAL
        good = os.eventfd(0)
        request = SetIrqs(IRQ_GSI, 4, 2, IrqAction.TRIGGER, IrqData.EVENTFD)
        assert client.refused(request, good, fakes[0]) == EINVAL
        local_lab.server.interrupts.line(4, "x").pulse()
        assert client.read(INSTANCE_ID, 16, REGION_STATUS)
        assert not select.select([good], [], [], 0)[0], "all of them, or none"
    for fd in (*fakes, good):
        os.close(fd)


def test_an_eventfd_that_blocks_holds_the_interrupts_no_longer_than_its_client(
    local_lab: Lab, local: Path
) -> None:
    full = os.eventfd(0)
    with Client(local) as client:
        client.connect_irq(4, full)
        os.set_blocking(full, True)
        os.eventfd_write(full, (1 << 64) - 2)
        line = local_lab.server.interrupts.line(4, "x")
        hanging = threading.Thread(target=line.pulse)
        hanging.start()
    hanging.join(WAIT_S)
    assert not hanging.is_alive()
    wait_until(lambda: not client_threads())
    with Client(local) as client:
        assert client.read(INSTANCE_ID, 16, REGION_STATUS)
    os.close(full)


def test_all_interrupts_may_have_an_eventfd(local_lab: Lab, local: Path) -> None:
    eventfds = [os.eventfd(0) for _ in range(LIMITS.max_msg_fds)]
    last = GSI_COUNT - len(eventfds)
    with Client(local) as client:
        for gsi in range(0, GSI_COUNT, len(eventfds)):
            client.connect_irq(gsi, *eventfds)
        local_lab.server.interrupts.line(last + 3, "x").pulse()
        assert select.select([eventfds[3]], [], [], WAIT_S)[0]
        beyond = SetIrqs(IRQ_GSI, GSI_COUNT, 1, IrqAction.TRIGGER, IrqData.EVENTFD)
        assert client.refused(beyond, eventfds[0]) == EINVAL
    for fd in eventfds:
        os.close(fd)
