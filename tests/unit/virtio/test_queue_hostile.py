"""Whatever a driver writes into its queues, the device fails, and nothing else happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from structlog.testing import capture_logs

from devicehost_server.devices.virtio.features import VERSION_1
from virtioecho import Echo, EchoConfig
from virtiolab import DESCRIPTOR, EVERYTHING, INDIRECT, NEXT, WRITE, QueueDriver, VirtioLab, Way


@pytest.fixture(params=[(way, mapped) for way in Way for mapped in (True, False)])
def lab(request: pytest.FixtureRequest) -> Iterator[VirtioLab]:
    way, mapped = request.param
    with VirtioLab(Echo(EchoConfig()), way, mapped=mapped) as lab:
        yield lab


def table_of(queue: QueueDriver, *descriptors: tuple[int, int, int, int]) -> int:
    """Write a table into guest memory, and return where it is."""
    address = queue.lab.ram.allocate(16 * len(descriptors))
    queue.lab.ram.write(address, b"".join(DESCRIPTOR.pack(*each) for each in descriptors))
    return address


def loop(queue: QueueDriver) -> None:
    queue.describe(0, queue.lab.ram.base, 1, NEXT, 1)
    queue.describe(1, queue.lab.ram.base, 1, NEXT, 0)


def own_successor(queue: QueueDriver) -> None:
    queue.describe(0, queue.lab.ram.base, 1, NEXT, 0)


def next_beyond(queue: QueueDriver) -> None:
    queue.describe(0, queue.lab.ram.base, 1, NEXT, queue.size)


def empty(queue: QueueDriver) -> None:
    queue.describe(0, queue.lab.ram.base, 0, 0, 0)


def readable_last(queue: QueueDriver) -> None:
    queue.describe(0, queue.lab.ram.base, 1, NEXT | WRITE, 1)
    queue.describe(1, queue.lab.ram.base, 1, 0, 0)


def nowhere(queue: QueueDriver) -> None:
    queue.describe(0, 0x1000, 1, 0, 0)


def written_nowhere(queue: QueueDriver) -> None:
    queue.describe(0, (1 << 64) - 1, 0xFFFF_FFFF, WRITE, 0)


def past_the_end(queue: QueueDriver) -> None:
    ram = queue.lab.ram
    queue.describe(0, ram.base + ram.size - 8, 9, 0, 0)


def indirect_and_next(queue: QueueDriver) -> None:
    table = table_of(queue, (queue.lab.ram.base, 1, 0, 0))
    queue.describe(0, table, 16, INDIRECT | NEXT, 1)


def indirect_in_indirect(queue: QueueDriver) -> None:
    inner = table_of(queue, (queue.lab.ram.base, 1, 0, 0))
    outer = table_of(queue, (inner, 16, INDIRECT, 0))
    queue.describe(0, outer, 16, INDIRECT, 0)


def indirect_of_15(queue: QueueDriver) -> None:
    queue.describe(0, queue.lab.ram.base, 15, INDIRECT, 0)


def indirect_of_0(queue: QueueDriver) -> None:
    queue.describe(0, queue.lab.ram.base, 0, INDIRECT, 0)


def indirect_nowhere(queue: QueueDriver) -> None:
    queue.describe(0, 0x1000, 16, INDIRECT, 0)


def indirect_next_beyond(queue: QueueDriver) -> None:
    table = table_of(queue, (queue.lab.ram.base, 1, NEXT, 1))
    queue.describe(0, table, 16, INDIRECT, 0)


def indirect_loop(queue: QueueDriver) -> None:
    table = table_of(queue, (queue.lab.ram.base, 1, NEXT, 1), (queue.lab.ram.base, 1, NEXT, 0))
    queue.describe(0, table, 32, INDIRECT, 0)


def indirect_too_long(queue: QueueDriver) -> None:
    count = queue.size + 1
    table = table_of(
        queue,
        *((queue.lab.ram.base, 1, NEXT if n < count - 1 else 0, n + 1) for n in range(count)),
    )
    queue.describe(0, table, 16 * count, INDIRECT, 0)


CASES: dict[Callable[[QueueDriver], None], str] = {
    loop: "goes round in circles",
    own_successor: "goes round in circles",
    next_beyond: "no descriptor 64",
    empty: "length of 0",
    readable_last: "follows a writable one",
    nowhere: "not readable from 0x1000",
    written_nowhere: "not writable from 0xffffffffffffffff",
    past_the_end: "not readable from 0x41000000",
    indirect_and_next: "follows one that refers to an indirect table",
    indirect_in_indirect: "refers to another one",
    indirect_of_15: "has 15 bytes",
    indirect_of_0: "has 0 bytes",
    indirect_nowhere: "not readable from 0x1000",
    indirect_next_beyond: "no descriptor 1, the table has 1",
    indirect_loop: "goes round in circles",
    indirect_too_long: "more than 64 descriptors",
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_bad_chain_makes_the_device_fail_until_it_is_reset(
    lab: VirtioLab, case: Callable[[QueueDriver], None]
) -> None:
    lab.driver.start()
    queue = lab.driver.queues[0]
    case(queue)
    with capture_logs() as logs:
        queue.publish(0)
        queue.kick()
        lab.wait_until(lab.driver.needs_reset)
    assert CASES[case] in str(lab.device.view()["failed"])
    (log,) = [each for each in logs if each["event"] == "virtio_device_failed"]
    assert log["device"] == "dut"
    assert CASES[case] in log["reason"]
    assert queue.used[1] == 0

    lab.driver.start()
    assert not lab.driver.needs_reset()
    queue = lab.driver.queues[0]
    request = queue.add([b"well"], [4])
    queue.kick()
    assert request.wait() == b"well"


def test_a_failure_interrupts_by_a_change_of_configuration() -> None:
    with VirtioLab(Echo(EchoConfig())) as lab:
        lab.driver.start()
        queue = lab.driver.queues[0]
        empty(queue)
        queue.publish(0)
        queue.kick()
        lab.wait_until(lab.asserted)
        assert lab.driver.registers.acknowledge() == 2
        assert not lab.asserted()
    with VirtioLab(Echo(EchoConfig()), Way.PCI) as lab:
        lab.driver.start()
        queue = lab.driver.queues[0]
        empty(queue)
        queue.publish(0)
        queue.kick()
        vectors = lab.resources.get_pci_msix_irqs()
        assert vectors is not None
        lab.wait_until(lambda: lab.pulses[vectors.base] == 1)


@pytest.mark.parametrize("jump", [65, 1000, 0xFFFF])
def test_an_index_that_jumps_makes_it_fail(lab: VirtioLab, jump: int) -> None:
    lab.driver.start()
    queue = lab.driver.queues[1]
    queue.avail[1] = jump
    queue.kick(always=True)
    lab.wait_until(lab.driver.needs_reset)
    assert lab.device.view()["failed"] == f"queue 1: the available index jumps from 0 to {jump}"


def test_a_head_that_is_in_flight_makes_it_fail(lab: VirtioLab) -> None:
    assert isinstance(lab.device, Echo)
    lab.device.hold = True
    lab.driver.start()
    queue = lab.driver.queues[0]
    request = queue.add([b"a"], [1])
    queue.publish(request.head)
    queue.kick()
    lab.wait_until(lab.driver.needs_reset)
    assert "in flight already" in str(lab.device.view()["failed"])


def test_a_head_beyond_the_table_makes_it_fail(lab: VirtioLab) -> None:
    lab.driver.start()
    queue = lab.driver.queues[0]
    queue.publish(0xFFFF)
    queue.kick()
    lab.wait_until(lab.driver.needs_reset)
    assert "no descriptor 65535" in str(lab.device.view()["failed"])


def test_an_indirect_table_that_was_not_negotiated_makes_it_fail(lab: VirtioLab) -> None:
    lab.driver.start(EVERYTHING & (1 << 29) | VERSION_1)
    queue = lab.driver.queues[0]
    queue.add([b"a"], [1], indirect=True)
    queue.kick()
    lab.wait_until(lab.driver.needs_reset)
    assert "wasn't negotiated" in str(lab.device.view()["failed"])


def test_no_queue_of_a_failed_device_is_served() -> None:
    with VirtioLab(Echo(EchoConfig())) as lab:
        lab.driver.start()
        bad, good = lab.driver.queues
        empty(bad)
        bad.publish(0)
        bad.kick()
        lab.wait_until(lab.driver.needs_reset)
        good.add([b"a"], [1])
        good.kick(always=True)
        assert lab.device.queues[1].pop() is None
        assert good.used[1] == 0


def test_what_a_device_raises_makes_it_fail_and_is_logged() -> None:
    with VirtioLab(Echo(EchoConfig())) as lab, capture_logs() as logs:
        assert isinstance(lab.device, Echo)
        lab.device.error = RuntimeError("a bug")
        lab.driver.start()
        lab.wait_until(lab.driver.needs_reset)
        assert lab.device.view()["failed"] == "queue 0: RuntimeError: a bug"
        assert "virtio_serve_failed" in [each["event"] for each in logs]
        lab.device.error = None
        lab.driver.start()
        queue = lab.driver.queues[0]
        request = queue.add([b"a"], [1])
        queue.kick()
        assert request.wait() == b"a"


def test_queues_in_nowhere_are_not_served_and_harm_nobody() -> None:
    with VirtioLab(Echo(EchoConfig())) as lab:
        registers = lab.driver.registers
        lab.driver.reset()
        assert lab.driver.negotiate()
        good = lab.driver.set_up_queue(0)
        registers.select(1)
        registers.set_addresses(0x1000, 0xFFFF_FFFF_FFFF_F000, 0x2000)
        registers.enable()
        assert registers.enabled()
        lab.driver.ready()
        registers.notify(1)
        request = good.add([b"a"], [1])
        good.kick()
        assert request.wait() == b"a"
        assert not lab.driver.needs_reset()
        assert not lab.device.view()["queues"]["1"]["has_memory"]


@pytest.mark.parametrize("addresses", [(0x4000_0008, 0, 0), (0, 0x4000_0001, 0), (0, 0, 2)])
def test_a_queue_that_is_not_aligned_makes_it_fail(addresses: tuple[int, int, int]) -> None:
    with VirtioLab(Echo(EchoConfig())) as lab:
        registers = lab.driver.registers
        lab.driver.reset()
        assert lab.driver.negotiate()
        registers.select(0)
        registers.set_addresses(*addresses)
        registers.enable()
        assert not registers.enabled()
        assert lab.driver.needs_reset()
        assert "allowed: multiples of" in str(lab.device.view()["failed"])
