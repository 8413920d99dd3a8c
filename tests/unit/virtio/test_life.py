"""Reset, save, restore, unplug: what a device does with the requests that are in it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from devicehost_server.devices.virtio.features import VERSION_1, Status
from devicehost_server.model.errors import BadState
from virtioecho import FEATURE, Echo, EchoConfig
from virtiolab import EVERYTHING, VirtioLab, Way


@pytest.fixture(params=Way)
def lab(request: pytest.FixtureRequest) -> Iterator[VirtioLab]:
    with VirtioLab(Echo(EchoConfig()), request.param) as lab:
        yield lab


def echo(lab: VirtioLab) -> Echo:
    assert isinstance(lab.device, Echo)
    return lab.device


def other(lab: VirtioLab) -> VirtioLab:
    """A new device for the same guest."""
    return VirtioLab(Echo(EchoConfig()), lab.way, ram=lab.ram)


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(json.dumps(state))
    return loaded


def test_hooks_are_called_in_order(lab: VirtioLab) -> None:
    lab.driver.start(VERSION_1 | FEATURE)
    activate = f"activate {VERSION_1 | FEATURE:#x}"
    assert echo(lab).log == ["open", "reset", activate]
    lab.device.save()
    assert echo(lab).log == ["open", "reset", activate, "quiesce", activate]
    lab.driver.reset()
    assert echo(lab).log[-2:] == ["quiesce", "reset"]
    lab.device.close()
    assert echo(lab).log[-2:] == ["quiesce", "reset"]  # nothing ran any more


def test_a_reset_forgets_what_is_in_flight(lab: VirtioLab) -> None:
    echo(lab).hold = True
    lab.driver.start()
    queue = lab.driver.queues[0]
    queue.add([b"a"], [1])
    queue.kick()
    assert echo(lab).come.wait(20)
    ((ours, chain),) = echo(lab).held
    lab.driver.reset()
    ours.push(chain, 1)
    ours.notify()
    assert queue.used[1] == 0
    assert not lab.asserted()
    echo(lab).hold = False
    lab.driver.start()
    request = lab.driver.queues[0].add([b"b"], [1])
    lab.driver.queues[0].kick()
    assert request.wait() == b"b"


def test_a_reset_waits_for_what_is_being_served(lab: VirtioLab) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def wait(chains: list[Any]) -> None:
        if chains:
            entered.set()
            assert go_on.wait(20)

    echo(lab).arrange = wait
    lab.driver.start()
    queue = lab.driver.queues[0]
    queue.add([b"a"], [1])
    queue.kick()
    assert entered.wait(20)
    reset = threading.Thread(target=lab.driver.registers.set_status, args=(0,))
    reset.start()
    reset.join(0.05)
    assert reset.is_alive()
    assert queue.used[1] == 0
    go_on.set()
    reset.join(20)
    assert lab.driver.registers.status() == 0
    assert queue.used[1] == 1  # it was done, and before the reset


def test_an_endless_row_of_requests_does_not_hold_up_a_reset(lab: VirtioLab) -> None:
    lab.driver.start()
    queue, ours = lab.driver.queues[0], lab.device.queues[0]
    queue.describe(0, lab.ram.base, 1, 0, 0)

    def more(chains: list[Any]) -> None:
        for chain in chains:
            queue.publish(chain.head)
        ours._owner.look_again(0, 0)

    echo(lab).arrange = more
    queue.publish(0)
    queue.kick()
    lab.wait_until(lambda: echo(lab).served > 10)
    lab.driver.reset()
    assert lab.driver.registers.status() == 0


def test_a_saved_device_goes_on_elsewhere(lab: VirtioLab) -> None:
    lab.driver.start()
    queue = lab.driver.queues[0]
    request = queue.add([b"before"], [8])
    queue.kick()
    request.wait()
    state = through_json(lab.device.save())
    with other(lab) as there:
        there.device.restore(state)
        lab.driver.lab = queue.lab = there
        lab.driver.registers = type(lab.driver.registers)(there)
        assert lab.driver.registers.status() == 0xF
        request = queue.add([b"after"], [8])
        queue.kick()
        assert request.wait() == b"after"


def test_what_is_in_flight_when_it_is_saved_is_done_by_the_next(lab: VirtioLab) -> None:
    echo(lab).hold = True
    lab.driver.start()
    queue = lab.driver.queues[0]
    requests = [queue.add([b"%d" % number], [8]) for number in range(8)]
    queue.kick()
    lab.wait_until(lambda: len(echo(lab).held) == 8)
    held = list(echo(lab).held)
    echo(lab).release(3)
    state = through_json(lab.device.save())
    assert state["queue0_next_used"] == 3
    for ours, chain in held:  # what comes too late is for nobody
        ours.push(chain, 1)
    assert queue.used[1] == 3
    with other(lab) as there:
        there.device.restore(state)
        lab.driver.lab = queue.lab = there
        lab.driver.registers = type(lab.driver.registers)(there)
        queue.wait_all()
        assert echo(there).served == 5
    assert [each.data for each in requests] == [b"%d" % number for number in range(8)]


def test_a_device_that_was_saved_goes_on_itself(lab: VirtioLab) -> None:
    echo(lab).hold = True
    lab.driver.start()
    queue = lab.driver.queues[0]
    request = queue.add([b"kept"], [8])
    queue.kick()
    assert echo(lab).come.wait(20)
    echo(lab).hold = False
    lab.device.save()
    assert request.wait() == b"kept"
    assert echo(lab).served == 1


def test_a_restored_device_interrupts_and_looks_at_its_queues(lab: VirtioLab) -> None:
    lab.driver.start()
    queue = lab.driver.queues[0]
    state = through_json(lab.device.save())
    request = queue.add([b"no kick"], [8])
    with other(lab) as there:
        there.device.restore(state)
        assert there.interrupted.is_set()
        there.wait_until(lambda: queue.used[1] == 1)
        queue.collect()
        assert request.data == b"no kick"


def test_a_frozen_device_leaves_all_else_to_the_next(lab: VirtioLab) -> None:
    lab.driver.start()
    queue = lab.driver.queues[0]
    lab.device.freeze()
    request = queue.add([b"next"], [8])
    queue.kick(always=True)
    state = through_json(lab.device.save())
    assert lab.device.queues[0].pop() is None
    with other(lab) as there:
        there.device.restore(state)
        lab.driver.lab = queue.lab = there
        lab.driver.registers = type(lab.driver.registers)(there)
        assert request.wait() == b"next"
    assert echo(lab).served == 0


def test_registers_are_saved(lab: VirtioLab) -> None:
    lab.driver.start(FEATURE | VERSION_1, size=8)
    lab.driver.registers.select(1)
    lab.device.config_changed()
    state = through_json(lab.device.save())
    with other(lab) as there:
        there.device.restore(state)
        again = through_json(there.device.save())
        assert {key: again[key] for key in again if key != "isr"} == {
            key: state[key] for key in again if key != "isr"
        }
        assert there.driver.registers.status() == 0xF
        assert there.driver.registers.generation() == 1


def test_a_failed_device_is_restored_as_one(lab: VirtioLab) -> None:
    lab.driver.start()
    lab.device.fail("as told")
    lab.wait_until(lab.driver.needs_reset)
    state = through_json(lab.device.save())
    with other(lab) as there:
        there.device.restore(state)
        assert there.driver.needs_reset()
        there.driver.start()
        queue = there.driver.queues[0]
        request = queue.add([b"a"], [1])
        queue.kick()
        assert request.wait() == b"a"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("status", 256),
        ("features", -1),
        ("queue0_size", 65),
        ("queue0_size", 0),
        ("queue0_table", 1 << 64),
        ("queue1_enabled", 1),
        ("queue1_next_avail", 0x10000),
        ("queue0_again", "zz"),
        ("transport", "other"),
        ("isr", 4),
        ("pending", 1 << 40),
        ("unknown", 0),
        ("device", {"content": 5}),
        ("features", EVERYTHING | 1 << 20),
    ],
)
def test_a_bad_state_changes_nothing(lab: VirtioLab, field: str, value: object) -> None:
    lab.driver.start()
    lab.driver.registers.select(0)
    before = lab.device.save()
    with pytest.raises(BadState) as caught:
        lab.device.restore({**before, field: value})
    assert caught.value.metadata["field"] in {field, "content"}
    assert lab.device.save() == before
    queue = lab.driver.queues[0]
    request = queue.add([b"a"], [1])
    queue.kick()
    assert request.wait() == b"a"


def test_an_interrupt_waits_for_whoever_is_in_the_device(lab: VirtioLab) -> None:
    echo(lab).hold = True
    lab.driver.start()
    queue = lab.driver.queues[0]
    request = queue.add([b"a"], [1])
    queue.kick()
    assert echo(lab).come.wait(20)
    with lab.device.lock:
        finishing = threading.Thread(target=echo(lab).release)
        finishing.start()
        finishing.join(20)  # it doesn't wait for the lock
        assert not finishing.is_alive()
        assert queue.used[1] == 1
        assert not lab.interrupted.is_set()
    assert lab.interrupted.wait(20)
    assert request.wait() == b"a"


def test_a_device_is_reset_while_its_threads_interrupt(lab: VirtioLab) -> None:
    for _ in range(200):
        lab.driver.start()
        queue = lab.driver.queues[0]
        for _ in range(4):
            queue.add([b"a"], [1])
            queue.kick()
        lab.driver.reset()
        assert not lab.asserted()


def test_an_unplugged_device_has_no_thread(lab: VirtioLab) -> None:
    lab.driver.start()
    assert "virtio dut" in [each.name for each in threading.enumerate()]
    lab.device.close()
    assert "virtio dut" not in [each.name for each in threading.enumerate()]
    lab.unshare()


def test_a_machine_reset_is_one_of_the_device(lab: VirtioLab) -> None:
    lab.driver.start()
    lab.device.config_changed()
    lab.device.reset()
    assert lab.driver.registers.status() == 0
    assert not lab.asserted()
    lab.driver.registers.select(0)
    assert not lab.driver.registers.enabled()


def test_a_driver_that_gives_up_is_left_alone(lab: VirtioLab) -> None:
    lab.driver.start()
    lab.driver.registers.set_status(0xF | Status.FAILED)
    assert lab.driver.registers.status() == 0xF | Status.FAILED
    queue = lab.driver.queues[0]
    queue.add([b"a"], [1])
    queue.kick(always=True)
    assert lab.device.queues[0].pop() is None
    lab.driver.start()
    request = lab.driver.queues[0].add([b"a"], [1])
    lab.driver.queues[0].kick()
    assert request.wait() == b"a"


def test_a_failure_that_is_on_its_way_is_restored_as_one(lab: VirtioLab) -> None:
    lab.driver.start()
    state = through_json(lab.device.save())
    request = lab.driver.queues[0].add([b"a"], [1])
    with other(lab) as there:
        there.device.restore({**state, "pending": 1})
        assert there.driver.needs_reset()
        assert not [entry for entry in echo(there).log if entry.startswith("activate")]
        assert request.written is None


def test_news_on_their_way_when_another_state_comes_are_forgotten(lab: VirtioLab) -> None:
    lab.driver.start()
    state = through_json(lab.device.save())
    with lab.device.lock:
        failing = threading.Thread(target=lab.device.fail, args=("before",))
        failing.start()
        failing.join(20)
        lab.device.restore(state)
    assert not lab.driver.needs_reset()
    request = lab.driver.queues[0].add([b"a"], [1])
    lab.driver.queues[0].kick(always=True)
    assert request.wait() == b"a"


def test_features_that_were_agreed_on_and_are_not_offered_here_are_refused(
    lab: VirtioLab,
) -> None:
    lab.driver.reset()
    assert lab.driver.negotiate()
    state = lab.device.save()
    with pytest.raises(BadState, match="bit-20"):
        lab.device.restore({**state, "features": state["features"] | 1 << 20})


def test_a_device_that_cannot_tell_its_configuration_fails_and_recovers(lab: VirtioLab) -> None:
    device = echo(lab)
    lab.driver.start()
    device.content, good = None, device.content  # type: ignore[assignment] # that is the fault
    with lab.device.lock:
        changing = threading.Thread(target=device.config_changed)
        changing.start()
        changing.join(20)
    lab.wait_until(lab.driver.needs_reset)
    assert "TypeError" in lab.device.view()["failed"]
    device.content = good
    lab.driver.start()
    request = lab.driver.queues[0].add([b"a"], [1])
    lab.driver.queues[0].kick()
    assert request.wait() == b"a"


@pytest.mark.parametrize("features", [VERSION_1, EVERYTHING])
def test_a_device_is_saved_and_queues_are_reset_amid_traffic(lab: VirtioLab, features: int) -> None:
    """All that is asked for comes back once, whatever others do to the device meanwhile."""
    lab.driver.start(features)
    queue = lab.driver.queues[0]
    over = threading.Event()
    rounds = 0

    def disturb() -> None:
        nonlocal rounds
        while not over.is_set():
            lab.device.save()
            lab.device.config_changed()
            with lab.device.lock:
                lab.driver.registers.select(1)
                lab.driver.registers.reset_queue()
                lab.device.negotiation.enable()
            lab.unshare()
            lab.share()
            rounds += 1
            over.wait(0.001)  # so that others come to the lock

    disturbing = threading.Thread(target=disturb)
    disturbing.start()
    try:
        while rounds < 50:
            text = b"%d" % rounds
            requests = [queue.add([text], [8]) for _ in range(4)]
            queue.kick()
            queue.wait_all()
            assert {each.data for each in requests} == {text}
    finally:
        over.set()
        disturbing.join(20)
    assert not lab.driver.needs_reset()
