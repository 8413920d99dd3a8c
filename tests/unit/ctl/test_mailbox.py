"""Several things at once, in one queue."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from devicehost_client import ConnectionLost
from devicehost_client.ctl.mailbox import CAPACITY, Ended, Item, Lines, Mailbox, Stop


@pytest.fixture
def mailbox(capfd: pytest.CaptureFixture[str]) -> Iterator[Mailbox]:
    with capfd.disabled(), Mailbox() as opened:
        yield opened


def test_items_of_a_source_come_in_order_and_then_its_end(mailbox: Mailbox) -> None:
    mailbox.take("numbers", [1, 2])
    assert [mailbox.get(5) for _ in range(3)] == [
        Item("numbers", 1),
        Item("numbers", 2),
        Ended("numbers", None),
    ]


def test_a_source_that_fails_says_why(mailbox: Mailbox) -> None:
    error = ConnectionLost("gone")

    def failing() -> Iterator[int]:
        yield 1
        raise error

    mailbox.take("numbers", failing())
    assert mailbox.get(5) == Item("numbers", 1)
    assert mailbox.get(5) == Ended("numbers", error)


def test_a_source_waits_when_too_much_is_there(mailbox: Mailbox) -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while taken < 3 * CAPACITY:
            taken += 1
            yield taken

    mailbox.take("numbers", endless())
    for number in range(1, CAPACITY + 1):
        assert mailbox.get(5) == Item("numbers", number)
        # One may be in its hands; and it saw the room that we made.
        assert taken <= number + CAPACITY + 1


def test_nothing_is_none_after_a_while(mailbox: Mailbox) -> None:
    assert mailbox.get(0.01) is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_a_stop_and_the_next_one_is_not_held_back(
    mailbox: Mailbox, number: signal.Signals
) -> None:
    os.kill(os.getpid(), number)
    assert mailbox.get(5) == Stop()
    assert signal.getsignal(number) is signal.SIG_DFL


def test_signals_are_as_before_when_it_ends_and_ignored_ones_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    term = signal.getsignal(signal.SIGTERM)
    try:
        with Mailbox():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not term
        assert signal.getsignal(signal.SIGTERM) is term
    finally:
        signal.signal(signal.SIGHUP, before)


def test_lines_are_read_one_for_each_that_is_asked_for() -> None:
    reader, writer = os.pipe()
    os.write(writer, b" step \ncontinue\nlast")
    os.close(writer)
    lines = Lines(reader)
    for _ in range(4):
        lines.ask()
    assert list(lines) == ["step", "continue", "last"]
    os.close(reader)


def test_a_line_that_nobody_asked_for_is_not_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"one\n")
    lines = Lines(reader)
    lines.ask()
    assert next(lines) == "one"
    os.write(writer, b"two\n")
    os.close(writer)
    assert os.read(reader, 10) == b"two\n"
    os.close(reader)
