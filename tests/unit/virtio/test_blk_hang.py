"""A disk that doesn't answer, as one on a server that is gone: nobody else waits for it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from devicehost_server.devices.virtio.blk import VirtioBlk, VirtioBlkConfig
from devicehost_server.devices.virtio.blk.disk import Disk
from devicehost_server.devices.virtio.blk.service import WORKERS_MAX
from devicehost_server.devices.virtio.blk.spec import HEADER, Feature, Kind, Status
from virtiolab import DEADLINE_S, EVERYTHING, Request, VirtioLab

SIZE = 1 << 20
ALL = EVERYTHING | sum(Feature)


class HangingDisk(Disk):
    """A disk on which each read and write waits for `goes_on`."""

    goes_on: threading.Event
    waiting: threading.Semaphore

    def hang(self) -> None:
        self.waiting.release()
        assert self.goes_on.wait(DEADLINE_S)

    def read_cached(self, windows: Sequence[memoryview], offset: int, size: int) -> bool:
        return False

    def read(self, windows: Sequence[memoryview], offset: int, size: int) -> None:
        self.hang()
        super().read(windows, offset, size)

    def write(self, windows: Sequence[memoryview], offset: int, size: int) -> None:
        self.hang()
        super().write(windows, offset, size)


def lab_of(image: Path, beside: VirtioLab | None = None) -> VirtioLab:
    device = VirtioBlk(VirtioBlkConfig(file=image))
    lab = VirtioLab(device, device_id=image.name, beside=beside)
    lab.driver.start(ALL)
    return lab


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[tuple[VirtioLab, HangingDisk]]:
    image = tmp_path / "hanging"
    image.write_bytes(os.urandom(SIZE))
    with lab_of(image) as lab:
        assert isinstance(lab.device, VirtioBlk)
        service = lab.device._service
        assert service is not None
        service.disk.__class__ = HangingDisk
        disk = service.disk
        assert isinstance(disk, HangingDisk)
        disk.goes_on, disk.waiting = threading.Event(), threading.Semaphore(0)
        yield lab, disk
        disk.goes_on.set()


def ask(lab: VirtioLab, kind: Kind, sector: int = 0) -> Request:
    readable = [HEADER.pack(kind, sector)] + [b"w" * 4096] * (kind == Kind.OUT)
    request = lab.driver.queues[0].add(readable, [4096, 1] if kind == Kind.IN else [1])
    lab.driver.queues[0].kick()
    return request


@pytest.mark.parametrize("kind", [Kind.IN, Kind.OUT])
def test_others_go_on(hanging: tuple[VirtioLab, HangingDisk], tmp_path: Path, kind: Kind) -> None:
    lab, disk = hanging
    stuck = [ask(lab, kind, 8 * number) for number in range(2 * WORKERS_MAX)]
    assert disk.waiting.acquire(timeout=DEADLINE_S)
    image = tmp_path / "healthy"
    image.write_bytes(bytes(SIZE))
    with lab_of(image, beside=lab) as healthy:
        for sector in range(100):
            assert ask(healthy, Kind.OUT, sector).wait() == b"\0"
            assert ask(healthy, Kind.IN, sector).wait() == b"w" * 4096 + b"\0"
        healthy.driver.start(ALL)
        healthy.device.save()
    assert lab.device.view()["traffic"] == {"last_error": ""}
    assert lab.driver.config(0, 8) == (SIZE // 512).to_bytes(8, "little")
    assert all(request.written is None for request in stuck)
    disk.goes_on.set()
    assert {request.wait()[-1] for request in stuck} == {Status.OK}


@pytest.mark.parametrize("kind", [Kind.IN, Kind.OUT])
def test_a_reset_waits_for_what_may_still_touch_guest_memory_and_drops_the_rest(
    hanging: tuple[VirtioLab, HangingDisk], kind: Kind
) -> None:
    lab, disk = hanging
    for number in range(3 * WORKERS_MAX):
        ask(lab, kind, 8 * number)
    assert disk.waiting.acquire(timeout=DEADLINE_S)
    reset = threading.Event()

    def reset_it() -> None:
        lab.driver.reset()
        reset.set()

    resetting = threading.Thread(target=reset_it)
    resetting.start()
    assert not reset.wait(0.05)
    disk.goes_on.set()
    assert reset.wait(DEADLINE_S)
    resetting.join()
    done = lab.device.view()["traffic"].get(kind.name.lower(), {"requests": 0})["requests"]
    assert done <= WORKERS_MAX, "those that had begun"
    lab.driver.start(ALL)
    assert ask(lab, kind).wait()[-1] == Status.OK


def test_what_a_save_drops_is_done_when_it_goes_on(
    hanging: tuple[VirtioLab, HangingDisk],
) -> None:
    lab, disk = hanging
    requests = [ask(lab, Kind.IN, 8 * number) for number in range(3 * WORKERS_MAX)]
    for _ in range(WORKERS_MAX):
        assert disk.waiting.acquire(timeout=DEADLINE_S)
    threading.Timer(0.05, disk.goes_on.set).start()
    state = lab.device.save()
    assert lab.device.view()["traffic"]["in"]["requests"] >= WORKERS_MAX
    assert len(bytes.fromhex(state["queue0_again"])) // 4 == len(requests) - WORKERS_MAX
    assert {request.wait()[-1] for request in requests} == {Status.OK}
