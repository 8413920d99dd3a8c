"""Resources and constraints as text."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost.v1 import resource_pb2 as pb
from devicehost_client.ctl.numeral import U32_MAX, U64_MAX
from devicehost_client.ctl.resource_text import (
    MSI_TYPE_NAMES,
    format_resource,
    parse_constraint,
    parse_resource,
)


@st.composite
def ranges(draw: st.DrawFn, most: int) -> tuple[int, int]:
    base = draw(st.integers(0, most))
    return base, draw(st.integers(1, min(most, most - base + 1)))


def address_resource(kind: str, base: int, size: int) -> pb.Resource:
    return resource_of(kind, pb.AddressRange(base=base, size=size))


def resource_of(kind: str, value: Any) -> pb.Resource:
    fields: Any = {kind: value}
    return pb.Resource(**fields)


RESOURCES = st.one_of(
    st.builds(
        lambda kind, place: address_resource(kind, *place),
        st.sampled_from(["pio", "mmio", "mem"]),
        ranges(U64_MAX),
    ),
    st.builds(lambda irq: pb.Resource(legacy_irq=irq), st.integers(0, U32_MAX)),
    st.builds(lambda slot: pb.Resource(kvm_mem_slot=slot), st.integers(0, U32_MAX)),
    st.builds(
        lambda kind, place: pb.Resource(
            msi=pb.MsiRange(type=kind, base=place[0], size=place[1]),
        ),
        st.sampled_from(sorted(MSI_TYPE_NAMES)),
        ranges(U32_MAX),
    ),
    st.builds(
        lambda octets: pb.Resource(mac_address=octets.hex(":")),
        st.binary(min_size=6, max_size=6),
    ),
)


@given(RESOURCES)
def test_what_is_shown_of_a_resource_can_be_given_back(resource: pb.Resource) -> None:
    assert parse_resource(format_resource(resource)) == resource


@pytest.mark.parametrize(
    ("text", "resource"),
    [
        ("pio:0x3f8+0x8", address_resource("pio", 0x3F8, 8)),
        ("mmio:0xc0000000+0x1000", address_resource("mmio", 0xC000_0000, 0x1000)),
        ("mem:0x0+0x40000000", address_resource("mem", 0, 1 << 30)),
        ("irq:4", pb.Resource(legacy_irq=4)),
        (
            "msi:24+4,type=pci-msix",
            pb.Resource(msi=pb.MsiRange(type=pb.MSI_TYPE_PCI_MSIX, base=24, size=4)),
        ),
        ("slot:3", pb.Resource(kvm_mem_slot=3)),
        ("mac:52:54:00:12:34:56", pb.Resource(mac_address="52:54:00:12:34:56")),
    ],
)
def test_each_kind_of_resource_has_a_text(text: str, resource: pb.Resource) -> None:
    assert format_resource(resource) == text
    assert parse_resource(text) == resource


def test_a_resource_of_a_kind_from_the_future_is_shown_as_unknown() -> None:
    assert format_resource(pb.Resource()) == "unknown"
    with pytest.raises(ValueError, match="unknown kind 'unknown'; allowed: pio:BASE"):
        parse_resource("unknown")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "unknown kind ''"),
        ("foo:1", "unknown kind 'foo'"),
        ("pio", "'' is not a range; allowed: BASE+SIZE"),
        ("pio:", "'' is not of the form FIELD=VALUE"),
        ("pio:0x3f8", "'0x3f8' is not a range; allowed: BASE+SIZE"),
        ("pio:0x3f8+0", "'0' is not allowed; allowed: 1 to"),
        ("pio:0x3f8+8+8", "'8+8' is not allowed"),
        ("pio:0x3f8+8,x=1", "no field 'x'; allowed: none here"),
        ("mmio:0xffffffffffffffff+2", "'2' is not allowed; allowed: 1 to 0x1"),
        ("irq", "it has no number; allowed: irq:N"),
        ("irq:four", "'four' is not allowed; allowed: 0 to 0xffffffff"),
        ("irq:4294967296", "'4294967296' is not allowed"),
        ("msi:24+4", "type '' is not allowed; allowed: pci-msi, pci-msix, generic-msi"),
        ("msi:24+4,type=pci", "type 'pci' is not allowed"),
        ("msi:type=pci-msi", "'' is not a range"),
        ("slot:", "'' is not of the form FIELD=VALUE"),
        ("mac:52:54:00:12:34", "allowed: aa:bb:cc:dd:ee:ff"),
    ],
)
def test_a_bad_resource_is_refused_with_its_text_and_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)) as caught:
        parse_resource(text)
    assert str(caught.value).startswith(f"resource {text!r}: ")


def constraint_of(kind: str, value: Any) -> pb.ResourceConstraint:
    fields: Any = {kind: value}
    return pb.ResourceConstraint(**fields)


@given(st.sampled_from(["pio", "mmio", "mem"]), ranges(U64_MAX))
def test_the_text_of_an_address_range_is_the_wish_for_exactly_it(
    kind: str, place: tuple[int, int]
) -> None:
    base, size = place
    text = format_resource(address_resource(kind, base, size))
    exact = pb.AddressConstraint(size=size, min=base, max=base + size - 1, align=1)
    assert parse_constraint(text) == constraint_of(kind, exact)


@pytest.mark.parametrize(
    ("text", "constraint"),
    [
        ("pio:size=8", constraint_of("pio", pb.AddressConstraint(size=8))),
        (
            "mmio:align=0x1000,size=0x1000,max=0xffffffff",
            constraint_of("mmio", pb.AddressConstraint(size=0x1000, align=0x1000, max=0xFFFF_FFFF)),
        ),
        ("mem:size=1,min=0", constraint_of("mem", pb.AddressConstraint(size=1, min=0))),
        ("irq", constraint_of("legacy_irq", pb.LegacyIrqConstraint())),
        ("irq:0", constraint_of("legacy_irq", pb.LegacyIrqConstraint(irq=0))),
        (
            "msi:type=generic-msi",
            constraint_of("msi", pb.MsiConstraint(type=pb.MSI_TYPE_GENERIC_MSI, size=1)),
        ),
        (
            "msi:size=4,type=pci-msi,align=4",
            constraint_of("msi", pb.MsiConstraint(type=pb.MSI_TYPE_PCI_MSI, size=4, align=4)),
        ),
        ("slot", constraint_of("kvm_mem_slot", pb.KvmMemSlotConstraint(size=1))),
        ("slot:0", constraint_of("kvm_mem_slot", pb.KvmMemSlotConstraint(slot=0, size=1))),
        ("slot:3+2", constraint_of("kvm_mem_slot", pb.KvmMemSlotConstraint(slot=3, size=2))),
        ("slot:size=2", constraint_of("kvm_mem_slot", pb.KvmMemSlotConstraint(size=2))),
    ],
)
def test_a_constraint_asks_for_what_it_says(text: str, constraint: pb.ResourceConstraint) -> None:
    assert parse_constraint(text) == constraint


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("foo", "unknown kind 'foo'; allowed: pio, mmio or mem"),
        ("mac:52:54:00:12:34:56", "unknown kind 'mac'"),
        ("mmio", "it has no size"),
        ("mmio:min=0", "it has no size"),
        ("mmio:size=0", "field 'size': '0' is not allowed; allowed: 1 to"),
        ("mmio:size=1,aling=4", "no field 'aling'; allowed: size, min, max, align"),
        ("mmio:size=1,size=2", "field 'size' is given twice"),
        ("mmio:size=1,", "'' is not of the form FIELD=VALUE"),
        ("mmio:size=1,4", "'4' is not of the form FIELD=VALUE"),
        ("mmio:=1", "'=1' is not of the form FIELD=VALUE"),
        ("pio:0x3f8+8,align=8", "no field 'align'; allowed: none here"),
        ("mmio:0xffffffffffffffff+2", "'2' is not allowed; allowed: 1 to 0x1"),
        ("irq:irq=4", "no field 'irq'; allowed: none here"),
        ("msi:24+4,type=pci-msi", "nobody can ask for a certain MSI; allowed: size=N"),
        ("msi", "type '' is not allowed; allowed: pci-msi"),
        ("slot:3+2,size=4", "no field 'size'"),
        ("slot:0xffffffff+2", "'2' is not allowed; allowed: 1 to 0x1"),
    ],
)
def test_a_bad_constraint_is_refused_with_its_text_and_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)) as caught:
        parse_constraint(text)
    assert str(caught.value).startswith(f"constraint {text!r}: ")


@given(st.text())
def test_no_text_does_worse_than_to_be_refused(text: str) -> None:
    for parse in (parse_resource, parse_constraint):
        try:
            parse(text)
        except ValueError as error:
            assert repr(text) in str(error)  # noqa: PT017 # a text that is one raises nothing
