"""Requests that no driver makes: each is answered, or stops the device until it is reset."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from devicehost_server.devices.virtio.blk import VirtioBlk, VirtioBlkConfig
from devicehost_server.devices.virtio.blk.spec import HEADER, SEGMENT, Feature, Kind, Status
from virtiolab import EVERYTHING, NEXT, WRITE, VirtioLab, Way

SIZE = 64 << 10
SECTORS = SIZE // 512
ALL = EVERYTHING | sum(Feature)
FAR = [0, 1, SECTORS - 1, SECTORS, SECTORS + 1, 1 << 32, 1 << 54, 1 << 55, (1 << 55) - 1]
FAR += [(1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - SECTORS]
COUNTS = [0, 1, SECTORS, SECTORS + 1, 1 << 16, 1 << 22, 1 << 31, (1 << 32) - 1]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(os.urandom(SIZE))
    return path


def disk(image: Path, way: Way = Way.MMIO, *, mapped: bool = True) -> VirtioLab:
    lab = VirtioLab(VirtioBlk(VirtioBlkConfig(file=image)), way, mapped=mapped)
    lab.driver.start(ALL)
    return lab


def chopped(chance: random.Random, data: bytes) -> list[bytes]:
    """`data` in up to five pieces."""
    cuts = sorted(chance.sample(range(1, len(data)), min(4, len(data) - 1))) if data else []
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mapped", [True, False])
def test_no_request_does_harm(image: Path, seed: int, *, mapped: bool) -> None:
    chance = random.Random(seed)
    with disk(image, mapped=mapped) as lab:
        for _ in range(500):
            kind = chance.choice([*Kind, *Kind, 2, 0xFFFF_FFFF])
            header = HEADER.pack(kind, chance.choice(FAR))
            body = b"".join(
                SEGMENT.pack(
                    chance.choice(FAR), chance.choice(COUNTS), chance.choice([0, 0, 0, 1, 1, 6])
                )
                for _ in range(chance.choice([0, 1, 1, 2, 32, 33]))
            )
            readable = (header + body)[: chance.choice([0, 15, 16, 1 << 20, 1 << 20, 1 << 20])]
            writable = chance.choices(
                [1, 2, 20, 511, 512, 513, 1024], k=chance.choice([0, 1, 2, 4])
            )
            pieces = chopped(chance, readable)
            if not pieces and not writable:
                continue
            request = lab.driver.queues[0].add(pieces, writable, indirect=chance.random() < 0.3)
            lab.driver.queues[0].kick()
            if len(readable) < 16 or not writable:
                lab.wait_until(lab.driver.needs_reset)
                lab.driver.start(ALL)
            else:
                assert request.wait()[-1] in {Status.OK, Status.IOERR, Status.UNSUPP}
            assert image.stat().st_size == SIZE
        request = lab.driver.queues[0].add([HEADER.pack(Kind.IN, 0)], [SIZE, 1])
        lab.driver.queues[0].kick()
        assert request.wait() == image.read_bytes() + b"\0"


@pytest.mark.parametrize("kind", list(Kind))
def test_the_status_may_be_where_the_rest_is(image: Path, kind: Kind) -> None:
    """Header, data and status are one piece of memory, and are written while they are used."""
    with disk(image) as lab:
        queue = lab.driver.queues[0]
        address = lab.ram.allocate(4096)
        for where in (address, address + 15, address + 16, address + 528):
            lab.ram.write(address, HEADER.pack(kind, 0) + SEGMENT.pack(0, 1, 0) + bytes(1024))
            data = (address, 16 + 16) if kind in {Kind.DISCARD, Kind.WRITE_ZEROES} else None
            parts = [data or (address, 16 + 512 * (kind == Kind.OUT))]
            queue.describe(0, *parts[0], NEXT, 1)
            queue.describe(1, address, 512, WRITE | NEXT, 2)
            queue.describe(2, where, 1, WRITE, 0)
            done = queue.used[1]
            queue.publish(0)
            queue.kick(always=True)
            lab.wait_until(lambda done=done: queue.used[1] != done)  # type: ignore[misc] # bound now
            assert not lab.driver.needs_reset()
            assert lab.ram.read(where, 1) == b"\0"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() or mount is None or umount is None:
        pytest.skip("only root mounts file systems")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=256K", "none", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("no file systems can be mounted here")
    yield folder
    subprocess.run([umount, folder], check=True)


def test_a_disk_that_is_larger_than_what_is_left_gives_errors_and_goes_on(small: Path) -> None:
    image = small / "sparse.img"
    with image.open("wb") as file:
        file.truncate(1 << 20)
    with disk(image) as lab:
        queue = lab.driver.queues[0]
        statuses = []
        for number in range(8):
            request = queue.add([HEADER.pack(Kind.OUT, 256 * number), b"d" * (128 << 10)], [1])
            queue.kick()
            statuses.append(Status(request.wait()[-1]))
        assert Status.OK in statuses
        assert Status.IOERR in statuses
        assert os.strerror(errno.ENOSPC) in lab.device.view()["traffic"]["last_error"]
        for kind, body in (
            (Kind.WRITE_ZEROES, SEGMENT.pack(0, 2048, 0)),  # a tmpfs has no other way than to write
            (Kind.DISCARD, SEGMENT.pack(0, 2048, 0)),
            (Kind.OUT, b"e" * 4096),
        ):
            request = queue.add([HEADER.pack(kind, 0), body], [1])
            queue.kick()
            expected = Status.IOERR if kind == Kind.WRITE_ZEROES else Status.OK
            assert request.wait()[-1] == expected
