"""Devices that misbehave: each fails the access it is in, and no other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from devicehost_server.model.device_io import DeviceIo, ReadableBuffer, WritableBuffer
from devicehost_server.model.errors import DeviceFault, DeviceTimeout
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.resources import MmioAddressRange, PioAddressRange

BASE = 0x3F8
PORTS = PioAddressRange(BASE, 8)
REGISTERS = MmioAddressRange(BASE, 8)
ALL_OPERATIONS = ["mmio_read", "mmio_write", "pio_read", "pio_write"]
READS = ["mmio_read", "pio_read"]


class Raising(DeviceIo):
    """Raises what it is given, in every access; None lets the access pass."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error

    def read(self, base: int, offset: int, data: ReadableBuffer) -> None:
        if self.error is not None:
            raise self.error

    def write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        self.read(base, offset, data)

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:
        self.read(base, offset, data)

    def pio_write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        self.read(base, offset, data)


def access(manager: IoManager, operation: str, address: int, data: bytearray) -> None:
    getattr(manager, operation)(address, data)


def manager_of(device: DeviceIo) -> IoManager:
    manager = IoManager()
    manager.register_device_io(device, [PORTS, REGISTERS])
    return manager


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this works")


@pytest.mark.parametrize("operation", ALL_OPERATIONS)
@pytest.mark.parametrize("error", [ValueError("a reason"), SystemExit(1), GeneratorExit()])
def test_whatever_a_device_raises_is_a_device_fault_that_names_it(
    operation: str, error: BaseException
) -> None:
    manager = manager_of(Raising(error))
    with pytest.raises(DeviceFault) as caught:
        access(manager, operation, BASE + 1, bytearray(1))
    assert caught.value.__cause__ is error
    assert caught.value.metadata == {
        "device": "Raising",
        "exception": type(error).__name__,
        "address": "0x3f9",
    }
    assert f"during {operation.replace('_', ' ')} at 0x3f9: {error}" in str(caught.value)


def test_an_error_that_can_not_be_printed_is_a_device_fault_all_the_same() -> None:
    manager = manager_of(Raising(Unprintable()))
    with pytest.raises(DeviceFault, match="raised Unprintable during mmio read"):
        manager.mmio_read(BASE, bytearray(1))


@pytest.mark.parametrize("operation", ALL_OPERATIONS)
def test_the_access_after_a_fault_works(operation: str) -> None:
    device = Raising(ValueError())
    manager = manager_of(device)
    with pytest.raises(DeviceFault):
        access(manager, operation, BASE, bytearray(1))
    device.error = None
    access(manager, operation, BASE, bytearray(1))


@pytest.mark.parametrize("operation", ALL_OPERATIONS)
def test_a_persons_interrupt_goes_through_a_device(operation: str) -> None:
    manager = manager_of(Raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        access(manager, operation, BASE, bytearray(1))


@pytest.mark.parametrize("operation", ALL_OPERATIONS)
def test_a_devices_own_timeout_stays_one(operation: str) -> None:
    manager = manager_of(Raising(DeviceTimeout("the disk is slow")))
    with pytest.raises(DeviceTimeout, match="the disk is slow"):
        access(manager, operation, BASE, bytearray(1))


def test_a_fault_in_a_nested_access_is_a_fault_of_the_outer_device_caused_by_the_inner() -> None:
    manager = IoManager()

    class Bridge(DeviceIo):
        def read(self, base: int, offset: int, data: WritableBuffer) -> None:
            manager.mmio_read(base + offset + 0x1000, data)

    manager.register_device_io(Bridge(), [REGISTERS])
    manager.register_device_io(Raising(ValueError()), [MmioAddressRange(BASE + 0x1000, 8)])
    with pytest.raises(DeviceFault) as caught:
        manager.mmio_read(BASE, bytearray(1))
    inner = caught.value.__cause__
    assert isinstance(inner, DeviceFault)
    assert caught.value.metadata["device"] == "Bridge"
    assert inner.metadata["device"] == "Raising"


@pytest.mark.parametrize("operation", READS)
@pytest.mark.parametrize("change", [bytearray.clear, lambda data: data.extend(b"\1\2")])
def test_a_device_that_resizes_the_buffer_is_at_fault_and_the_buffer_gets_its_length_back(
    operation: str, change: Callable[[bytearray], None]
) -> None:
    class Resizing(DeviceIo):
        def read(self, base: int, offset: int, data: WritableBuffer) -> None:
            assert isinstance(data, bytearray)
            change(data)

        def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:
            self.read(base, offset, data)

    manager = manager_of(Resizing())
    data = bytearray(b"\xff" * 4)
    with pytest.raises(DeviceFault, match="bytes where 4 were read"):
        access(manager, operation, BASE, data)
    assert data == bytes(4)


def test_a_device_that_accesses_itself_without_end_is_at_fault_and_the_next_access_works() -> None:
    class Mirror(DeviceIo):
        def __init__(self) -> None:
            self.facing_itself = True

        def read(self, base: int, offset: int, data: WritableBuffer) -> None:
            if self.facing_itself:
                manager.mmio_read(base, data)

    mirror = Mirror()
    manager = manager_of(mirror)
    with pytest.raises(DeviceFault) as caught:
        manager.mmio_read(BASE, bytearray(1))
    innermost: BaseException = caught.value
    while innermost.__cause__ is not None:
        innermost = innermost.__cause__
    assert isinstance(innermost, RecursionError)
    mirror.facing_itself = False
    manager.mmio_read(BASE, bytearray(1))
    assert not manager.is_inside(mirror)
