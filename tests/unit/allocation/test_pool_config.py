"""The layout of the pools: defaults, 39-bit hosts, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from devicehost_server.allocation import PoolConfig, Reserved
from devicehost_server.allocation.pool_config import RESERVED_IRQS, RESERVED_PORTS
from devicehost_server.model.errors import BadConfig

GIB = 1 << 30


def test_half_of_the_address_space_is_for_memory_unless_the_configuration_says_more() -> None:
    config = PoolConfig(physical_address_bits=39)
    assert config.last_address == 0x7F_FFFF_FFFF
    assert config.last_memory_address == 0x3F_FFFF_FFFF
    assert config.mmio_above_4g_base == 0x40_0000_0000


def test_mmio_above_4_gib_begins_behind_guest_memory() -> None:
    assert PoolConfig(memory_last=8 * GIB - 1).mmio_above_4g_base == 8 * GIB


@pytest.mark.parametrize("memory_last", [GIB - 1, 3 * GIB - 1])
def test_mmio_above_4_gib_begins_at_4_gib_if_memory_is_small(memory_last: int) -> None:
    assert PoolConfig(memory_last=memory_last).mmio_above_4g_base == 4 * GIB


@pytest.mark.parametrize(
    ("bits", "last"), [(32, 2 * GIB - 1), (33, 3 * GIB - 1), (34, 8 * GIB - 1)]
)
def test_memory_by_default_does_not_end_where_mmio_is(bits: int, last: int) -> None:
    assert PoolConfig(physical_address_bits=bits).last_memory_address == last


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("physical_address_bits", 31),
        ("physical_address_bits", 53),
        ("memory_last", -1),
        ("memory_last", 3 * GIB),
        ("memory_last", 4 * GIB - 1),
        ("memory_last", 1 << 39),
        ("mmio_base", 0),
        ("mmio_base", 4 * GIB),
        ("irq_count", 0),
        ("irq_count", 25),
        ("shared_irqs", (5, 16)),
        ("msi_last", 23),
        ("kvm_slot_count", 0),
        ("reserved_ports", (Reserved("past the end", 0xFFFF, 2),)),
        ("reserved_ports", (Reserved("empty", 0x80, 0),)),
        ("reserved_ports", (Reserved("a", 0x80, 4), Reserved("b", 0x83, 1))),
        ("reserved_irqs", (Reserved("not an IRQ", 16, 1),)),
        ("reserved_irqs", (Reserved("the shared one", 5, 1),)),
        ("reserved_mmio", (Reserved("below", 3 * GIB - 1, 1),)),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(BadConfig, match="allowed") as caught:
        PoolConfig(**{field: value})
    assert caught.value.metadata["field"] == field


def test_the_standard_ports_are_all_reserved() -> None:
    reserved = {port for piece in RESERVED_PORTS for port in range(piece.base, piece.last + 1)}
    standard = {
        *range(0x20, 0x22),
        *range(0x40, 0x44),
        *(0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0x92, 0xE9, 0x402, 0x510, 0x511),
        *range(0xA0, 0xA2),
        *range(0x170, 0x178),
        *range(0x1F0, 0x1F8),
        *range(0x2E8, 0x2F0),
        *range(0x2F8, 0x300),
        *range(0x3B0, 0x3E0),
        *range(0x3E8, 0x400),
        *range(0xCF8, 0xD00),
    }
    assert standard <= reserved


def test_the_standard_irqs_are_all_reserved() -> None:
    assert {irq.base for irq in RESERVED_IRQS} == {0, 1, 2, 3, 4, 8, 12}
