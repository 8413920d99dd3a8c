"""Dispatch: who gets an access, what it brings; and the map, as people and tools see it."""

from __future__ import annotations

import mmap

import pytest

from devicehost_server.model.address_map import Space
from devicehost_server.model.device_io import DeviceIo, ReadableBuffer, WritableBuffer
from devicehost_server.model.errors import (
    AccessOutOfRange,
    BadAccessSize,
    DeviceOverlap,
    NoDevice,
)
from devicehost_server.model.io_manager import IoManager, TrappedRange
from devicehost_server.model.resources import (
    KvmMemSlot,
    LegacyIrq,
    MacAddress,
    MemAddressRange,
    MmioAddressRange,
    MsiIrq,
    MsiType,
    PioAddressRange,
    Resource,
)

BASE = 0x3F8
PORTS = PioAddressRange(BASE, 8)
REGISTERS = MmioAddressRange(BASE, 8)
ALL_OPERATIONS = ["mmio_read", "mmio_write", "pio_read", "pio_write"]
READS = ["mmio_read", "pio_read"]
WRITES = ["mmio_write", "pio_write"]
METHOD = dict(zip(ALL_OPERATIONS, ["read", "write", "pio_read", "pio_write"], strict=True))


class Recorder(DeviceIo):
    """Remembers each access with the bytes that it found, and answers reads with 1, 2, 3, …"""

    def __init__(self, name: str = "recorder") -> None:
        self.calls: list[tuple[str, int, int, bytes]] = []
        self._name = name
        self._next = 1

    @property
    def name(self) -> str:
        return self._name

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:
        self.calls.append(("read", base, offset, bytes(data)))
        self._answer(data)

    def write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        self.calls.append(("write", base, offset, bytes(data)))

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:
        self.calls.append(("pio_read", base, offset, bytes(data)))
        self._answer(data)

    def pio_write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        self.calls.append(("pio_write", base, offset, bytes(data)))

    def _answer(self, data: WritableBuffer) -> None:
        data[:] = bytes((self._next + at) % 256 for at in range(len(data)))
        self._next += len(data)


def access(manager: IoManager, operation: str, address: int, data: bytearray) -> None:
    getattr(manager, operation)(address, data)


def manager_of(*devices: tuple[DeviceIo, list[Resource]]) -> IoManager:
    manager = IoManager()
    for device, resources in devices:
        manager.register_device_io(device, resources)
    return manager


@pytest.fixture
def device() -> Recorder:
    return Recorder()


@pytest.fixture
def manager(device: Recorder) -> IoManager:
    return manager_of((device, [PORTS, REGISTERS]))


# Where an access goes.


@pytest.mark.parametrize("operation", ALL_OPERATIONS)
@pytest.mark.parametrize(("offset", "size"), [(0, 1), (3, 2), (4, 4), (7, 1)])
def test_a_device_is_called_with_the_base_of_its_range_and_the_offset_from_it(
    manager: IoManager, device: Recorder, operation: str, offset: int, size: int
) -> None:
    access(manager, operation, BASE + offset, bytearray(size))
    assert device.calls == [(METHOD[operation], BASE, offset, bytes(size))]


@pytest.mark.parametrize("operation", READS)
def test_a_read_fills_the_callers_buffer_in_place(manager: IoManager, operation: str) -> None:
    data = bytearray(b"\xff" * 4)
    access(manager, operation, BASE, data)
    assert data == b"\1\2\3\4"


def test_a_read_fills_a_window_on_shared_memory_and_nothing_around_it(manager: IoManager) -> None:
    with mmap.mmap(-1, 16) as shared:
        shared[:] = b"\xee" * 16
        with memoryview(shared) as view, view[4:8] as window:
            manager.mmio_read(BASE, window)
            manager.pio_read(BASE, window[:1])
        assert shared[:] == b"\xee" * 4 + b"\5\2\3\4" + b"\xee" * 8


@pytest.mark.parametrize("operation", WRITES)
def test_a_write_brings_the_callers_bytes(
    manager: IoManager, device: Recorder, operation: str
) -> None:
    access(manager, operation, BASE, bytearray(b"\1\2"))
    assert device.calls == [(METHOD[operation], BASE, 0, b"\1\2")]


def test_an_mmio_access_may_be_of_any_size_that_fits(device: Recorder) -> None:
    manager = manager_of((device, [MmioAddressRange(0, 0x1000)]))
    for size in (3, 8, 64, 65, 0x1000):
        manager.mmio_read(0, bytearray(b"\xff" * size))
        manager.mmio_write(0, b"\xff" * size)
        assert device.calls[-2:] == [("read", 0, 0, bytes(size)), ("write", 0, 0, b"\xff" * size)]


def test_the_two_buses_are_apart(device: Recorder) -> None:
    other = Recorder()
    manager = manager_of((device, [PORTS]), (other, [REGISTERS]))
    manager.pio_write(BASE, b"\1")
    manager.mmio_write(BASE, b"\2")
    assert device.calls == [("pio_write", BASE, 0, b"\1")]
    assert other.calls == [("write", BASE, 0, b"\2")]


def test_ranges_that_touch_stay_apart(device: Recorder) -> None:
    above = Recorder()
    manager = manager_of((above, [MmioAddressRange(8, 8)]), (device, [MmioAddressRange(0, 8)]))
    manager.mmio_write(7, b"\7")
    manager.mmio_write(8, b"\x08")
    assert device.calls == [("write", 0, 7, b"\7")]
    assert above.calls == [("write", 8, 0, b"\x08")]


def test_the_last_byte_of_each_space_can_be_accessed(device: Recorder) -> None:
    top, last_port = (1 << 64) - 1, 0xFFFF
    manager = manager_of((device, [MmioAddressRange(top, 1), PioAddressRange(last_port, 1)]))
    manager.mmio_write(top, b"\1")
    manager.pio_write(last_port, b"\2")
    assert device.calls == [("write", top, 0, b"\1"), ("pio_write", last_port, 0, b"\2")]


def test_a_device_may_have_many_ranges_and_tells_them_by_base(device: Recorder) -> None:
    manager = manager_of((device, [MmioAddressRange(n * 0x1000, 0x10) for n in range(5)]))
    for n in (3, 0, 4):
        manager.mmio_write(n * 0x1000 + n, bytes([n]))
    assert device.calls == [("write", n * 0x1000, n, bytes([n])) for n in (3, 0, 4)]


def test_resources_that_do_not_trap_are_skipped(device: Recorder) -> None:
    manager = manager_of(
        (
            device,
            [
                *(LegacyIrq(4), MsiIrq(MsiType.PCI_MSI, 24, 1), MacAddress("52:54:00:00:00:01")),
                *(KvmMemSlot(0), MemAddressRange(0, 0x1000), REGISTERS),
            ],
        )
    )
    assert manager.ranges() == [TrappedRange(Space.MMIO, BASE, 8, "recorder")]
    manager.unregister_device_io([LegacyIrq(4), MemAddressRange(0, 0x1000), REGISTERS])
    assert manager.ranges() == []


# Accesses that reach no device.


@pytest.mark.parametrize("operation", ALL_OPERATIONS)
@pytest.mark.parametrize("address", [0, BASE - 1, BASE + 8, 0xFFFF, 1 << 64, -1])
def test_an_access_outside_of_all_ranges_is_no_device(
    manager: IoManager, device: Recorder, operation: str, address: int
) -> None:
    with pytest.raises(NoDevice, match=f"no device at .* {address:#x}") as caught:
        access(manager, operation, address, bytearray(1))
    space = "mmio" if "mmio" in operation else "pio"
    assert caught.value.metadata == {"space": space, "address": f"{address:#x}", "size": "1"}
    assert device.calls == []


@pytest.mark.parametrize("operation", ALL_OPERATIONS)
def test_an_access_that_runs_past_its_range_is_out_of_range_even_if_the_next_one_touches(
    manager: IoManager, device: Recorder, operation: str
) -> None:
    manager.register_device_io(device, [PioAddressRange(BASE + 8, 8)])
    manager.register_device_io(device, [MmioAddressRange(BASE + 8, 8)])
    with pytest.raises(AccessOutOfRange, match="of device 'recorder'") as caught:
        access(manager, operation, BASE + 5, bytearray(4))
    facts = caught.value.metadata
    assert (facts["address"], facts["size"], facts["range"]) == ("0x3fd", "4", "0x3f8-0x3ff")
    assert device.calls == []


@pytest.mark.parametrize("operation", ALL_OPERATIONS)
@pytest.mark.parametrize("address", [BASE, 0])
def test_an_empty_access_is_of_a_bad_size_wherever_it_goes(
    manager: IoManager, device: Recorder, operation: str, address: int
) -> None:
    with pytest.raises(BadAccessSize):
        access(manager, operation, address, bytearray())
    assert device.calls == []


@pytest.mark.parametrize("operation", READS)
def test_a_read_that_reaches_no_device_leaves_the_buffer_alone(
    manager: IoManager, operation: str
) -> None:
    data = bytearray(b"\xaa" * 4)
    with pytest.raises(NoDevice):
        access(manager, operation, 0, data)
    with pytest.raises(AccessOutOfRange):
        access(manager, operation, BASE + 6, data)
    assert data == b"\xaa" * 4


# Registration. (Its rows of the differences from dbs-device have tests of their own.)


def test_a_range_can_be_registered_again_after_it_was_unregistered(device: Recorder) -> None:
    manager = manager_of((Recorder("first"), [REGISTERS]))
    manager.unregister_device_io([REGISTERS])
    with pytest.raises(NoDevice):
        manager.mmio_read(BASE, bytearray(1))
    manager.register_device_io(device, [REGISTERS])
    manager.mmio_read(BASE, bytearray(1))
    assert len(device.calls) == 1


def test_a_device_can_give_up_one_of_its_ranges_and_keep_the_other(
    manager: IoManager, device: Recorder
) -> None:
    manager.unregister_device_io([PORTS])
    manager.mmio_read(BASE, bytearray(1))
    with pytest.raises(NoDevice):
        manager.pio_read(BASE, bytearray(1))
    assert len(device.calls) == 1


def test_an_overlap_names_both_ranges_and_both_devices(manager: IoManager) -> None:
    with pytest.raises(DeviceOverlap) as caught:
        manager.register_device_io(Recorder("newcomer"), [PioAddressRange(BASE + 7, 4)])
    assert str(caught.value) == (
        "pio range 0x3ff-0x402 of device 'newcomer' overlaps 0x3f8-0x3ff of device 'recorder'"
    )
    assert caught.value.metadata == {
        "space": "pio",
        "range": "0x3ff-0x402",
        "other_range": "0x3f8-0x3ff",
        "other_device": "recorder",
    }


def test_a_list_that_overlaps_itself_is_refused_whole(device: Recorder) -> None:
    manager = IoManager()
    with pytest.raises(DeviceOverlap):
        manager.register_device_io(device, [PORTS, MmioAddressRange(0, 8), MmioAddressRange(7, 1)])
    assert manager.ranges() == []


def test_a_list_that_names_a_range_twice_is_not_unregistered(manager: IoManager) -> None:
    with pytest.raises(NoDevice):
        manager.unregister_device_io([PORTS, REGISTERS, PORTS])
    assert len(manager.ranges()) == 2


def test_a_list_without_ranges_changes_nothing(manager: IoManager, device: Recorder) -> None:
    manager.register_device_io(device, [])
    manager.unregister_device_io([])
    assert len(manager.ranges()) == 2


def test_resources_may_come_from_an_iterator(device: Recorder) -> None:
    manager = IoManager()
    manager.register_device_io(device, iter([PORTS, REGISTERS]))
    assert len(manager.ranges()) == 2
    manager.unregister_device_io(iter([PORTS, REGISTERS]))
    assert manager.ranges() == []


# Listing, copying, comparing.


def test_ranges_lists_pio_first_then_mmio_by_address() -> None:
    manager = manager_of(
        (Recorder("b"), [MmioAddressRange(0x2000, 1), PioAddressRange(9, 1)]),
        (Recorder("a"), [MmioAddressRange(0x1000, 2), PioAddressRange(0, 9)]),
    )
    assert manager.ranges() == [
        TrappedRange(Space.PIO, 0, 9, "a"),
        TrappedRange(Space.PIO, 9, 1, "b"),
        TrappedRange(Space.MMIO, 0x1000, 2, "a"),
        TrappedRange(Space.MMIO, 0x2000, 1, "b"),
    ]


def test_a_list_of_ranges_is_of_its_moment(manager: IoManager) -> None:
    before = manager.ranges()
    manager.unregister_device_io([PORTS])
    assert len(before) == 2
    assert len(manager.ranges()) == 1


def test_a_clone_is_a_snapshot_and_goes_its_own_way(manager: IoManager, device: Recorder) -> None:
    clone = manager.clone()
    assert clone == manager
    manager.unregister_device_io([PORTS])
    clone.unregister_device_io([REGISTERS])
    clone.pio_write(BASE, b"\1")
    manager.mmio_write(BASE, b"\2")
    assert [method for method, *_ in device.calls] == ["pio_write", "write"]
    assert clone != manager


def test_a_clone_can_be_made_while_a_transaction_is_open_and_has_the_map_before_it(
    manager: IoManager,
) -> None:
    with manager.begin_tx() as tx:
        tx.unregister_device_io([PORTS])
        clone = manager.clone()
        with clone.begin_tx() as other:  # each has transactions of its own
            other.unregister_device_io([REGISTERS])
    assert [held.space for held in clone.ranges()] == [Space.PIO]
    assert [held.space for held in manager.ranges()] == [Space.MMIO]


def test_managers_can_not_be_hashed_or_compared_with_anything_else(manager: IoManager) -> None:
    assert manager != "a manager"
    with pytest.raises(TypeError):
        hash(manager)
