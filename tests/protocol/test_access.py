"""IoService.Access: one access, made by a tool."""

from __future__ import annotations

import grpc
import pytest

from daemonlab import Lab, refused
from devicehost.v1 import io_service_pb2 as pb
from devicehost.v1.io_service_pb2_grpc import IoServiceStub
from testdevices import FAULT, LEVEL, Register
from wire import CALL_S, mmio_read, mmio_write, pio_read, pio_write

BASE = 0xD000_0000
PORT = 0x600
IRQ = 9


@pytest.fixture
def register(lab: Lab) -> Register:
    """A register at BASE, PORT and IRQ."""
    config = {"base": str(BASE), "port": str(PORT), "irq": str(IRQ)}
    lab.server.devices.plug("register", config, device_id="r")
    device = lab.server.devices.device("r")
    assert isinstance(device, Register)
    return device


@pytest.fixture
def stub(lab: Lab, register: Register) -> IoServiceStub:
    del register
    return IoServiceStub(lab.channel())


def access(stub: IoServiceStub, one: pb.Access) -> pb.Completion:
    response: pb.AccessResponse = stub.Access(pb.AccessRequest(access=one), timeout=CALL_S)
    assert not response.completion.HasField("failure")
    return response.completion


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 16, 4000])
def test_an_mmio_read_returns_what_was_written(stub: IoServiceStub, size: int) -> None:
    written = bytes(n % 251 for n in range(size))
    assert access(stub, mmio_write(0, BASE + 5, written)).data == b""
    assert access(stub, mmio_read(0, BASE + 5, size)).data == written


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_pio_read_returns_what_was_written(stub: IoServiceStub, size: int) -> None:
    written = bytes(range(0xA0, 0xA0 + size))
    access(stub, pio_write(0, PORT, written, size))
    assert access(stub, pio_read(0, PORT, size)).data == written


def test_a_string_access_reaches_the_device_operand_by_operand(
    stub: IoServiceStub, register: Register
) -> None:
    access(stub, pio_write(0, PORT, bytes(range(12)), 2))
    assert register.fifo == bytes(range(12))
    assert access(stub, pio_read(0, PORT, 4, 3)).data == bytes(range(12))


def test_a_failed_access_is_the_status_of_the_call(stub: IoServiceStub) -> None:
    with refused(grpc.StatusCode.NOT_FOUND, "NO_DEVICE") as metadata:
        access(stub, mmio_read(0, BASE + 0x1000, 4))
    assert metadata == {"space": "mmio", "address": "0xd0001000", "size": "4"}


def test_a_device_that_raised_serves_the_next_access(stub: IoServiceStub) -> None:
    access(stub, mmio_write(0, BASE, b"\x17"))
    with refused(grpc.StatusCode.INTERNAL, "DEVICE_FAULT") as metadata:
        access(stub, mmio_read(0, BASE + FAULT, 1))
    assert metadata["device"] == "r"
    assert metadata["exception"] == "ValueError"
    assert access(stub, mmio_read(0, BASE, 1)).data == b"\x17"


def test_the_completion_has_the_interrupt_generation_after_the_access(
    stub: IoServiceStub,
) -> None:
    assert access(stub, mmio_read(0, BASE, 1)).interrupt_generation == 0
    assert access(stub, mmio_write(0, BASE + LEVEL, b"\1")).interrupt_generation == 1
    assert access(stub, mmio_write(0, BASE + LEVEL, b"\0")).interrupt_generation == 2


def test_sequence_and_posted_mean_nothing_here(stub: IoServiceStub) -> None:
    completion = access(stub, mmio_write(77, BASE, b"\1", posted=True))
    assert completion.sequence == 0
    assert access(stub, mmio_read(0, BASE, 1)).data == b"\1"


def test_a_read_may_be_a_mebibyte_and_no_more(lab: Lab) -> None:
    lab.server.devices.plug("register", {"base": "0xd8000000", "size": "2M"})
    stub = IoServiceStub(lab.channel())
    assert access(stub, mmio_read(0, 0xD800_0000, 1 << 20)).data == bytes(1 << 20)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_ACCESS_SIZE") as metadata:
        access(stub, mmio_read(0, 0xD800_0000, (1 << 20) + 1))
    assert metadata["allowed"] == str(1 << 20)


def test_the_client_makes_single_accesses_from_the_first_on(lab: Lab, register: Register) -> None:
    host = lab.host()
    host.mmio_write(BASE, 4, 0x1234_5678)
    assert host.mmio_read(BASE, 4) == 0x1234_5678
    host.pio_write(PORT, 2, 0xBEEF)
    assert register.fifo == b"\xef\xbe"
    assert host.pio_read(PORT, 2) == 0xBEEF
