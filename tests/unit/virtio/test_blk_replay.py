"""A disk that is recorded behaves in a replay as it did, without its image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.devices.virtio.blk import VirtioBlk
from devicehost_server.devices.virtio.blk.spec import HEADER, Feature, Kind
from devicehost_server.replay import Replayer
from replaylab import Bench
from virtiolab import EVERYTHING, Driver
from virtiorecorded import RecordedGuest

TYPES = DeviceTypes([VirtioBlk], discover=False)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    bench.devices.types = TYPES
    yield bench
    bench.close()


def work(driver: Driver) -> None:
    queue = driver.queues[0]
    for number in range(10):
        written = queue.add([HEADER.pack(Kind.OUT, number), bytes(4096)], [1])
        flushed = queue.add([HEADER.pack(Kind.FLUSH, 0)], [1])
        queue.kick()
        assert (written.wait(), flushed.wait()) == (b"\0", b"\0")
    assert int.from_bytes(driver.config(0, 8), "little") == 2048


@pytest.mark.parametrize("from_the_beginning", [False, True])
def test_its_registers_are_the_same_in_a_replay_without_the_image(
    bench: Bench, tmp_path: Path, *, from_the_beginning: bool
) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(os.urandom(1 << 20))
    device = bench.plug("virtio-blk", "disk0", file=str(image))
    driver = Driver(RecordedGuest(bench, device))
    if from_the_beginning:
        bench.begin()
    driver.start(EVERYTHING | sum(Feature))
    driver.lab.write(0x100 + 32, 0, 1)
    assert driver.config(32, 1) == b"\0"
    if not from_the_beginning:
        bench.begin()
    work(driver)
    driver.start(Feature.CONFIG_WCE | EVERYTHING)
    assert driver.config(32, 1) == b"\0"
    recording = bench.recording
    image.unlink()
    assert list(Replayer(recording, TYPES).run()) == []
