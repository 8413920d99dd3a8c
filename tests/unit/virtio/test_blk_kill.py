"""A server that is killed amid writes loses none that it has acknowledged."""

from __future__ import annotations

import mmap
import os
import random
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from buslab import memfd
from daemonlab import WAIT_S, Daemon, daemon
from devicehost_client import ConnectionLost, DeviceHost
from devicehost_server.devices.virtio.blk.spec import HEADER, Feature, Kind, Status
from devicehost_server.devices.virtio.features import VERSION_1

KILLS = 20
BASE = 0xD000_0000
BLOCK = 4096
BLOCKS = 4096
DEPTH = 16
QUEUE = 64
"""Descriptors: three for each request in flight, and three for the flush."""

TABLE, AVAIL, USED, BUFFERS = 0x0000, 0x1000, 0x2000, 0x4000
SLOT = 0x2000
RAM = BUFFERS + (DEPTH + 1) * SLOT

# Registers of virtio-mmio (virtio 1.2, section 4.2.2), and steps of the status.
DRIVER_FEATURES, DRIVER_FEATURES_SEL = 0x20, 0x24
QUEUE_SEL, QUEUE_NUM, QUEUE_READY, QUEUE_NOTIFY, STATUS = 0x30, 0x38, 0x44, 0x50, 0x70
QUEUE_TABLE, QUEUE_DRIVER, QUEUE_DEVICE = 0x80, 0x90, 0xA0


class Lost(Exception):
    """The server is gone."""


class Driver:
    """A driver of a disk, with its queue in memory that the server shares."""

    def __init__(self, host: DeviceHost, running: Daemon, ram: mmap.mmap) -> None:
        self._host = host
        self._process = running.process
        self._ram = ram
        self._avail = memoryview(ram)[AVAIL : AVAIL + 4 + 2 * QUEUE].cast("H")
        self._used = memoryview(ram)[USED : USED + 4].cast("H")
        self._made = self._seen = 0
        for step in (0, 1, 3):
            self._set(STATUS, step)
        self._set(DRIVER_FEATURES_SEL, 0)
        self._set(DRIVER_FEATURES, Feature.FLUSH)
        self._set(DRIVER_FEATURES_SEL, 1)
        self._set(DRIVER_FEATURES, VERSION_1 >> 32)
        self._set(STATUS, 0xB)
        self._set(QUEUE_SEL, 0)
        self._set(QUEUE_NUM, QUEUE)
        for register, address in (
            (QUEUE_TABLE, TABLE),
            (QUEUE_DRIVER, AVAIL),
            (QUEUE_DEVICE, USED),
        ):
            self._set(register, address)
        self._set(QUEUE_READY, 1)
        self._set(STATUS, 0xF)

    def add(self, slot: int, kind: Kind, block: int, data: bytes) -> None:
        """Make a request available, in the memory of `slot`."""
        at = BUFFERS + slot * SLOT
        HEADER.pack_into(self._ram, at, kind, block * BLOCK // 512)
        self._ram[at + 0x1000 : at + 0x1000 + len(data)] = data
        self._ram[at + 0x20] = 0xFF
        parts = [(at, 16, 0), (at + 0x1000, len(data), 0), (at + 0x20, 1, 2)]
        parts = [part for part in parts if part[1]]
        for index, (address, size, flags) in enumerate(parts):
            number = 3 * slot + index
            more = index + 1 < len(parts)
            struct.pack_into(
                "<QIHH", self._ram, TABLE + 16 * number, address, size, flags | more, number + 1
            )
        self._avail[2 + self._made % QUEUE] = 3 * slot
        self._made += 1
        self._avail[1] = self._made % 0x10000

    def kick(self) -> None:
        """Tell the device of what was added."""
        self._set(QUEUE_NOTIFY, 0)

    def answered(self) -> Iterator[int]:
        """Wait for the answers to all that was added; yield each one's slot."""
        deadline = time.monotonic() + WAIT_S
        while self._seen != self._made:
            if self._used[1] == self._seen % 0x10000:
                if self._process.poll() is not None:
                    raise Lost
                assert time.monotonic() < deadline
                continue
            head: int = struct.unpack_from("<I", self._ram, USED + 4 + 8 * (self._seen % QUEUE))[0]
            self._seen += 1
            slot = head // 3
            assert self._ram[BUFFERS + slot * SLOT + 0x20] == Status.OK
            yield slot

    def close(self) -> None:
        """Let go of the memory."""
        self._avail.release()
        self._used.release()

    def _set(self, register: int, value: int) -> None:
        try:
            self._host.mmio_write(BASE + register, 4, value)
        except ConnectionLost:
            raise Lost from None


def content(block: int) -> bytes:
    return struct.pack("<Q", block + 1) * (BLOCK // 8)


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
            driver = Driver(host, running, ram)
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
