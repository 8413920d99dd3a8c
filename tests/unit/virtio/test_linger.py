"""Somebody looks on at a queue for a while: what comes meanwhile is found without a kick."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devicehost_server.devices.virtio.linger import Linger
from devicehost_server.devices.virtio.queue import VirtQueue
from virtioecho import Echo, EchoConfig
from virtiolab import VirtioLab


def still(*, mapped: bool = True) -> Iterator[VirtioLab]:
    """A device that leaves its queues to the test."""
    with VirtioLab(Echo(EchoConfig()), mapped=mapped) as lab:
        lab.driver.start()
        worker = lab.device._worker
        assert worker is not None
        worker.pause()
        yield lab


@pytest.fixture
def lab() -> Iterator[VirtioLab]:
    yield from still()


@pytest.fixture
def far() -> Iterator[VirtioLab]:
    yield from still(mapped=False)


def served(lab: VirtioLab) -> VirtQueue:
    """A queue of which all was served, and whose driver need not kick."""
    queue = lab.device.queues[0]
    queue.suppress()
    assert queue.pop() is None
    return queue


def test_what_comes_is_found(lab: VirtioLab) -> None:
    linger = Linger(served(lab), lambda: False)
    lab.driver.queues[0].add([b"new"], [8])
    assert linger.finds_more()


def test_it_ends_by_itself_when_nothing_comes(lab: VirtioLab) -> None:
    linger = Linger(served(lab), lambda: False)
    assert [linger.finds_more() for _ in range(100)] == [False] * 100


def test_what_comes_too_late_is_kicked_for_or_seen_by_who_asks_for_kicks(lab: VirtioLab) -> None:
    queue = served(lab)
    assert not Linger(queue, lambda: False).finds_more()
    lab.driver.queues[0].add([b"late"], [8])
    assert queue.ask_for_kicks()


def test_it_gives_way_to_anything_else(lab: VirtioLab) -> None:
    linger = Linger(served(lab), lambda: True)
    lab.driver.queues[0].add([b"new"], [8])
    assert not linger.finds_more()


def test_it_ends_when_the_queue_does(lab: VirtioLab) -> None:
    queue = served(lab)
    lab.driver.queues[0].add([b"new"], [8])
    queue.pause()
    assert not Linger(queue, lambda: False).finds_more()


def test_memory_that_has_to_be_asked_for_is_not_looked_at(far: VirtioLab) -> None:
    linger = Linger(served(far), lambda: False)
    far.driver.queues[0].add([b"new"], [8])
    assert not linger.finds_more()
