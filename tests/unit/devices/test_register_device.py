"""Devices that are written as a map and a method per register."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost.registers import (
    Access,
    Field,
    OnRead,
    OnWrite,
    Register,
    RegisterMap,
    Via,
    When,
    check,
)
from devicehost_server.devices import register_dispatch
from devicehost_server.devices.base import NoConfig
from devicehost_server.devices.register_device import RegisterDevice
from devicehost_server.model.errors import BadState, NotPeekable
from devicehost_server.model.resources import (
    LegacyIrqConstraint,
    MmioAddressConstraint,
    PioAddressConstraint,
    ResourceConstraint,
)
from devicelab import FREE_BASE, FREE_IRQ, Lab, mmio_in, mmio_out, pio_in, pio_out

MAP = RegisterMap(
    "timer",
    (
        Register("CONTROL", 0, 4, fields=(Field("RUN", 0x01), Field("MODE", 0xF00))),
        Register("STATUS", 4, 4, access=Access.READ_ONLY, on_read=OnRead.CHANGES),
        Register("COMMAND", 4, 4, access=Access.WRITE_ONLY),
        Register(
            "EVENTS", 8, 4, reset=0xA5, fields=(Field("ALL", 0xFFFF, on_write=OnWrite.ONE_CLEARS),)
        ),
        Register("COMPARE", 0x10, 2, count=4, stride=4),
        Register("SCRATCH", 0x20, 4, reset=0x1122_3344),
        Register("LEVEL", 0x24, 1, access=Access.READ_ONLY, reset=9),
        Register("PORT", 0, range=1),
    ),
)


class Timer(RegisterDevice[NoConfig]):
    """Notes what is called."""

    type_name = "timer"
    register_map = MAP

    def __init__(self) -> None:
        super().__init__(NoConfig())
        self.calls: list[Any] = []

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        return [
            MmioAddressConstraint(size=0x100),
            PioAddressConstraint(size=4),
            LegacyIrqConstraint(FREE_IRQ),
        ]

    def read_status(self) -> int:
        self.calls.append("status")
        return len(self.calls)

    def write_command(self, value: int) -> None:
        self.calls.append(("command", value))

    def write_control(self, value: int) -> None:
        self.calls.append(("control", value))
        self.registers["CONTROL"] = value

    def write_compare(self, index: int, value: int) -> None:
        self.calls.append(("compare", index, value))
        self.registers.rows["COMPARE"][index] = value

    def read_compare(self, index: int) -> int:
        return self.registers.rows["COMPARE"][index] ^ 0xFFFF

    def registers_changed(self) -> None:
        self.calls.append("changed")


@pytest.fixture
def timer() -> Timer:
    check(MAP)
    return Lab().host(Timer())


def read(device: Any, offset: int, size: int = 4) -> int:
    return mmio_in(device, FREE_BASE + offset, size)


def write(device: Any, offset: int, value: int, size: int = 4) -> None:
    mmio_out(device, FREE_BASE + offset, value, size)


class TestAccesses:
    def test_a_method_takes_the_place_of_the_stored_value(self, timer: Timer) -> None:
        assert [read(timer, 4) for _ in range(3)] == [1, 2, 3]
        assert timer.calls == ["status"] * 3

    def test_a_method_gets_what_is_written(self, timer: Timer) -> None:
        write(timer, 0, 0xFFFF_FFFF)
        assert timer.calls == [("control", 0xFFFF_FFFF)]
        assert read(timer, 0) == 0xF01

    def test_two_registers_at_one_place_are_told_apart_by_the_operation(self, timer: Timer) -> None:
        write(timer, 4, 7)
        read(timer, 4)
        assert timer.calls == [("command", 7), "status"]

    def test_what_has_no_method_is_stored_as_declared(self, timer: Timer) -> None:
        write(timer, 0x20, 0xCAFE_BABE)
        assert read(timer, 0x20) == 0xCAFE_BABE
        write(timer, 8, 0xFFFF_0021)
        assert read(timer, 8) == 0x84
        write(timer, 0x24, 1, 1)
        assert read(timer, 0x24, 1) == 9

    def test_a_method_of_a_row_gets_the_index(self, timer: Timer) -> None:
        for index in range(4):
            write(timer, 0x10 + 4 * index, 0x100 + index, 2)
        assert timer.calls == [("compare", index, 0x100 + index) for index in range(4)]
        assert [read(timer, 0x10 + 4 * n, 2) for n in range(4)] == [0xFEFF - n for n in range(4)]

    def test_places_of_no_register_read_as_zeros_and_ignore_writes(self, timer: Timer) -> None:
        for offset in (0x12, 0x30, 0xFC):
            write(timer, offset, 0xFFFF, 2)
            assert read(timer, offset, 2) == 0
        assert timer.calls == []

    def test_a_read_fills_a_window_on_shared_memory_in_place(self, timer: Timer) -> None:
        shared = bytearray(8)
        timer.read(FREE_BASE, 0x20, memoryview(shared)[2:6])
        timer.read(FREE_BASE, 0x21, memoryview(shared)[6:8])
        assert shared.hex() == "0000443322113322"

    def test_ranges_are_told_apart_even_with_the_same_base(self, timer: Timer) -> None:
        assert [trapped.base for trapped in timer.get_assigned_resources().trapped()] == [
            FREE_BASE
        ] * 2
        pio_out(timer, FREE_BASE, 0x55)
        assert pio_in(timer, FREE_BASE) == 0x55
        assert read(timer, 0) == 0


class TestWidths:
    def test_a_narrow_read_returns_its_bytes(self, timer: Timer) -> None:
        assert [read(timer, 0x20 + n, 1) for n in range(4)] == [0x44, 0x33, 0x22, 0x11]
        assert read(timer, 0x21, 2) == 0x2233
        assert read(timer, 0x21, 3) == 0x112233

    def test_a_read_of_a_part_calls_the_method_once(self, timer: Timer) -> None:
        read(timer, 5, 2)
        assert timer.calls == ["status"]

    def test_a_wide_read_covers_several_registers(self, timer: Timer) -> None:
        assert read(timer, 0x20, 8) == 0x09_1122_3344
        assert read(timer, 0x22, 4) == 0x0009_1122
        assert read(timer, 0x0E, 8) == 0xFFFF_0000_FFFF_0000

    def test_a_wide_write_is_one_to_each_register_in_order(self, timer: Timer) -> None:
        write(timer, 0x0E, 0x4444_3333_2222_1111, 8)
        assert timer.calls == [("compare", 0, 0x2222), ("compare", 1, 0x4444)]

    def test_a_write_of_a_part_is_merged(self, timer: Timer) -> None:
        write(timer, 0x21, 0xAB, 1)
        assert read(timer, 0x20) == 0x1122_AB44
        write(timer, 0x1E, 0x7788_0000, 4)
        assert read(timer, 0x20) == 0x1122_7788

    def test_a_method_is_given_the_merged_value(self, timer: Timer) -> None:
        write(timer, 0, 0x301)
        write(timer, 1, 0x0F, 1)
        assert timer.calls[-1] == ("control", 0xF01)

    def test_a_register_that_cannot_be_told_is_merged_with_zeros(self, timer: Timer) -> None:
        class Blind(Timer):
            def read_scratch(self) -> int:
                raise AssertionError("a write doesn't read")

            def peek_scratch(self) -> int:
                return 0x0A0B_0C0D

        blind = Lab().host(Blind())
        write(blind, 0x22, 0xFF, 1)
        assert blind.registers["SCRATCH"] == 0x0AFF_0C0D
        write(timer, 5, 0xEE, 1)
        assert timer.calls == [("command", 0xEE00)]

    def test_bits_where_a_one_acts_do_nothing_beside_a_part(self, timer: Timer) -> None:
        timer.registers["EVENTS"] = 0xFFFF
        write(timer, 9, 0x0F, 1)
        assert read(timer, 8) == 0xF0FF

    def test_without_partial_writes_only_whole_registers_are_written(self) -> None:
        class Coarse(Timer):
            partial_writes = False

        coarse = Lab().host(Coarse())
        write(coarse, 0x21, 0, 1)
        write(coarse, 0x22, 0, 4)
        assert read(coarse, 0x20) == 0x1122_3344
        write(coarse, 0x1E, 0xAAAA_BBBB_CCCC_DDDD, 8)
        assert read(coarse, 0x20) == 0xAAAA_BBBB_CCCC_DDDD >> 16 & 0xFFFF_FFFF

    def test_a_very_long_access_works(self, timer: Timer) -> None:
        octets = read(timer, 0, 0x100).to_bytes(0x100, "little")
        assert octets[0x20:0x25].hex() == "4433221109"

    def test_what_is_remembered_of_accesses_is_bounded(
        self, timer: Timer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(register_dispatch, "_REMEMBERED", 5)
        for size in range(1, 16):
            for offset in range(0x30):
                read(timer, offset, size)
                write(timer, offset, 0, size)
        remembered = [
            value
            for value in vars(timer).values()
            if isinstance(value, register_dispatch.Remembered)
        ]
        assert len(remembered) == 4
        assert all(len(each) <= 5 for each in remembered)


UART = RegisterMap(
    "uart",
    (
        Register("RBR", 0, access=Access.READ_ONLY, when=When("LCR", "DLAB", 0)),
        Register("THR", 0, access=Access.WRITE_ONLY, when=When("LCR", "DLAB", 0)),
        Register("DLL", 0, when=When("LCR", "DLAB", 1)),
        Register("IER", 1),
        Register("DLM", 1, when=When("LCR", "DLAB", 1)),
        Register("LCR", 3, fields=(Field("DLAB", 0x80), Field("REST", 0x7F))),
    ),
)


class Uart(RegisterDevice[NoConfig]):
    register_map = UART
    type_name = "uart"
    sent: list[int]

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        return [MmioAddressConstraint(size=8)]

    def read_rbr(self) -> int:
        return 0x42

    def write_thr(self, value: int) -> None:
        self.sent = [*getattr(self, "sent", []), value]


class TestShared:
    """Places that several registers share."""

    @pytest.fixture
    def uart(self) -> Any:
        check(UART)
        return Lab().host(Uart(NoConfig()))

    def test_a_field_decides_what_is_there(self, uart: Any) -> None:
        write(uart, 0, 0x11, 1)
        write(uart, 3, 0x80, 1)
        write(uart, 0, 0x22, 1)
        assert read(uart, 0, 1) == 0x22
        write(uart, 3, 0x00, 1)
        assert read(uart, 0, 1) == 0x42
        assert uart.sent == [0x11]

    def test_without_a_condition_it_is_there_while_no_other_is(self, uart: Any) -> None:
        write(uart, 1, 0x0F, 1)
        write(uart, 3, 0x80, 1)
        write(uart, 1, 0x33, 1)
        assert (uart.peek("IER"), uart.peek("DLM")) == (0x0F, 0x33)

    def test_the_first_registers_of_an_access_count_for_its_last(self, uart: Any) -> None:
        write(uart, 3, 0x80, 1)
        write(uart, 0, 0x00_00_34_12, 4)  # DLL, DLM, nothing, LCR
        assert (uart.peek("DLL"), uart.peek("DLM"), uart.peek("LCR")) == (0x12, 0x34, 0)

    def test_what_decides_has_to_be_told_without_a_read(self) -> None:
        class Moody(Uart):
            register_map = RegisterMap(
                "moody",
                (
                    *UART.registers[:-1],
                    Register(
                        "LCR",
                        3,
                        fields=(Field("DLAB", 0x80, on_read=OnRead.CLEARS),),
                    ),
                ),
            )

            def read_lcr(self) -> int:
                return 0

        moody = Lab().host(Moody(NoConfig()))
        with pytest.raises(TypeError, match=r"moody: register LCR decides.*peek_lcr"):
            read(moody, 0, 1)


VIA = Via("INDEX", "DATA", 0x7F)
APIC = RegisterMap(
    "apic",
    (
        Register("INDEX", 0),
        Register("DATA", 0x10, 4, reset=0xDEAD),
        Register("ID", 0, 4, access=Access.READ_ONLY, reset=0x55, via=VIA),
        Register("ARBITER", 2, 4, access=Access.WRITE_ONLY, via=VIA),
        Register("ENTRY", 0x10, 8, count=3, via=VIA),
    ),
)


class Apic(RegisterDevice[NoConfig]):
    register_map = APIC
    type_name = "apic"
    arbiter = 0

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        return [MmioAddressConstraint(size=0x20)]

    def write_arbiter(self, value: int) -> None:
        self.arbiter = value


class TestIndexed:
    """Registers behind an index and a data register."""

    @pytest.fixture
    def apic(self) -> Any:
        check(APIC)
        return Lab().host(Apic(NoConfig()))

    def through(self, apic: Any, number: int, value: int | None = None, size: int = 4) -> int:
        write(apic, 0, number, 1)
        if value is not None:
            write(apic, 0x10, value, size)
        return read(apic, 0x10, size)

    def test_the_number_decides_which_it_is(self, apic: Any) -> None:
        assert self.through(apic, 0x80) == 0x55
        self.through(apic, 2, 0x1234)
        assert apic.arbiter == 0x1234

    def test_a_wide_register_comes_in_parts(self, apic: Any) -> None:
        self.through(apic, 0x14, 0x1111_1111)
        self.through(apic, 0x15, 0x2222_2222)
        assert apic.peek("ENTRY[2]") == 0x2222_2222_1111_1111
        assert self.through(apic, 0x15) == 0x2222_2222
        assert apic.peek("ENTRY[1]") == 0

    def test_an_access_of_a_part_is_to_that_part(self, apic: Any) -> None:
        self.through(apic, 0x11, 0x4433_2211)
        write(apic, 0x12, 0xAA, 1)
        assert apic.peek("ENTRY[0]") == 0x44AA_2211 << 32
        assert read(apic, 0x13, 1) == 0x44

    def test_an_access_past_the_data_register_is_not_to_the_next_part(self, apic: Any) -> None:
        self.through(apic, 0x10, 0x1111_1111)
        self.through(apic, 0x11, 0x2222_2222)
        assert self.through(apic, 0x10, size=8) == 0x1111_1111
        self.through(apic, 0x10, 0x4444_4444_3333_3333, size=8)
        assert apic.peek("ENTRY[0]") == 0x2222_2222_3333_3333

    def test_a_number_of_nothing_is_the_data_register_itself(self, apic: Any) -> None:
        assert self.through(apic, 0x70) == 0xDEAD
        self.through(apic, 0x70, 5)
        assert apic.peek("DATA") == 5


class TestBesideTheBus:
    def test_a_stored_value_is_peeked_and_poked(self, timer: Timer) -> None:
        timer.poke("SCRATCH", 5)
        timer.poke("LEVEL", 3)
        assert (timer.peek("SCRATCH"), read(timer, 0x24, 1)) == (5, 3)
        assert timer.calls == ["changed"] * 2

    def test_a_write_method_is_not_called(self, timer: Timer) -> None:
        timer.poke("CONTROL", 0x101)
        assert timer.calls == ["changed"]
        assert read(timer, 0) == 0x101

    def test_a_method_whose_read_does_nothing_tells(self, timer: Timer) -> None:
        assert timer.peek("COMPARE[1]") == 0xFFFF
        with pytest.raises(NotPeekable):
            timer.poke("COMPARE[1]", 1)

    def test_a_method_whose_read_does_something_does_not(self, timer: Timer) -> None:
        with pytest.raises(NotPeekable):
            timer.peek("STATUS")
        assert timer.calls == []

    def test_methods_for_it_go_first(self) -> None:
        class Open(Timer):
            def peek_status(self) -> int:
                return 0x77

            def poke_compare(self, index: int, value: int) -> None:
                self.registers.rows["COMPARE"][index] = value ^ 0xFFFF

        device = Lab().host(Open())
        assert device.peek("STATUS") == 0x77
        device.poke("COMPARE[3]", 0x1234)
        assert device.peek("COMPARE[3]") == 0x1234

    def test_a_state_is_restored(self, timer: Timer) -> None:
        write(timer, 0x20, 0xCAFE)
        write(timer, 0x14, 7, 2)
        other = Lab().host(Timer())
        other.restore(json.loads(json.dumps(timer.save())))
        assert other.calls == ["changed"]
        assert other.save() == timer.save()
        assert read(other, 0x20) == 0xCAFE
        assert read(other, 0x14, 2) == 0xFFF8

    @pytest.mark.parametrize("extra", [{"SCRATCH": -1}, {"NOPE": 1}])
    def test_a_bad_state_is_refused_and_changes_nothing(
        self, timer: Timer, extra: dict[str, int]
    ) -> None:
        write(timer, 0x20, 0xCAFE)
        before = timer.save()
        with pytest.raises(BadState):
            timer.restore({**before, **extra})
        assert timer.save() == before

    def test_a_reset_brings_the_declared_values(self, timer: Timer) -> None:
        write(timer, 0x20, 0xCAFE)
        write(timer, 0x14, 7, 2)
        timer.reset()
        assert timer.save() == Timer().save()
        assert timer.calls[-1] == "changed"


class TestMistakes:
    """Each is an error when the class is made, not when a guest comes by."""

    def test_a_method_of_no_register(self) -> None:
        with pytest.raises(
            TypeError, match=r"Typo\.read_statsu: timer has no register 'STATSU'; known: CONTROL, "
        ):

            class Typo(Timer):
                def read_statsu(self) -> int:
                    return 0

    @pytest.mark.parametrize(
        ("name", "access"), [("write_level", "read-only"), ("read_command", "write-only")]
    )
    def test_a_method_that_could_never_be_called(self, name: str, access: str) -> None:
        with pytest.raises(TypeError, match=rf"Never\.{name}: register .* is {access}"):
            type("Never", (Timer,), {name: lambda *_arguments: 0})

    @pytest.mark.parametrize(
        ("name", "takes"),
        [
            ("read_compare", "self, index"),
            ("write_compare", "self, index, value"),
            ("poke_level", "self, value"),
        ],
    )
    def test_a_method_that_takes_something_else(self, name: str, takes: str) -> None:
        with pytest.raises(TypeError, match=rf"Wrong\.{name} has to take \({takes}\)"):
            type("Wrong", (Timer,), {name: lambda: 0})

    def test_no_map(self) -> None:
        class Mapless(RegisterDevice[NoConfig]):
            type_name = "mapless"

            def get_resource_constraints(self) -> list[ResourceConstraint]:
                return []

        with pytest.raises(TypeError, match="Mapless has no register_map"):
            Mapless(NoConfig())

    def test_a_base_class_without_a_map_may_have_methods_for_those_with_one(self) -> None:
        class Base(RegisterDevice[NoConfig]):
            def get_resource_constraints(self) -> list[ResourceConstraint]:
                return [MmioAddressConstraint(size=8)]

            def read_id(self) -> int:
                return 0x31

        class Real(Base):
            type_name = "real"
            register_map = RegisterMap("real", (Register("ID", 0, access=Access.READ_ONLY),))

        assert read(Lab().host(Real(NoConfig())), 0, 1) == 0x31


# Against memory: plain registers of all sizes, with gaps, and accesses of any kind.

PLAIN = RegisterMap(
    "plain",
    (
        Register("A", 0, 4),
        Register("B", 4, 1),
        Register("C", 5, 3),
        Register("ROW", 0x0A, 2, count=3, stride=3),
        Register("D", 0x18, 8),
    ),
)
PLAIN_SIZE = 0x20
THERE = {
    *range(8),
    *(0x0A + 3 * n + byte for n in range(3) for byte in range(2)),
    *range(0x18, 0x20),
}
ACCESSES = st.lists(
    st.tuples(st.booleans(), st.integers(0, PLAIN_SIZE - 1), st.binary(min_size=1, max_size=16))
)


class Plain(RegisterDevice[NoConfig]):
    type_name = "plain"
    register_map = PLAIN

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        return [MmioAddressConstraint(size=PLAIN_SIZE)]


class WithMethods(Plain):
    """The same by methods."""

    def read_a(self) -> int:
        return self.registers["A"]

    def write_a(self, value: int) -> None:
        self.registers["A"] = value

    def write_c(self, value: int) -> None:
        self.registers["C"] = value

    def read_row(self, index: int) -> int:
        return self.registers.rows["ROW"][index]

    def write_row(self, index: int, value: int) -> None:
        self.registers.rows["ROW"][index] = value


@pytest.mark.parametrize("cls", [Plain, WithMethods])
@given(accesses=ACCESSES)
def test_plain_registers_are_like_memory(
    cls: type[Plain], accesses: list[tuple[bool, int, bytes]]
) -> None:
    device, model = Lab().host(cls(NoConfig())), bytearray(PLAIN_SIZE)
    for is_write, offset, octets in accesses:
        data = octets[: PLAIN_SIZE - offset]
        if is_write:
            device.write(FREE_BASE, offset, data)
            for at, octet in enumerate(data, offset):
                if at in THERE:
                    model[at] = octet
        else:
            got = bytearray(len(data))
            device.read(FREE_BASE, offset, got)
            assert got == model[offset : offset + len(data)]
    assert read(device, 0, PLAIN_SIZE).to_bytes(PLAIN_SIZE, "little") == model
