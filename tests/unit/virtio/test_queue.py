"""Requests go to the device and come back, by every way that there is."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from devicehost_server.devices.virtio.features import EVENT_IDX, INDIRECT_DESC, VERSION_1
from virtioecho import Echo, EchoConfig
from virtiolab import EVERYTHING, GuestRam, VirtioLab, Way

WAYS = [(way, mapped) for way in Way for mapped in (True, False)]


@pytest.fixture(params=WAYS, ids=lambda each: f"{each[0].value}-{'mapped' if each[1] else 'far'}")
def lab(request: pytest.FixtureRequest) -> Iterator[VirtioLab]:
    way, mapped = request.param
    with VirtioLab(Echo(EchoConfig()), way, mapped=mapped) as lab:
        yield lab


@pytest.fixture
def near() -> Iterator[VirtioLab]:
    with VirtioLab(Echo(EchoConfig())) as lab:
        yield lab


@pytest.fixture
def still() -> Iterator[VirtioLab]:
    """A device that leaves its queues to the test."""
    with VirtioLab(Echo(EchoConfig())) as lab:
        lab.driver.start()
        worker = lab.device._worker
        assert worker is not None
        worker.pause()
        yield lab


def echo(lab: VirtioLab) -> Echo:
    assert isinstance(lab.device, Echo)
    return lab.device


@pytest.mark.parametrize("indirect", [False, True])
def test_a_chain_carries_bytes_there_and_back(lab: VirtioLab, *, indirect: bool) -> None:
    lab.driver.start()
    queue = lab.driver.queues[1]
    request = queue.add([b"one ", b"and", b" two"], [5, 100], indirect=indirect)
    queue.kick()
    assert request.wait() == b"one and two"
    assert request.written == 11


@pytest.mark.parametrize("features", [VERSION_1, VERSION_1 | EVENT_IDX, EVERYTHING])
def test_many_requests_come_back_in_any_order(lab: VirtioLab, features: int) -> None:
    echo(lab).arrange = random.Random(3).shuffle
    lab.driver.start(features)
    queue = lab.driver.queues[0]
    for round_ in range(40):
        requests = {}
        for number in range(16):
            text = b"%d:%d" % (round_, number)
            indirect = bool(features & INDIRECT_DESC) and bool(number % 2)
            requests[text] = queue.add([text], [8, 8], indirect=indirect)
        queue.kick()
        queue.wait_all()
        assert [request.data for request in requests.values()] == list(requests)


def test_rings_wrap_around_at_65536(near: VirtioLab) -> None:
    near.driver.start(size=2)
    queue = near.driver.queues[0]
    for number in range(66_000):
        queue.add([], [2])
        if number % 2:
            queue.kick()
            queue.wait_all()
    assert queue.next_avail == 66_000 - 65_536
    assert echo(near).served == 66_000


def test_a_chain_may_have_as_many_buffers_as_the_queue(near: VirtioLab) -> None:
    near.driver.start(size=16)
    queue = near.driver.queues[0]
    for indirect in (False, True):
        request = queue.add([b"abc"] * 8, [3] * 8, indirect=indirect)
        queue.kick()
        assert request.wait() == b"abc" * 8


def test_an_indirect_table_may_follow_other_descriptors(near: VirtioLab) -> None:
    near.driver.start()
    queue, ram = near.driver.queues[0], near.ram
    table, first = ram.allocate(32), ram.allocate(16)
    second, third = ram.allocate(16), ram.allocate(16)
    ram.write(first, b"first ")
    ram.write(second, b"second")
    queue.describe(0, first, 6, 1, 1)
    queue.describe(1, table, 32, 4 | 2, 0)  # that it is writable says nothing of a table
    ram.write(table, second.to_bytes(8, "little") + bytes([6, 0, 0, 0, 1, 0, 1, 0]))
    ram.write(table + 16, third.to_bytes(8, "little") + bytes([16, 0, 0, 0, 2, 0, 0, 0]))
    queue.publish(0)
    queue.kick()
    near.wait_until(lambda: queue.used[1] == 1)
    assert ram.read(third, 12) == b"first second"


def test_buffers_are_windows_on_guest_memory(near: VirtioLab) -> None:
    echo(near).hold = True
    near.driver.start()
    queue = near.driver.queues[0]
    request = queue.add([b"before"], [6])
    queue.kick()
    assert echo(near).come.wait(20)
    ((_, chain),) = echo(near).held
    near.ram.write(request.buffers[0][0], b"after!")
    assert bytes(chain.readable[0]) == b"after!"
    chain.writable[0][:] = b"answer"
    assert near.ram.read(request.buffers[1][0], 6) == b"answer"


def test_a_buffer_may_span_blocks_of_memory() -> None:
    low = GuestRam(size=1 << 20)
    high = GuestRam(base=low.base + low.size, size=1 << 20)
    with VirtioLab(Echo(EchoConfig()), ram=low) as lab:
        lab.memory.add(high.block())
        lab.driver.start()
        queue = lab.driver.queues[0]
        edge = high.base - 4
        low.write(edge, b"left")
        high.write(high.base, b"right")
        queue.describe(0, edge, 9, 1, 1)
        queue.describe(1, edge, 9, 2, 0)
        queue.publish(0)
        queue.kick()
        lab.wait_until(lambda: queue.used[1] == 1)
        assert low.read(edge, 4) + high.read(high.base, 5) == b"leftright"


def test_a_driver_that_wants_no_interrupts_gets_none(near: VirtioLab) -> None:
    near.driver.start(VERSION_1)
    queue = near.driver.queues[0]
    queue.avail[0] = 1
    queue.add([b"x"], [1])
    queue.kick()
    near.wait_until(lambda: queue.used[1] == 1)
    near.wait_until(lambda: not queue.used[0])  # it has looked, and asks for kicks again
    assert not near.asserted()


def test_an_event_index_puts_the_interrupt_off(near: VirtioLab) -> None:
    near.driver.start()
    queue = near.driver.queues[0]
    queue.avail[2 + queue.size] = 2  # interrupt me when the third is back
    for number in range(3):
        queue.add([b"x"], [1])
        queue.kick()
        near.wait_until(lambda: queue.used[1] == number + 1)  # noqa: B023 # called in this round
        if number < 2:
            event = number + 1
            near.wait_until(lambda: queue.used[2 + 4 * queue.size] == event)  # noqa: B023 # likewise
            assert not near.asserted()
    near.wait_until(near.asserted)


def test_a_busy_device_wants_no_kicks(near: VirtioLab) -> None:
    near.driver.start(VERSION_1)
    queue = near.driver.queues[0]
    flags: list[int] = []
    echo(near).arrange = lambda chains: flags.extend(queue.used[0] for _ in chains)
    request = queue.add([b"x"], [1])
    queue.kick()
    request.wait()
    assert flags == [1]
    near.wait_until(lambda: queue.used[0] == 0)


def test_what_was_put_back_comes_first(near: VirtioLab) -> None:
    echo(near).hold = True
    near.driver.start()
    queue, ours = near.driver.queues[0], near.device.queues[0]
    for text in (b"a", b"b", b"c"):
        queue.add([text], [1])
    queue.kick()
    near.wait_until(lambda: len(echo(near).held) == 3)
    chains = [chain for _, chain in echo(near).held]
    ours.put_back(chains[1:])
    again = [ours.pop(), ours.pop()]
    assert [each.head for each in again if each] == [each.head for each in chains[1:]]
    ours.push(chains[0], 0)
    ours.push_all([(each, 1) for each in again if each])
    ours.notify()
    queue.wait_all()
    assert ours.pop() is None


def test_a_chain_is_given_back_once(near: VirtioLab) -> None:
    echo(near).hold = True
    near.driver.start()
    queue, ours = near.driver.queues[0], near.device.queues[0]
    queue.add([b"a"], [1])
    queue.kick()
    assert echo(near).come.wait(20)
    ((_, chain),) = echo(near).held
    ours.push(chain, 1)
    ours.push(chain, 1)
    ours.push_all([(chain, 1)])
    assert queue.used[1] == 1


def test_a_view_tells_of_queues_and_features(near: VirtioLab) -> None:
    near.driver.start()
    queue = near.driver.queues[0]
    request = queue.add([b"a"], [1])
    queue.kick()
    request.wait()
    view = near.device.view()
    assert view["status"] == "ACKNOWLEDGE DRIVER DRIVER_OK FEATURES_OK"
    assert view["offered"] == "ECHO INDIRECT_DESC EVENT_IDX VERSION_1 RING_RESET"
    assert view["accepted"] == "INDIRECT_DESC EVENT_IDX VERSION_1 RING_RESET"
    told = view["queues"]["0"]
    assert (told["next_avail"], told["next_used"], told["in_flight"]) == (1, 1, 0)
    assert (told["kicks"], told["interrupts"]) == (1, 1)


def test_a_driver_that_has_polled_for_65536_requests_is_interrupted(still: VirtioLab) -> None:
    queue, ours = still.driver.queues[0], still.device.queues[0]
    queue.describe(0, still.ram.base, 1, 2, 0)
    for number in range(1, 0x10001):
        queue.publish(0)
        chain = ours.pop()
        assert chain is not None
        if number == 0x10000:
            queue.next_used = queue.used[1]
            queue.ask_for_interrupt()
        ours.push(chain, 0)
    assert not still.asserted()
    ours.notify()
    assert still.asserted()


def test_a_queue_that_is_paused_interrupts_when_it_runs_again(still: VirtioLab) -> None:
    queue, ours = still.driver.queues[0], still.device.queues[0]
    queue.describe(0, still.ram.base, 1, 2, 0)
    queue.publish(0)
    chain = ours.pop()
    assert chain is not None
    ours.pause()
    ours.push(chain, 0)
    ours.notify()
    assert queue.used[1] == 1
    assert not still.asserted()
    still.device.save()
    still.wait_until(still.asserted)


def test_what_was_popped_comes_again_before_what_was_put_back(near: VirtioLab) -> None:
    echo(near).hold = True
    near.driver.start()
    queue, ours = near.driver.queues[0], near.device.queues[0]
    for text in (b"a", b"b", b"c"):
        queue.add([text], [1])
    queue.kick()
    near.wait_until(lambda: len(echo(near).held) == 3)
    chains = [chain for _, chain in echo(near).held]
    ours.put_back(chains[2:])
    near.device.freeze()
    assert ours.saved().again == tuple(chain.head for chain in chains)
