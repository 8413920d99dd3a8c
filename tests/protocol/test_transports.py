"""The three ways for accesses, which a guest can't tell from one another."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from buslab import client_threads
from daemonlab import WAIT_S, Lab, wait_until
from devicehost.v1 import io_service_pb2 as pb
from devicehost_client import (
    AccessTimeout,
    Answer,
    ConnectionLost,
    DeviceHost,
    Policy,
    RemoteError,
    Vcpu,
    connect,
)
from devicehost_server.model.device_io import DeviceIo, WritableBuffer
from devicehost_server.model.resources import MmioAddressRange
from testdevices import FAULT, LEVEL, PULSE, Blocker, Register

WAYS = ("ring", "socket", "grpc-stream")
BASE = 0xD000_0000
SIZE = 4 << 20
PORT = 0x600
RAISE = Policy(Answer.RAISE, Answer.RAISE, Answer.RAISE)


@pytest.fixture
def register(lab: Lab) -> Register:
    config = {"base": str(BASE), "size": str(SIZE), "port": str(PORT), "irq": "9"}
    lab.server.devices.plug("register", config, device_id="r")
    device = lab.server.devices.device("r")
    assert isinstance(device, Register)
    return device


@pytest.fixture
def blocker(lab: Lab) -> Iterator[tuple[Blocker, int]]:
    """A device whose reads wait, and its address."""
    info = lab.server.devices.plug("blocker", device_id="b")
    device = lab.server.devices.device("b")
    assert isinstance(device, Blocker)
    yield device, info.resources.get_mmio_address_ranges()[0].base
    device.release.set()


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def open_host(lab: Lab, way: str) -> Callable[..., DeviceHost]:
    def opened(**options: object) -> DeviceHost:
        return lab.host(transport=way, **options)

    return opened


@pytest.fixture
def host(open_host: Callable[..., DeviceHost], register: Register) -> DeviceHost:
    del register
    return open_host(policy=RAISE)


def test_a_host_says_which_way_its_accesses_take(host: DeviceHost, way: str) -> None:
    assert host.transport == way


def test_the_fastest_way_is_taken_that_is_offered(lab: Lab) -> None:
    assert lab.host().transport == "ring"


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 16, 31, 32, 33, 64, 4096, 65536, 100_000])
def test_data_of_any_size_goes_there_and_back(host: DeviceHost, size: int) -> None:
    vcpu = host.vcpu(0)
    data = bytes(n * 7 % 256 for n in range(size))
    vcpu.mmio_write_from(BASE + 8, data)
    read = bytearray(size)
    vcpu.mmio_read_into(BASE + 8, read)
    assert read == data


def test_a_megabyte_goes_there_and_back(host: DeviceHost) -> None:
    data = bytes(range(256)) * 4096
    host.vcpu(0).mmio_write_from(BASE, data)
    read = bytearray(len(data))
    host.vcpu(0).mmio_read_into(BASE, read)
    assert read == data


def test_numbers_are_little_endian(host: DeviceHost, register: Register) -> None:
    host.vcpu(0).mmio_write(BASE, 4, 0x11223344)
    assert register.content[:4] == bytes.fromhex("44332211")
    assert host.vcpu(0).mmio_read(BASE, 2) == 0x3344


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_string_access_is_made_operand_by_operand(
    host: DeviceHost, register: Register, size: int
) -> None:
    data = bytes(range(96))
    host.vcpu(0).pio_write_from(PORT, data, size)
    assert register.fifo == data
    read = bytearray(48)
    host.vcpu(0).pio_read_into(PORT, read, size)
    assert read == data[:48]
    assert host.hotplug.get("r").accesses.writes == 96 // size


def test_accesses_are_made_in_order_whatever_their_kind(
    host: DeviceHost, register: Register
) -> None:
    vcpu = host.vcpu(0)
    vcpu.post_writes(pb.SPACE_MMIO, BASE, 0x100)
    sizes = [4, 8, 32, 4, 40, 200, 4, 1]  # some fit in an entry of the ring, some don't
    expected = []
    for number in range(100):
        for size in sizes:
            data = bytes([number]) * size
            vcpu.mmio_write_from(BASE if size != 8 else BASE + 0x200, data)
            expected.append(data)
    assert vcpu.mmio_read(BASE, 1) == 99
    assert register.written == expected


def test_posted_writes_are_made_in_order_and_before_a_read_that_follows(
    host: DeviceHost, register: Register
) -> None:
    vcpu = host.vcpu(0)
    vcpu.post_writes(pb.SPACE_MMIO, BASE, 4)
    for number in range(5000):
        vcpu.mmio_write(BASE, 4, number)
    assert vcpu.mmio_read(BASE, 4) == 4999
    assert [int.from_bytes(each, "little") for each in register.written] == list(range(5000))


def test_a_close_makes_the_posted_writes_first(
    open_host: Callable[..., DeviceHost], register: Register, way: str
) -> None:
    for number in range(1, 6):
        host = reopened(open_host, way)
        host.vcpu(0).post_writes(pb.SPACE_MMIO, BASE, 0x100)
        for _ in range(100):
            host.vcpu(0).mmio_write(BASE, 1, number)
        host.close()
        assert len(register.written) == 100 * number


def test_posted_writes_that_fail_are_counted_and_nothing_else(host: DeviceHost) -> None:
    vcpu = host.vcpu(0)
    vcpu.post_writes(pb.SPACE_MMIO, BASE + FAULT, 1)
    for _ in range(3000):
        vcpu.mmio_write(BASE + FAULT, 1, 0)
    vcpu.mmio_write_from(BASE + FAULT, bytes(40))  # too long for an entry of the ring
    assert vcpu.mmio_read(BASE, 4) == 0
    assert vcpu.posted_failures == 3001
    assert (vcpu.failures, vcpu.last_failure) == (0, None)


@pytest.mark.parametrize(
    ("access", "code", "reason"),
    [
        (lambda vcpu: vcpu.mmio_read(0x1000, 4), grpc.StatusCode.NOT_FOUND, "NO_DEVICE"),
        (lambda vcpu: vcpu.mmio_write(0x1000, 4, 0), grpc.StatusCode.NOT_FOUND, "NO_DEVICE"),
        (lambda vcpu: vcpu.pio_read(0x1000, 1), grpc.StatusCode.NOT_FOUND, "NO_DEVICE"),
        (lambda vcpu: vcpu.mmio_read(0x1000, 40), grpc.StatusCode.NOT_FOUND, "NO_DEVICE"),
        (
            lambda vcpu: vcpu.mmio_read(BASE + SIZE - 2, 4),
            grpc.StatusCode.OUT_OF_RANGE,
            "ACCESS_OUT_OF_RANGE",
        ),
        (
            lambda vcpu: vcpu.pio_read(PORT, 3),
            grpc.StatusCode.INVALID_ARGUMENT,
            "BAD_ACCESS_SIZE",
        ),
        (
            lambda vcpu: vcpu.pio_write_from(PORT, bytes(10), 4),
            grpc.StatusCode.INVALID_ARGUMENT,
            "BAD_ACCESS_SIZE",
        ),
        (lambda vcpu: vcpu.mmio_read(BASE + FAULT, 4), grpc.StatusCode.INTERNAL, "DEVICE_FAULT"),
        (
            lambda vcpu: vcpu.mmio_write(BASE + FAULT, 4, 0),
            grpc.StatusCode.INTERNAL,
            "DEVICE_FAULT",
        ),
        (lambda vcpu: vcpu.mmio_read(BASE + FAULT, 64), grpc.StatusCode.INTERNAL, "DEVICE_FAULT"),
    ],
)
def test_a_failure_has_the_same_code_and_reason(
    host: DeviceHost, access: Callable[[object], object], code: grpc.StatusCode, reason: str
) -> None:
    vcpu = host.vcpu(0)
    with pytest.raises(RemoteError) as caught:
        access(vcpu)
    assert (caught.value.code, caught.value.reason) == (code, reason)
    vcpu.mmio_write(BASE, 4, 7)
    assert vcpu.mmio_read(BASE, 4) == 7


def test_each_kind_of_failure_has_its_answer(
    lab: Lab, open_host: Callable[..., DeviceHost], register: Register
) -> None:
    del register
    answers = Policy(no_device=Answer.ZEROS, failed=Answer.RAISE, no_server=Answer.ONES)
    vcpu = open_host(policy=answers).vcpu(0)
    assert vcpu.mmio_read(0x1000, 4) == 0
    with pytest.raises(RemoteError):
        vcpu.mmio_read(BASE + FAULT, 4)
    vcpu.mmio_write(0x1000, 4, 1)
    lab.server.stop()
    assert vcpu.mmio_read(BASE, 4) == 0xFFFF_FFFF
    vcpu.mmio_write(BASE, 4, 1)


def test_an_interrupt_is_delivered_before_the_access_that_caused_it_returns(
    host: DeviceHost, register: Register
) -> None:
    del register
    levels: list[tuple[int, bool]] = []
    pulses: list[int] = []

    def on_level(gsi: int, /, *, asserted: bool) -> None:
        levels.append((gsi, asserted))

    host.interrupts.start(on_level=on_level, on_pulse=pulses.append)
    vcpu = host.vcpu(0)
    for number in range(200):
        vcpu.mmio_write(BASE + LEVEL, 1, 1)
        assert levels[-1] == (9, True)
        vcpu.mmio_write(BASE + LEVEL, 1, 0)
        assert levels[-1] == (9, False)
        assert len(levels) == 2 * number + 2
    vcpu.mmio_write(BASE + PULSE, 1, 1)
    assert pulses == [9]
    host.mmio_write(BASE + PULSE, 1, 1)  # of a tool
    assert pulses == [9, 9]


def test_vcpus_make_their_accesses_at_the_same_time(host: DeviceHost) -> None:
    wrong: list[str] = []

    def run(index: int) -> None:
        vcpu, mine = host.vcpu(index), BASE + 64 * index
        for number in range(300):
            vcpu.mmio_write(mine, 8, number << 8 | index)
            if vcpu.mmio_read(mine, 8) != number << 8 | index:
                wrong.append(f"vCPU {index}, {number}")

    threads = [threading.Thread(target=run, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_there_may_be_more_vcpus_than_queues_of_the_ring(host: DeviceHost) -> None:
    for index in range(20):
        host.vcpu(index).mmio_write(BASE + 4 * index, 4, index)
    assert [host.vcpu(19 - n).mmio_read(BASE + 4 * n, 4) for n in range(20)] == list(range(20))


@pytest.mark.parametrize("way", ["ring", "socket"])
def test_a_host_may_be_closed_while_vcpus_make_accesses(
    open_host: Callable[..., DeviceHost], register: Register, way: str
) -> None:
    del register
    wrong: list[Exception] = []

    def run(vcpu: Vcpu) -> None:
        try:
            while not isinstance(vcpu.last_failure, ConnectionLost):
                vcpu.mmio_read(BASE, 4)
        except Exception as error:  # noqa: BLE001 # whatever a vCPU gets that is not ours
            wrong.append(error)

    for _ in range(30):
        host = reopened(open_host, way)
        vcpus = [host.vcpu(index) for index in range(2)]
        threads = [threading.Thread(target=run, args=(vcpu,)) for vcpu in vcpus]
        for thread in threads:
            thread.start()
        host.close()
        for thread in threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()
    assert not wrong


@pytest.mark.parametrize("way", ["ring", "socket"])
def test_a_host_that_is_closed_keeps_no_descriptors(
    open_host: Callable[..., DeviceHost], register: Register, way: str
) -> None:
    del register

    hosts = []  # kept: what is left must not wait for the collector

    def left_by_one() -> int:
        hosts.append(reopened(open_host, way))
        hosts[-1].vcpu(0).mmio_write(BASE, 4, 1)
        hosts[-1].close()
        wait_until(lambda: not client_threads())
        return len(list(Path("/proc/self/fd").iterdir()))

    gc.collect()  # what tests before this one left
    left = [left_by_one() for _ in range(10)]
    # The server may be about to close one more, and gRPC may have opened one for itself.
    assert min(left[4:]) <= max(left[:4])


@pytest.mark.parametrize("way", ["socket"])
def test_a_server_that_keeps_asking_for_memory_does_not_stretch_the_deadline(
    lab: Lab, open_host: Callable[..., DeviceHost]
) -> None:
    done = threading.Event()

    class Restless(DeviceIo):
        """A read goes on and on, and asks for memory of the client all the time."""

        def read(self, base: int, offset: int, data: WritableBuffer) -> None:
            del base, offset, data
            while not done.is_set():
                lab.server.memory.read(0, 8)

    lab.server.io.register_device_io(Restless(), [MmioAddressRange(0x1000, 4)])
    host = open_host(access_timeout_s=0.2)
    host.memory.add_buffer(0, memoryview(bytearray(0x1000)))
    threading.Timer(WAIT_S / 3, done.set).start()
    assert host.vcpu(0).mmio_read(0x1000, 4) == 0xFFFF_FFFF
    assert isinstance(host.vcpu(0).last_failure, AccessTimeout)
    assert not done.is_set()
    done.set()


@pytest.mark.parametrize("way", ["ring", "grpc-stream"])  # the socket's clients take turns
def test_one_vcpu_that_hangs_does_not_hold_up_another(
    open_host: Callable[..., DeviceHost], register: Register, blocker: tuple[Blocker, int]
) -> None:
    del register
    device, base = blocker
    host = open_host(access_timeout_s=WAIT_S)
    answers: list[int] = []
    hanging = threading.Thread(target=lambda: answers.append(host.vcpu(0).mmio_read(base, 1)))
    hanging.start()
    assert device.entered.wait(WAIT_S)
    for number in range(100):
        host.vcpu(1).mmio_write(BASE, 4, number)
        assert host.vcpu(1).mmio_read(BASE, 4) == number
    device.release.set()
    hanging.join()
    assert answers == [0x5A]


def test_an_access_that_hangs_is_answered_within_its_deadline(
    open_host: Callable[..., DeviceHost], register: Register, blocker: tuple[Blocker, int]
) -> None:
    del register
    device, base = blocker
    vcpu = open_host(access_timeout_s=0.2).vcpu(0)
    started = time.monotonic()
    assert vcpu.mmio_read(base, 4) == 0xFFFF_FFFF
    assert 0.19 < time.monotonic() - started < 5
    assert isinstance(vcpu.last_failure, AccessTimeout)
    assert "within 0.2 s" in str(vcpu.last_failure)
    device.release.set()


@pytest.mark.parametrize("overdue", [1, 5])
def test_after_a_deadline_other_devices_are_there(
    lab: Lab, register: Register, blocker: tuple[Blocker, int], overdue: int
) -> None:
    del register
    _, base = blocker
    vcpu = lab.host(access_timeout_s=0.2).vcpu(0)
    for number in range(overdue):
        assert vcpu.mmio_read(base, 4) == 0xFFFF_FFFF
        vcpu.mmio_write(BASE, 4, number)
        assert vcpu.mmio_read(BASE, 4) == number
    assert vcpu.failures == overdue


# Choosing.


@pytest.mark.parametrize("other", ["ring", "socket"])
def test_a_second_client_takes_another_way(lab: Lab, register: Register, other: str) -> None:
    del register
    first = lab.host(transport=other)
    second = lab.host()
    assert second.transport == "grpc-stream"
    for number, host in enumerate((first, second, first)):
        host.mmio_write(BASE, 4, number)
        assert host.mmio_read(BASE, 4) == number
    with pytest.raises(ConnectionLost, match="busy"):
        connect(lab.endpoint, transport=other)


def test_a_way_that_is_no_way_is_refused(lab: Lab) -> None:
    with pytest.raises(ValueError, match="'pigeon' is not allowed; allowed: auto, ring, socket"):
        connect(lab.endpoint, transport="pigeon")


@pytest.mark.parametrize("seconds", [0, -1, 1e-9, 3601, float("inf"), float("nan")])
def test_a_time_limit_that_is_none_is_refused(lab: Lab, seconds: float) -> None:
    with pytest.raises(ValueError, match=r"access_timeout_s .* allowed: 0.001 to 3600"):
        connect(lab.endpoint, access_timeout_s=seconds)


@pytest.mark.parametrize("seconds", [-1, 0.011, float("nan")])
def test_a_spin_that_is_none_is_refused(lab: Lab, seconds: float) -> None:
    with pytest.raises(ValueError, match=r"spin_s .* allowed: 0 to 0.01"):
        connect(lab.endpoint, spin_s=seconds)


def reopened(open_host: Callable[..., DeviceHost], way: str) -> DeviceHost:
    """A host as soon as the server has noticed that the one before is gone."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return open_host()
        except ConnectionLost:
            assert way != "grpc-stream"
            assert time.monotonic() < deadline
