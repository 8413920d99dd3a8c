"""Places and conditions as text."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_client.ctl.command import UsageError
from devicehost_client.ctl.commands import COMMANDS
from devicehost_client.ctl.parser import build
from devicehost_client.ctl.where import (
    RegisterName,
    by_places,
    check_conditions,
    filter_text,
    parse_range,
    parse_register,
    parse_where,
)
from devicehost_client.debug import AccessFilter, Operation, Space

U64_MAX = (1 << 64) - 1


def parse(*arguments: str) -> argparse.Namespace:
    return build(COMMANDS).parse_args(["trace", *arguments])


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("com1.LCR", AccessFilter(registers=("com1.LCR",))),
        ("vm-1.rtc.R[3]", AccessFilter(registers=("vm-1.rtc.R[3]",))),
        ("com1", AccessFilter(devices=("com1",))),
        ("vm.rtc", AccessFilter(devices=("vm.rtc",))),
        ("pio:0x3f8-0x3ff", AccessFilter(space=Space.PIO, base=0x3F8, size=8)),
        ("pio:0x3f8", AccessFilter(space=Space.PIO, base=0x3F8, size=1)),
        ("mmio:0xd0000000+16", AccessFilter(space=Space.MMIO, base=0xD000_0000, size=16)),
        ("mmio:0+0xffffffffffffffff", AccessFilter(space=Space.MMIO, size=U64_MAX)),
    ],
)
def test_a_place_is_a_register_a_device_or_addresses(text: str, place: AccessFilter) -> None:
    assert parse_where(text) == place


@pytest.mark.parametrize(
    "text",
    ["", "mem:0", "pio:", "pio:x", "pio:0x10000", "pio:8-7", "pio:0+0", "a b", ".LCR", "com1.R[x]"],
)
def test_what_is_no_place_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="allowed"):
        parse_where(text)


def test_a_register_is_named_by_its_device_and_what_follows_the_last_dot() -> None:
    assert parse_register("vm.rtc.R[3]") == RegisterName("vm.rtc", "R[3]")
    assert str(RegisterName("com1", "LCR")) == "com1.LCR"


@pytest.mark.parametrize("text", ["com1", "com1.lcr", "LCR", "com1.", "com1.R[]", "com1.R[1]x"])
def test_what_is_no_register_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a register; allowed: DEVICE\.REGISTER"):
        parse_register(text)


@given(st.integers(0, U64_MAX), st.integers(0, U64_MAX))
def test_a_range_is_given_by_its_ends_or_by_its_size(one: int, other: int) -> None:
    first, last = sorted((one, other))
    wanted = (first, last - first + 1)
    assert parse_range(f"{first:#x}-{last:#x}") == wanted
    if wanted[1] <= U64_MAX:
        assert parse_range(f"{first}+{wanted[1]:#x}") == wanted


def test_without_arguments_every_access_is_meant() -> None:
    assert by_places(parse()) == AccessFilter()


def test_all_conditions_end_up_in_the_filter() -> None:
    options = parse(
        *("--device", "a", "--device", "b", "--register", "a.R", "--space", "mmio"),
        *("--range", "0x10-0x1f", "--read", "--value", "0x20", "--mask", "0x60"),
        *("--vcpu", "1", "--vcpu", "0"),
    )
    assert by_places(options) == AccessFilter(
        devices=("a", "b"),
        registers=("a.R",),
        space=Space.MMIO,
        base=0x10,
        size=0x10,
        operation=Operation.READ,
        value=0x20,
        mask=0x60,
        vcpus=(1, 0),
    )


def test_a_value_without_a_mask_counts_with_all_its_bits_even_if_it_is_0() -> None:
    wanted = by_places(parse("--value", "0"))
    assert (wanted.value, wanted.mask) == (0, U64_MAX)


def test_the_range_of_all_addresses_is_no_condition() -> None:
    wanted = by_places(parse("--range", f"0-{U64_MAX}"))
    assert (wanted.base, wanted.size) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--read", "--write"), "--read is given as well"),
        (("--mask", "1"), "argument --mask: it needs a --value"),
        (("--value", "3", "--mask", "1"), "has bits that --mask 0x1 leaves out"),
    ],
)
def test_conditions_that_nothing_can_meet_are_refused(arguments: tuple[str, ...], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        check_conditions(parse(*arguments))


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (AccessFilter(), "any access"),
        (AccessFilter(registers=("com1.LCR",), operation=Operation.WRITE), "write com1.LCR"),
        (AccessFilter(space=Space.PIO, base=0x3F8, size=8), "pio:0x3f8-0x3ff"),
        (AccessFilter(base=0x3F8, size=1, value=8, mask=U64_MAX), "0x3f8 value 0x8"),
        (
            AccessFilter(space=Space.MMIO, value=8, mask=12, failed=True),
            "mmio value 0x8 mask 0xc failed",
        ),
        (AccessFilter(devices={"b", "a"}, vcpus=(0, 2)), "a b vcpu 0 vcpu 2"),
    ],
)
def test_a_filter_is_told_in_a_few_words(wanted: AccessFilter, text: str) -> None:
    assert filter_text(wanted) == text
