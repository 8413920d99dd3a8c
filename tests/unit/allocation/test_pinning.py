"""What a device had is what it gets again, or an error that says why not."""

from __future__ import annotations

import pytest

from devicehost_server.allocation import PoolConfig, ResourceManager, pinned
from devicehost_server.model.errors import BadState, RangeTaken
from devicehost_server.model.resources import (
    KvmMemSlotConstraint,
    LegacyIrq,
    LegacyIrqConstraint,
    MemAddressConstraint,
    MmioAddressConstraint,
    MmioAddressRange,
    PciMsiIrqConstraint,
    PciMsixIrqConstraint,
    PioAddressConstraint,
    ResourceConstraint,
)

WANTED: list[ResourceConstraint] = [
    PioAddressConstraint(8, align=8),
    MmioAddressConstraint(0x2000),
    MemAddressConstraint(0x10_0000),
    LegacyIrqConstraint(),
    PciMsiIrqConstraint(4, align=4),
    PciMsixIrqConstraint(3),
    KvmMemSlotConstraint(size=2),
]


def test_what_a_device_had_it_gets_again_though_other_places_are_free_by_now() -> None:
    before = ResourceManager(PoolConfig())
    first = before.allocate(WANTED, "first")
    had = before.allocate(WANTED, "second")
    assert first != had
    after = ResourceManager(PoolConfig())
    assert after.allocate(pinned(WANTED, had), "second") == had


def test_what_somebody_else_has_by_now_is_an_error_of_the_pools() -> None:
    manager = ResourceManager(PoolConfig())
    had = manager.allocate(WANTED, "first")
    with pytest.raises(RangeTaken, match="first"):
        manager.allocate(pinned(WANTED, had), "second")


def test_a_legacy_irq_that_is_a_message_for_the_server_keeps_its_number() -> None:
    wanted = pinned([PciMsixIrqConstraint(1)], [LegacyIrq(77)])
    assert ResourceManager(PoolConfig()).allocate(wanted, "x").get_pci_msix_irqs().base == 77  # type: ignore[union-attr] # it was asked for


@pytest.mark.parametrize(
    ("constraints", "resources", "message"),
    [
        ([MmioAddressConstraint(0x1000)], [], "had no such thing"),
        ([], [LegacyIrq(7)], "needs no such thing"),
        ([MmioAddressConstraint(0x1000)], [MmioAddressRange(0, 0x2000)], "0x1000|4096"),
        ([PioAddressConstraint(8)], [MmioAddressRange(0, 8)], "pio|Pio"),
        ([LegacyIrqConstraint()], [MmioAddressRange(0, 8)], "Legacy"),
    ],
)
def test_a_device_that_needs_something_else_now_is_refused(
    constraints: list[ResourceConstraint], resources: list[MmioAddressRange], message: str
) -> None:
    with pytest.raises(BadState, match=message):
        pinned(constraints, resources)
