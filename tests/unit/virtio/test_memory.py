"""Guest memory goes away and comes back: queues wait meanwhile, and lose nothing."""

from __future__ import annotations

import gc
import mmap
import time
from collections.abc import Callable, Iterator

import pytest

from devicehost_server.devices.virtio.features import Status
from devicehost_server.devices.virtio.queue import MISSING_S
from virtioecho import Echo, EchoConfig
from virtiolab import GuestRam, VirtioLab, Way


@pytest.fixture(params=[(way, mapped) for way in Way for mapped in (True, False)])
def lab(request: pytest.FixtureRequest) -> Iterator[VirtioLab]:
    way, mapped = request.param
    with VirtioLab(Echo(EchoConfig()), way, mapped=mapped) as lab:
        yield lab


def echo(lab: VirtioLab) -> Echo:
    assert isinstance(lab.device, Echo)
    return lab.device


def test_requests_made_without_memory_are_served_when_it_is_back(lab: VirtioLab) -> None:
    lab.driver.start()
    queue = lab.driver.queues[0]
    for _ in range(3):
        lab.unshare()
        request = queue.add([b"later"], [5])
        queue.kick(always=True)
        assert lab.device.queues[0].pop() is None
        assert not lab.device.view()["queues"]["0"]["has_memory"]
        lab.share()
        assert request.wait() == b"later"
    assert not lab.driver.needs_reset()


def test_what_is_given_back_without_memory_arrives_when_that_is_back(lab: VirtioLab) -> None:
    echo(lab).hold = True
    lab.driver.start()
    queue = lab.driver.queues[0]
    requests = [queue.add([b"late%d" % number], [5]) for number in range(4)]
    queue.kick()
    lab.wait_until(lambda: len(echo(lab).held) == 4)
    lab.unshare()
    echo(lab).release()
    assert queue.used[1] == 0
    lab.share()
    queue.wait_all()
    assert [each.data for each in requests] == [b"late%d" % number for number in range(4)]


def keep(_: VirtioLab) -> None:
    """Leave a device at work."""


def break_it(lab: VirtioLab) -> None:
    lab.driver.queues[0].publish(0xFFFF)
    lab.driver.queues[0].kick()
    lab.wait_until(lab.driver.needs_reset)


def give_up(lab: VirtioLab) -> None:
    lab.driver.registers.set_status(Status.FAILED)


@pytest.mark.parametrize("state", [keep, break_it, give_up])
def test_memory_that_is_away_is_not_kept(
    lab: VirtioLab, state: Callable[[VirtioLab], None]
) -> None:
    lab.driver.start()
    queue = lab.driver.queues[0]
    request = queue.add([b"a"], [1])
    queue.kick()
    request.wait()
    state(lab)
    (block,) = lab.memory.blocks()
    window = block.backing.view(0, 16)
    there = None if window is None else window.obj
    lab.unshare()
    del block, window
    if isinstance(there, mmap.mmap):
        mapped = there

        def is_free() -> bool:
            gc.collect()
            try:
                mapped.close()
            except BufferError:
                return False
            return True

        lab.wait_until(is_free)


def test_a_buffer_may_be_away_for_a_moment() -> None:
    with VirtioLab(Echo(EchoConfig())) as lab:
        lab.driver.start()
        queue = lab.driver.queues[0]
        other = GuestRam(base=lab.ram.base + lab.ram.size, size=1 << 16)
        queue.describe(0, other.base, 5, 1, 1)
        queue.describe(1, other.base + 16, 5, 2, 0)
        other.write(other.base, b"there")
        queue.publish(0)
        queue.kick()
        deadline = time.monotonic() + MISSING_S / 2
        while time.monotonic() < deadline:
            assert not lab.driver.needs_reset()
        lab.memory.add(other.block())
        lab.wait_until(lambda: queue.used[1] == 1)
        assert other.read(other.base + 16, 5) == b"there"
        assert not lab.driver.needs_reset()


def test_memory_that_is_not_writable_is_not_written() -> None:
    with VirtioLab(Echo(EchoConfig())) as lab:
        rom = GuestRam(base=lab.ram.base + lab.ram.size, size=1 << 16)
        lab.memory.add(rom.block(writable=False))
        lab.driver.start()
        queue = lab.driver.queues[0]
        rom.write(rom.base, b"in ROM")
        to = lab.ram.allocate(16)
        queue.describe(0, rom.base, 6, 1, 1)
        queue.describe(1, to, 6, 2, 0)
        queue.publish(0)
        queue.kick()
        lab.wait_until(lambda: queue.used[1] == 1)
        assert lab.ram.read(to, 6) == b"in ROM"
        queue.describe(1, rom.base, 6, 2, 0)
        queue.publish(0)
        queue.kick()
        lab.wait_until(lab.driver.needs_reset)
        assert rom.read(rom.base, 6) == b"in ROM"


def test_a_device_starts_without_memory() -> None:
    with VirtioLab(Echo(EchoConfig()), with_memory=False) as lab:
        lab.driver.start()
        queue = lab.driver.queues[0]
        request = queue.add([b"a"], [1])
        queue.kick()
        lab.share()
        assert request.wait() == b"a"
