"""Virtqueues and transports under all that a driver may do, and much that it may not."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import virtioguest
from devicehost_server.devices.virtio import transport_mmio, transport_pci
from devicehost_server.devices.virtio.chain import Chain
from devicehost_server.devices.virtio.features import (
    EVENT_IDX,
    INDIRECT_DESC,
    RING_RESET,
    VERSION_1,
)
from devicehost_server.devices.virtio.queue import VirtQueue
from virtioecho import Echo, EchoConfig
from virtiolab import DESCRIPTOR, EVERYTHING, QueueDriver, VirtioLab, Way

CHAINS = st.lists(
    st.tuples(
        st.lists(st.integers(1, 300), max_size=4),  # sizes of what is readable
        st.lists(st.integers(1, 300), max_size=4),  # and writable
        st.booleans(),  # whether it is indirect
    ).filter(lambda chain: bool(chain[0] or chain[1])),
    min_size=1,
    max_size=12,
)


class Recorder(Echo):
    """Remembers what it answered."""

    def __init__(self, config: EchoConfig) -> None:
        super().__init__(config)
        self.answered: list[bytes] = []

    def answer(self, queue: VirtQueue, chain: Chain) -> None:
        self.answered.append(b"".join(chain.readable))
        super().answer(queue, chain)


@settings(max_examples=60, deadline=None)
@given(
    way=st.sampled_from(Way),
    mapped=st.booleans(),
    features=st.sampled_from([0, EVENT_IDX, INDIRECT_DESC, EVENT_IDX | INDIRECT_DESC]),
    rounds=st.lists(CHAINS, min_size=1, max_size=4),
    seed=st.integers(0, 1 << 32),
)
def test_well_formed_chains_come_back_once_in_whatever_order(
    way: Way,
    rounds: list[list[tuple[list[int], list[int], bool]]],
    seed: int,
    features: int,
    *,
    mapped: bool,
) -> None:
    chance = random.Random(seed)
    device = Recorder(EchoConfig(queues=1, size=128))
    device.arrange = random.Random(seed + 1).shuffle
    with VirtioLab(device, way, mapped=mapped) as lab:
        lab.driver.start(VERSION_1 | features)
        queue = lab.driver.queues[0]
        chance.shuffle(queue.free)
        expected = []
        for chains in rounds:
            for readable, writable, indirect in chains:
                if len(queue.free) < len(readable) + len(writable):
                    queue.kick()
                    queue.wait_all()
                data = [chance.randbytes(size) for size in readable]
                whole = b"".join(data) or b"\x2a"
                request = queue.add(
                    data, writable, indirect=indirect and bool(features & INDIRECT_DESC)
                )
                expected.append((request, whole[: sum(writable)], b"".join(data)))
            queue.kick()
            if chance.random() < 0.5:
                queue.wait_all()
        queue.wait_all()
        for request, answer, _ in expected:
            assert request.data == answer
        assert sorted(device.answered) == sorted(sent for _, _, sent in expected)
        assert queue.next_used == len(expected)


class Attacker:
    """Writes whatever it likes into the queues of a device."""

    def __init__(self, lab: VirtioLab, seed: int) -> None:
        self.lab = lab
        self.chance = random.Random(seed)

    def address(self) -> int:
        ram, chance = self.lab.ram, self.chance
        return chance.choice(
            (
                chance.randrange(ram.base, ram.base + ram.size),
                chance.randrange(ram.base, ram.base + 0x4000),  # where the queues are
                ram.base + ram.size - chance.randrange(32),
                chance.getrandbits(64),
                (1 << 64) - chance.randrange(1, 32),
                0,
            )
        )

    def descriptor(self) -> bytes:
        chance = self.chance
        size = chance.choice((0, 1, 16, 48, 100, 4096, 0xFFFF_FFFF, chance.getrandbits(32)))
        flags = chance.choice((0, 1, 1, 1, 2, 3, 4, 4, 5, 6, 7, chance.getrandbits(16)))
        following = chance.choice((chance.randrange(16), chance.getrandbits(16)))
        return DESCRIPTOR.pack(self.address(), size, flags, following)

    def attack(self) -> None:
        """Start the device somehow, then do harm."""
        lab, chance, driver = self.lab, self.chance, self.lab.driver
        driver.reset()
        offered = driver.offered()
        wanted = chance.choice((offered, VERSION_1, chance.getrandbits(64)))
        agreed = driver.accept(wanted)
        assert not agreed or not wanted & ~offered
        if not agreed:
            driver.reset()
            assert driver.negotiate()
        driver.queues = [driver.set_up_queue(index, chance.choice((1, 8, 64))) for index in (0, 1)]
        if chance.random() < 0.2:
            driver.registers.select(chance.randrange(3))
            driver.registers.reset_queue()
            driver.registers.set_addresses(self.address(), self.address(), self.address())
            driver.registers.enable()
        driver.ready()
        for _ in range(chance.randrange(1, 6)):
            queue = chance.choice(driver.queues)
            for number in range(queue.size):
                if chance.random() < 0.5:
                    lab.ram.write(queue.table + 16 * number, self.descriptor())
            count = chance.choice((1, 1, 2, queue.size, queue.size + 1, chance.getrandbits(16)))
            for place in range(min(count, queue.size)):
                head = chance.choice((place, chance.randrange(queue.size), chance.getrandbits(16)))
                queue.avail[2 + (queue.next_avail + place) % queue.size] = head
            queue.next_avail = (queue.next_avail + count) & 0xFFFF
            queue.avail[2 + queue.size] = chance.getrandbits(16)
            queue.avail[1] = queue.next_avail
            driver.registers.notify(chance.choice((queue.index, chance.getrandbits(8))))


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("mapped", [False, True])
def test_a_hostile_driver_harms_only_its_own_device(way: Way, *, mapped: bool) -> None:
    with (
        VirtioLab(Echo(EchoConfig()), way, mapped=mapped) as lab,
        VirtioLab(Echo(EchoConfig()), device_id="neighbour", beside=lab) as neighbour,
    ):
        for seed in range(150):
            attacker = Attacker(lab, seed)
            lab.interrupted.clear()
            attacker.attack()
            lab.interrupted.wait(0.002)  # mostly, it fails sooner
            if seed % 10 == 0:
                # The attacker may have written to any memory of its guest, so the neighbour's
                # queues are set up anew: its device has to be none the worse.
                lab.driver.reset()
                assert not neighbour.device.view()["failed"] or neighbour.driver.needs_reset()
                neighbour.driver.start()
                request = neighbour.driver.queues[0].add([b"fine"], [4])
                neighbour.driver.queues[0].kick()
                assert request.wait() == b"fine"
        lab.driver.start()
        request = lab.driver.queues[0].add([b"fine"], [4])
        lab.driver.queues[0].kick()
        assert request.wait() == b"fine"
        assert lab.device.lock.acquire(timeout=1)
        lab.device.lock.release()


@pytest.mark.parametrize(
    ("way", "size"), [(Way.MMIO, transport_mmio.SIZE), (Way.PCI, transport_pci.SIZE)]
)
def test_no_access_to_any_register_is_a_fault(way: Way, size: int) -> None:
    chance = random.Random(size)
    interesting = [0, 1, 2, 3, 7, 0xB, 0xF, 0x40, 0x80, 0xFFFF, 0xFFFF_FFFF, 1 << 32, 1 << 40]
    with VirtioLab(Echo(EchoConfig()), way) as lab:
        ram = lab.ram
        for _ in range(100_000):
            width = chance.choice((1, 2, 4, 8, 4, 2, 3, 5, 16))
            base = chance.choice((0, 0, 0, *range(0, size, 0x1000), 0x100 if size < 0x1000 else 0))
            offset = min(base + chance.randrange(0x100), size - width)
            if chance.random() < 0.3:
                offset = chance.randrange(size - width + 1)
            if chance.random() < 0.5:
                lab.io.mmio_read(lab.base + offset, bytearray(width))
            else:
                value = chance.choice(
                    (*interesting, ram.base + 4096 * chance.randrange(64), chance.getrandbits(64))
                )
                data = value.to_bytes(16, "little")[:width]
                lab.io.mmio_write(lab.base + offset, data)
        lab.driver.start()
        request = lab.driver.queues[1].add([b"fine"], [4])
        lab.driver.queues[1].kick()
        assert request.wait() == b"fine"


def let_it_pop(lab: VirtioLab, queue: QueueDriver, deadline_s: float) -> None:
    """Wait until a device has taken what was made available; not always long enough."""
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        if lab.device.queues[0].saved().next_avail == queue.next_avail:
            return
        time.sleep(0)


@settings(max_examples=25, deadline=None)
@given(
    way=st.sampled_from(Way),
    mapped=st.booleans(),
    features=st.sampled_from([VERSION_1, EVERYTHING]),
    seed=st.integers(0, 1 << 32),
)
def test_traffic_goes_on_in_a_restored_device(
    way: Way, features: int, seed: int, *, mapped: bool
) -> None:
    chance = random.Random(seed)
    first = Recorder(EchoConfig(queues=1))
    first.hold = chance.random() < 0.8
    device, devices = first, [first]
    labs = [VirtioLab(first, way, mapped=mapped)]
    driver = labs[0].driver
    driver.start(features)
    queue = driver.queues[0]
    expected = {}
    for number in range(200):
        data = b"%d" % number
        if len(queue.free) > 2:
            expected[queue.add([data], [1, 8])] = data
        if chance.random() < 0.5:
            queue.kick()
            let_it_pop(labs[-1], queue, chance.random() * 0.004)
        if chance.random() < 0.2:
            queue.collect()
            device.release(chance.randrange(8))
        if chance.random() < 0.04:
            moves = chance.random() < 0.7
            if moves:
                device.freeze()
            state = device.save()
            if moves:
                device = Recorder(EchoConfig(queues=1))
                device.hold = chance.random() < 0.8
                devices.append(device)
                labs.append(VirtioLab(device, way, mapped=mapped, ram=labs[0].ram))
                device.restore(state)
                driver.lab = queue.lab = labs[-1]
                driver.registers = type(driver.registers)(labs[-1])
    queue.kick(always=True)
    device.hold = False
    device.save()  # what it holds it lets go of, and gets once more
    queue.wait_all()
    for request, data in expected.items():
        assert request.data == data
    answered = [data for each in devices for data in each.answered]
    assert sorted(answered) == sorted(expected.values())
    for lab in reversed(labs):
        lab.close()


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("features", [VERSION_1, VERSION_1 | EVENT_IDX | RING_RESET])
def test_no_kick_and_no_interrupt_is_lost_between_threads(features: int) -> None:
    count = 100_000
    with VirtioLab(Echo(EchoConfig()), Way.PCI) as lab:
        lab.driver.start(features)
        bad, kicks = virtioguest.run(lab.driver, count, 1)
        assert bad == 0
        assert kicks < count


@pytest.mark.parametrize("features", [VERSION_1, VERSION_1 | EVENT_IDX])
def test_no_kick_and_no_interrupt_is_lost_between_processors(features: int) -> None:
    count = 100_000
    ours, theirs = socket.socketpair()
    interrupts = os.eventfd(0, os.EFD_CLOEXEC)
    with VirtioLab(Echo(EchoConfig()), Way.PCI) as lab, ours, theirs:
        fds = (theirs.fileno(), lab.ram.fd, interrupts)
        guest = subprocess.Popen(
            [
                sys.executable,
                str(Path(virtioguest.__file__)),
                *map(str, (*fds, count, 7, features)),
            ],
            pass_fds=fds,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        server = threading.Thread(target=virtioguest.serve, args=(lab, ours, interrupts))
        server.start()
        output, _ = guest.communicate(timeout=100)
        server.join(20)
        bad, kicks = map(int, output.split())
        assert bad == 0
        assert kicks < count
    os.close(interrupts)
