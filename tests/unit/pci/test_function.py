"""A PCI function as a whole: its resources, its state, and what it says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_server.allocation import ResourceManager
from devicehost_server.model.errors import BadConstraint, BadState
from devicehost_server.model.interrupts import InterruptKind
from devicehost_server.model.pci import PciDescription, PciIdentity
from devicehost_server.model.resources import (
    KvmMemSlotConstraint,
    LegacyIrq,
    LegacyIrqConstraint,
    MemAddressConstraint,
    MmioAddressConstraint,
    PciMsiIrqConstraint,
    PciMsixIrqConstraint,
    PioAddressConstraint,
    ResourceConstraint,
)
from devicehost_server.pci.bars import BarKind
from devicehost_server.pci.function import PciFunction
from devicehost_server.pci.interrupts import IrqKind

IDENTITY = PciIdentity(0x1234, 0x11E8, 0x00FF00)
NEEDS = (
    PioAddressConstraint.exact(0x3F8, 8),
    LegacyIrqConstraint(4),
    MmioAddressConstraint.exact(0xFEDC_BA98, 0x1800),
    KvmMemSlotConstraint(size=2),
    PciMsiIrqConstraint(2),
    MemAddressConstraint(0x2000),
    PciMsixIrqConstraint(3),
)


def made(*constraints: ResourceConstraint) -> PciFunction:
    return PciFunction("dut", PciDescription(IDENTITY), constraints or NEEDS)


def bar_of(function: PciFunction, offset: int, size: int = 4) -> int:
    assert function.msix is not None
    data = bytearray(size)
    function.msix.read(offset, data)
    return int.from_bytes(data, "little")


def test_it_takes_no_addresses_nor_interrupts_that_others_may_have() -> None:
    manager = ResourceManager()
    first, second = made(), made()
    manager.allocate(NEEDS, "on the bus")
    manager.allocate(first.constraints, "first")
    manager.allocate(second.constraints, "second")

    for constraint in first.constraints:
        assert getattr(constraint, "min", None) is None
        assert not isinstance(constraint, LegacyIrqConstraint)


def test_a_device_gets_what_it_asked_for_in_its_order() -> None:
    function = made()
    allocated = ResourceManager().allocate(function.constraints, "dut")
    given_ = function.assign(allocated)

    assert [type(each).__name__ for each in given_] == [
        "PioAddressRange",
        "LegacyIrq",
        "MmioAddressRange",
        "KvmMemSlot",
        "KvmMemSlot",
        "MsiIrq",
        "MemAddressRange",
        "MsiIrq",
    ]
    assert given_[1] == LegacyIrq(allocated[1].base)  # type: ignore[union-attr]
    assert len(function.vectors.gsis) == 1 + 2 + 3


def test_each_bar_leads_to_a_range_on_the_server() -> None:
    function = made()
    given_ = function.assign(ResourceManager().allocate(function.constraints, "dut"))

    assert [bar.kind for bar in function.bars] == [
        BarKind.IO,
        BarKind.MMIO,
        BarKind.MEMORY,
        BarKind.MSIX,
    ]
    assert function.ranges == {0: given_[0], 1: given_[2], 2: given_[6]}
    assert [bar.index for bar in function.memory_bars] == [2]
    assert function.bar(3) is function.bars[3]
    assert function.bar(4) is None


@pytest.mark.parametrize(
    ("constraint", "text"),
    [
        (PciMsiIrqConstraint(33), "33 MSI vectors; allowed: at most 32"),
        (PciMsixIrqConstraint(2049), "2049 MSIX vectors; allowed: at most 2048"),
    ],
)
def test_too_many_messages_are_refused(constraint: ResourceConstraint, text: str) -> None:
    with pytest.raises(BadConstraint, match=text):
        made(constraint)


def used() -> PciFunction:
    """A function that a driver has set up, with a message that waits."""
    function = made()
    function.assign(ResourceManager().allocate(function.constraints, "dut"))
    assert function.msix is not None
    function.config.write(0x04, b"\x07\x04")
    function.config.write(0x10, b"\x01\xc0\0\0\0\0\xe0\xfe")
    function.config.write(0x58 + 2, b"\x00\x80")
    function.msix.write(0, bytes(range(16)))
    function.vectors.changed(max(function.vectors.gsis), InterruptKind.PULSED)
    return function


def test_a_state_survives_json_and_is_the_same_elsewhere() -> None:
    function, other = used(), made()
    state = json.loads(json.dumps(function.save()))
    assert state["msix_pending"] == 0b100
    other.restore(state)

    assert other.save() == function.save()
    assert other.config.command == 0x0407
    assert other.config.address(other.bars[1]) == 0xFEE0_0000
    assert bar_of(other, 48, 8) == 0b100
    assert bar_of(other, 0, 16) == bar_of(function, 0, 16)


def test_a_restored_message_is_signalled_when_somebody_takes_it() -> None:
    other = made()
    other.restore(used().save())
    signals: list[tuple[int, int]] = []
    other.vectors.attach(lambda kind, vector: signals.append((kind, vector)))
    assert other.msix is not None
    other.vectors.connect(IrqKind.MSIX, range(3))
    assert signals == []  # masked by the table
    other.msix.write(2 * 16 + 12, bytes(4))

    assert signals == [(IrqKind.MSIX, 2)]


def test_a_reset_is_as_after_power_on() -> None:
    function, fresh = used(), made()
    function.reset()

    assert function.save() == fresh.save()
    assert function.config.address(function.bars[1]) == 0


def changed(**fields: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {**state, **fields}


def without(field: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {name: value for name, value in state.items() if name != field}


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (without("config"), "'config' is missing"),
        (changed(more=1), "'more' is unknown"),
        (changed(config="xyz"), "'config' is 'xyz', allowed: hexadecimal digits"),
        (changed(config=5), "'config' is 5, allowed: hexadecimal digits"),
        (changed(config="00" * 255), "'config' is 255 bytes long, allowed: 256"),
        (changed(config="00" * 256), "'config' is that of a function of another shape"),
        (changed(msi_pending=4), "'msi_pending' is 4, allowed: a number of 2 bits"),
        (changed(msi_pending=True), "'msi_pending' is True"),
        (changed(msix_pending=-1), "'msix_pending' is -1"),
        (changed(msix_pending="0"), "'msix_pending' is '0'"),
        (changed(msix_table="00"), "'msix_table' is 1 bytes long, allowed: 48"),
        (changed(msix_table_used=1), "'msix_table_used' is 1, allowed: true or false"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(
    spoil: Callable[[dict[str, Any]], dict[str, Any]], text: str
) -> None:
    function = made()
    with pytest.raises(BadState, match=text):
        function.restore(spoil(used().save()))

    assert function.save() == made().save()


def test_a_state_of_another_function_does_not_fit() -> None:
    with pytest.raises(BadState, match=r"'bars' is \[16\], allowed: \[8\]"):
        made(PioAddressConstraint(8)).restore(made(PioAddressConstraint(16)).save())


def test_a_view_says_where_everything_is() -> None:
    view = used().view()

    assert view["identity"] == "1234:11e8"
    assert view["command"] == "io memory bus-master intx-disable"
    assert view["bars"]["1"]["guest-address"] == "0xfee00000"
    assert view["bars"]["1"]["size"] == "0x2000"
    assert view["msix"]["pending"] == "0x4"
    assert view["msi"]["enabled"] is False
    json.dumps(view)


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 255), st.binary(min_size=1, max_size=32)),
        max_size=20,
    )
)
def test_whatever_is_written_can_be_saved_and_restored(
    writes: list[tuple[bool, int, bytes]],
) -> None:
    function, other = made(), made()
    assert function.msix is not None
    for to_table, offset, data in writes:
        if to_table:
            function.msix.write(offset, data)
        else:
            function.config.write(offset, data[: 256 - offset])
    other.restore(json.loads(json.dumps(function.save())))

    assert other.save() == function.save()
    assert other.view() == function.view()


def test_msix_can_be_hidden_and_the_pin_stays() -> None:
    function = PciFunction("dut", PciDescription(IDENTITY), NEEDS, offer_msix=False)
    assert function.msix is None
    assert function.vectors.count(IrqKind.MSIX) == 0
    assert BarKind.MSIX not in {bar.kind for bar in function.bars}
    resources = function.assign(ResourceManager().allocate(function.constraints, "first"))
    hidden = resources.get_pci_msix_irqs()
    pin = resources.get_legacy_irq()
    assert hidden is not None
    assert pin is not None
    signalled: list[tuple[IrqKind, int]] = []
    function.vectors.attach(lambda kind, vector: signalled.append((kind, vector)))
    function.vectors.connect(IrqKind.INTX, [0])
    function.vectors.changed(hidden.base, InterruptKind.PULSED)
    assert signalled == []
    function.vectors.changed(pin, InterruptKind.ASSERTED)
    assert signalled == [(IrqKind.INTX, 0)]
