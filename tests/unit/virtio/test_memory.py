"""Guest memory goes away and comes back: queues wait meanwhile, and lose nothing."""

from __future__ import annotations

import gc
import mmap
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from devicehost_server.devices.virtio.features import Status
from devicehost_server.devices.virtio.queue_memory import MISSING_S
from devicehost_server.model.device_io import ReadableBuffer
from devicehost_server.model.errors import MemoryNotMapped
from devicehost_server.model.guest_memory import MemoryBlock
from virtioecho import Echo, EchoConfig
from virtiolab import CopiedBacking, GuestRam, VirtioLab, Way


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


def finish_late(lab: VirtioLab) -> None:
    """Give back what can't arrive any more."""
    device = echo(lab)
    device.hold = True
    device.come.clear()
    lab.driver.queues[0].add([b"late"], [4])
    lab.driver.queues[0].kick(always=True)
    assert device.come.wait(20)
    held = list(device.held)
    device.held.clear()
    blocks = lab.memory.blocks()
    lab.unshare()
    for queue, chain in held:
        queue.push(chain, 4)
        queue.push(chain, 4)  # once is enough
    assert device.queues[0].view()["in_flight"] == 1
    assert len(device.queues[0].saved().late) == 1
    lab.memory.add(blocks[0])


@pytest.mark.parametrize("state", [keep, break_it, give_up, finish_late])
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


class MoodyBacking(CopiedBacking):
    """Memory at the end of a wire: some transfers fail, and all can be made to wait.

    Attributes:
        refuses: whether writes fail.
        transfers: how many there were.
        open: set to let transfers pass.
        waiting: set when one doesn't.
    """

    def __init__(self, ram: GuestRam) -> None:
        super().__init__(ram.view)
        self.refuses = False
        self.transfers = 0
        self.open = threading.Event()
        self.open.set()
        self.waiting = threading.Event()

    def read(self, offset: int, size: int) -> bytes:
        self._pass()
        return super().read(offset, size)

    def write(self, offset: int, data: ReadableBuffer) -> None:
        self._pass()
        if self.refuses:
            raise MemoryNotMapped("the wire is broken")
        super().write(offset, data)

    def _pass(self) -> None:
        self.transfers += 1
        if not self.open.is_set():
            self.waiting.set()
            assert self.open.wait(20)
            raise MemoryNotMapped("nobody answered in time")


@pytest.fixture
def wire() -> Iterator[tuple[VirtioLab, MoodyBacking]]:
    with VirtioLab(Echo(EchoConfig()), with_memory=False) as lab:
        backing = MoodyBacking(lab.ram)
        lab.memory.add(MemoryBlock(lab.ram.base, lab.ram.size, True, True, backing))  # noqa: FBT003 # a record
        lab.driver.start()
        yield lab, backing


@pytest.mark.parametrize("taken", ["before", "while"])
def test_a_transfer_that_fails_is_made_later(
    wire: tuple[VirtioLab, MoodyBacking], taken: str
) -> None:
    """Nothing tells when: the table of blocks stays the same."""
    lab, backing = wire
    queue = lab.driver.queues[0]
    if taken == "before":
        echo(lab).hold = True
        request = queue.add([b"late"], [4])
        queue.kick()
        assert echo(lab).come.wait(20)
        backing.refuses = True
        echo(lab).release()
    else:
        backing.refuses = True
        request = queue.add([b"late"], [4])
        queue.kick()
    assert queue.used[1] == 0
    before = backing.transfers
    lab.wait_until(lambda: backing.transfers > before)
    assert queue.used[1] == 0
    backing.refuses = False
    assert request.wait() == b"late"
    assert not lab.driver.needs_reset()


def test_a_reset_waits_for_one_transfer_at_most(wire: tuple[VirtioLab, MoodyBacking]) -> None:
    """Its reply may have to be read by the thread that resets, so it comes to nothing."""
    lab, backing = wire
    backing.open.clear()
    queue = lab.driver.queues[0]
    for _ in range(8):
        queue.add([b"a"], [1])
    queue.kick(always=True)
    assert backing.waiting.wait(20)
    resetting = threading.Thread(target=lab.driver.registers.set_status, args=(0,))
    resetting.start()
    lab.wait_until(lambda: not any(each.view()["running"] for each in lab.device.queues))
    assert resetting.is_alive()
    before = backing.transfers
    backing.open.set()
    resetting.join(20)
    assert backing.transfers == before
    lab.driver.start()
    request = lab.driver.queues[0].add([b"a"], [1])
    lab.driver.queues[0].kick()
    assert request.wait() == b"a"


def test_a_buffer_may_be_away_again_long_after_it_was() -> None:
    with VirtioLab(Echo(EchoConfig())) as lab:
        lab.driver.start()
        queue = lab.driver.queues[0]
        other = GuestRam(base=lab.ram.base + lab.ram.size, size=1 << 16)
        queue.describe(0, other.base, 5, 2, 0)
        queue.publish(0)
        queue.kick()
        lab.wait_until(lambda: lab.device.queues[0]._missing_since is not None)
        lab.unshare()
        time.sleep(MISSING_S)  # it must have been that long
        lab.share()  # all comes back, in two steps
        time.sleep(MISSING_S / 10)
        lab.memory.add(other.block())
        lab.wait_until(lambda: queue.used[1] == 1)
        assert not lab.driver.needs_reset()
