"""Configuration space: what a driver reads, and what its writes change."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_server.model.errors import AccessOutOfRange, BadConfig
from devicehost_server.model.pci import PciIdentity, VendorCapability
from devicehost_server.model.resources import (
    MemAddressConstraint,
    MmioAddressConstraint,
    PioAddressConstraint,
    ResourceConstraint,
)
from devicehost_server.pci.bars import lay_out
from devicehost_server.pci.capability import Capability, Vendor
from devicehost_server.pci.config_space import SIZE, ConfigSpace
from devicehost_server.pci.msi import Msi

IDENTITY = PciIdentity(0x1234, 0x11E8, 0x0C0330, 0x10, 0x1AF4, 0x1100)
COMMAND, STATUS, BAR0, BAR1, ROM, POINTER, LINE = 0x04, 0x06, 0x10, 0x14, 0x30, 0x34, 0x3C


def read(config: ConfigSpace, offset: int, size: int = 4) -> int:
    data = bytearray(size)
    config.read(offset, data)
    return int.from_bytes(data, "little")


def write(config: ConfigSpace, offset: int, value: int, size: int = 4) -> None:
    config.write(offset, value.to_bytes(size, "little"))


def everything(config: ConfigSpace) -> bytes:
    data = bytearray(SIZE)
    config.read(0, data)
    return bytes(data)


def made(
    *constraints: ResourceConstraint,
    capabilities: Sequence[Capability] = (),
    has_pin: bool = False,
) -> ConfigSpace:
    return ConfigSpace(IDENTITY, lay_out(constraints), capabilities, has_pin=has_pin)


def capabilities_of(config: ConfigSpace) -> list[tuple[int, int]]:
    """The list as a driver walks it: offset and identifier of each."""
    found: list[tuple[int, int]] = []
    at = read(config, POINTER, 1) if read(config, STATUS, 2) & 0x10 else 0
    while at:
        assert len(found) < SIZE // 4, "the list has no end"
        found.append((at, read(config, at, 1)))
        at = read(config, at + 1, 1)
    return found


class TestHeader:
    def test_it_says_who_it_is(self) -> None:
        config = made()

        assert read(config, 0x00) == 0x11E8_1234
        assert read(config, 0x08) == 0x0C03_3010
        assert read(config, 0x2C) == 0x1100_1AF4
        assert read(config, 0x0E, 1) == 0  # a plain function, and the only one

    def test_there_is_no_expansion_rom(self) -> None:
        config = made()
        write(config, ROM, 0xFFFF_F801)

        assert read(config, ROM) == 0

    @pytest.mark.parametrize(
        ("constraints", "has_pin", "bits"),
        [
            ([], False, 0x0004),
            ([PioAddressConstraint(8)], False, 0x0005),
            ([MmioAddressConstraint(8)], False, 0x0006),
            ([MemAddressConstraint(8)], True, 0x0406),
            ([PioAddressConstraint(8), MmioAddressConstraint(8)], True, 0x0407),
        ],
    )
    def test_the_command_register_has_the_bits_that_do_something(
        self, constraints: list[ResourceConstraint], *, has_pin: bool, bits: int
    ) -> None:
        config = made(*constraints, has_pin=has_pin)
        write(config, COMMAND, 0xFFFF, 2)

        assert read(config, COMMAND, 2) == bits

    def test_scratch_registers_remember(self) -> None:
        config = made(has_pin=True)
        write(config, 0x0C, 0xFFFF_4010)
        write(config, LINE, 0xFFFF_FF0B)

        assert read(config, 0x0C) == 0x4010  # header type and BIST are as they were
        assert read(config, LINE) == 0x010B

    def test_a_function_without_interrupts_has_no_pin(self) -> None:
        assert read(made(), 0x3D, 1) == 0

    def test_the_status_register_shows_that_the_line_is_asserted(self) -> None:
        asserted = False
        config = ConfigSpace(IDENTITY, (), has_pin=True, asserted=lambda: asserted)
        assert read(config, STATUS, 2) == 0

        asserted = True
        assert read(config, STATUS, 2) == 0x08
        assert read(config, COMMAND) == 0x08_0000
        assert read(config, STATUS + 1, 1) == 0


class TestBars:
    @pytest.mark.parametrize(
        ("constraint", "mask"),
        [
            (PioAddressConstraint(5), 0xFFFF_FFF9),
            (PioAddressConstraint(256), 0xFFFF_FF01),
            (MmioAddressConstraint(8), 0xFFFF_F000),
            (MmioAddressConstraint(0x10_0000), 0xFFF0_0000),
            (MemAddressConstraint(0x2000), 0xFFFF_E008),
        ],
    )
    def test_all_ones_read_back_as_the_size(
        self, constraint: ResourceConstraint, mask: int
    ) -> None:
        config = made(constraint)
        write(config, BAR0, 0xFFFF_FFFF)

        assert read(config, BAR0) == mask

    def test_a_pair_is_sized_as_one(self) -> None:
        config = made(MemAddressConstraint(5 << 30))
        write(config, BAR0, 0xFFFF_FFFF)
        write(config, BAR1, 0xFFFF_FFFF)

        assert read(config, BAR0) == 0x0000_000C
        assert read(config, BAR1) == 0xFFFF_FFFE

    def test_an_address_is_kept_and_told(self) -> None:
        small, wide = MmioAddressConstraint(0x1000), MemAddressConstraint(1 << 30)
        config = made(small, wide)
        bars = lay_out([small, wide])
        write(config, BAR0, 0xFEB1_2345)
        write(config, BAR0 + 4, 0x1_0000_0000 & 0xFFFF_FFFF)
        write(config, BAR0 + 8, 0x8)

        assert read(config, BAR0) == 0xFEB1_2000
        assert config.address(bars[0]) == 0xFEB1_2000
        assert config.address(bars[1]) == 0x8_0000_0000

    def test_registers_without_a_bar_are_zero(self) -> None:
        config = made(PioAddressConstraint(8))
        for register in range(BAR1, 0x28, 4):
            write(config, register, 0xFFFF_FFFF)

            assert read(config, register) == 0


class Counter:
    """A hook that counts reads, and doubles what is written."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []

    def before_read(self, body: bytearray, offset: int, size: int) -> None:
        self.calls.append(("read", offset, size))
        body[0] += 1

    def after_write(self, body: bytearray, offset: int, size: int) -> None:
        self.calls.append(("write", offset, size))
        body[3] = body[2] * 2


class TestCapabilities:
    def test_without_any_there_is_no_list(self) -> None:
        assert read(made(), STATUS, 2) == 0
        assert read(made(), POINTER) == 0

    def test_all_are_in_one_list_at_multiples_of_four(self) -> None:
        config = made(
            capabilities=[Msi(1), Vendor(VendorCapability(b"ab")), Vendor(VendorCapability(b"c"))]
        )

        assert capabilities_of(config) == [(0x40, 0x05), (0x58, 0x09), (0x60, 0x09)]
        assert read(config, 0x5A, 3) == int.from_bytes(b"\x05ab", "little")

    def test_only_writable_bits_of_a_body_change(self) -> None:
        body = VendorCapability(b"\x12\x34\x56", writable=b"\x0f\xff")
        config = made(capabilities=[Vendor(body)])
        config.write(0x40, b"\xff" * 6)

        assert everything(config)[0x40:0x46] == b"\x09\x00\x06\x1f\xff\x56"

    def test_a_hook_is_told_what_is_accessed_of_the_body(self) -> None:
        hook = Counter()
        config = made(capabilities=[Vendor(VendorCapability(bytes(5), b"\0\0\xff", hook))])

        write(config, 0x44, 0x07_00, 2)  # bytes 1 and 2 of the body
        assert read(config, 0x46, 1) == 14  # byte 3: a read of it counts
        assert read(config, 0x40) == 0x02_08_0009  # from the header into the first byte
        assert hook.calls == [("write", 1, 2), ("read", 3, 1), ("read", 0, 1)]

    def test_a_hook_is_not_told_of_other_accesses(self) -> None:
        hook = Counter()
        config = made(capabilities=[Vendor(VendorCapability(bytes(5), hook=hook))])
        read(config, 0x40, 3)
        write(config, 0x48, 0xFFFF_FFFF)

        assert hook.calls == []

    def test_more_than_there_is_room_for_is_refused(self) -> None:
        vendors = [Vendor(VendorCapability(bytes(93))) for _ in range(3)]
        assert capabilities_of(made(capabilities=vendors[:2])) == [(0x40, 9), (0xA0, 9)]

        with pytest.raises(BadConfig, match="of 96 bytes would be at 0x100; allowed: up to 0xff"):
            made(capabilities=vendors)

    def test_a_vendor_capability_that_is_too_long_is_refused(self) -> None:
        with pytest.raises(BadConfig, match="256 bytes long, allowed: at most 255"):
            Vendor(VendorCapability(bytes(253)))

    def test_writable_bits_without_a_body_are_refused(self) -> None:
        with pytest.raises(BadConfig, match="2 bytes are writable, allowed: at most"):
            Vendor(VendorCapability(b"a", writable=b"\xff\xff"))


class TestAccesses:
    @pytest.mark.parametrize(("offset", "size"), [(-1, 1), (SIZE, 1), (SIZE - 3, 4), (0, SIZE + 1)])
    def test_one_that_runs_past_the_end_is_refused(self, offset: int, size: int) -> None:
        config = made()
        data = bytearray(size)
        with pytest.raises(AccessOutOfRange, match="allowed: within 0x0-0xff"):
            config.read(offset, data)
        with pytest.raises(AccessOutOfRange, match="allowed: within 0x0-0xff"):
            config.write(offset, data)

    def test_a_write_may_straddle_registers(self) -> None:
        config = made(PioAddressConstraint(8), MmioAddressConstraint(8))
        config.write(BAR0 + 3, bytes([0xAA, 0x55, 0xB5, 0xC0, 0xD0]))

        assert read(config, BAR0) == 0xAA00_0001
        assert read(config, BAR1) == 0xD0C0_B000
        assert read(config, BAR0 + 3, 3) == 0xB0_00AA

    def test_somebody_is_told_after_each_write(self) -> None:
        told: list[int] = []
        config = ConfigSpace(IDENTITY, (), changed=lambda: told.append(config.command))
        write(config, COMMAND, 4, 2)

        assert told == [4]


def full() -> ConfigSpace:
    return made(
        PioAddressConstraint(8),
        MmioAddressConstraint(0x3000),
        MemAddressConstraint(1 << 31),
        capabilities=[Msi(3), Vendor(VendorCapability(b"\xa5" * 7, b"\x0f\xf0"))],
        has_pin=True,
    )


WRITES = st.lists(
    st.integers(0, SIZE - 1).flatmap(
        lambda offset: st.tuples(
            st.just(offset), st.binary(min_size=1, max_size=min(16, SIZE - offset))
        )
    ),
    max_size=20,
)


@given(WRITES)
def test_no_write_changes_what_is_read_only(writes: list[tuple[int, bytes]]) -> None:
    config = full()
    before = everything(config)
    zeros, ones = full(), full()
    zeros.write(0, bytes(SIZE))
    ones.write(0, b"\xff" * SIZE)
    writable = bytes(a ^ b for a, b in zip(everything(zeros), everything(ones), strict=True))
    for offset, data in writes:
        config.write(offset, data)
    after = everything(config)

    changed = bytes(a ^ b for a, b in zip(before, after, strict=True))
    assert not any(c & ~w & 0xFF for c, w in zip(changed, writable, strict=True))
    assert capabilities_of(config) == [(0x40, 0x05), (0x58, 0x09)]


@given(WRITES)
def test_what_is_saved_can_be_loaded_elsewhere(writes: list[tuple[int, bytes]]) -> None:
    config, other = full(), full()
    for offset, data in writes:
        config.write(offset, data)
    saved = config.save()

    assert other.fits(saved)
    other.load(saved)
    assert everything(other) == everything(config)
    config.reset()
    assert everything(config) == everything(full())


@given(WRITES, st.integers(0, SIZE - 1), st.integers(1, 64))
def test_a_read_of_any_size_agrees_with_one_of_all(
    writes: list[tuple[int, bytes]], offset: int, size: int
) -> None:
    config = full()
    for at, data in writes:
        config.write(at, data)
    size = min(size, SIZE - offset)

    assert read(config, offset, size).to_bytes(size, "little") == everything(config)[offset:][:size]


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_the_list_of_capabilities_has_each_once_and_none_overlap(bodies: list[bytes]) -> None:
    try:
        config = made(capabilities=[Vendor(VendorCapability(body)) for body in bodies])
    except BadConfig:
        assert sum(-(-(3 + len(body)) // 4) * 4 for body in bodies) > SIZE - 0x40 - 4
        return
    found = capabilities_of(config)
    at = [offset for offset, _ in found]

    assert [
        everything(config)[offset + 3 :][: len(b)] for offset, b in zip(at, bodies, strict=True)
    ] == bodies
    for offset, body, following in zip(at, bodies, [*at, SIZE][1:], strict=True):
        assert offset % 4 == 0
        assert offset + 3 + len(body) <= following
