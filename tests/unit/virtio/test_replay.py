"""A virtio device that is recorded behaves in a replay as it did."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from devicehost.recording import Recording
from devicehost.recording.events import Access, Dma, Woken
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.devices.virtio.rng import VirtioRng
from devicehost_server.replay import Difference, Replayer
from replaylab import Bench
from virtioecho import Echo
from virtiolab import Driver
from virtiorecorded import RecordedGuest


class Announcing(Echo):
    """Has news for each driver that becomes ready."""

    type_name = "virtio-announcing"

    def activate(self, features: int) -> None:
        super().activate(features)
        self.config_changed()


TYPES = DeviceTypes([Announcing, Echo, VirtioRng], discover=False)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    bench.devices.types = TYPES
    yield bench
    bench.close()


def differences(recording: Recording) -> list[Difference]:
    return list(Replayer(recording, TYPES).run())


def requests(driver: Driver, count: int = 20) -> None:
    for _ in range(count):
        request = driver.queues[0].add(writable=[8])
        driver.queues[0].kick()
        assert request.wait()


def test_a_driver_at_work_is_replayed_from_the_beginning(bench: Bench) -> None:
    device = bench.plug("virtio-rng", "rng0")
    driver = Driver(RecordedGuest(bench, device))
    bench.begin()
    driver.start()
    requests(driver)
    driver.reset()
    recording = bench.recording
    wakings = [event for event in bench.events if isinstance(event, Woken)]
    assert "entrance:queue-0" in {each.source for each in wakings}
    assert not [event for event in bench.events if isinstance(event, Dma)]
    assert differences(recording) == []


def test_it_is_replayed_from_the_middle(bench: Bench) -> None:
    device = bench.plug("virtio-rng", "rng0")
    driver = Driver(RecordedGuest(bench, device))
    driver.start()
    requests(driver, 3)
    bench.begin()
    requests(driver, 10)
    assert differences(bench.recording) == []


def violate(_: Echo, driver: Driver) -> None:
    driver.queues[1].publish(0xFFFF)
    driver.queues[1].kick()
    while not driver.needs_reset():
        pass


def change(device: Echo, driver: Driver) -> None:
    device.config_changed()
    assert driver.registers.acknowledge() & 2


def misalign(_: Echo, driver: Driver) -> None:
    driver.reset()
    assert driver.negotiate()
    driver.registers.select(0)
    driver.registers.set_addresses(1, 0, 0)
    driver.registers.enable()
    assert driver.needs_reset()


@pytest.mark.parametrize("what", [violate, change, misalign])
def test_what_the_device_does_by_itself_is_replayed(
    bench: Bench, what: Callable[[Echo, Driver], None]
) -> None:
    device = bench.plug("virtio-echo", "echo0")
    driver = Driver(RecordedGuest(bench, device))
    bench.begin()
    driver.start()
    what(device, driver)
    driver.start()
    requests(driver, 3)
    assert differences(bench.recording) == []


def test_what_it_tells_a_driver_that_becomes_ready_is_replayed(bench: Bench) -> None:
    device = bench.plug("virtio-announcing", "echo0")
    driver = Driver(RecordedGuest(bench, device))
    bench.begin()
    for _ in range(3):
        driver.start()
        while not driver.registers.acknowledge() & 2:
            pass
    assert differences(bench.recording) == []


def test_an_interrupt_that_is_missing_is_noticed(bench: Bench) -> None:
    device = bench.plug("virtio-rng", "rng0")
    driver = Driver(RecordedGuest(bench, device))
    bench.begin()
    driver.start()
    requests(driver, 3)
    bench.events[:] = [event for event in bench.events if not isinstance(event, Woken)]
    assert differences(bench.recording)


def test_a_replay_has_no_threads_and_opens_nothing(bench: Bench) -> None:
    device = bench.plug("virtio-rng", "rng0", file="/dev/urandom")
    driver = Driver(RecordedGuest(bench, device))
    bench.begin()
    driver.start()
    requests(driver, 2)
    recording = bench.recording
    bench.devices.unplug("rng0")
    assert [event for event in bench.events if isinstance(event, Access)]
    before = set(threading.enumerate())
    running = Replayer(recording, TYPES).run()
    assert list(running) == []
    assert set(threading.enumerate()) == before
