"""A disk goes on where it was when its server is started again amid requests."""

from __future__ import annotations

import mmap
import os
import random
from contextlib import ExitStack
from pathlib import Path

import pytest

from blkguest import BASE, BLOCK, DEPTH, RAM, Driver, content
from buslab import memfd
from daemonlab import daemon
from devicehost_server.devices.virtio.blk.spec import Kind

BLOCKS = 256


@pytest.mark.parametrize("seed", range(3))
def test_no_request_is_lost_or_done_twice_when_the_server_is_started_again(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(BLOCKS * BLOCK)
    fd = memfd(RAM)
    flags = (
        *("--state-file", str(tmp_path / "state.json")),
        *("--device", f"virtio-blk,file={image},id=disk0,base={BASE:#x}"),
    )
    with ExitStack() as stack:
        running = stack.enter_context(daemon(tmp_path, *flags, status=None))
        host = running.host()
        host.memory.add(0, RAM, fd)
        ram = stack.enter_context(mmap.mmap(fd, RAM))
        driver = Driver(host, ram, lambda: False)
        stack.callback(driver.close)
        made = 0
        order = chance.sample(range(BLOCKS), BLOCKS)
        while order:
            batch, order = order[:DEPTH], order[DEPTH:]
            for slot, block in enumerate(batch):
                driver.add(slot, Kind.OUT, block, content(block))
            made += len(batch)
            is_told = chance.random() < 0.8
            if is_told:
                driver.kick()
            if made % (8 * DEPTH) == 0 or not is_told:
                assert running.terminate() == 0
                running = stack.enter_context(daemon(tmp_path, *flags, status=None))
            # A server that wasn't told looks by itself.
            assert sorted(driver.answered()) == list(range(len(batch)))
            assert driver.answers == made
        driver.add(DEPTH, Kind.FLUSH, 0, b"")
        driver.kick()
        assert list(driver.answered()) == [DEPTH]
        assert driver.answers == made + 1
        assert running.terminate() == 0
    os.close(fd)
    for block in range(BLOCKS):
        assert image.read_bytes()[block * BLOCK :][:BLOCK] == content(block), block
