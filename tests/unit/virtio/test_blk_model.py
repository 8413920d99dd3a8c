"""Whatever is asked of a disk, several things at a time: it has the content of a model."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devicehost_server.devices.virtio.blk import VirtioBlk, VirtioBlkConfig
from devicehost_server.devices.virtio.blk.spec import (
    HEADER,
    SECTOR,
    SEGMENT,
    UNMAP,
    Feature,
    Kind,
    Status,
)
from virtiolab import EVERYTHING, Request, VirtioLab, Way

PLACES = 16
PLACE = 64
"""Sectors. Requests that are in flight together are about different places: what becomes
of two that overlap, nobody says."""

QUEUES = 2


@dataclass(frozen=True)
class Step:
    """A request about one place."""

    kind: Kind
    first: int
    count: int
    fill: int
    cut: int
    unmap: bool
    indirect: bool


STEPS = st.builds(
    Step,
    kind=st.sampled_from(list(Kind)),
    first=st.integers(0, PLACE - 1),
    count=st.integers(1, PLACE),
    fill=st.integers(1, 255),
    cut=st.integers(1, 40_000),
    unmap=st.booleans(),
    indirect=st.booleans(),
)
BATCHES = st.lists(st.lists(STEPS, max_size=PLACES), min_size=1, max_size=6)


def pieces(size: int, cut: int) -> list[int]:
    """Sizes of up to 8 buffers, which have `size` bytes together."""
    cut = max(cut, -(-size // 8))
    return [min(cut, size - at) for at in range(0, size, cut)]


class Model:
    """A disk, and what should be on it."""

    def __init__(self, lab: VirtioLab, image: Path) -> None:
        self.lab = lab
        self.image = image
        self.content = bytearray(PLACES * PLACE * SECTOR)

    def run(self, batch: Sequence[Step]) -> None:
        """Have all of a batch done at a time, and check it."""
        queues = self.lab.driver.queues
        asked = [(place, step, self._add(place, step)) for place, step in enumerate(batch)]
        for queue in queues:
            queue.kick()
        for place, step, request in asked:
            data = request.wait()
            assert data[-1] == Status.OK
            self._check(place, step, data[:-1])
        assert self.image.read_bytes() == self.content

    def _range(self, place: int, step: Step) -> slice:
        first = place * PLACE + step.first
        last = min(first + step.count, (place + 1) * PLACE)
        return slice(first * SECTOR, last * SECTOR)

    def _add(self, place: int, step: Step) -> Request:
        where = self._range(place, step)
        size = where.stop - where.start
        sector = where.start // SECTOR
        readable, writable = [HEADER.pack(step.kind, sector)], [1]
        match step.kind:
            case Kind.IN:
                writable = pieces(size + 1, step.cut)
            case Kind.OUT:
                readable += [bytes([step.fill]) * count for count in pieces(size, step.cut)]
            case Kind.GET_ID:
                writable = [20, 1]
            case Kind.DISCARD:
                readable.append(SEGMENT.pack(sector, size // SECTOR, 0))
            case Kind.WRITE_ZEROES:
                readable.append(SEGMENT.pack(sector, size // SECTOR, UNMAP * step.unmap))
        queue = self.lab.driver.queues[place % QUEUES]
        return queue.add(readable, writable, indirect=step.indirect)

    def _check(self, place: int, step: Step, data: bytes) -> None:
        where = self._range(place, step)
        size = where.stop - where.start
        match step.kind:
            case Kind.IN:
                assert data == self.content[where]
            case Kind.OUT:
                self.content[where] = bytes([step.fill]) * size
            case Kind.WRITE_ZEROES:
                self.content[where] = bytes(size)
            case Kind.DISCARD:
                now = self.image.read_bytes()[where]
                for old, new in zip(self.content[where], now, strict=True):
                    assert new in {0, old}
                self.content[where] = now


@pytest.mark.parametrize(("way", "mapped"), [(Way.MMIO, True), (Way.PCI, True), (Way.MMIO, False)])
@settings(max_examples=40, deadline=None)
@given(batches=BATCHES)
def test_a_disk_has_the_content_of_its_model(
    batches: list[list[Step]], way: Way, *, mapped: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "disk.img"
        image.write_bytes(bytes(PLACES * PLACE * SECTOR))
        device = VirtioBlk(VirtioBlkConfig(file=image, queues=QUEUES))
        with VirtioLab(device, way, mapped=mapped) as lab:
            lab.driver.start(EVERYTHING | sum(Feature))
            model = Model(lab, image)
            for batch in batches:
                model.run(batch)
