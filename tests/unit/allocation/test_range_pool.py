"""A pool of integers: who has what, and what is kept for exact requests."""

from __future__ import annotations

import pytest

from devicehost_server.allocation.range_pool import Claim, PoolCapacity, RangePool, Reserved


def pool_of_100(*reserved: Reserved) -> RangePool[str]:
    return RangePool("hundred", 100, 100, reserved)


def test_a_new_pool_is_one_free_piece() -> None:
    pool = pool_of_100()
    assert pool.capacity() == PoolCapacity("hundred", 100, 100, 0, 100)
    assert pool.find(100) == 100
    assert pool.find(101) is None


def test_the_lowest_piece_is_found_first() -> None:
    pool = pool_of_100()
    pool.claim(100, 10, "a")
    pool.claim(120, 10, "b")
    assert pool.find(10) == 110
    assert pool.find(11) == 130


def test_a_window_bounds_the_search_on_both_sides() -> None:
    pool = pool_of_100()
    pool.claim(120, 10, "a")
    assert pool.find(5, low=115, high=129) == 115
    assert pool.find(6, low=115, high=134) is None
    assert pool.find(6, low=115, high=135) == 130
    assert pool.find(5, low=0, high=1000) == 100
    assert pool.find(5, 8, low=121) == 136


def test_a_search_does_not_find_reserved_numbers() -> None:
    pool = pool_of_100(Reserved("low", 100, 10), Reserved("middle", 150, 10))
    assert pool.find(1) == 110
    assert pool.find(40) == 110
    assert pool.find(41) is None
    assert pool.find(1, low=150, high=159) is None


def test_a_claim_gets_reserved_numbers_and_a_release_reserves_them_again() -> None:
    pool = pool_of_100(Reserved("middle", 150, 10))
    before = pool.capacity()
    pool.claim(150, 10, "a")
    assert pool.capacity() == PoolCapacity("hundred", 100, 90, 0, 50)
    pool.release(150)
    assert pool.capacity() == before
    assert pool.find(1, low=150) == 160


def test_a_claim_may_reach_across_reserved_ranges() -> None:
    pool = pool_of_100(
        Reserved("a", 110, 5), Reserved("b", 115, 5), Reserved("c", 130, 5), Reserved("d", 195, 5)
    )
    before = pool.capacity()
    pool.claim(112, 30, "wide")
    assert pool.capacity() == PoolCapacity("hundred", 100, 70, 2 + 5, 53)
    assert pool.find(11) == 142
    pool.release(112)
    assert pool.capacity() == before


def test_reserved_numbers_count_as_free_but_not_as_a_piece() -> None:
    pool = pool_of_100(Reserved("all but the ends", 101, 98))
    assert pool.capacity() == PoolCapacity("hundred", 100, 100, 98, 1)


def test_the_whole_pool_can_be_claimed_and_released() -> None:
    pool = pool_of_100(Reserved("middle", 150, 10))
    pool.claim(100, 100, "all")
    assert pool.capacity() == PoolCapacity("hundred", 100, 0, 0, 0)
    pool.release(100)
    assert pool.find(50) == 100


@pytest.mark.parametrize(
    ("base", "size"),
    [(99, 1), (99, 2), (200, 1), (199, 2), (119, 2), (129, 2), (110, 50), (150, 0)],
)
def test_a_claim_of_what_is_not_free_is_refused_and_changes_nothing(base: int, size: int) -> None:
    pool = pool_of_100()
    pool.claim(120, 10, "a")
    before = pool.capacity()
    with pytest.raises(ValueError, match="not all free in pool 'hundred'"):
        pool.claim(base, size, "b")
    assert pool.capacity() == before
    assert list(pool.claims()) == [Claim(120, 10, "a")]


def test_the_first_of_several_overlapping_claims_is_named() -> None:
    pool = pool_of_100()
    pool.claim(130, 10, "b")
    pool.claim(110, 10, "a")
    pool.claim(120, 10, "m")
    assert pool.overlapping(100, 10) is None
    assert pool.overlapping(100, 11) == Claim(110, 10, "a")
    assert pool.overlapping(100, 100) == Claim(110, 10, "a")
    assert pool.overlapping(119, 5) == Claim(110, 10, "a")
    assert pool.overlapping(125, 1) == Claim(120, 10, "m")
    assert pool.overlapping(140, 10) is None
    assert pool.claim_at(120) == Claim(120, 10, "m")
    assert pool.claim_at(121) is None


def test_a_release_of_nothing_is_refused() -> None:
    pool = pool_of_100()
    pool.claim(110, 10, "a")
    with pytest.raises(KeyError):
        pool.release(111)
    assert pool.claim_at(110) == Claim(110, 10, "a")


def test_reserved_ranges_are_listed_by_window() -> None:
    low, middle = Reserved("low", 100, 10), Reserved("middle", 150, 10)
    pool = pool_of_100(middle, low)
    assert pool.reserved_within(0, 1000) == [low, middle]
    assert pool.reserved_within(109, 149) == [low]
    assert pool.reserved_within(110, 149) == []
    assert pool.reserved_within(159, 159) == [middle]
