"""A server that is killed amid writes loses none that it has acknowledged."""

from __future__ import annotations

import mmap
import os
import random
import threading
from pathlib import Path

import pytest

from blkguest import BASE, BLOCK, DEPTH, RAM, Driver, Lost, content
from buslab import memfd
from daemonlab import daemon
from devicehost_server.devices.virtio.blk.spec import Kind

KILLS = 20
BLOCKS = 4096


def write_until_killed(driver: Driver, order: list[int]) -> tuple[set[int], set[int]]:
    """Write blocks in `order`, with flushes between; return those answered, and those flushed."""
    answered: set[int] = set()
    flushed: set[int] = set()
    try:
        while order:
            batch, order = order[:DEPTH], order[DEPTH:]
            for slot, block in enumerate(batch):
                driver.add(slot, Kind.OUT, block, content(block))
            driver.kick()
            for slot in driver.answered():
                answered.add(batch[slot])
            driver.add(DEPTH, Kind.FLUSH, 0, b"")
            driver.kick()
            for _ in driver.answered():
                flushed |= answered
    except Lost:
        pass
    return answered, flushed


@pytest.mark.parametrize("seed", range(KILLS))
def test_no_acknowledged_write_is_lost_when_the_server_is_killed(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(BLOCKS * BLOCK)
    fd = memfd(RAM)
    device = f"virtio-blk,file={image},id=disk0,base={BASE:#x}"
    with daemon(tmp_path, "--device", device, status=None) as running:
        host = running.host()
        host.memory.add(0, RAM, fd)
        with mmap.mmap(fd, RAM) as ram:
            driver = Driver(host, ram, lambda: running.process.poll() is not None)
            killer = threading.Timer(chance.uniform(0.001, 0.1), running.kill)
            killer.start()
            order = chance.sample(range(BLOCKS), BLOCKS)
            answered, flushed = write_until_killed(driver, order)
            killer.join()
            driver.close()
    os.close(fd)
    assert flushed <= answered
    assert len(answered) < BLOCKS, "it was killed before the end"
    with image.open("rb") as file:
        for block in answered:
            assert os.pread(file.fileno(), BLOCK, block * BLOCK) == content(block), block
