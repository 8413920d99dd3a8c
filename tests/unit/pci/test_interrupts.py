"""INTx, MSI and MSI-X: what a client is signalled, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_server.allocation import PoolConfig, ResourceManager
from devicehost_server.model.errors import AccessOutOfRange
from devicehost_server.model.interrupts import InterruptController
from devicehost_server.model.pci import UNKNOWN_IDENTITY, PciDescription
from devicehost_server.model.resources import (
    GenericIrqConstraint,
    LegacyIrqConstraint,
    PciMsiIrqConstraint,
    PciMsixIrqConstraint,
    ResourceConstraint,
)
from devicehost_server.pci.function import PciFunction
from devicehost_server.pci.interrupts import IrqKind
from devicehost_server.pci.msix import Msix

INTX, MSI, MSIX = IrqKind.INTX, IrqKind.MSI, IrqKind.MSIX
CAPABILITY = 0x40
MSI_LAST = 0xFFF
CONTROL = CAPABILITY + 2
MSI_MASKS, MSI_PENDING = CAPABILITY + 0x10, CAPABILITY + 0x14


class Client:
    """A client of one function, and the lines of the device behind it."""

    def __init__(self, *constraints: ResourceConstraint) -> None:
        self.function = PciFunction("dut", PciDescription(UNKNOWN_IDENTITY), constraints)
        allocated = ResourceManager(PoolConfig(msi_last=MSI_LAST)).allocate(
            self.function.constraints, "dut"
        )
        self.resources = self.function.assign(allocated)
        self.interrupts = InterruptController()
        self.vectors = self.function.vectors
        self.interrupts.subscribe(lambda event: self.vectors.changed(event.gsi, event.kind))
        self.signals: list[tuple[IrqKind, int]] = []
        self.vectors.attach(self.sink)
        for kind in IrqKind:
            if count := self.vectors.count(kind):
                self.vectors.connect(kind, range(count))

    def sink(self, kind: IrqKind, vector: int) -> None:
        """Take a signal."""
        self.signals.append((kind, vector))

    def take(self) -> list[tuple[IrqKind, int]]:
        """What was signalled since this was last asked."""
        taken, self.signals[:] = self.signals[:], []
        return taken

    def read(self, offset: int, size: int = 4) -> int:
        data = bytearray(size)
        self.function.config.read(offset, data)
        return int.from_bytes(data, "little")

    def write(self, offset: int, value: int, size: int = 4) -> None:
        self.function.config.write(offset, value.to_bytes(size, "little"))

    @property
    def msix(self) -> Msix:
        assert self.function.msix is not None
        return self.function.msix

    def bar(self, offset: int, size: int = 4) -> int:
        data = bytearray(size)
        self.msix.read(offset, data)
        return int.from_bytes(data, "little")

    def pulse(self, number: int) -> None:
        messages = self.resources.get_pci_msi_irqs() or self.resources.get_pci_msix_irqs()
        assert messages is not None
        self.interrupts.pulse(messages.base + number, "dut")


class TestIntx:
    @pytest.fixture
    def client(self) -> Client:
        return Client(LegacyIrqConstraint(4))

    @pytest.fixture
    def gsi(self, client: Client) -> int:
        gsi = client.resources.get_legacy_irq()
        assert gsi is not None
        return gsi

    def test_it_is_signalled_once_while_the_client_serves_it(
        self, client: Client, gsi: int
    ) -> None:
        line = client.interrupts.line(gsi, "dut")
        for asserted in (True, False, True):
            line.set_level(asserted=asserted)

        assert client.take() == [(INTX, 0)]

    def test_it_is_signalled_again_if_it_is_asserted_when_it_was_served(
        self, client: Client, gsi: int
    ) -> None:
        line = client.interrupts.line(gsi, "dut")
        line.set_level(asserted=True)
        client.take()
        client.vectors.release(INTX, [0])
        assert client.take() == [(INTX, 0)]

        line.set_level(asserted=False)
        client.vectors.release(INTX, [0])
        assert client.take() == []

    def test_the_command_register_holds_it_back(self, client: Client, gsi: int) -> None:
        client.write(0x04, 0x0400, 2)
        client.interrupts.line(gsi, "dut").set_level(asserted=True)
        assert client.take() == []
        assert client.read(0x06, 2) & 0x08

        client.write(0x04, 0, 2)
        assert client.take() == [(INTX, 0)]

    def test_one_that_nobody_takes_is_signalled_when_somebody_does(
        self, client: Client, gsi: int
    ) -> None:
        client.vectors.disconnect(INTX, [0])
        client.interrupts.line(gsi, "dut").set_level(asserted=True)
        assert client.take() == []

        client.vectors.connect(INTX, [0])
        assert client.take() == [(INTX, 0)]

    def test_the_client_can_hold_it(self, client: Client, gsi: int) -> None:
        client.vectors.hold(INTX, [0])
        client.interrupts.line(gsi, "dut").set_level(asserted=True)
        assert client.take() == []

        client.vectors.release(INTX, [0])
        assert client.take() == [(INTX, 0)]

    def test_a_reset_of_the_function_no_longer_holds_it_back(
        self, client: Client, gsi: int
    ) -> None:
        client.write(0x04, 0x0400, 2)
        client.interrupts.line(gsi, "dut").set_level(asserted=True)
        client.function.reset()

        assert client.take() == [(INTX, 0)]

    def test_several_lines_share_the_pin(self) -> None:
        client = Client(LegacyIrqConstraint(1), LegacyIrqConstraint(12))
        first, second = [client.interrupts.line(gsi, "dut") for gsi in client.vectors.gsis]
        first.set_level(asserted=True)
        second.set_level(asserted=True)
        first.set_level(asserted=False)
        assert client.read(0x06, 2) & 0x08

        second.set_level(asserted=False)
        assert not client.read(0x06, 2) & 0x08

    def test_it_is_silent_while_messages_are_enabled(self) -> None:
        client = Client(LegacyIrqConstraint(), PciMsiIrqConstraint())
        gsi = client.resources.get_legacy_irq()
        assert gsi is not None
        client.write(CONTROL, 0x0001, 2)
        client.interrupts.line(gsi, "dut").set_level(asserted=True)
        assert client.take() == []

        client.write(CONTROL, 0, 2)
        assert client.take() == [(INTX, 0)]

    def test_a_client_that_is_gone_is_not_signalled(self, client: Client, gsi: int) -> None:
        client.vectors.detach(client.sink)
        client.interrupts.line(gsi, "dut").set_level(asserted=True)

        assert client.take() == []

    def test_a_client_that_goes_late_leaves_the_next_one_attached(
        self, client: Client, gsi: int
    ) -> None:
        client.vectors.detach(lambda *_: None)
        client.interrupts.line(gsi, "dut").set_level(asserted=True)

        assert client.take() == [(INTX, 0)]


class TestMsi:
    @pytest.fixture
    def client(self) -> Client:
        return Client(PciMsiIrqConstraint(4))

    def test_messages_that_are_not_enabled_are_dropped(self, client: Client) -> None:
        client.pulse(0)
        client.write(CONTROL, 0x0001, 2)

        assert client.take() == []

    def test_each_pulse_is_signalled_on_its_vector(self, client: Client) -> None:
        client.write(CONTROL, 0x0021, 2)
        for number in (0, 3, 3):
            client.pulse(number)

        assert client.take() == [(MSI, 0), (MSI, 3), (MSI, 3)]

    def test_a_function_that_may_use_fewer_keeps_the_low_bits(self, client: Client) -> None:
        client.write(CONTROL, 0x0011, 2)  # two of four
        for number in range(4):
            client.pulse(number)

        assert client.take() == [(MSI, 0), (MSI, 1), (MSI, 0), (MSI, 1)]

    def test_it_asks_for_a_power_of_two(self) -> None:
        client = Client(PciMsiIrqConstraint(3))

        assert client.vectors.count(MSI) == 4
        assert client.read(CONTROL, 2) == 0x0184

    @pytest.mark.parametrize("allowed", [0x0001, 0x0071])
    def test_a_driver_cannot_allow_more_than_there_are(self, client: Client, allowed: int) -> None:
        client.write(CONTROL, allowed, 2)
        client.pulse(3)

        (signal,) = client.take()
        assert signal[1] < 4

    def test_a_masked_vector_is_pending_until_it_is_unmasked(self, client: Client) -> None:
        client.write(CONTROL, 0x0021, 2)
        client.write(MSI_MASKS, 0b0110)
        client.pulse(1)
        client.pulse(1)
        assert client.take() == []
        assert client.read(MSI_PENDING) == 0b0010

        client.write(MSI_PENDING, 0xFFFF_FFFF)
        client.write(MSI_MASKS, 0b0100)
        assert client.take() == [(MSI, 1)]
        assert client.read(MSI_PENDING) == 0

    def test_pending_ones_go_when_it_is_disabled(self, client: Client) -> None:
        client.write(CONTROL, 0x0021, 2)
        client.write(MSI_MASKS, 0b0001)
        client.pulse(0)
        client.write(CONTROL, 0x0020, 2)
        client.write(CONTROL, 0x0021, 2)
        client.write(MSI_MASKS, 0)

        assert client.take() == []

    def test_an_asserted_line_on_a_vector_is_a_message(self, client: Client) -> None:
        client.write(CONTROL, 0x0021, 2)
        messages = client.resources.get_pci_msi_irqs()
        assert messages is not None
        line = client.interrupts.line(messages.base + 2, "dut")
        line.set_level(asserted=True)
        line.set_level(asserted=False)

        assert client.take() == [(MSI, 2)]


class TestMsix:
    @pytest.fixture
    def client(self) -> Client:
        client = Client(PciMsixIrqConstraint(5))
        client.write(CONTROL, 0x8000, 2)
        return client

    def test_the_capability_says_where_table_and_pending_bits_are(self, client: Client) -> None:
        assert client.read(CONTROL, 2) == 0x8004
        assert client.read(CAPABILITY + 4) == 0
        assert client.read(CAPABILITY + 8) == 5 * 16

    def test_generic_interrupts_are_vectors_too(self) -> None:
        client = Client(PciMsixIrqConstraint(2), GenericIrqConstraint(3))
        client.write(CONTROL, 0x8000, 2)
        generic = client.resources.get_generic_msi_irqs()
        assert generic is not None
        client.interrupts.pulse(generic.base, "dut")

        assert client.vectors.count(MSIX) == 5
        assert client.take() == [(MSIX, 2)]

    def test_for_a_client_with_a_table_of_its_own_all_are_unmasked(self, client: Client) -> None:
        assert client.bar(12) == 1
        client.pulse(0)

        assert client.take() == [(MSIX, 0)]

    def test_the_table_counts_once_it_is_written(self, client: Client) -> None:
        client.msix.write(12, bytes(4))
        client.pulse(0)
        client.pulse(1)
        assert client.take() == [(MSIX, 0)]
        assert client.bar(0x50, 8) == 0b10

        client.msix.write(0x10 + 12, bytes(4))
        assert client.take() == [(MSIX, 1)]
        assert client.bar(0x50, 8) == 0

    def test_the_function_mask_masks_all(self, client: Client) -> None:
        client.write(CONTROL, 0xC000, 2)
        client.pulse(4)
        assert client.take() == []
        assert client.bar(0x50, 4) == 1 << 4

        client.write(CONTROL, 0x8000, 2)
        assert client.take() == [(MSIX, 4)]

    def test_a_vector_that_nobody_takes_is_pending_until_somebody_does(
        self, client: Client
    ) -> None:
        client.vectors.disconnect(MSIX, [2])
        client.pulse(2)
        assert client.bar(0x50, 1) == 1 << 2
        assert client.take() == []

        client.vectors.connect(MSIX, [2])
        assert client.take() == [(MSIX, 2)]

    def test_a_vector_that_the_client_holds_is_pending(self, client: Client) -> None:
        client.vectors.hold(MSIX, [1, 3])
        client.pulse(1)
        client.pulse(3)
        client.vectors.release(MSIX, [3])

        assert client.take() == [(MSIX, 3)]
        assert client.bar(0x50, 8) == 1 << 1

    def test_a_reset_masks_all_and_forgets_what_is_pending(self, client: Client) -> None:
        client.msix.write(0, bytes(16))
        client.pulse(1)
        client.function.reset()
        client.write(CONTROL, 0x8000, 2)

        assert client.take() == []
        assert client.bar(0, 8) == 0
        assert client.bar(12) == 1

    def test_entries_take_any_size_and_keep_reserved_bits_clear(self, client: Client) -> None:
        client.msix.write(0, b"\xff" * 80)
        assert client.bar(0, 8) == 0xFFFF_FFFF_FFFF_FFFC
        assert client.bar(8, 8) == 0x0000_0001_FFFF_FFFF

        client.msix.write(0x13, b"\x12\x34")
        assert client.bar(0x10, 8) == 0xFFFF_FF34_12FF_FFFC

    def test_pending_bits_are_read_only_and_behind_them_is_nothing(self, client: Client) -> None:
        client.msix.write(0x50, b"\xff" * 16)

        assert client.bar(0x50, 16) == 0xFFFF_FFFF_FFFF_FFFF_0000_0000_0000_0000
        assert client.bar(0xFFF, 1) == 0xFF

    @pytest.mark.parametrize(("offset", "size"), [(-1, 1), (0xFFD, 4), (0x1000, 1)])
    def test_an_access_past_the_bar_is_refused(
        self, client: Client, offset: int, size: int
    ) -> None:
        with pytest.raises(AccessOutOfRange, match="MSI-X BAR 0"):
            client.msix.read(offset, bytearray(size))
        with pytest.raises(AccessOutOfRange, match="MSI-X BAR 0"):
            client.msix.write(offset, bytes(size))

    def test_the_last_of_2048_vectors_works(self) -> None:
        client = Client(PciMsixIrqConstraint(2048))
        client.write(CONTROL, 0x8000, 2)
        client.msix.write(2046 * 16, b"\0" * 16)
        client.pulse(2046)
        client.pulse(2047)

        assert client.take() == [(MSIX, 2046)]
        assert client.bar(0x8000 + 2047 // 8, 1) == 0x80


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pulse"), st.integers(0, 2)),
        st.tuples(st.just("control"), st.sampled_from([0xC000, 0x8000])),
        st.tuples(st.just("mask"), st.integers(0, 2)),
        st.tuples(st.just("unmask"), st.integers(0, 2)),
        st.tuples(st.sampled_from(["hold", "release", "connect", "disconnect"]), st.integers(0, 2)),
    ),
    max_size=40,
)


@given(STEPS)
def test_no_message_is_lost_nor_sent_while_it_must_wait(steps: list[tuple[str, int]]) -> None:
    client = Client(PciMsixIrqConstraint(3))
    client.write(CONTROL, 0x8000, 2)
    client.msix.write(0, bytes(48))
    blocked: set[tuple[str, int]] = set()  # by what, which vector; all is -1
    waiting: set[int] = set()

    def expected() -> set[int]:
        if ("control", -1) in blocked:
            return set()
        return {each for each in waiting if all(vector != each for _, vector in blocked)}

    for step, value in steps:
        match step:
            case "pulse":
                client.pulse(value)
                waiting.add(value)
            case "control":
                client.write(CONTROL, value, 2)
                (blocked.add if value & 0x4000 else blocked.discard)(("control", -1))
            case "mask" | "unmask":
                client.msix.write(value * 16 + 12, bytes([step == "mask", 0, 0, 0]))
                (blocked.add if step == "mask" else blocked.discard)(("table", value))
            case "hold" | "release":
                getattr(client.vectors, step)(MSIX, [value])
                (blocked.add if step == "hold" else blocked.discard)(("hold", value))
            case _:
                getattr(client.vectors, step)(MSIX, [value])
                (blocked.discard if step == "connect" else blocked.add)(("fd", value))
        sent = expected()
        assert client.take() == [(MSIX, vector) for vector in sorted(sent)]
        waiting -= sent
        assert client.bar(48, 8) == sum(1 << vector for vector in waiting)
