"""A function as a vfio-user client sees it: its regions, its memory, and a reset."""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import EINVAL, EIO
from pathlib import Path
from typing import Any

import pytest

from buslab import READ_WRITE, memfd
from daemonlab import wait_until
from devicehost.vfio_user import (
    DeviceFlags,
    DeviceInfo,
    DeviceReset,
    DmaData,
    DmaMap,
    DmaRead,
    DmaUnmap,
    DmaWrite,
    DmaWritten,
    GetDeviceInfo,
    GetRegionInfo,
    GetRegionIoFds,
    MmapArea,
    RegionFlags,
    RegionInfo,
    RegionIoFds,
    RegionRead,
    RegionWrite,
    RegionWriteMulti,
    RegionWritesDone,
    Reply,
    ReplyPayload,
    Request,
    SparseMmap,
)
from pcilab import (
    ALL_ONES,
    BAR0,
    BUS_MASTER,
    CAP_MSI,
    CAP_MSIX,
    COMMAND,
    CONFIG,
    FAULT,
    INTX,
    INTX_DISABLE,
    IO_BAR,
    LEVEL,
    MMIO_BAR,
    MSIX_BAR,
    MSIX_COUNT,
    PORTS,
    ROM,
    SIZE,
    STATUS,
    VGA,
    Functions,
    Messenger,
    Vmm,
    functions,
)
from testdevices import COPY_IN, COPY_OUT

BEYOND = 0x800  # bytes of the BAR that the device doesn't have
RAM = 0x10_0000


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Functions]:
    with functions(tmp_path) as running:
        yield running


@pytest.fixture
def device(there: Functions) -> Messenger:
    return there.messenger()


@pytest.fixture
def vmm(there: Functions, device: Messenger) -> Iterator[Vmm]:
    assert device.name == "f"
    with there.vmm() as attached:
        yield attached


# What it is.


def test_a_function_is_a_pci_device_with_the_regions_and_interrupts_of_vfio(vmm: Vmm) -> None:
    info = vmm.ask(GetDeviceInfo()).payload
    assert info == DeviceInfo(DeviceFlags.PCI | DeviceFlags.RESET, num_regions=9, num_irqs=5)


def test_its_regions_are_as_large_as_its_bars(vmm: Vmm) -> None:
    both = RegionFlags.READ | RegionFlags.WRITE
    assert vmm.region(MMIO_BAR) == RegionInfo(0x2000, both)
    assert vmm.region(IO_BAR) == RegionInfo(8, both)
    assert vmm.region(MSIX_BAR) == RegionInfo(0x1000, both)
    assert vmm.region(CONFIG) == RegionInfo(0x100, both)
    for nothing in (3, 4, 5, ROM, VGA):
        assert vmm.region(nothing) == RegionInfo(0, RegionFlags(0))
        assert vmm.refused(RegionRead(nothing, 0, 4)) == EINVAL


def test_there_is_no_region_beyond_them(vmm: Vmm) -> None:
    for index in (9, 0xFFFF_FFFF):
        assert vmm.refused(GetRegionInfo(index)) == EINVAL
        assert vmm.refused(RegionRead(index, 0, 4)) == EINVAL
        assert vmm.refused(RegionWrite(index, 0, b"abcd")) == EINVAL


def test_no_part_of_a_region_has_a_descriptor(vmm: Vmm) -> None:
    reply = vmm.ask(GetRegionIoFds(MMIO_BAR, 4096))
    assert (reply.payload, reply.fds) == (RegionIoFds(), ())


# Registers.


def test_an_access_to_a_bar_reaches_the_registers_of_the_device(
    device: Messenger, vmm: Vmm
) -> None:
    vmm.put(MMIO_BAR, 0x100, 0x12345678)
    assert device.content[0x100:0x104] == b"\x78\x56\x34\x12"
    assert vmm.get(MMIO_BAR, 0x101, 2) == 0x3456
    vmm.put(IO_BAR, 2, 0xAB, 1)
    assert vmm.get(IO_BAR, 2, 2) == 0x00AB
    assert device.accesses == [(0x100, 4), (0x101, 2), (2, 1), (2, 2)]


def test_the_ranges_on_the_server_are_not_those_that_the_device_wants_on_the_bus(
    there: Functions, vmm: Vmm
) -> None:
    del vmm
    info = there.lab.server.devices.get("f")
    [mmio] = info.resources.get_mmio_address_ranges()
    [pio] = info.resources.get_pio_address_ranges()
    assert (mmio.size, pio.size) == (SIZE, PORTS)
    assert mmio.base != 0xFEB0_0000
    assert pio.base != 0x3F8
    assert info.resources.get_legacy_irq() != 4
    ranges = {(each.base, each.device) for each in there.lab.server.io.ranges()}
    assert ranges == {(mmio.base, "f"), (pio.base, "f")}


def test_what_lies_behind_the_device_reads_as_ones_and_ignores_writes(
    device: Messenger, vmm: Vmm
) -> None:
    for region, length, size in ((MMIO_BAR, SIZE, 8), (IO_BAR, PORTS, 2)):
        vmm.write(length, b"abcdefgh"[:size], region)
        assert vmm.read(length, size, region) == b"\xff" * size
    assert vmm.read(0x1FFF, 1, MMIO_BAR) == b"\xff"
    assert device.accesses == []


def test_an_access_that_straddles_the_end_of_the_device_is_made_as_far_as_that_reaches(
    device: Messenger, vmm: Vmm
) -> None:
    vmm.write(SIZE - 4, b"abcdefgh", MMIO_BAR)
    assert vmm.read(SIZE - 4, 8, MMIO_BAR) == b"abcd\xff\xff\xff\xff"
    vmm.write(PORTS - 3, b"wxyz", IO_BAR)
    assert vmm.read(PORTS - 3, 4, IO_BAR) == b"wxy\xff"
    mmio, ports = [(SIZE - 4, 4)], [(3, 1), (4, 1), (5, 1)]
    assert device.accesses == [*mmio, *mmio, *ports, *ports]


@pytest.mark.parametrize(
    ("region", "offset", "size"),
    [
        (MMIO_BAR, 0x2000, 1),
        (MMIO_BAR, 0x1FFE, 4),
        (MMIO_BAR, (1 << 64) - 4, 4),
        (IO_BAR, 7, 2),
        (MSIX_BAR, 0x1000, 4),
        (CONFIG, 0xFE, 4),
        (CONFIG, 1 << 40, 1),
    ],
)
def test_an_access_beyond_a_region_is_refused_and_the_next_one_works(
    vmm: Vmm, region: int, offset: int, size: int
) -> None:
    assert vmm.refused(RegionRead(region, offset, size)) == EINVAL
    assert vmm.refused(RegionWrite(region, offset, bytes(size))) == EINVAL
    assert vmm.get(CONFIG, 0, 2) == 0x1B36


def test_an_access_may_be_as_long_as_the_region(vmm: Vmm) -> None:
    content = bytes(range(256)) * (0x2000 // 256)
    vmm.write(0x10, content[: SIZE - 0x10], MMIO_BAR)
    found = vmm.read(0x10, 0x1FF0, MMIO_BAR)
    assert found == content[: SIZE - 0x10] + b"\xff" * BEYOND


def test_an_access_is_made_whether_or_not_its_bar_is_decoded(vmm: Vmm) -> None:
    assert vmm.get(CONFIG, COMMAND, 2) == 0
    vmm.put(MMIO_BAR, 0x40, 7)
    vmm.set_command(0x3)
    assert vmm.get(MMIO_BAR, 0x40) == 7


def test_an_access_that_fails_says_so_and_the_next_one_works(vmm: Vmm) -> None:
    assert vmm.refused(RegionRead(MMIO_BAR, FAULT, 4)) == EIO
    assert vmm.get(MMIO_BAR, 0x10) == 0


def test_a_posted_write_is_made_and_one_that_fails_is_counted(there: Functions, vmm: Vmm) -> None:
    vmm.send(RegionWrite(MMIO_BAR, 0x20, b"abcd"), posted=True)
    vmm.send(RegionWrite(VGA, 0, b"abcd"), posted=True)
    assert vmm.read(0x20, 4, MMIO_BAR) == b"abcd"
    wire = there.lab.server.debugger.inspect("sessions/functions/f/posted_failures", 0)
    assert wire.value == "1"


def test_several_writes_can_come_by_one_message(vmm: Vmm) -> None:
    writes = (RegionWrite(MMIO_BAR, 0x20, b"ab"), RegionWrite(IO_BAR, 1, b"c"))
    assert vmm.ask(RegionWriteMulti(writes)).payload == RegionWritesDone(2)
    assert vmm.read(0x20, 2, MMIO_BAR) + vmm.read(1, 1, IO_BAR) == b"abc"


def test_the_table_and_the_pending_bits_of_msix_are_in_a_bar_of_their_own(vmm: Vmm) -> None:
    at = vmm.capability(CAP_MSIX)
    assert vmm.get(CONFIG, at + 2, 2) & 0x7FF == MSIX_COUNT - 1
    assert vmm.get(CONFIG, at + 4) == 0 | MSIX_BAR
    assert vmm.get(CONFIG, at + 8) == MSIX_COUNT * 16 | MSIX_BAR
    assert vmm.get(MSIX_BAR, 12) == 1, "vector 0 is masked"
    vmm.write(16, b"\0\0\xe0\xfe\0\0\0\0\x21\0\0\0\0\0\0\0", MSIX_BAR)
    assert vmm.get(MSIX_BAR, 16) == 0xFEE0_0000
    assert vmm.get(MSIX_BAR, MSIX_COUNT * 16, 8) == 0


# Configuration space.


def test_a_driver_finds_the_function_by_its_numbers(there: Functions) -> None:
    there.plug("uart16550")
    with there.vmm() as vmm:
        assert vmm.get(CONFIG, 0) == 0x0002_1B36
        assert vmm.get(CONFIG, 8) == 0x0700_0200, "class, revision 0"
        assert vmm.get(CONFIG, 0x3D, 1) == 1, "INTA#"


def test_the_numbers_can_be_configured(there: Functions) -> None:
    numbers = {"pci-vendor-id": "0x1234", "pci-device-id": "0x5678", "pci-class-code": "0x020000"}
    there.plug("scratch", **numbers)
    with there.vmm() as vmm:
        assert vmm.get(CONFIG, 0) == 0x5678_1234
        assert vmm.get(CONFIG, 9, 2) == 0x0000
        assert vmm.get(CONFIG, 11, 1) == 0x02


def test_the_size_of_a_bar_is_found_as_on_any_bus(vmm: Vmm) -> None:
    for bar, size, mask in ((MMIO_BAR, 0x2000, 0xF), (IO_BAR, 8, 0x3), (MSIX_BAR, 0x1000, 0xF)):
        at = BAR0 + 4 * bar
        vmm.put(CONFIG, at, ALL_ONES)
        assert -(vmm.get(CONFIG, at) & ~mask) & ALL_ONES == size
        vmm.put(CONFIG, at, 0xC000_0000)
        assert vmm.get(CONFIG, at) & ~mask == 0xC000_0000
    assert vmm.get(CONFIG, BAR0 + 4 * IO_BAR) & 1 == 1
    vmm.put(CONFIG, 0x30, ALL_ONES)
    assert vmm.get(CONFIG, 0x30) == 0, "no expansion ROM"


def test_the_status_register_says_whether_intx_is_asserted(vmm: Vmm) -> None:
    assert not vmm.get(CONFIG, STATUS, 2) & 0x8
    vmm.put(MMIO_BAR, LEVEL, 1, 1)
    assert vmm.get(CONFIG, STATUS, 2) & 0x8


# A reset.


def test_a_reset_is_one_of_the_function_and_of_the_device(vmm: Vmm) -> None:
    [eventfd] = vmm.connect(INTX)
    ram = vmm.share(RAM, 0x1000)
    vmm.put(MMIO_BAR, 0x40, 7)
    vmm.put(MMIO_BAR, LEVEL, 1, 1)
    assert eventfd.wait() == 1
    vmm.put(CONFIG, BAR0, 0xC000_0000)
    vmm.set_command(BUS_MASTER | INTX_DISABLE)
    vmm.enable_messages(CAP_MSI, 1)
    vmm.reset()
    assert vmm.get(MMIO_BAR, 0x40) == 0
    assert vmm.get(CONFIG, STATUS, 2) & 0x8 == 0
    assert vmm.get(CONFIG, COMMAND, 2) == 0
    assert vmm.get(CONFIG, BAR0) & ~0xF == 0
    assert vmm.get(CONFIG, vmm.capability(CAP_MSI) + 2, 2) & 1 == 0
    vmm.unmask()
    vmm.put(MMIO_BAR, LEVEL, 1, 1)
    assert eventfd.wait() == 1, "what is connected stays so"
    ram.close()


def test_a_reset_interrupts_nobody(vmm: Vmm) -> None:
    [eventfd] = vmm.connect(INTX)
    vmm.set_command(INTX_DISABLE)
    vmm.put(MMIO_BAR, LEVEL, 1, 1)
    vmm.reset()
    assert not eventfd.is_signalled(), "the device was reset before INTx was enabled"


def test_a_reset_waits_for_who_else_is_in_the_device(device: Messenger, vmm: Vmm) -> None:
    vmm.put(MMIO_BAR, 0x40, 7)
    with device.lock:
        vmm.send(DeviceReset())
        assert device.content[0x40] == 7
    [done] = vmm.receive()
    assert isinstance(done, Reply)
    assert device.content[0x40] == 0


# Memory of the guest.


def test_a_device_transfers_memory_that_its_client_shares(there: Functions) -> None:
    there.plug("copier")
    with there.vmm() as vmm:
        vmm.set_command(BUS_MASTER)
        ram = vmm.share(RAM, 0x2000)
        ram[0x10:0x18] = b"abcdefgh"
        vmm.put(0, COPY_IN, RAM + 0x10, 8)
        vmm.put(0, COPY_OUT, RAM + 0x1000, 8)
        assert ram[0x1000:0x1008] == b"abcdefgh"
        vmm.unshare(RAM, 0x2000)
        assert vmm.refused(RegionWrite(0, COPY_IN, RAM.to_bytes(8, "little"))) == EIO
        ram.close()


def test_a_device_transfers_memory_only_while_its_function_is_a_bus_master(
    there: Functions,
) -> None:
    there.plug("copier")
    copy_in = RegionWrite(0, COPY_IN, RAM.to_bytes(8, "little"))
    with there.vmm() as vmm:
        ram = vmm.share(RAM, 0x1000)
        assert vmm.refused(copy_in) == EIO
        vmm.set_command(BUS_MASTER)
        vmm.ask(copy_in)
        more = vmm.share(RAM + 0x1000, 0x1000)
        vmm.put(0, COPY_IN, RAM + 0xFFC, 8)
        vmm.set_command(0)
        assert vmm.refused(copy_in) == EIO
        vmm.set_command(BUS_MASTER)
        vmm.ask(copy_in)
        vmm.reset()
        assert vmm.refused(copy_in) == EIO
        ram.close()
        more.close()


def test_memory_without_a_descriptor_is_transferred_by_messages(there: Functions) -> None:
    there.plug("copier")
    with there.vmm() as vmm:
        vmm.set_command(BUS_MASTER)
        vmm.ask(DmaMap(RAM, 0x1000, READ_WRITE))
        reading = vmm.send(RegionWrite(0, COPY_IN, RAM.to_bytes(8, "little")))
        [asked] = vmm.receive()
        assert isinstance(asked, Request)
        assert asked.payload == DmaRead(RAM, 8)
        _answer(vmm, asked, DmaData(b"01234567"))
        assert [each.message_id for each in vmm.receive()] == [reading]
        vmm.send(RegionWrite(0, COPY_OUT, (RAM + 8).to_bytes(8, "little")))
        [asked] = vmm.receive()
        assert isinstance(asked, Request)
        assert asked.payload == DmaWrite(RAM + 8, b"01234567")
        _answer(vmm, asked, DmaWritten(8))
        assert isinstance(vmm.receive()[0], Reply)


def test_maps_that_come_without_waiting_are_all_answered(there: Functions) -> None:
    """QEMU sends all changes of its memory map at once, and waits for the last answer."""
    there.plug("copier")
    blocks = 40
    with there.vmm() as vmm:
        vmm.set_command(BUS_MASTER)
        fd = memfd(blocks * 0x1000)
        asked = [
            vmm.send(DmaMap(RAM + 0x2000 * place, 0x1000, READ_WRITE, 0x1000 * place), fd)
            for place in range(blocks)
        ]
        os.pwrite(fd, b"abcdefgh", 0x1000 * (blocks - 1))
        answered: list[int] = []
        while len(answered) < blocks:
            answers = vmm.receive()
            assert all(isinstance(each, Reply) for each in answers)
            answered += [each.message_id for each in answers]
        assert answered == asked
        vmm.put(0, COPY_IN, RAM + 0x2000 * (blocks - 1), 8)
        vmm.put(0, COPY_OUT, RAM, 8)
        assert os.pread(fd, 8, 0) == b"abcdefgh"
        os.close(fd)


def test_all_maps_can_be_taken_back_at_once(there: Functions) -> None:
    there.plug("copier")
    function = there.lab.server.devices.function("f")
    assert function is not None
    with there.vmm() as vmm:
        vmm.set_command(BUS_MASTER)
        vmm.share(RAM, 0x1000).close()
        vmm.share(RAM + 0x4000, 0x1000).close()
        assert len(function.memory.blocks()) == 2
        vmm.ask(DmaUnmap(0, 0, everything=True))
        assert function.memory.blocks() == ()


def test_each_function_has_the_memory_of_its_own_client(there: Functions) -> None:
    there.plug("copier", "a")
    there.plug("copier", "b")
    with there.vmm("a") as first, there.vmm("b") as second:
        for vmm, text in ((first, b"first..."), (second, b"second..")):
            vmm.set_command(BUS_MASTER)
            ram = vmm.share(RAM, 0x1000)
            ram[:8] = text
            vmm.put(0, COPY_IN, RAM, 8)
            vmm.put(0, COPY_OUT, RAM + 0x100, 8)
            assert ram[0x100:0x108] == text
            ram.close()
        assert there.lab.server.memory.blocks() == ()


# Memory of the device.


def test_memory_that_a_device_offers_can_be_mapped(there: Functions, tmp_path: Path) -> None:
    there.plug("shared-memory", size="64K", file=str(tmp_path / "frames"))
    with there.vmm() as vmm:
        info = vmm.region(0)
        assert info.size == 0x1_0000
        assert info.flags == RegionFlags.READ | RegionFlags.WRITE | RegionFlags.MMAP
        assert info.capabilities == ()
        mapped = vmm.map_region(0)
        mapped[0x1234:0x1238] = b"abcd"
        assert vmm.read(0x1234, 4, 0) == b"abcd"
        vmm.write(0xFFFC, b"wxyz", 0)
        assert mapped[0xFFFC:] == b"wxyz"
        assert (tmp_path / "frames").read_bytes()[0x1234:0x1238] == b"abcd"
        mapped.close()


def test_only_the_part_of_a_bar_that_there_is_can_be_mapped(there: Functions) -> None:
    there.plug("shared-memory", size="12K")
    with there.vmm() as vmm:
        info = vmm.region(0)
        assert info.size == 0x4000
        assert info.capabilities == (SparseMmap((MmapArea(0, 0x3000),)),)
        vmm.write(0x2FFE, b"abcd", 0)
        assert vmm.read(0x2FFC, 8, 0) == b"\0\0ab\xff\xff\xff\xff"
        assert vmm.region(0, argsz=32).needs_argsz > 32


def test_memory_that_can_not_be_written_is_offered_as_such(
    there: Functions, tmp_path: Path
) -> None:
    (tmp_path / "frames").write_bytes(bytes(0x1000))
    there.plug("shared-memory", size="4K", file=str(tmp_path / "frames"), readonly="true")
    with there.vmm() as vmm:
        assert vmm.region(0).flags == RegionFlags.READ | RegionFlags.MMAP
        assert vmm.refused(RegionWrite(0, 0, b"abcd")) == EINVAL


# A client that goes.


def test_what_a_client_had_goes_with_it_and_the_device_keeps_its_state(there: Functions) -> None:
    there.messenger()
    function = there.lab.server.devices.function("f")
    assert function is not None
    with there.vmm() as vmm:
        [eventfd] = vmm.connect(INTX)
        vmm.share(RAM, 0x1000).close()
        vmm.set_command(BUS_MASTER | INTX_DISABLE)
        vmm.put(CONFIG, BAR0, 0xC000_0000)
        vmm.put(MMIO_BAR, 0x40, 7)
        assert [block.base for block in function.memory.blocks()] == [RAM]
        assert not eventfd.is_signalled()
    wait_until(lambda: not function.memory.blocks())
    wait_until(lambda: there.lab.server.debugger.inspect("sessions/functions/f", 1).value is None)
    with there.vmm() as vmm:
        assert vmm.get(MMIO_BAR, 0x40) == 7
        assert vmm.get(CONFIG, BAR0) & ~0xF == 0xC000_0000
        assert vmm.get(CONFIG, COMMAND, 2) == INTX_DISABLE, "it is no bus master any more"
        vmm.share(RAM, 0x1000).close()
        assert function.memory.blocks() == ()
        vmm.set_command(BUS_MASTER)
        assert len(function.memory.blocks()) == 1


def test_a_function_that_goes_on_from_a_snapshot_is_no_bus_master_before_a_driver_says_so(
    there: Functions,
) -> None:
    """Whose guest comes first after a restart of the server, nobody knows."""
    there.messenger()
    function = there.lab.server.devices.function("f")
    assert function is not None
    with there.vmm() as vmm:
        vmm.set_command(BUS_MASTER | INTX_DISABLE)
        saved = function.save()
    wait_until(lambda: not function.config.command & BUS_MASTER)
    function.restore(saved)
    with there.vmm() as vmm:
        vmm.share(RAM, 0x1000).close()
        assert function.memory.blocks() == ()
        assert vmm.get(CONFIG, COMMAND, 2) == INTX_DISABLE
        vmm.set_command(BUS_MASTER)
        assert len(function.memory.blocks()) == 1


def test_an_interrupt_that_is_asserted_while_there_is_no_client_signals_the_next(
    there: Functions,
) -> None:
    device = there.messenger()
    device.line.set_level(asserted=True)
    with there.vmm() as vmm:
        [eventfd] = vmm.connect(INTX)
        assert eventfd.wait() == 1


def _answer(vmm: Vmm, request: Request, payload: ReplyPayload[Any]) -> None:
    outgoing = vmm.session.reply(request, payload)
    assert outgoing is not None
    vmm.socket.sendall(outgoing.data)
