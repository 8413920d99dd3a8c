"""Status, features and queue settings, as section 3.1 of the specification has them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devicehost_server.devices.virtio.features import EVENT_IDX, RING_RESET, VERSION_1, Status
from virtioecho import FEATURE, Echo, EchoConfig
from virtiolab import EVERYTHING, VirtioLab, Way


@pytest.fixture(params=Way)
def lab(request: pytest.FixtureRequest) -> Iterator[VirtioLab]:
    with VirtioLab(Echo(EchoConfig(size=64)), request.param) as lab:
        yield lab


def test_a_device_offers_its_features_and_the_core_s(lab: VirtioLab) -> None:
    assert lab.driver.offered() == FEATURE | EVERYTHING
    assert lab.driver.registers.offered(2) == 0
    assert lab.driver.registers.offered(0xFFFF_FFFF) == 0


@pytest.mark.parametrize("features", [0, FEATURE, EVERYTHING & ~VERSION_1])
def test_without_version_1_features_are_not_ok(lab: VirtioLab, features: int) -> None:
    lab.driver.reset()
    assert not lab.driver.accept(features)
    assert lab.driver.registers.status() == Status.ACKNOWLEDGE | Status.DRIVER


@pytest.mark.parametrize("feature", [1 << 0, 1 << 31, 1 << 33, 1 << 63])
def test_features_that_were_never_offered_are_not_ok(lab: VirtioLab, feature: int) -> None:
    lab.driver.reset()
    assert not lab.driver.accept(VERSION_1 | feature)
    assert lab.driver.accept(VERSION_1)  # once it has thought better of it


def test_features_of_a_third_word_are_not_ok(lab: VirtioLab) -> None:
    lab.driver.reset()
    lab.driver.registers.accept(2, 1)
    assert not lab.driver.accept(VERSION_1)


def test_features_stay_once_they_are_ok(lab: VirtioLab) -> None:
    lab.driver.reset()
    assert lab.driver.accept(VERSION_1 | FEATURE)
    lab.driver.registers.accept(0, 0xFFFF_FFFF)
    assert lab.device.features == VERSION_1 | FEATURE


def test_a_driver_is_not_ready_before_its_features_are_ok(lab: VirtioLab) -> None:
    lab.driver.reset()
    lab.driver.registers.set_status(Status.ACKNOWLEDGE | Status.DRIVER | Status.DRIVER_OK)
    assert lab.driver.registers.status() == Status.ACKNOWLEDGE | Status.DRIVER
    lab.driver.registers.set_status(0xF)  # no features, so neither of both sticks
    assert lab.driver.registers.status() == Status.ACKNOWLEDGE | Status.DRIVER


def test_status_bits_stay_until_a_reset(lab: VirtioLab) -> None:
    lab.driver.start()
    lab.driver.registers.set_status(Status.ACKNOWLEDGE)
    assert lab.driver.registers.status() == 0xF
    lab.driver.registers.set_status(Status.NEEDS_RESET)
    assert lab.driver.registers.status() == 0xF
    lab.driver.registers.set_status(0)
    assert lab.driver.registers.status() == 0


@pytest.mark.parametrize("size", [0, 3, 65, 128, 0x8000])
def test_a_size_that_cannot_be_is_ignored(lab: VirtioLab, size: int) -> None:
    lab.driver.registers.select(1)
    lab.driver.registers.set_size(16)
    lab.driver.registers.set_size(size)
    name = "QUEUE_NUM" if lab.way is Way.MMIO else "QUEUE_SIZE"
    assert lab.device.peek(name) == 16


def test_settings_of_a_queue_in_use_stay(lab: VirtioLab) -> None:
    lab.driver.start(size=8)
    registers, ours = lab.driver.registers, lab.device.queues[1]
    before = ours.settings
    registers.select(1)
    registers.set_size(16)
    registers.set_addresses(0, 0, 0)
    registers.enable()
    assert ours.settings == before == lab.device.negotiation.queue.settings


def test_there_is_nothing_behind_the_last_queue(lab: VirtioLab) -> None:
    registers = lab.driver.registers
    lab.driver.reset()
    assert lab.driver.negotiate()
    for queue in (2, 0xFFFF):
        registers.select(queue)
        assert registers.size_max() == 0
        registers.set_size(16)
        registers.set_addresses(0x1000, 0x2000, 0x3000)
        registers.enable()
        registers.reset_queue()
        assert not registers.enabled()
        assert registers.size_max() == 0
    lab.driver.ready()
    registers.notify(2)
    registers.notify(500)


def test_nothing_is_served_before_the_driver_is_ready(lab: VirtioLab) -> None:
    lab.driver.reset()
    assert lab.driver.negotiate()
    queue = lab.driver.set_up_queue(0)
    request = queue.add([b"early"], [5])
    queue.kick(always=True)
    assert lab.device.queues[0].pop() is None
    lab.driver.ready()
    assert request.wait() == b"early"


def test_a_queue_can_be_reset_and_used_again(lab: VirtioLab) -> None:
    lab.driver.start()
    registers = lab.driver.registers
    queue, other = lab.driver.queues
    request = queue.add([b"a"], [1])
    queue.kick()
    request.wait()
    registers.select(0)
    registers.reset_queue()
    assert not registers.enabled()
    queue.add([b"b"], [1])
    queue.kick(always=True)
    request = other.add([b"c"], [1])
    other.kick()
    assert request.wait() == b"c"
    assert queue.used[1] == 1
    again = lab.driver.set_up_queue(0, 16)
    request = again.add([b"d"], [1])
    again.kick()
    assert request.wait() == b"d"


def test_a_queue_is_not_reset_unless_that_was_negotiated(lab: VirtioLab) -> None:
    lab.driver.start(EVERYTHING & ~RING_RESET)
    lab.driver.registers.select(0)
    lab.driver.registers.reset_queue()
    assert lab.driver.registers.enabled()


def test_without_an_event_index_it_is_not_used(lab: VirtioLab) -> None:
    lab.driver.start(EVERYTHING & ~EVENT_IDX)
    queue = lab.driver.queues[0]
    for _ in range(3):
        request = queue.add([b"d"], [1])
        queue.kick()
        request.wait()
    assert queue.used[2 + 4 * queue.size] == 0


def test_a_change_of_configuration_is_seen_whole(lab: VirtioLab) -> None:
    assert isinstance(lab.device, Echo)
    lab.driver.start()
    assert lab.driver.config(0, 10) == bytes(range(8)) + bytes(2)
    generation = lab.driver.registers.generation()
    lab.device.content = b"changed!"
    assert lab.driver.config(0, 8) == bytes(range(8))  # nobody has said so yet
    lab.device.config_changed()
    assert lab.driver.config(0, 8) == b"changed!"
    assert lab.driver.registers.generation() == generation + 1
    if lab.way is Way.PCI:
        assert not lab.asserted()
    else:
        assert lab.driver.registers.acknowledge() == 2


def test_a_driver_that_is_not_ready_is_not_interrupted(lab: VirtioLab) -> None:
    lab.device.config_changed()
    assert not lab.asserted()
    assert not lab.pulses


def test_a_driver_writes_the_configuration(lab: VirtioLab) -> None:
    assert isinstance(lab.device, Echo)
    first = lab.driver.registers.config
    lab.write(first + 2, 0xBBAA, 2)
    assert lab.device.content == bytes([0, 1, 0xAA, 0xBB, 4, 5, 6, 7])
    lab.write(first + 6, 0xFFEEDDCC, 4)  # past its end
    assert lab.device.content == bytes([0, 1, 0xAA, 0xBB, 4, 5, 0xCC, 0xDD])
    lab.write(first + 8, 1, 4)
    assert lab.read(first, 8).to_bytes(8, "little") == lab.device.content
