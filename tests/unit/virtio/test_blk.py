"""The block device, as a driver sees it."""

from __future__ import annotations

import errno
import os
import struct
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.devices.virtio.blk import VirtioBlk, VirtioBlkConfig
from devicehost_server.devices.virtio.blk.device import BlockSize
from devicehost_server.devices.virtio.blk.service import (
    DISCARD_SECTORS_MAX,
    INLINE_MAX,
    SEGMENTS_MAX,
    WORKERS_MAX,
    ZERO_SECTORS_MAX,
)
from devicehost_server.devices.virtio.blk.spec import (
    CONFIG,
    HEADER,
    SECTOR,
    SEGMENT,
    UNMAP,
    Feature,
    Kind,
    Status,
)
from devicehost_server.devices.virtio.features import VERSION_1
from devicehost_server.model.errors import BadConfig, BadState
from virtiolab import EVERYTHING, Request, VirtioLab, Way

MIB = 1 << 20
SIZE = 4 * MIB
ALL = EVERYTHING | sum(Feature)
WRITEBACK = 32


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(os.urandom(SIZE))
    return path


def disk(image: Path, way: Way = Way.MMIO, *, mapped: bool = True, **config: Any) -> VirtioLab:
    return VirtioLab(VirtioBlk(VirtioBlkConfig(file=image, **config)), way, mapped=mapped)


@pytest.fixture(params=Way)
def lab(request: pytest.FixtureRequest, image: Path) -> Iterator[VirtioLab]:
    with disk(image, request.param) as lab:
        lab.driver.start(ALL)
        yield lab


def add(
    lab: VirtioLab, kind: int, sector: int = 0, data: bytes = b"", room: int = 0, *, queue: int = 0
) -> Request:
    readable = [HEADER.pack(kind, sector), *([data] if data else [])]
    return lab.driver.queues[queue].add(readable, [*([room] if room else []), 1])


def answer(request: Request) -> tuple[Status, bytes]:
    data = request.wait()
    return Status(data[-1]), data[:-1]


def ask(
    lab: VirtioLab, kind: int, sector: int = 0, data: bytes = b"", room: int = 0
) -> tuple[Status, bytes]:
    request = add(lab, kind, sector, data, room)
    lab.driver.queues[0].kick()
    return answer(request)


def segment(sector: int, count: int, flags: int = 0) -> bytes:
    return SEGMENT.pack(sector, count, flags)


def config(lab: VirtioLab) -> tuple[int, ...]:
    return CONFIG.unpack(lab.driver.config(0, CONFIG.size))


def blk(lab: VirtioLab) -> VirtioBlk:
    assert isinstance(lab.device, VirtioBlk)
    return lab.device


def flushes(lab: VirtioLab) -> int:
    service = blk(lab)._service
    assert service is not None
    return service.disk._flushes


# Reads and writes.


def test_a_read_brings_what_is_in_the_image(lab: VirtioLab, image: Path) -> None:
    content = image.read_bytes()
    for sector, size in ((0, 512), (1, 4096), (SIZE // SECTOR - 8, 4096), (100, INLINE_MAX)):
        expected = content[sector * SECTOR :][:size]
        assert ask(lab, Kind.IN, sector, room=size) == (Status.OK, expected)


def test_a_write_is_in_the_image_when_it_is_answered(lab: VirtioLab, image: Path) -> None:
    for sector, size in ((0, 512), (3, 8192), (SIZE // SECTOR - 1, 512), (64, 2 * MIB)):
        data = os.urandom(size)
        assert ask(lab, Kind.OUT, sector, data) == (Status.OK, b"")
        assert image.read_bytes()[sector * SECTOR :][:size] == data
    assert image.stat().st_size == SIZE


def test_what_isnt_in_the_page_cache_is_read_by_workers(lab: VirtioLab, image: Path) -> None:
    content = image.read_bytes()
    with image.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    requests = [add(lab, Kind.IN, 128 * number, room=65536) for number in range(64)]
    lab.driver.queues[0].kick()
    for number, request in enumerate(requests):
        assert answer(request) == (Status.OK, content[65536 * number :][:65536])
    assert ask(lab, Kind.IN, 0, room=2 * INLINE_MAX) == (Status.OK, content[: 2 * INLINE_MAX])
    assert workers()


def test_an_image_may_be_where_linux_doesnt_tell_what_is_cached() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        image = Path(folder) / "disk.img"
        image.write_bytes(os.urandom(SIZE))
        content = image.read_bytes()
        with disk(image) as lab:
            lab.driver.start(ALL)
            for sector in range(0, 800, 8):
                assert ask(lab, Kind.IN, sector, room=4096) == (
                    Status.OK,
                    content[512 * sector :][:4096],
                )
            assert ask(lab, Kind.WRITE_ZEROES, data=segment(0, 16))[0] == Status.OK
            assert image.read_bytes() == bytes(8192) + content[8192:]


@pytest.mark.parametrize("mapped", [False, True])
def test_requests_may_be_cut_as_the_driver_likes(image: Path, *, mapped: bool) -> None:
    data = os.urandom(3 * SECTOR)
    with disk(image, mapped=mapped) as lab:
        lab.driver.start(ALL)
        queue = lab.driver.queues[0]
        header = HEADER.pack(Kind.OUT, 7)
        ways: list[Sequence[bytes]] = [
            [header + data],
            [header[:1], header[1:9], header[9:] + data[:100], data[100:]],
            [*(bytes([each]) for each in header), data],
        ]
        for indirect in (False, True):
            for readable in ways:
                image.write_bytes(bytes(SIZE))
                request = queue.add(readable, [1], indirect=indirect)
                queue.kick()
                assert answer(request) == (Status.OK, b"")
                assert image.read_bytes()[7 * SECTOR :][: len(data)] == data
        for writable in ([1537], [1, 1535, 1], [512, 1000, 25], [100] * 15 + [37]):
            request = queue.add([HEADER.pack(Kind.IN, 7)], writable, indirect=True)
            queue.kick()
            assert answer(request) == (Status.OK, data)
            assert request.written == 1537


def test_a_request_may_have_very_many_buffers(image: Path) -> None:
    with disk(image, queue_size=1024) as lab:
        lab.driver.start(ALL)
        queue = lab.driver.queues[0]
        data = os.urandom(512 * 1000)
        request = queue.add(
            [HEADER.pack(Kind.OUT, 1), *(data[at : at + 512] for at in range(0, len(data), 512))],
            [1],
            indirect=True,
        )
        queue.kick()
        assert answer(request) == (Status.OK, b"")
        assert image.read_bytes()[512 : 512 + len(data)] == data


@pytest.mark.parametrize("kind", [Kind.IN, Kind.OUT])
@pytest.mark.parametrize(
    ("sector", "size"),
    [(SIZE // SECTOR, 512), (SIZE // SECTOR - 1, 1024), ((1 << 64) - 1, 512), (0, 511), (0, 513)],
)
def test_what_is_past_the_end_or_not_in_sectors_is_an_error(
    image: Path, kind: Kind, sector: int, size: int
) -> None:
    with disk(image) as lab:
        lab.driver.start(ALL)
        before = image.read_bytes()
        data, room = (b"x" * size, 0) if kind is Kind.OUT else (b"", size)
        assert ask(lab, kind, sector, data, room)[0] == Status.IOERR
        assert image.read_bytes() == before
        assert ask(lab, Kind.IN, room=512) == (Status.OK, before[:512])


def test_a_request_without_header_or_status_stops_the_device(image: Path) -> None:
    for readable, writable in (([bytes(15)], [1]), ([bytes(16)], []), ([], [512, 1])):
        with disk(image) as lab:
            lab.driver.start(ALL)
            lab.driver.queues[0].add(readable, writable)
            lab.driver.queues[0].kick()
            lab.wait_until(lab.driver.needs_reset)
            lab.driver.start(ALL)
            assert ask(lab, Kind.FLUSH) == (Status.OK, b"")


def test_an_image_that_was_cut_short_gives_errors_where_it_ends(
    lab: VirtioLab, image: Path
) -> None:
    os.truncate(image, MIB)
    assert ask(lab, Kind.IN, MIB // SECTOR, room=512)[0] == Status.IOERR
    assert ask(lab, Kind.IN, MIB // SECTOR - 1, room=1024)[0] == Status.IOERR
    assert ask(lab, Kind.IN, MIB // SECTOR - 1, room=512)[0] == Status.OK


def test_a_full_file_system_is_an_error(lab: VirtioLab) -> None:
    service = blk(lab)._service
    assert service is not None
    kept, full = os.dup(service.disk._fd), os.open("/dev/full", os.O_RDWR)
    os.dup2(full, service.disk._fd)
    assert ask(lab, Kind.OUT, 0, bytes(4096))[0] == Status.IOERR
    os.dup2(kept, service.disk._fd)
    assert "No space left" in blk(lab).view()["traffic"]["last_error"]
    assert ask(lab, Kind.OUT, 0, bytes(4096))[0] == Status.OK
    os.close(kept)
    os.close(full)


# Other requests.


@pytest.mark.parametrize("kind", [2, 3, 10, 14, 15, 16, 24, 0xFFFF_FFFF])
def test_requests_of_other_kinds_are_unsupported(image: Path, kind: int) -> None:
    with disk(image) as lab:
        lab.driver.start(ALL)
        assert ask(lab, kind, data=bytes(512), room=512)[0] == Status.UNSUPP


@pytest.mark.parametrize(
    ("serial", "expected"),
    [(None, b"dut"), ("", b""), ("S3N4-1", b"S3N4-1"), ("x" * 20, b"x" * 20)],
)
def test_the_identity_is_the_serial_or_the_device_id(
    image: Path, serial: str | None, expected: bytes
) -> None:
    with disk(image, serial=serial) as lab:
        lab.driver.start(ALL)
        assert ask(lab, Kind.GET_ID, room=20) == (Status.OK, expected.ljust(20, b"\0"))
        assert ask(lab, Kind.GET_ID, room=2) == (Status.OK, expected.ljust(20, b"\0")[:2])
        request = lab.driver.queues[0].add([HEADER.pack(Kind.GET_ID, 0)], [1, 5, 14, 1])
        lab.driver.queues[0].kick()
        assert answer(request) == (Status.OK, expected.ljust(20, b"\0"))


def test_discard_gives_space_back(lab: VirtioLab, image: Path) -> None:
    assert ask(lab, Kind.FLUSH) == (Status.OK, b"")
    before = image.stat().st_blocks
    data = segment(0, 2048) + segment(4096, 2048)
    assert ask(lab, Kind.DISCARD, data=data) == (Status.OK, b"")
    assert image.stat().st_blocks <= before - 4096
    assert image.stat().st_size == SIZE


@pytest.mark.parametrize("flags", [0, UNMAP])
def test_written_zeroes_are_there(lab: VirtioLab, image: Path, flags: int) -> None:
    before = image.read_bytes()
    data = segment(1, 3, flags) + segment(100, 2000, flags)
    assert ask(lab, Kind.WRITE_ZEROES, data=data) == (Status.OK, b"")
    expected = bytearray(before)
    expected[512:2048] = bytes(1536)
    expected[51200 : 51200 + 2000 * 512] = bytes(2000 * 512)
    assert image.read_bytes() == expected


@pytest.mark.parametrize("kind", [Kind.DISCARD, Kind.WRITE_ZEROES])
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", Status.IOERR),
        (segment(0, 1)[:-1], Status.IOERR),
        (segment(0, 1) * (SEGMENTS_MAX + 1), Status.IOERR),
        (segment(0, SIZE // SECTOR + 1), Status.IOERR),
        (segment(0, DISCARD_SECTORS_MAX + 1), Status.IOERR),
        (segment(0, 1, 2), Status.UNSUPP),
        (segment(0, 1) + segment(0, 1, 1 << 31), Status.UNSUPP),
        (segment(0, 1) * SEGMENTS_MAX, Status.OK),
    ],
)
def test_ranges_are_checked_before_anything_is_done(
    image: Path, kind: Kind, data: bytes, status: Status
) -> None:
    with disk(image) as lab:
        lab.driver.start(ALL)
        before = image.read_bytes()
        assert ask(lab, kind, data=data)[0] == status
        if status:
            assert image.read_bytes() == before


def test_a_discard_has_no_unmap_flag(lab: VirtioLab) -> None:
    assert ask(lab, Kind.DISCARD, data=segment(0, 1, UNMAP))[0] == Status.UNSUPP


# Read only.


def test_a_read_only_disk_is_read_and_never_written(image: Path) -> None:
    image.chmod(0o444)
    with disk(image, read_only=True) as lab, disk(image, read_only=True) as other:
        offered = lab.driver.offered()
        assert offered & Feature.RO
        assert not offered & (Feature.DISCARD | Feature.WRITE_ZEROES)
        before = image.read_bytes()
        for each in (lab, other):
            each.driver.start(ALL)
            assert ask(each, Kind.OUT, 0, b"x" * 512)[0] == Status.IOERR
            assert ask(each, Kind.DISCARD, data=segment(0, 8))[0] == Status.IOERR
            assert ask(each, Kind.WRITE_ZEROES, data=segment(0, 8))[0] == Status.IOERR
            assert ask(each, Kind.FLUSH)[0] == Status.OK
            assert ask(each, Kind.IN, 8, room=4096) == (Status.OK, before[4096:8192])
        assert image.read_bytes() == before


# Durability.


def test_with_a_cache_only_a_flush_makes_writes_durable(lab: VirtioLab) -> None:
    assert lab.driver.config(WRITEBACK, 1) == b"\x01"
    assert ask(lab, Kind.OUT, 0, bytes(4096))[0] == Status.OK
    assert flushes(lab) == 0
    assert ask(lab, Kind.FLUSH)[0] == Status.OK
    assert flushes(lab) == 1


@pytest.mark.parametrize("accepted", [VERSION_1, VERSION_1 | Feature.CONFIG_WCE])
def test_a_driver_that_cant_flush_has_no_cache(image: Path, accepted: int) -> None:
    with disk(image) as lab:
        lab.driver.start(accepted)
        assert lab.driver.config(WRITEBACK, 1) == b"\0"
        for count, (kind, data) in enumerate(
            (
                (Kind.OUT, bytes(4096)),
                (Kind.DISCARD, segment(0, 8)),
                (Kind.WRITE_ZEROES, segment(0, 8)),
            ),
            1,
        ):
            assert ask(lab, kind, 0, data)[0] == Status.OK
            assert flushes(lab) == count


def test_the_driver_switches_the_cache_off_and_on(lab: VirtioLab) -> None:
    lab.write(lab.driver.registers.config + WRITEBACK, 0, 1)
    assert lab.driver.config(WRITEBACK, 1) == b"\0"
    assert ask(lab, Kind.OUT, 0, bytes(4096))[0] == Status.OK
    assert flushes(lab) == 1
    lab.write(lab.driver.registers.config + WRITEBACK, 1, 1)
    assert ask(lab, Kind.OUT, 0, bytes(4096))[0] == Status.OK
    assert flushes(lab) == 1


def test_a_reset_switches_the_cache_on(lab: VirtioLab) -> None:
    lab.write(lab.driver.registers.config + WRITEBACK, 0, 1)
    lab.driver.start(ALL)
    assert lab.driver.config(WRITEBACK, 1) == b"\x01"


def test_without_the_feature_the_cache_stays_as_it_is(image: Path) -> None:
    with disk(image) as lab:
        lab.driver.start(VERSION_1 | Feature.FLUSH)
        lab.write(lab.driver.registers.config + WRITEBACK, 0, 1)
        assert lab.driver.config(WRITEBACK, 1) == b"\x01"
        lab.write(lab.driver.registers.config, 0, 4)
        assert config(lab)[0] == SIZE // SECTOR


def test_after_a_failed_flush_neither_flush_nor_durable_write_succeeds(lab: VirtioLab) -> None:
    service = blk(lab)._service
    assert service is not None
    kept, (reader, writer) = os.dup(service.disk._fd), os.pipe()
    os.dup2(writer, service.disk._fd)
    assert ask(lab, Kind.FLUSH)[0] == Status.IOERR
    os.dup2(kept, service.disk._fd)
    assert ask(lab, Kind.FLUSH)[0] == Status.IOERR
    lab.driver.start(ALL)
    assert ask(lab, Kind.FLUSH)[0] == Status.IOERR
    assert ask(lab, Kind.OUT, 0, bytes(512))[0] == Status.OK
    lab.driver.start(VERSION_1)
    assert ask(lab, Kind.OUT, 0, bytes(512))[0] == Status.IOERR
    for fd in (kept, reader, writer):
        os.close(fd)


def test_a_failed_flush_is_not_forgotten_when_the_guest_goes_on_elsewhere(image: Path) -> None:
    with disk(image) as lab:
        service = blk(lab)._service
        assert service is not None
        service.disk.flush_error = errno.EDQUOT
        state = lab.device.save()
    for known, status in ((state, Status.IOERR), (None, Status.OK)):
        with disk(image) as lab:
            if known:
                lab.device.restore(known)
            lab.driver.start(ALL)
            assert ask(lab, Kind.FLUSH)[0] == status
            assert ("quota" in blk(lab).view()["traffic"]["last_error"]) == bool(status)


# Configuration.


def test_the_configuration_tells_of_the_disk(lab: VirtioLab) -> None:
    assert config(lab) == (
        SIZE // SECTOR,
        *(0, 254, 0, 0, 0),
        512,
        *(3, 0, 8, 0),
        1,
        1,
        *(DISCARD_SECTORS_MAX, SEGMENTS_MAX, 8),
        *(ZERO_SECTORS_MAX, SEGMENTS_MAX),
        1,
    )


def test_blocks_may_have_4096_bytes(image: Path) -> None:
    with disk(image, block_size=BlockSize.PAGE) as lab:
        lab.driver.start(ALL)
        assert config(lab)[6] == 4096
        assert config(lab)[7:11] == (0, 0, 1, 0)
        assert config(lab)[0] == SIZE // SECTOR
    os.truncate(image, SIZE - 512)
    with pytest.raises(BadConfig, match="allowed: a multiple of 4096, the block size"):
        disk(image, block_size=BlockSize.PAGE)
    disk(image).close()


def test_several_queues_serve_one_disk(image: Path) -> None:
    content = image.read_bytes()
    with disk(image, queues=4, queue_size=64) as lab:
        assert lab.driver.offered() & Feature.MQ
        lab.driver.start(ALL)
        assert [queue.size for queue in lab.driver.queues] == [64] * 4
        assert config(lab)[12] == 4
        requests = [add(lab, Kind.IN, 8 * n, room=4096, queue=n % 4) for n in range(32)]
        for queue in lab.driver.queues:
            queue.kick()
        for number, request in enumerate(requests):
            assert answer(request) == (Status.OK, content[4096 * number :][:4096])


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("queues", "0", "from 0x1 to 0x8"),
        ("queues", "9", "from 0x1 to 0x8"),
        ("queue_size", "100", "a power of two"),
        ("queue_size", "2", "from 0x4 to 0x400"),
        ("serial", "x" * 21, "up to 20 ASCII characters"),
        ("serial", "Gerät", "up to 20 ASCII characters"),
        ("block_size", "1024", "one of 512, 4096"),
        ("read_only", "maybe", "true or false"),
    ],
)
def test_a_bad_configuration_is_refused_by_field(
    image: Path, field: str, value: str, allowed: str
) -> None:
    types = DeviceTypes([VirtioBlk])
    with pytest.raises(BadConfig, match=allowed) as caught:
        types.make("virtio-blk", {"file": str(image), field: value})
    assert caught.value.metadata["field"] == field
    assert repr(field) in str(caught.value)


def test_a_file_is_required() -> None:
    with pytest.raises(BadConfig, match="required") as caught:
        DeviceTypes([VirtioBlk]).make("virtio-blk", {})
    assert caught.value.metadata["field"] == "file"


def test_an_image_is_locked_for_as_long_as_the_device_exists(image: Path) -> None:
    with disk(image):
        with pytest.raises(BadConfig, match="in use"):
            disk(image)
        disk(image, lock=False).close()
    disk(image).close()


# Many at once.


def test_what_is_quick_is_answered_with_one_interrupt(image: Path) -> None:
    with disk(image, Way.PCI) as lab:
        lab.driver.start(ALL)
        image.read_bytes()
        requests = [add(lab, Kind.IN, 8 * number, room=4096) for number in range(32)]
        before = sum(lab.pulses.values())
        lab.driver.queues[0].ask_for_interrupt()
        lab.driver.queues[0].kick()
        for request in requests:
            assert answer(request)[0] == Status.OK
        assert sum(lab.pulses.values()) - before == 1


def test_flushes_among_many_requests_are_all_answered(lab: VirtioLab) -> None:
    requests = []
    for number in range(20):
        requests.append(add(lab, Kind.OUT, 8 * number, bytes([number]) * 4096))
        requests.append(add(lab, Kind.FLUSH))
    lab.driver.queues[0].kick()
    assert {answer(request)[0] for request in requests} == {Status.OK}


def workers() -> int:
    return sum("dut-worker" in thread.name for thread in threading.enumerate())


def test_threads_come_when_they_are_needed_and_go_with_the_device(image: Path) -> None:
    with disk(image) as lab:
        lab.driver.start(ALL)
        assert ask(lab, Kind.OUT, 0, bytes(4096))[0] == Status.OK
        assert workers() == 0
        for _ in range(50):
            requests = [add(lab, Kind.FLUSH) for _ in range(20)]
            lab.driver.queues[0].kick()
            assert {answer(request)[0] for request in requests} == {Status.OK}
        assert 1 <= workers() <= WORKERS_MAX
    assert workers() == 0


def test_a_reset_waits_for_what_is_in_flight_and_answers_nothing_after(
    lab: VirtioLab, image: Path
) -> None:
    for _ in range(20):
        queue = lab.driver.queues[0]
        for number in range(30):
            add(lab, Kind.OUT, 64 * number, os.urandom(4096))
            add(lab, Kind.FLUSH)
        queue.kick()
        lab.driver.reset()
        used, content = queue.used[1], image.read_bytes()
        assert blk(lab).view()["waiting"] == 0
        lab.driver.start(ALL)
        assert ask(lab, Kind.IN, room=512) == (Status.OK, content[:512])
        assert queue.used[1] == used
        assert image.read_bytes() == content


def test_memory_that_goes_away_amid_requests_only_delays_them(lab: VirtioLab, image: Path) -> None:
    for round_ in range(10):
        data = bytes([round_ + 1]) * 65536
        requests = [add(lab, Kind.OUT, 128 * number, data) for number in range(20)]
        requests += [add(lab, Kind.FLUSH) for _ in range(5)]
        lab.driver.queues[0].kick()
        lab.unshare()
        lab.share()
        assert {answer(request)[0] for request in requests} == {Status.OK}
        assert image.read_bytes()[: 20 * 65536] == data * 20


# State, and what it says of itself.


def test_a_restored_device_goes_on(lab: VirtioLab, image: Path) -> None:
    lab.write(lab.driver.registers.config + WRITEBACK, 0, 1)
    queue = lab.driver.queues[0]
    requests = [add(lab, Kind.OUT, 8 * number, b"n" * 4096) for number in range(10)]
    queue.kick()
    state = lab.device.save()
    lab.device.close()
    os.truncate(image, SIZE + MIB)
    with VirtioLab(VirtioBlk(VirtioBlkConfig(file=image)), lab.way, ram=lab.ram) as after:
        after.device.restore(state)
        after.driver = lab.driver
        lab.driver.lab = queue.lab = after
        lab.driver.registers._lab = after
        assert {answer(request)[0] for request in requests} == {Status.OK}
        assert config(after)[0] == SIZE // SECTOR, "what the guest knows"
        assert ask(after, Kind.IN, SIZE // SECTOR, room=512)[0] == Status.IOERR
        assert after.driver.config(WRITEBACK, 1) == b"\0"
        before = flushes(after)
        assert ask(after, Kind.OUT, 0, bytes(512))[0] == Status.OK
        assert flushes(after) == before + 1


def test_a_smaller_image_doesnt_fit_a_state(image: Path) -> None:
    with disk(image) as lab:
        state = lab.device.save()
    os.truncate(image, SIZE - MIB)
    with disk(image) as lab:
        before = lab.device.save()
        with pytest.raises(BadState, match="'capacity'"):
            lab.device.restore(state)
        assert lab.device.save() == before


@pytest.mark.parametrize(
    "change",
    [
        *({"capacity": -1}, {"capacity": "x"}, {"capacity": 1 << 64}),
        *({"wants_cache": 2}, {"flush_error": -1}, {"flush_error": 4096}, {"more": 1}),
    ],
)
def test_a_broken_state_is_refused(image: Path, change: dict[str, Any]) -> None:
    with disk(image) as lab:
        state = lab.device.save()
        [field] = change
        broken = {**state, "device": {**state["device"], **change}}
        with pytest.raises(BadState, match=field):
            lab.device.restore(broken)


def test_the_view_counts_requests_by_kind(lab: VirtioLab) -> None:
    for number in range(3):
        assert ask(lab, Kind.IN, 8 * number, room=4096)[0] == Status.OK
    assert ask(lab, Kind.IN, SIZE, room=4096)[0] == Status.IOERR
    assert ask(lab, Kind.OUT, 0, bytes(512))[0] == Status.OK
    assert ask(lab, Kind.FLUSH)[0] == Status.OK
    assert ask(lab, 99)[0] == Status.UNSUPP
    view = lab.device.view()
    traffic = view["traffic"]
    assert (view["capacity"], view["cached"], view["waiting"]) == (SIZE, True, 0)
    counted = {
        kind: (tally["requests"], tally["bytes"], tally["errors"])
        for kind, tally in traffic.items()
        if kind != "last_error"
    }
    assert counted == {
        "in": (4, 3 * 4096, 1),
        "out": (1, 512, 0),
        "flush": (1, 0, 0),
        "other": (1, 0, 1),
    }
    assert 0 <= traffic["in"]["mean_us"] <= traffic["in"]["longest_us"]
    assert "FLUSH" in view["accepted"]


def test_the_configuration_has_the_layout_of_the_specification() -> None:
    assert CONFIG.size == 60
    packed = CONFIG.pack(*range(1, 20))
    assert struct.unpack_from("<Q", packed, 0) == (1,)
    assert packed[WRITEBACK] == 12
    assert struct.unpack_from("<H", packed, 34) == (13,)
    assert packed[56] == 19
