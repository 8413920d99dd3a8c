"""IoService.Stream: the accesses of one vCPU."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from daemonlab import Lab, refused, serving, wait_until
from devicehost.v1 import io_service_pb2 as pb
from devicehost.v1.session_service_pb2 import GetServerRequest
from devicehost.v1.session_service_pb2_grpc import SessionServiceStub
from devicehost_server.services.io_service import COMPLETIONS_MAX, TRANSFER_MAX
from testdevices import FAULT, LEVEL, Blocker, Register
from wire import CALL_S, RawStream, mmio_read, mmio_write, pio_read, pio_write

BASE = 0xD000_0000
LARGE = 0xD800_0000
PORT = 0x600


@pytest.fixture
def register(lab: Lab) -> Register:
    """A register at BASE and PORT, that can interrupt."""
    config = {"base": str(BASE), "port": str(PORT), "irq": "9"}
    lab.server.devices.plug("register", config, device_id="r")
    device = lab.server.devices.device("r")
    assert isinstance(device, Register)
    return device


@pytest.fixture
def stream(lab: Lab, register: Register) -> Iterator[RawStream]:
    del register
    with RawStream(lab.channel(), vcpu=3) as opened:
        yield opened


def blocker(lab: Lab) -> tuple[Blocker, int]:
    """Plug a device whose reads wait; return it and its address."""
    info = lab.server.devices.plug("blocker", device_id="b")
    device = lab.server.devices.device("b")
    assert isinstance(device, Blocker)
    return device, info.resources.get_mmio_address_ranges()[0].base


# Opening.


def test_the_first_answer_says_who_the_server_is(lab: Lab, stream: RawStream) -> None:
    server = SessionServiceStub(lab.channel()).GetServer(GetServerRequest(), timeout=CALL_S)
    assert stream.opened.instance_id == server.instance_id
    assert stream.opened.access_timeout_ms == 1000


def test_the_first_request_may_bring_accesses(lab: Lab, register: Register) -> None:
    del register
    with RawStream(lab.channel(), opened=False) as stream:
        accesses = [mmio_write(1, BASE, b"\x42"), mmio_read(2, BASE, 1)]
        stream.request(pb.StreamRequest(open=pb.StreamOpen(vcpu=0), accesses=accesses))
        assert stream.response().HasField("opened")
        assert [each.data for each in stream.completions(2)] == [b"", b"\x42"]


def test_the_stream_is_open_before_the_accesses_of_the_first_request_are_done(lab: Lab) -> None:
    device, base = blocker(lab)
    with RawStream(lab.channel(), opened=False) as stream:
        request = pb.StreamRequest(open=pb.StreamOpen(), accesses=[mmio_read(1, base, 1)])
        stream.request(request)
        assert stream.response().HasField("opened")
        device.release.set()
        assert stream.completion().data == b"\x5a"


def test_a_first_request_that_does_not_open_is_refused(lab: Lab, register: Register) -> None:
    with RawStream(lab.channel(), opened=False) as stream:
        stream.send(mmio_write(1, BASE, b"\x42"))
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST") as metadata:
            stream.response()
        assert metadata == {"field": "open"}
    assert register.written == []


def test_a_stream_without_any_request_is_refused(lab: Lab) -> None:
    with RawStream(lab.channel(), opened=False) as stream:
        stream.half_close()
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST"):
            stream.response()


# Order.


def test_completions_come_in_the_order_of_their_accesses(stream: RawStream) -> None:
    for first in range(0, 3000, 100):
        accesses = [mmio_write(n, BASE + n % 64, b"\1") for n in range(first, first + 100)]
        stream.send(*accesses)
    assert [each.sequence for each in stream.completions(3000)] == list(range(3000))


def test_accesses_are_made_in_their_order(stream: RawStream, register: Register) -> None:
    stream.send(*(mmio_write(n, BASE, n.to_bytes(2, "little")) for n in range(500)))
    stream.send(mmio_read(500, BASE, 2))
    assert stream.completions(501)[-1].data == (499).to_bytes(2, "little")
    assert register.written == [n.to_bytes(2, "little") for n in range(500)]


def test_the_sequence_is_the_clients_own(stream: RawStream) -> None:
    numbers = [7, 7, 0, (1 << 64) - 1, 1]
    stream.send(*(mmio_read(number, BASE, 1) for number in numbers))
    assert [each.sequence for each in stream.completions(5)] == numbers


# Posted writes.


def test_a_posted_write_is_not_answered(stream: RawStream) -> None:
    stream.send(*(mmio_write(n, BASE, bytes([n]), posted=True) for n in range(100)))
    stream.send(mmio_read(100, BASE, 1))
    completion = stream.completion()
    assert (completion.sequence, completion.data) == (100, b"\x63")
    assert stream.rest() == []


def test_a_posted_write_that_fails_is_answered_in_its_place(stream: RawStream) -> None:
    stream.send(
        mmio_write(1, BASE, b"\1", posted=True),
        mmio_write(2, BASE + FAULT, b"\1", posted=True),
        mmio_write(3, BASE + 1, b"\3", posted=True),
        mmio_read(4, BASE, 2),
    )
    failed, read = stream.completions(2)
    assert (failed.sequence, failed.failure.info.reason) == (2, "DEVICE_FAULT")
    assert (read.sequence, read.data) == (4, b"\1\3")


def test_a_read_that_says_posted_is_answered(stream: RawStream) -> None:
    access = mmio_read(1, BASE, 1)
    access.posted = True
    stream.send(access)
    assert stream.completion().sequence == 1


def test_posted_writes_before_the_end_of_the_stream_are_made(
    stream: RawStream, register: Register
) -> None:
    stream.send(*(mmio_write(n, BASE, b"\1", posted=True) for n in range(1000)))
    assert stream.rest() == []
    assert len(register.written) == 1000


# Failures.


def test_a_failure_is_data_and_the_stream_goes_on(stream: RawStream) -> None:
    stream.send(
        mmio_write(1, BASE, b"\x11"),
        mmio_read(2, BASE - 1, 1),
        mmio_read(3, BASE + 0xFFE, 4),
        mmio_read(4, BASE + FAULT, 1),
        pio_read(5, PORT, 3),
        mmio_read(6, BASE, 1),
    )
    completions = stream.completions(6)
    assert [each.failure.info.reason for each in completions] == [
        "",
        "NO_DEVICE",
        "ACCESS_OUT_OF_RANGE",
        "DEVICE_FAULT",
        "BAD_ACCESS_SIZE",
        "",
    ]
    assert all(not each.data for each in completions if each.HasField("failure"))
    assert completions[-1].data == b"\x11"


def test_a_failure_has_all_that_the_status_of_a_call_has(stream: RawStream) -> None:
    stream.send(mmio_read(1, 0x1000, 4))
    failure = stream.completion().failure
    assert failure.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert failure.message == "no device at mmio 0x1000"
    assert failure.info.domain == "devicehost"
    assert failure.info.metadata == {"space": "mmio", "address": "0x1000", "size": "4"}


def test_a_failure_has_an_interrupt_generation_too(stream: RawStream) -> None:
    stream.send(mmio_write(1, BASE + LEVEL, b"\1"), mmio_read(2, BASE + FAULT, 1))
    assert [each.interrupt_generation for each in stream.completions(2)] == [1, 1]


# String PIO.


def test_a_string_read_is_made_operand_by_operand(stream: RawStream, register: Register) -> None:
    register.fifo += bytes(range(200))
    stream.send(pio_read(1, PORT, 1, 100), pio_read(2, PORT, 2, 25), pio_read(3, PORT, 4, 10))
    one, two, four = (each.data for each in stream.completions(3))
    assert one == bytes(range(100))
    assert two == bytes(range(100, 150))
    assert four == bytes(range(150, 190)).ljust(40, b"\0")


def test_a_string_write_is_made_operand_by_operand(stream: RawStream, register: Register) -> None:
    stream.send(pio_write(1, PORT, bytes(range(256)), 4), pio_write(2, PORT, b"\1\2\3", 2))
    completed, refused_one = stream.completions(2)
    assert not completed.HasField("failure")
    assert refused_one.failure.info.reason == "BAD_ACCESS_SIZE"
    assert register.fifo == bytes(range(256))


def test_an_mmio_read_has_no_count(stream: RawStream) -> None:
    access = mmio_read(1, BASE, 4)
    access.count = 2
    stream.send(access)
    assert stream.completion().failure.info.reason == "BAD_ACCESS_SIZE"


# Size.


@pytest.fixture
def large(lab: Lab, stream: RawStream) -> RawStream:
    """A stream to a server with 2 MiB of register at LARGE."""
    lab.server.devices.plug("register", {"base": str(LARGE), "size": "2M"})
    return stream


@pytest.mark.parametrize("size", [4096, 65_536, TRANSFER_MAX])
def test_large_transfers_arrive_whole(large: RawStream, size: int) -> None:
    written = (bytes(range(251)) * (size // 251 + 1))[:size]
    large.send(mmio_write(1, LARGE + 3, written))
    large.send(mmio_read(2, LARGE + 3, size))
    assert large.completions(2)[1].data == written


def test_a_transfer_beyond_a_mebibyte_is_refused(large: RawStream) -> None:
    large.send(mmio_read(1, LARGE, TRANSFER_MAX + 1))
    large.send(mmio_write(2, LARGE, bytes(TRANSFER_MAX + 1)))
    large.send(mmio_read(3, LARGE, 1))
    reasons = [each.failure.info.reason for each in large.completions(3)]
    assert reasons == ["BAD_ACCESS_SIZE", "BAD_ACCESS_SIZE", ""]


def test_many_large_reads_in_one_request_come_in_messages_that_fit(large: RawStream) -> None:
    large.send(*(mmio_read(n, LARGE, TRANSFER_MAX) for n in range(12)))
    completions = large.completions(12)
    assert [len(each.data) for each in completions] == [TRANSFER_MAX] * 12
    assert [each.sequence for each in completions] == list(range(12))


def test_many_failures_in_one_request_come_in_messages_that_fit(stream: RawStream) -> None:
    count = 70 * COMPLETIONS_MAX  # 5 MiB
    stream.send(*(mmio_read(n, 0x1000, 4) for n in range(count)))
    completions = stream.completions(count)
    assert [each.sequence for each in completions] == list(range(count))
    assert {each.failure.info.reason for each in completions} == {"NO_DEVICE"}


def test_the_client_posts_large_writes_in_messages_that_fit(lab: Lab, large: RawStream) -> None:
    del large
    vcpu = lab.host().vcpu(0)
    vcpu.post_writes(pb.SPACE_MMIO, LARGE, 1 << 21)
    content = [bytes([n]) * TRANSFER_MAX for n in range(1, 9)]
    for each in content:
        vcpu.mmio_write_from(LARGE, each)
    data = bytearray(TRANSFER_MAX)
    vcpu.mmio_read_into(LARGE, data)
    assert data == content[-1]
    assert (vcpu.failures, vcpu.posted_failures) == (0, 0)


# Many of them.


def test_many_vcpus_have_a_stream_each(lab: Lab, register: Register) -> None:
    del register
    vcpus, rounds = 32, 50
    host = lab.host()
    start = threading.Barrier(vcpus)
    wrong: list[tuple[int, int]] = []

    def run(index: int) -> None:
        vcpu = host.vcpu(index)
        start.wait(CALL_S)
        for number in range(rounds):
            vcpu.mmio_write(BASE + 8 * index, 8, index << 32 | number)
            got = vcpu.mmio_read(BASE + 8 * index, 8)
            if got != index << 32 | number:
                wrong.append((index, got))

    threads = [threading.Thread(target=run, args=(index,)) for index in range(vcpus)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert [host.vcpu(index).failures for index in range(vcpus)] == [0] * vcpus
    assert lab.server.devices.get("r").resources  # it is still there


def test_one_stream_too_many_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    with serving(tmp_path, streams_max=2) as lab:
        channel = lab.channel()
        with RawStream(channel) as one, RawStream(channel) as two:
            with RawStream(channel, opened=False) as three:
                three.request(pb.StreamRequest(open=pb.StreamOpen()))
                with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS") as metadata:
                    three.response()
            assert metadata == {"allowed": "2"}
            for stream in (one, two):
                stream.send(mmio_read(1, 0, 1))
                assert stream.completion().sequence == 1
            # Calls that aren't streams find a worker, too.
            SessionServiceStub(channel).GetServer(GetServerRequest(), timeout=CALL_S)


def test_a_stream_that_ended_leaves_its_place_to_another(tmp_path: Path) -> None:
    with serving(tmp_path, streams_max=1) as lab:
        channel = lab.channel()
        for number in range(20):
            with RawStream(channel) as stream:
                stream.send(mmio_read(number, 0, 1))
                assert stream.completion().sequence == number
                assert stream.rest() == []  # the server has ended it


# Cut in the middle.


def opens(channel: grpc.Channel, count: int) -> bool:
    """Whether `count` streams can be open at once; afterwards they are cut."""
    with ExitStack() as opened:
        try:
            for vcpu in range(count):
                opened.enter_context(RawStream(channel, vcpu))
        except grpc.RpcError:
            return False
        return True


def test_a_stream_that_is_cut_gives_its_place_back(tmp_path: Path) -> None:
    with serving(tmp_path, streams_max=1) as lab:
        channel = lab.channel()
        for _ in range(10):
            wait_until(lambda: opens(channel, 1), "a stream to be opened")


def test_a_stream_that_is_cut_in_an_access_lets_the_access_end(lab: Lab) -> None:
    device, base = blocker(lab)
    with RawStream(lab.channel()) as stream:
        stream.send(mmio_read(1, base, 1), mmio_write(2, base, b"\0"))
        assert device.entered.wait(CALL_S)
    device.release.set()
    lab.server.devices.unplug("b")
    assert device.closed.is_set()
    with RawStream(lab.channel()) as stream:
        stream.send(mmio_read(1, base, 1))
        assert stream.completion().failure.info.reason == "NO_DEVICE"


def test_a_connection_that_is_cut_ends_its_streams(tmp_path: Path) -> None:
    with serving(tmp_path, streams_max=4) as lab:
        channel = lab.channel()
        streams = [RawStream(channel, vcpu) for vcpu in range(4)]
        channel.close()
        for stream in streams:
            stream.half_close()
        other = lab.channel()
        wait_until(lambda: opens(other, 4), "all streams to be opened")


def test_an_access_that_takes_too_long_fails_once_it_has_ended(tmp_path: Path) -> None:
    with serving(tmp_path, access_timeout_s=0.01) as lab:
        device, base = blocker(lab)
        with RawStream(lab.channel()) as stream:
            assert stream.opened.access_timeout_ms == 10
            stream.send(mmio_read(1, base, 1), mmio_write(2, base, b"\0"))
            assert device.entered.wait(CALL_S)
            started = time.monotonic()
            wait_until(lambda: time.monotonic() > started + 0.02, "the deadline to pass")
            device.release.set()
            late, next_one = stream.completions(2)
        assert late.failure.info.reason == "DEVICE_TIMEOUT"
        assert not next_one.HasField("failure")
