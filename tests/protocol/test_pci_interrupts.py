"""Interrupts of a function, as a vfio-user client takes them: SET_IRQS, and what follows."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from errno import EINVAL, ENOTTY
from pathlib import Path

import pytest

from buslab import memfd
from daemonlab import wait_until
from devicehost.vfio_user import GetIrqInfo, IrqAction, IrqData, IrqFlags, IrqInfo, SetIrqs
from pcilab import (
    CAP_MSI,
    CAP_MSIX,
    ERR,
    INTX,
    INTX_DISABLE,
    LEVEL,
    MMIO_BAR,
    MSI,
    MSI_COUNT,
    MSI_ENABLE,
    MSIX,
    MSIX_COUNT,
    MSIX_ENABLE,
    REQ,
    SEND_MSI,
    SEND_MSIX,
    Eventfd,
    Functions,
    Messenger,
    Vmm,
    functions,
    open_fds,
)

TRIGGER, MASK, UNMASK = IrqAction.TRIGGER, IrqAction.MASK, IrqAction.UNMASK
NONE, BOOL, EVENTFD = IrqData.NONE, IrqData.BOOL, IrqData.EVENTFD
MANY = 20_000
FOUR_VECTORS = 2 << 4
"""Of message control of MSI: the driver allows all four."""


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Functions]:
    with functions(tmp_path) as running:
        yield running


@pytest.fixture
def device(there: Functions) -> Messenger:
    return there.messenger()


@pytest.fixture
def vmm(there: Functions, device: Messenger) -> Iterator[Vmm]:
    assert device.name == "f"
    with there.vmm() as attached:
        yield attached


def assert_intx(vmm: Vmm, *, asserted: bool) -> None:
    vmm.put(MMIO_BAR, LEVEL, asserted, 1)


def send(vmm: Vmm, register: int, *vectors: int) -> None:
    for vector in vectors:
        vmm.put(MMIO_BAR, register, vector, 1)


def signalled(eventfds: list[Eventfd]) -> list[int]:
    """Which of them are, by their place; they are not any more then."""
    return [place for place, each in enumerate(eventfds) if each.is_signalled() and each.wait()]


# What there is.


def test_the_indexes_are_those_of_vfio(vmm: Vmm) -> None:
    maskable = IrqFlags.EVENTFD | IrqFlags.MASKABLE
    assert vmm.irq(INTX) == IrqInfo(maskable | IrqFlags.AUTOMASKED, 1)
    assert vmm.irq(MSI) == IrqInfo(maskable, MSI_COUNT)
    assert vmm.irq(MSIX) == IrqInfo(maskable, MSIX_COUNT)
    assert vmm.irq(ERR) == vmm.irq(REQ) == IrqInfo(IrqFlags.EVENTFD, 1)
    assert vmm.refused(GetIrqInfo(5)) == EINVAL


def test_a_device_without_interrupts_has_none(there: Functions) -> None:
    there.plug("scratch")
    with there.vmm() as vmm:
        assert [vmm.irq(index).count for index in (INTX, MSI, MSIX, ERR, REQ)] == [0, 0, 0, 1, 1]
        assert vmm.refused(SetIrqs(INTX, 0, 1, TRIGGER, NONE)) == EINVAL


# INTx.


def test_to_disconnect_interrupts_that_are_not_there_does_nothing(there: Functions) -> None:
    there.plug("register", "plain")
    with there.vmm("plain") as vmm:
        for index in (INTX, MSI, MSIX):
            assert vmm.irq(index).count == 0
            vmm.disable(index)


def test_intx_is_masked_by_its_signal_until_the_client_unmasks_it(vmm: Vmm) -> None:
    [eventfd] = vmm.connect(INTX)
    assert_intx(vmm, asserted=True)
    assert eventfd.wait() == 1
    assert_intx(vmm, asserted=False)
    assert_intx(vmm, asserted=True)
    assert not eventfd.is_signalled(), "it is masked"
    assert_intx(vmm, asserted=False)
    vmm.unmask()
    assert not eventfd.is_signalled(), "it isn't asserted"
    assert_intx(vmm, asserted=True)
    assert eventfd.wait() == 1


def test_intx_that_is_still_asserted_is_signalled_again_when_it_is_unmasked(vmm: Vmm) -> None:
    [eventfd] = vmm.connect(INTX)
    assert_intx(vmm, asserted=True)
    for _ in range(3):
        assert eventfd.wait() == 1
        vmm.unmask()
    assert eventfd.wait() == 1


def test_a_client_masks_and_unmasks_intx_by_bools_as_well(vmm: Vmm) -> None:
    [eventfd] = vmm.connect(INTX)
    vmm.set_irqs(INTX, MASK, BOOL, bools=b"\0")
    assert_intx(vmm, asserted=True)
    assert eventfd.wait() == 1, "a 0 masks nothing"
    assert_intx(vmm, asserted=False)
    vmm.unmask()
    vmm.set_irqs(INTX, MASK, BOOL, bools=b"\1")
    assert_intx(vmm, asserted=True)
    vmm.set_irqs(INTX, UNMASK, BOOL, bools=b"\0")
    assert not eventfd.is_signalled()
    vmm.set_irqs(INTX, UNMASK, BOOL, bools=b"\1")
    assert eventfd.wait() == 1


def test_an_eventfd_unmasks_intx_as_that_of_kvm_does(vmm: Vmm) -> None:
    [eventfd] = vmm.connect(INTX)
    resample = Eventfd()
    vmm.set_irqs(INTX, UNMASK, EVENTFD, eventfds=[resample])
    assert_intx(vmm, asserted=True)
    for _ in range(20):
        assert eventfd.wait() == 1
        os.eventfd_write(resample.fd, 1)
    assert eventfd.wait() == 1
    vmm.set_irqs(INTX, UNMASK, EVENTFD)
    wait_until(lambda: not listeners())
    os.eventfd_write(resample.fd, 1)
    assert not eventfd.is_signalled(), "nobody listens any more"
    vmm.unmask()
    assert eventfd.wait() == 1
    resample.close()


def test_the_thread_that_listens_to_an_eventfd_ends_with_the_client(
    there: Functions, device: Messenger
) -> None:
    del device
    before = open_fds()
    resample = Eventfd()
    with there.vmm() as vmm:
        vmm.connect(INTX)
        for _ in range(3):
            vmm.set_irqs(INTX, UNMASK, EVENTFD, eventfds=[resample])
        wait_until(lambda: len(listeners()) == 1)
    resample.close()
    wait_until(lambda: not listeners())
    wait_until(lambda: open_fds() == before)


def test_a_driver_disables_intx_by_the_command_register(vmm: Vmm) -> None:
    [eventfd] = vmm.connect(INTX)
    vmm.set_command(INTX_DISABLE)
    assert_intx(vmm, asserted=True)
    assert not eventfd.is_signalled()
    vmm.set_command(0)
    assert eventfd.wait() == 1


def test_intx_that_is_asserted_is_signalled_when_it_is_connected(vmm: Vmm) -> None:
    assert_intx(vmm, asserted=True)
    [first] = vmm.connect(INTX)
    assert first.wait() == 1
    vmm.disable(INTX)
    vmm.unmask()
    assert not first.is_signalled()
    [second] = vmm.connect(INTX)
    assert second.wait() == 1, "it isn't masked any more"


def test_a_serial_card_interrupts_by_intx(there: Functions) -> None:
    there.plug("uart16550", "com")
    ier, mcr, iir, out2, thre = 1, 4, 2, 0x08, 0x02
    with there.vmm("com") as vmm:
        [eventfd] = vmm.connect(INTX)
        vmm.put(0, mcr, out2, 1)
        vmm.put(0, ier, thre, 1)
        assert eventfd.wait() == 1
        assert vmm.get(0, iir, 1) & 0x0F == thre
        vmm.unmask()
        assert not eventfd.is_signalled()


# Messages.


def test_messages_are_signalled_each_on_its_own_vector(vmm: Vmm) -> None:
    vmm.enable_messages(CAP_MSIX, MSIX_ENABLE)
    eventfds = vmm.connect(MSIX, 0, 10) + vmm.connect(MSIX, 10, 10)
    send(vmm, SEND_MSIX, 0, 7, 19, 7)
    assert [each.wait() for each in (eventfds[0], eventfds[7], eventfds[19])] == [1, 2, 1]
    assert signalled(eventfds) == []


def test_msi_has_vectors_of_its_own(vmm: Vmm) -> None:
    vmm.enable_messages(CAP_MSI, MSI_ENABLE | FOUR_VECTORS)
    eventfds = vmm.connect(MSI, 0, MSI_COUNT)
    send(vmm, SEND_MSI, 3, 1)
    assert signalled(eventfds) == [1, 3]
    vmm.enable_messages(CAP_MSI, MSI_ENABLE)
    send(vmm, SEND_MSI, 3)
    assert signalled(eventfds) == [0], "one vector is allowed: all share it"


def test_a_vector_can_be_connected_and_disconnected_alone(vmm: Vmm) -> None:
    vmm.enable_messages(CAP_MSIX, MSIX_ENABLE)
    eventfds = vmm.connect(MSIX, 0, 4)
    vmm.set_irqs(MSIX, TRIGGER, EVENTFD, start=1, count=2)
    send(vmm, SEND_MSIX, 0, 1, 2, 3)
    assert signalled(eventfds) == [0, 3]
    [again] = vmm.connect(MSIX, 2)
    assert again.wait() == 1, "what came meanwhile was kept"
    vmm.disable(MSIX)
    send(vmm, SEND_MSIX, 0, 1, 2, 3)
    assert signalled([*eventfds, again]) == []


def test_an_eventfd_that_takes_the_place_of_another_misses_nothing(vmm: Vmm) -> None:
    vmm.enable_messages(CAP_MSIX, MSIX_ENABLE)
    [before] = vmm.connect(MSIX, 3)
    send(vmm, SEND_MSIX, 3)
    [after] = vmm.connect(MSIX, 3)
    send(vmm, SEND_MSIX, 3)
    assert (before.wait(), after.wait()) == (1, 1)


def test_nothing_is_lost_while_eventfds_take_each_others_place(device: Messenger, vmm: Vmm) -> None:
    vmm.enable_messages(CAP_MSIX, MSIX_ENABLE)
    eventfds = vmm.connect(MSIX, 3)
    interrupts, gsi = device.context.interrupts, device.first_msix + 3
    ended = threading.Event()

    def fire() -> None:
        for _ in range(MANY):
            interrupts.pulse(gsi)
        ended.set()

    firing = threading.Thread(target=fire)
    firing.start()
    while not ended.is_set():
        eventfds += vmm.connect(MSIX, 3)
    firing.join()
    assert len(eventfds) > 1
    assert sum(each.wait() for each in eventfds if each.is_signalled()) == MANY


def test_the_client_masks_a_vector_and_gets_what_waited_when_it_unmasks_it(vmm: Vmm) -> None:
    vmm.enable_messages(CAP_MSIX, MSIX_ENABLE)
    eventfds = vmm.connect(MSIX, 0, 2)
    vmm.mask(MSIX, 1)
    send(vmm, SEND_MSIX, 0, 1)
    assert signalled(eventfds) == [0]
    vmm.unmask(MSIX, 1)
    assert signalled(eventfds) == [1]


def test_messages_that_the_driver_has_not_enabled_go_nowhere(vmm: Vmm) -> None:
    eventfds = vmm.connect(MSIX, 0, 2)
    send(vmm, SEND_MSIX, 1)
    vmm.enable_messages(CAP_MSIX, MSIX_ENABLE)
    assert signalled(eventfds) == []


def test_there_is_no_intx_while_messages_are_enabled(vmm: Vmm) -> None:
    [eventfd] = vmm.connect(INTX)
    vmm.enable_messages(CAP_MSIX, MSIX_ENABLE)
    assert_intx(vmm, asserted=True)
    assert not eventfd.is_signalled()
    vmm.enable_messages(CAP_MSIX, 0)
    assert eventfd.wait() == 1


def test_interrupts_of_others_on_the_server_are_not_those_of_a_function(
    there: Functions, vmm: Vmm
) -> None:
    there.messenger("other")
    vmm.enable_messages(CAP_MSIX, MSIX_ENABLE)
    eventfds = vmm.connect(MSIX, 0, 16)
    [intx] = vmm.connect(INTX)
    with there.vmm("other") as second:
        second.enable_messages(CAP_MSIX, MSIX_ENABLE)
        [own] = second.connect(MSIX, 5)
        send(second, SEND_MSIX, 5)
        assert own.wait() == 1
        assert_intx(second, asserted=True)
    there.lab.server.interrupts.pulse(5)
    assert signalled([*eventfds, intx]) == []


# By hand, and the other two indexes.


@pytest.mark.parametrize("index", [INTX, MSI, MSIX, ERR, REQ])
def test_a_client_signals_its_own_eventfd_by_hand(vmm: Vmm, index: int) -> None:
    [eventfd] = vmm.connect(index)
    vmm.set_irqs(index, TRIGGER)
    vmm.set_irqs(index, TRIGGER, BOOL, bools=b"\1")
    vmm.set_irqs(index, TRIGGER, BOOL, bools=b"\0")
    assert eventfd.wait() == 2
    vmm.set_irqs(index, TRIGGER, EVENTFD)
    vmm.set_irqs(index, TRIGGER)
    assert not eventfd.is_signalled()


def test_bools_choose_among_several(vmm: Vmm) -> None:
    eventfds = vmm.connect(MSIX, 4, 3)
    vmm.set_irqs(MSIX, TRIGGER, BOOL, start=4, count=3, bools=b"\1\0\1")
    assert signalled(eventfds) == [0, 2]


# What can't be.


@pytest.mark.parametrize(
    ("request_", "errno"),
    [
        (SetIrqs(5, 0, 1, TRIGGER, NONE), EINVAL),
        (SetIrqs(0xFFFF_FFFF, 0, 1, TRIGGER, NONE), EINVAL),
        (SetIrqs(INTX, 1, 1, TRIGGER, NONE), EINVAL),
        (SetIrqs(INTX, 0, 2, TRIGGER, NONE), EINVAL),
        (SetIrqs(MSI, MSI_COUNT, 1, TRIGGER, NONE), EINVAL),
        (SetIrqs(MSIX, MSIX_COUNT - 1, 2, UNMASK, NONE), EINVAL),
        (SetIrqs(MSIX, 0xFFFF_FFFF, 1, TRIGGER, EVENTFD), EINVAL),
        (SetIrqs(MSIX, 0, 1 << 31, TRIGGER, EVENTFD), EINVAL),
        (SetIrqs(ERR, 1, 1, TRIGGER, NONE), EINVAL),
        (SetIrqs(ERR, 0, 1, MASK, NONE), ENOTTY),
        (SetIrqs(REQ, 0, 1, UNMASK, NONE), ENOTTY),
        (SetIrqs(INTX, 0, 1, MASK, EVENTFD), ENOTTY),
        (SetIrqs(MSI, 0, 1, UNMASK, EVENTFD), ENOTTY),
    ],
    ids=repr,
)
def test_what_can_not_be_is_refused_and_nothing_is_changed(
    vmm: Vmm, request_: SetIrqs, errno: int
) -> None:
    [eventfd] = vmm.connect(INTX)
    assert vmm.refused(request_) == errno
    assert_intx(vmm, asserted=True)
    assert eventfd.wait() == 1


def test_descriptors_that_come_with_a_refused_request_are_closed(vmm: Vmm) -> None:
    eventfds = [Eventfd() for _ in range(3)]
    numbers = [each.fd for each in eventfds]
    before = open_fds()
    for request in (
        SetIrqs(MSIX, MSIX_COUNT - 2, 3, TRIGGER, EVENTFD),
        SetIrqs(5, 0, 3, TRIGGER, EVENTFD),
        SetIrqs(MSI, 0, 3, MASK, EVENTFD),
        SetIrqs(MSIX, 0, 3, UNMASK, EVENTFD),
    ):
        vmm.refused(request, *numbers)
    assert open_fds() == before
    for each in eventfds:
        each.close()


@pytest.mark.parametrize("action", [TRIGGER, UNMASK])
def test_what_is_no_eventfd_is_not_taken(vmm: Vmm, action: IrqAction) -> None:
    wrong = (memfd(0x1000), os.open("/dev/null", os.O_RDWR), os.memfd_create("eventfd"))
    before = open_fds()
    for fd in wrong:
        assert vmm.refused(SetIrqs(INTX, 0, 1, action, EVENTFD), fd) == EINVAL
    assert open_fds() == before
    for fd in wrong:
        os.close(fd)


def test_one_wrong_descriptor_among_several_connects_none(vmm: Vmm) -> None:
    vmm.enable_messages(CAP_MSIX, MSIX_ENABLE)
    [before] = vmm.connect(MSIX, 0)
    other, wrong = Eventfd(), memfd(0x1000)
    assert vmm.refused(SetIrqs(MSIX, 0, 2, TRIGGER, EVENTFD), other.fd, wrong) == EINVAL
    send(vmm, SEND_MSIX, 0)
    assert before.wait() == 1
    other.close()
    os.close(wrong)


def test_a_client_that_fills_an_eventfd_holds_nobody_up(vmm: Vmm) -> None:
    [eventfd] = vmm.connect(INTX)
    os.eventfd_write(eventfd.fd, (1 << 64) - 2)
    os.set_blocking(eventfd.fd, True)
    assert_intx(vmm, asserted=True)
    vmm.unmask()
    assert vmm.get(MMIO_BAR, 0x10) == 0


def listeners() -> list[str]:
    """The threads that listen to eventfds of clients."""
    return [each.name for each in threading.enumerate() if each.name == "unmasking"]
