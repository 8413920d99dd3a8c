"""The scratch device: registers, an interrupt by hand, and misbehaviour to order."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_server.devices.config import parse
from devicehost_server.devices.scratch import Bus, Config, Scratch
from devicehost_server.model.errors import BadConfig, BadState
from devicehost_server.model.resources import (
    LegacyIrqConstraint,
    MmioAddressConstraint,
    PioAddressConstraint,
    ResourceConstraint,
)
from devicelab import Lab, mmio_in, mmio_out, pio_in, pio_out

BASE = 0xD000_0000


def scratch(lab: Lab | None = None, /, **values: str) -> Scratch:
    config = parse("scratch", Config, {"base": hex(BASE), **values})
    return (lab or Lab()).host(Scratch(config))


@pytest.mark.parametrize(
    ("config", "needs"),
    [
        (Config(), [MmioAddressConstraint(size=256)]),
        (Config(base=BASE, size=3), [MmioAddressConstraint.exact(BASE, 3)]),
        (Config(bus=Bus.PIO, size=8), [PioAddressConstraint(size=8)]),
        (Config(bus=Bus.PIO, base=0x300), [PioAddressConstraint.exact(0x300, 256)]),
        (Config(irq=5), [MmioAddressConstraint(size=256), LegacyIrqConstraint(5)]),
    ],
)
def test_it_asks_for_what_its_configuration_says(
    config: Config, needs: list[ResourceConstraint]
) -> None:
    assert Scratch(config).get_resource_constraints() == needs


def test_it_remembers_what_was_written() -> None:
    device = scratch()
    assert mmio_in(device, BASE + 0x10) == 0
    mmio_out(device, BASE + 0x10, 0x12345678)
    assert mmio_in(device, BASE + 0x10) == 0x12345678
    assert mmio_in(device, BASE + 0x11, 1) == 0x56
    assert mmio_in(device, BASE + 0x0E, 8) == 0x12345678_0000


def test_it_is_the_same_on_ports() -> None:
    device = scratch(bus="pio", base="0x300", size="4")
    pio_out(device, 0x301, 0xBEEF, 2)
    assert pio_in(device, 0x300, 4) == 0x00BEEF00


def test_it_fills_a_window_on_shared_memory_in_place() -> None:
    device = scratch()
    mmio_out(device, BASE, 0x04030201)
    shared = bytearray(8)
    device.read(BASE, 0, memoryview(shared)[2:6])
    assert shared == bytes((0, 0, 1, 2, 3, 4, 0, 0))


def test_bit_0_of_the_last_byte_is_the_level_of_its_interrupt() -> None:
    lab = Lab()
    device = scratch(lab, irq="5", size="16")
    mmio_out(device, BASE + 15, 0xFF, 1)
    assert lab.asserted(5)
    mmio_out(device, BASE + 14, 0xFF, 1)
    assert lab.asserted(5)
    mmio_out(device, BASE + 8, 0x00, 8)
    assert not lab.asserted(5)


def test_without_an_interrupt_the_last_byte_is_like_the_others() -> None:
    lab = Lab()
    device = scratch(lab, size="16")
    mmio_out(device, BASE + 15, 0x01, 1)
    assert mmio_in(device, BASE + 15, 1) == 0x01
    assert lab.interrupts.asserted() == []


@pytest.mark.parametrize(("offset", "size"), [(4, 1), (1, 4), (0, 8), (3, 2)])
def test_an_access_that_touches_the_fault_offset_fails(offset: int, size: int) -> None:
    device = scratch(fault_offset="4")
    with pytest.raises(RuntimeError, match="fault_offset 0x4 was accessed"):
        mmio_in(device, BASE + offset, size)
    with pytest.raises(RuntimeError, match="fault_offset 0x4 was accessed"):
        mmio_out(device, BASE + offset, 1, size)
    assert mmio_in(device, BASE, 4) == 0


@pytest.mark.parametrize(("offset", "size"), [(0, 4), (5, 4)])
def test_an_access_beside_the_fault_offset_works(offset: int, size: int) -> None:
    device = scratch(fault_offset="4")
    mmio_out(device, BASE + offset, 0x55, size)
    assert mmio_in(device, BASE + offset, size) == 0x55


def test_an_access_that_touches_the_delay_offset_takes_its_time() -> None:
    device = scratch(delay_offset="0", delay_ms="30")
    before = time.monotonic()
    mmio_out(device, BASE, 7)
    assert time.monotonic() - before >= 0.030
    before = time.monotonic()
    assert mmio_in(device, BASE) == 7
    assert time.monotonic() - before >= 0.030


def test_an_access_beside_the_delay_offset_is_quick() -> None:
    device = scratch(delay_offset="0", delay_ms="3600000")
    mmio_out(device, BASE + 1, 7, 1)
    assert mmio_in(device, BASE + 1, 1) == 7


@pytest.mark.parametrize("field", ["fault_offset", "delay_offset"])
def test_an_offset_beyond_the_last_byte_is_refused(field: str) -> None:
    with pytest.raises(BadConfig, match=f"{field}.*0x10.*at most 0xf") as refused:
        scratch(size="16", **{field: "16"})
    assert refused.value.metadata["field"] == field


def test_a_reset_forgets_everything() -> None:
    lab = Lab()
    device = scratch(lab, irq="5", size="4")
    mmio_out(device, BASE, 0x01020304)
    assert lab.asserted(5)
    device.reset()
    assert mmio_in(device, BASE) == 0
    assert not lab.asserted(5)


def test_closing_lets_the_interrupt_go() -> None:
    lab = Lab()
    device = scratch(lab, irq="5", size="4")
    mmio_out(device, BASE + 3, 1, 1)
    device.close()
    assert not lab.asserted(5)


def test_a_device_that_got_nothing_can_be_closed() -> None:
    Scratch(Config(irq=5)).close()


SIZE = 16
ACCESSES = st.lists(
    st.tuples(st.integers(0, SIZE - 1), st.binary(min_size=1, max_size=SIZE)).filter(
        lambda access: access[0] + len(access[1]) <= SIZE
    )
)


@given(writes=ACCESSES)
def test_it_is_like_memory_also_after_a_restore(writes: list[tuple[int, bytes]]) -> None:
    lab, model = Lab(), bytearray(SIZE)
    device = scratch(lab, irq="5", size=str(SIZE))
    for offset, octets in writes:
        device.write(BASE, offset, octets)
        model[offset : offset + len(octets)] = octets
        assert lab.asserted(5) == bool(model[-1] & 1)
    other_lab = Lab()
    copy = scratch(other_lab, irq="5", size=str(SIZE))
    copy.restore(json.loads(json.dumps(device.save())))
    assert other_lab.asserted(5) == lab.asserted(5)
    for offset, octets in writes:
        data = bytearray(len(octets))
        copy.read(BASE, offset, data)
        assert data == model[offset : offset + len(octets)]


@pytest.mark.parametrize(
    "state", [{}, {"registers": "00"}, {"registers": "zz" * 4}, {"registers": "00" * 4, "x": 1}]
)
def test_a_bad_state_is_refused_and_changes_nothing(state: dict[str, object]) -> None:
    device = scratch(size="4")
    mmio_out(device, BASE, 0x01020304)
    with pytest.raises(BadState):
        device.restore(state)
    assert mmio_in(device, BASE) == 0x01020304
