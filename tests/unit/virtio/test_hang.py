"""A device that hangs: nobody waits for it for ever, but a driver that resets it."""

from __future__ import annotations

import threading

import pytest

from devicehost_server.devices.virtio import engine
from devicehost_server.devices.virtio.queue import VirtQueue
from virtioecho import Echo, EchoConfig
from virtiolab import VirtioLab, Way


class Hanging(Echo):
    """Doesn't come back from a queue until it is let go."""

    def __init__(self, config: EchoConfig) -> None:
        super().__init__(config)
        self.inside, self.go_on = threading.Event(), threading.Event()

    def serve(self, queue: VirtQueue) -> None:
        chain = queue.pop()
        if chain is not None:
            self.inside.set()
            assert self.go_on.wait(20)
            queue.push(chain, 0)
            self.fail("too late")


@pytest.mark.parametrize("way", Way)
def test_a_device_that_hangs_is_given_up_when_it_is_to_end(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    with VirtioLab(Echo(EchoConfig()), way) as lab:
        give_up(lab, monkeypatch)


def give_up(lab: VirtioLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "REST_S", 0.05)
    device = Hanging(EchoConfig())
    hanging = VirtioLab(device, lab.way, device_id="hanging", beside=lab)
    hanging.driver.start()
    queue = hanging.driver.queues[0]
    queue.add([b"a"], [1])
    queue.kick(always=True)
    assert device.inside.wait(20)
    assert hanging.driver.registers.status() == 0xF  # others can look at it
    assert device.view()["queues"]["0"]["in_flight"] == 1
    for end in (device.freeze, device.close):
        with pytest.raises(TimeoutError, match="'hanging' hasn't come to rest"):
            end()
    before = dict(lab.pulses)
    device.go_on.set()
    name = "virtio hanging"
    lab.wait_until(lambda: name not in [each.name for each in threading.enumerate()])
    assert queue.used[1] == 0
    assert dict(lab.pulses) == before
    assert not hanging.asserted()
    device.close()
