"""The registers of virtio-pci, and what the configuration space says of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from devicehost.registers import check
from devicehost_server.devices.virtio.rng import RngConfig, VirtioRng
from devicehost_server.model.errors import NotPeekable
from devicehost_server.model.pci import CapabilityHook, PciIdentity
from devicehost_server.model.resources import (
    LegacyIrqConstraint,
    MmioAddressConstraint,
    PciMsixIrqConstraint,
)
from virtioecho import Echo, EchoConfig
from virtiolab import VirtioLab, Way


@pytest.fixture
def lab() -> Iterator[VirtioLab]:
    with VirtioLab(Echo(EchoConfig()), Way.PCI) as lab:
        yield lab


@pytest.fixture
def intx() -> Iterator[VirtioLab]:
    with VirtioLab(Echo(EchoConfig()), Way.PCI_INTX) as lab:
        yield lab


def test_its_numbers_are_those_of_a_modern_device() -> None:
    description = VirtioRng(RngConfig()).describe_function()
    assert description.identity == PciIdentity(0x1AF4, 0x1044, 0x00FF00, 1, 0x1AF4, 0x1100)


def test_its_capabilities_lead_to_the_structures() -> None:
    device = Echo(EchoConfig(queues=3))
    found = {}
    for capability in device.describe_function().capabilities:
        kind, bar, _, offset, length = struct.unpack_from("<BBBxxII", capability.body)
        found[kind] = bar, offset, length, len(capability.body)
    assert found == {
        1: (0, 0x0000, 0x3C, 13),
        3: (0, 0x1000, 1, 13),
        4: (0, 0x2000, 0x1000, 13),
        2: (0, 0x3000, 12, 17),
        5: (0, 0, 0, 17),
    }
    notify = device.describe_function().capabilities[3]
    assert notify.body[-4:] == bytes([4, 0, 0, 0])


def test_it_needs_a_bar_and_interrupts() -> None:
    device = Echo(EchoConfig(queues=3))
    device.describe_function()
    assert device.get_resource_constraints() == [
        MmioAddressConstraint(size=0x4000),
        LegacyIrqConstraint(),
        PciMsixIrqConstraint(4),
    ]


def test_its_register_map_is_sound(lab: VirtioLab) -> None:
    check(lab.device.get_register_map())
    assert lab.device.peek("NUM_QUEUES") == 2
    assert lab.device.peek("CONFIG[3]") == 3
    lab.driver.start()
    assert lab.device.peek("DEVICE_STATUS") == 0xF
    lab.device.poke("QUEUE_SELECT", 1)
    assert lab.device.peek("QUEUE_ENABLE") == 1
    assert lab.device.peek("QUEUE_NOTIFY_OFF") == 1
    lab.device.poke("ISR_STATUS", 2)
    assert lab.asserted()
    assert lab.device.peek("ISR_STATUS") == 2
    assert lab.asserted()


def test_one_queue_is_kicked_as_well() -> None:
    with VirtioLab(Echo(EchoConfig(queues=1)), Way.PCI) as lab:
        lab.driver.start()
        lab.write(0x3000, 0, 2)
        assert lab.device.queues[0].kicks == 1


def test_a_64_bit_field_is_written_in_any_pieces(lab: VirtioLab) -> None:
    lab.write(0x20, 0x1122_3344_5566_7788, 8)
    lab.write(0x24, 0xAABB_CCDD, 4)
    lab.write(0x21, 0xEE, 1)
    assert lab.read(0x20, 8) == 0xAABB_CCDD_5566_EE88
    assert lab.read(0x24, 4) == 0xAABB_CCDD
    assert lab.read(0x26, 2) == 0xAABB


def test_any_write_to_its_place_kicks_a_queue(lab: VirtioLab) -> None:
    lab.driver.start()
    for offset, size in ((0x3004, 2), (0x3004, 4), (0x3004, 1), (0x3005, 1)):
        lab.write(offset, 0, size)
    assert lab.device.queues[1].kicks == 4
    lab.write(0x3000, 0, 8)
    assert [queue.kicks for queue in lab.device.queues] == [1, 5]
    lab.write(0x3008, 0, 2)
    assert lab.read(0x3000, 8) == 0


def test_a_vector_that_there_is_not_is_none(lab: VirtioLab) -> None:
    for offset in (0x10, 0x1A):
        assert lab.read(offset, 2) == 0xFFFF
        lab.write(offset, 2, 2)
        assert lab.read(offset, 2) == 2
        lab.write(offset, 3, 2)
        assert lab.read(offset, 2) == 0xFFFF


def test_each_queue_has_its_own_message(lab: VirtioLab) -> None:
    lab.driver.start()
    vectors = lab.resources.get_pci_msix_irqs()
    assert vectors is not None
    for queue in lab.driver.queues:
        request = queue.add([b"a"], [1])
        queue.kick()
        request.wait()
    lab.device.config_changed()
    assert dict(lab.pulses) == {vectors.base + n: 1 for n in range(3)}
    assert lab.read(0x1000, 1) == 0
    assert not lab.asserted()


def test_a_read_of_the_isr_clears_it_and_the_line(intx: VirtioLab) -> None:
    intx.driver.start()
    queue = intx.driver.queues[0]
    queue.add([b"a"], [1])
    queue.kick()
    intx.wait_until(intx.asserted)
    intx.device.config_changed()
    assert intx.read(0x1000, 1) == 3
    assert not intx.asserted()
    assert intx.read(0x1000, 4) == 0


def test_a_queue_that_is_enabled_stays_so(lab: VirtioLab) -> None:
    lab.driver.start()
    lab.driver.registers.select(0)
    lab.write(0x1C, 0, 2)
    assert lab.driver.registers.enabled()


def window_of(lab: VirtioLab) -> tuple[bytearray, CapabilityHook]:
    capability = lab.description.capabilities[-1]
    assert capability.hook is not None
    assert capability.writable[1] == 0xFF
    assert len(capability.writable) == len(capability.body)
    return bytearray(capability.body), capability.hook


def test_registers_are_reached_through_the_configuration_space(lab: VirtioLab) -> None:
    body, hook = window_of(lab)
    struct.pack_into("<II", body, 5, 0x16, 2)  # queue_select
    body[13:15] = bytes([1, 0])
    hook.after_write(body, 13, 2)
    assert lab.device.peek("QUEUE_SELECT") == 1
    struct.pack_into("<II", body, 5, 0x12, 2)  # num_queues
    hook.before_read(body, 13, 4)
    assert body[13:15] == bytes([2, 0])


@pytest.mark.parametrize(
    ("bar", "offset", "length"),
    [(1, 0, 4), (0, 0, 0), (0, 0, 3), (0, 0, 8), (0, 2, 4), (0, 0x4000, 4), (0, 0xFFFF_FFFC, 4)],
)
def test_a_window_on_nothing_does_nothing(
    lab: VirtioLab, bar: int, offset: int, length: int
) -> None:
    body, hook = window_of(lab)
    body[1] = bar
    struct.pack_into("<II", body, 5, offset, length)
    body[13:17] = b"kept"
    hook.before_read(body, 13, 4)
    hook.after_write(body, 13, 4)
    assert body[13:17] == b"kept"
    hook.before_read(body, 0, 13)
    hook.after_write(body, 5, 8)


def test_a_map_has_as_much_configuration_as_the_device(lab: VirtioLab) -> None:
    assert lab.device.get_register_map().register("CONFIG").count == 8
    rng = VirtioRng(RngConfig())
    rng.describe_function()
    assert "CONFIG" not in [register.name for register in rng.get_register_map()]


def test_commands_cannot_be_told(lab: VirtioLab) -> None:
    with pytest.raises(NotPeekable, match="NOTIFY"):
        lab.device.peek("NOTIFY[1]")


def test_a_vector_in_a_state_that_there_is_not_is_nobody_s(lab: VirtioLab) -> None:
    lab.driver.start()
    state = {**lab.device.save(), "queue0_vector": 100, "config_vector": 100}
    lab.device.restore(state)
    lab.device.config_changed()
    vectors, irq = lab.resources.get_pci_msix_irqs(), lab.resources.get_legacy_irq()
    assert vectors is not None
    assert set(lab.pulses) == {irq, vectors.base + 2}  # but the other queue has its own
    assert lab.read(0x1000, 1) == 3
