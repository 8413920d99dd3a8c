"""How long an end spins: twice as long after a wait that was worth it, else half as long."""

from __future__ import annotations

import doctest

import pytest

from devicehost.ring import spin
from devicehost.ring.spin import SHORTEST, Spin


def test_it_begins_with_the_longest() -> None:
    assert Spin(200e-6).now_s == 200e-6


def test_long_waits_halve_it_down_to_a_sixteenth() -> None:
    adapted = Spin(1.6)
    seen = []
    for _ in range(6):
        adapted.after(5.0)
        seen.append(adapted.now_s)
    assert seen == [0.8, 0.4, 0.2, 0.1, 0.1, 0.1]
    assert SHORTEST == 1 / 16


def test_short_waits_double_it_up_to_the_longest() -> None:
    adapted = Spin(1.6)
    for _ in range(10):
        adapted.after(5.0)
    seen = []
    for _ in range(6):
        adapted.after(1.5)  # longer than the spin of now: it is the longest one that counts
        seen.append(adapted.now_s)
    assert seen == [0.2, 0.4, 0.8, 1.6, 1.6, 1.6]


def test_a_wait_as_long_as_the_longest_spin_is_a_long_one() -> None:
    adapted = Spin(1.0)
    adapted.after(1.0)
    assert adapted.now_s == 0.5


def test_waits_that_are_mostly_short_keep_it_long_and_mostly_long_ones_short() -> None:
    adapted = Spin(1.6)
    for _ in range(100):
        for wait_s in (0.5, 0.5, 9.0):
            adapted.after(wait_s)
    assert adapted.now_s == 0.8
    for _ in range(100):
        for wait_s in (9.0, 9.0, 0.5):
            adapted.after(wait_s)
    assert adapted.now_s == 0.2


@pytest.mark.parametrize("wait_s", [0.0, 1e-9, 10.0])
def test_no_spin_stays_none(wait_s: float) -> None:
    adapted = Spin(0)
    adapted.after(wait_s)
    assert adapted.now_s == 0


def test_the_example_does_what_it_shows() -> None:
    assert doctest.testmod(spin) == (0, 3)
