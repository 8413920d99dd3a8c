"""BARs: what is laid out from a device's constraints."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_server.model.errors import BadConstraint
from devicehost_server.model.resources import (
    LegacyIrqConstraint,
    MemAddressConstraint,
    MmioAddressConstraint,
    PioAddressConstraint,
    ResourceConstraint,
)
from devicehost_server.pci.bars import Bar, BarKind, lay_out

GIB = 1 << 30


def only(constraint: ResourceConstraint) -> Bar:
    (bar,) = lay_out([constraint])
    return bar


@pytest.mark.parametrize(("length", "size"), [(1, 4), (4, 4), (5, 8), (8, 8), (200, 256)])
def test_io_is_rounded_up_to_a_power_of_two_of_at_least_4(length: int, size: int) -> None:
    assert only(PioAddressConstraint(length)) == Bar(0, BarKind.IO, size, length)


@pytest.mark.parametrize(("length", "size"), [(8, 0x1000), (0x1000, 0x1000), (0x1001, 0x2000)])
def test_mmio_is_rounded_up_to_a_power_of_two_of_at_least_a_page(length: int, size: int) -> None:
    assert only(MmioAddressConstraint(length)) == Bar(0, BarKind.MMIO, size, length)


def test_memory_is_prefetchable() -> None:
    assert only(MemAddressConstraint(0x3000)) == Bar(
        0, BarKind.MEMORY, 0x4000, 0x3000, prefetchable=True
    )


@pytest.mark.parametrize("kind", [MmioAddressConstraint, MemAddressConstraint])
def test_from_1_gib_on_a_bar_takes_a_pair_of_registers(
    kind: type[MmioAddressConstraint | MemAddressConstraint],
) -> None:
    small, wide, after = lay_out([kind(GIB // 2), kind(GIB), kind(8)])

    assert (small.is_64bit, small.index, small.slots) == (False, 0, 1)
    assert (wide.is_64bit, wide.index, wide.slots) == (True, 1, 2)
    assert after.index == 3


def test_bars_are_in_the_order_of_the_constraints_and_msix_is_last() -> None:
    bars = lay_out(
        [MmioAddressConstraint(8), LegacyIrqConstraint(4), PioAddressConstraint(8)],
        msix_length=0x1008,
    )

    assert [(bar.index, bar.kind, bar.size) for bar in bars] == [
        (0, BarKind.MMIO, 0x1000),
        (1, BarKind.IO, 8),
        (2, BarKind.MSIX, 0x2000),
    ]


@pytest.mark.parametrize(
    ("constraint", "text"),
    [
        (PioAddressConstraint(257), "BAR 0: io range of 0x101 bytes; allowed: at most 0x100"),
        (MmioAddressConstraint((1 << 63) + 1), "at most 0x8000000000000000"),
    ],
)
def test_a_range_that_is_too_large_is_refused_by_name(
    constraint: ResourceConstraint, text: str
) -> None:
    with pytest.raises(BadConstraint, match=text):
        lay_out([constraint])


def test_a_seventh_register_is_refused() -> None:
    six = [MmioAddressConstraint(8)] * 6
    assert len(lay_out(six)) == 6

    with pytest.raises(BadConstraint, match="msix range of 0x18 bytes needs BAR 6; allowed: 0 to"):
        lay_out(six, msix_length=0x18)
    with pytest.raises(BadConstraint, match="needs BAR 5 and 6"):
        lay_out([*six[:5], MemAddressConstraint(GIB)])


@given(
    st.lists(
        st.one_of(
            st.builds(PioAddressConstraint, st.integers(1, 256)),
            st.builds(MmioAddressConstraint, st.integers(1, 1 << 34)),
            st.builds(MemAddressConstraint, st.integers(1, 1 << 40)),
        ),
        max_size=3,
    )
)
def test_every_bar_holds_its_range_and_none_share_a_register(
    constraints: list[PioAddressConstraint | MmioAddressConstraint | MemAddressConstraint],
) -> None:
    bars = lay_out(constraints)

    assert [bar.length for bar in bars] == [each.size for each in constraints]
    taken = [slot for bar in bars for slot in range(bar.index, bar.index + bar.slots)]
    assert taken == list(range(len(taken)))
    for bar in bars:
        assert bar.size >= bar.length
        assert bar.size.bit_count() == 1
        assert bar.address_mask & bar.flags == 0
