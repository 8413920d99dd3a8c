"""How long an end spins: twice as long after a spin that helped, else half as long."""

from __future__ import annotations

import doctest

import pytest

from devicehost.ring import spin
from devicehost.ring.spin import SHORTEST, TRY_AGAIN, Spin


def spins_of(adapted: Spin, outcomes: str) -> list[float]:
    """How long each next spin is, after ones that helped (+) or were in vain (-)."""
    seen = []
    for outcome in outcomes:
        adapted.after(helped=outcome == "+")
        seen.append(adapted.now_s)
    return seen


def test_it_begins_with_the_longest() -> None:
    assert Spin(200e-6).now_s == 200e-6


def test_spins_in_vain_halve_it_down_to_a_64th() -> None:
    assert spins_of(Spin(6.4), "--------") == [3.2, 1.6, 0.8, 0.4, 0.2, 0.1, 0.1, 0.1]
    assert SHORTEST == 1 / 64


def test_spins_that_helped_double_it_up_to_the_longest() -> None:
    adapted = Spin(6.4)
    spins_of(adapted, "------")
    assert spins_of(adapted, "++++++++") == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 6.4, 6.4]


def test_the_longest_is_tried_now_and_then_and_stays_if_it_helps() -> None:
    adapted = Spin(6.4)
    spins_of(adapted, "------")
    in_vain = spins_of(adapted, "-" * 3 * TRY_AGAIN)
    assert [n for n, now_s in enumerate(in_vain, 1) if now_s == 6.4] == [16, 38]
    # The longest in vain leads down again, step by step, and then it is counted anew.
    assert in_vain[15:22] == [6.4, 3.2, 1.6, 0.8, 0.4, 0.2, 0.1]
    adapted = Spin(6.4)
    spins_of(adapted, "------")
    while adapted.now_s < 6.4:
        adapted.after(helped=False)
    assert spins_of(adapted, "++") == [6.4, 6.4]


def test_a_spin_that_helped_begins_the_count_anew() -> None:
    adapted = Spin(6.4)
    spins_of(adapted, "------" + "-" * (TRY_AGAIN - 1) + "+-")
    assert set(spins_of(adapted, "-" * (TRY_AGAIN - 1))) == {0.1}
    assert spins_of(adapted, "-") == [6.4]


def test_spins_that_mostly_help_stay_long_and_those_mostly_in_vain_short() -> None:
    adapted = Spin(6.4)
    assert set(spins_of(adapted, "++-" * 100)) <= {6.4, 3.2}
    often = spins_of(adapted, "--+" * 100)
    assert sum(often) / len(often) < 0.5


@pytest.mark.parametrize("outcome", ["+", "-"])
def test_no_spin_stays_none(outcome: str) -> None:
    assert set(spins_of(Spin(0), outcome * 50)) == {0}


def test_the_example_does_what_it_shows() -> None:
    assert doctest.testmod(spin) == (0, 3)
