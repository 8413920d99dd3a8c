"""The registers of virtio-mmio."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devicehost.registers import check
from devicehost_server.model.resources import LegacyIrqConstraint, MmioAddressConstraint
from virtioecho import Echo, EchoConfig
from virtiolab import VirtioLab


@pytest.fixture
def lab() -> Iterator[VirtioLab]:
    with VirtioLab(Echo(EchoConfig())) as lab:
        yield lab


def test_it_says_what_it_is(lab: VirtioLab) -> None:
    assert lab.read(0x00).to_bytes(4, "little") == b"virt"
    assert lab.read(0x04) == 2
    assert lab.read(0x08) == 4
    assert lab.read(0x34) == 64


def test_it_needs_a_page_of_registers_and_an_interrupt() -> None:
    assert Echo(EchoConfig()).get_resource_constraints() == [
        MmioAddressConstraint(size=0x200),
        LegacyIrqConstraint(),
    ]
    assert Echo(EchoConfig(base=0xD000_0000, irq=5)).get_resource_constraints() == [
        MmioAddressConstraint.exact(0xD000_0000, 0x200),
        LegacyIrqConstraint(5),
    ]


def test_its_register_map_is_sound(lab: VirtioLab) -> None:
    register_map = lab.device.get_register_map()
    check(register_map)
    assert lab.device.peek("MAGIC_VALUE") == 0x74726976
    assert lab.device.peek("CONFIG[3]") == 3
    lab.driver.start()
    assert lab.device.peek("STATUS") == 0xF
    assert lab.device.peek("QUEUE_READY") == 0
    lab.device.poke("QUEUE_SEL", 1)
    assert lab.device.peek("QUEUE_READY") == 1
    lab.device.poke("INTERRUPT_STATUS", 1)
    assert lab.asserted()


def test_there_is_no_shared_memory(lab: VirtioLab) -> None:
    lab.write(0xAC, 0)
    assert [lab.read(offset) for offset in (0xB0, 0xB4, 0xB8, 0xBC)] == [0xFFFF_FFFF] * 4


def test_a_part_of_a_register_is_read_but_not_written(lab: VirtioLab) -> None:
    assert lab.read(0x01, 2).to_bytes(2, "little") == b"ir"
    lab.write(0x30, 1)
    lab.write(0x80, 0x1234_5678)
    lab.write(0x80, 0xFF, 1)
    lab.write(0x82, 0xFFFF, 2)
    assert lab.device.peek("QUEUE_DESC_LOW") == 0x1234_5678
    lab.write(0x80, 0x1111_2222_3333_4444, 8)
    assert lab.device.negotiation.queue.table == 0x1111_2222_3333_4444


def test_an_access_may_reach_from_the_registers_into_the_configuration(lab: VirtioLab) -> None:
    assert lab.read(0xFC, 8).to_bytes(8, "little") == bytes(4) + bytes(range(4))
    lab.write(0xFC, int.from_bytes(b"....abcd", "little"), 8)
    assert isinstance(lab.device, Echo)
    assert lab.device.content[:4] == b"abcd"


def test_the_line_follows_the_interrupt_status(lab: VirtioLab) -> None:
    lab.driver.start()
    queue = lab.driver.queues[0]
    queue.add([b"a"], [1])
    queue.kick()
    lab.wait_until(lab.asserted)
    lab.device.config_changed()
    assert lab.read(0x60) == 3
    lab.write(0x64, 1)
    assert lab.read(0x60) == 2
    assert lab.asserted()
    lab.write(0x64, 2)
    assert not lab.asserted()


def test_a_queue_that_is_taken_back_is_not_served(lab: VirtioLab) -> None:
    lab.driver.start()
    queue = lab.driver.queues[0]
    lab.write(0x30, 0)
    lab.write(0x44, 0)
    assert lab.read(0x44) == 0
    queue.add([b"a"], [1])
    queue.kick(always=True)
    assert lab.device.queues[0].pop() is None
    again = lab.driver.set_up_queue(0)
    request = again.add([b"b"], [1])
    again.kick()
    assert request.wait() == b"b"
