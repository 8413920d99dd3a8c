"""Transactions: all changes or none, one transaction at a time, and readers never wait."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from devicehost_server.model.device_io import DeviceIo, WritableBuffer
from devicehost_server.model.errors import BadTransaction, DeviceFault, DeviceOverlap, NoDevice
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.resources import MmioAddressRange, PioAddressRange

LOW = MmioAddressRange(0x1000, 0x100)
HIGH = MmioAddressRange(0x2000, 0x100)
PORTS = PioAddressRange(0x60, 5)
WAIT_S = 30.0
A_MOMENT_S = 0.05


class Digit(DeviceIo):
    """Reads as its digit."""

    def __init__(self, digit: int) -> None:
        self.digit = digit

    def read(self, _base: int, _offset: int, data: WritableBuffer) -> None:
        data[0] = self.digit


def digit_at(manager: IoManager, where: MmioAddressRange) -> int | None:
    """Return the digit of the device at `where`; None if there is no device."""
    data = bytearray(1)
    try:
        manager.mmio_read(where.base, data)
    except NoDevice:
        return None
    return data[0]


@pytest.fixture
def manager() -> IoManager:
    """Digit 1 at LOW."""
    manager = IoManager()
    manager.register_device_io(Digit(1), [LOW])
    return manager


# The end of a transaction.


def test_the_end_of_the_block_commits(manager: IoManager) -> None:
    with manager.begin_tx() as tx:
        tx.register_device_io(Digit(2), [HIGH, PORTS])
    assert digit_at(manager, HIGH) == 2
    assert len(manager.ranges()) == 3


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_that_leaves_the_block_cancels(
    manager: IoManager, error: type[BaseException]
) -> None:
    def change_and_raise() -> None:
        with manager.begin_tx() as tx:
            tx.unregister_device_io([LOW])
            tx.register_device_io(Digit(2), [HIGH])
            raise error

    before = manager.ranges()
    with pytest.raises(error):
        change_and_raise()
    assert manager.ranges() == before
    assert digit_at(manager, LOW) == 1


def test_a_transaction_can_be_ended_by_hand(manager: IoManager) -> None:
    tx = manager.begin_tx()
    tx.register_device_io(Digit(2), [HIGH])
    manager.cancel_tx(tx)
    assert digit_at(manager, HIGH) is None
    tx = manager.begin_tx()
    tx.register_device_io(Digit(2), [HIGH])
    manager.commit_tx(tx)
    assert digit_at(manager, HIGH) == 2


def test_a_block_may_end_its_transaction_by_itself(manager: IoManager) -> None:
    with manager.begin_tx() as tx:
        tx.register_device_io(Digit(2), [HIGH])
        manager.cancel_tx(tx)
    with manager.begin_tx() as tx:
        tx.register_device_io(Digit(3), [HIGH])
        manager.commit_tx(tx)
    assert digit_at(manager, HIGH) == 3


def test_an_error_after_the_commit_does_not_undo_it(manager: IoManager) -> None:
    def commit_and_raise() -> None:
        with manager.begin_tx() as tx:
            tx.register_device_io(Digit(2), [HIGH])
            manager.commit_tx(tx)
            raise ValueError("too late")

    with pytest.raises(ValueError, match="too late"):
        commit_and_raise()
    assert digit_at(manager, HIGH) == 2


def test_a_transaction_that_has_ended_can_not_be_used(manager: IoManager) -> None:
    with manager.begin_tx() as tx:
        pass
    with pytest.raises(BadTransaction, match="has ended"):
        tx.register_device_io(Digit(2), [HIGH])
    with pytest.raises(BadTransaction, match="has ended"):
        tx.unregister_device_io([LOW])
    with pytest.raises(BadTransaction, match="has ended"):
        manager.commit_tx(tx)
    with pytest.raises(BadTransaction, match="has ended"):
        manager.cancel_tx(tx)
    manager.register_device_io(Digit(2), [HIGH])  # and nothing is held by it


# Inside of a transaction.


def test_readers_see_the_old_map_until_the_commit_and_then_all_of_the_new_one(
    manager: IoManager,
) -> None:
    before = manager.ranges()
    with ThreadPoolExecutor() as pool, manager.begin_tx() as tx:
        tx.unregister_device_io([LOW])
        tx.register_device_io(Digit(2), [LOW, HIGH])
        assert digit_at(manager, LOW) == 1
        assert digit_at(manager, HIGH) is None
        assert pool.submit(digit_at, manager, LOW).result(WAIT_S) == 1
        assert manager.ranges() == before
    assert digit_at(manager, LOW) == digit_at(manager, HIGH) == 2


def test_a_device_can_take_the_place_of_another_in_one_transaction(manager: IoManager) -> None:
    with manager.begin_tx() as tx:
        tx.unregister_device_io([LOW])
        tx.register_device_io(Digit(2), [MmioAddressRange(LOW.base, 1)])
    assert digit_at(manager, LOW) == 2
    assert manager.ranges()[0].size == 1


def test_what_a_transaction_registered_it_can_unregister(manager: IoManager) -> None:
    before = manager.ranges()
    with manager.begin_tx() as tx:
        tx.register_device_io(Digit(2), [HIGH])
        tx.unregister_device_io([HIGH])
    assert manager.ranges() == before


def test_what_a_transaction_unregistered_is_gone_for_it(manager: IoManager) -> None:
    with manager.begin_tx() as tx:
        tx.unregister_device_io([LOW])
        with pytest.raises(NoDevice):
            tx.unregister_device_io([LOW])
    assert manager.ranges() == []


def test_a_change_that_fails_leaves_the_rest_of_the_transaction_as_it_was(
    manager: IoManager,
) -> None:
    with manager.begin_tx() as tx:
        tx.register_device_io(Digit(2), [HIGH])
        with pytest.raises(DeviceOverlap):
            tx.register_device_io(Digit(3), [PORTS, MmioAddressRange(LOW.last, 1)])
        with pytest.raises(NoDevice):
            tx.unregister_device_io([HIGH, PORTS])
        assert tx.removed == []
    assert digit_at(manager, HIGH) == 2
    assert digit_at(manager, LOW) == 1
    assert len(manager.ranges()) == 2


def test_an_overlap_with_a_range_of_the_same_transaction_is_seen(manager: IoManager) -> None:
    with manager.begin_tx() as tx:
        tx.register_device_io(Digit(2), [HIGH])
        with pytest.raises(DeviceOverlap):
            tx.register_device_io(Digit(3), [MmioAddressRange(HIGH.last, 1)])


# One at a time.


def test_a_second_transaction_waits_for_the_end_of_the_first(manager: IoManager) -> None:
    def second() -> list[int]:
        with manager.begin_tx() as tx:
            tx.register_device_io(Digit(3), [PORTS])
            return [held.base for held in manager.ranges()]

    with ThreadPoolExecutor() as pool:
        with manager.begin_tx() as tx:
            tx.register_device_io(Digit(2), [HIGH])
            waiting = pool.submit(second)
            assert not wait([waiting], A_MOMENT_S).done
        assert waiting.result(WAIT_S) == [LOW.base, HIGH.base]
    assert len(manager.ranges()) == 3


def test_a_second_transaction_of_the_same_thread_is_refused_not_waited_for(
    manager: IoManager,
) -> None:
    with manager.begin_tx() as tx:
        for change in (
            manager.begin_tx,
            lambda: manager.register_device_io(Digit(2), [HIGH]),
            lambda: manager.unregister_device_io([LOW]),
        ):
            with pytest.raises(BadTransaction, match="this thread has a transaction open"):
                change()
        tx.register_device_io(Digit(3), [HIGH])  # and the first one goes on
    assert digit_at(manager, HIGH) == 3


def test_transactions_of_two_managers_do_not_meet(manager: IoManager) -> None:
    other = IoManager()
    with manager.begin_tx() as tx, other.begin_tx() as other_tx:
        tx.unregister_device_io([LOW])
        other_tx.register_device_io(Digit(2), [LOW])
    assert digit_at(manager, LOW) is None
    assert digit_at(other, LOW) == 2


def test_a_device_that_changes_the_map_in_a_transaction_of_its_own_thread_is_at_fault(
    manager: IoManager,
) -> None:
    class Hotplugger(DeviceIo):
        def read(self, base: int, _offset: int, _data: WritableBuffer) -> None:
            manager.register_device_io(Digit(3), [MmioAddressRange(base + 0x1000, 1)])

    manager.register_device_io(Hotplugger(), [HIGH])
    with manager.begin_tx():
        with pytest.raises(DeviceFault) as caught:
            manager.mmio_read(HIGH.base, bytearray(1))
        assert isinstance(caught.value.__cause__, BadTransaction)
    manager.mmio_read(HIGH.base, bytearray(1))
    assert len(manager.ranges()) == 3
