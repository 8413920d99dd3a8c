"""The tree of gaps: what it finds, how it joins and splits, and how high it grows."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devicehost_server.allocation.gap_tree import GapTree, _Gap


def tree_of(*gaps: tuple[int, int]) -> GapTree:
    tree = GapTree()
    for base, size in gaps:
        tree.give(base, size)
    return tree


def height(tree: GapTree) -> int:
    return tree._root.height


class CountingTree(GapTree):
    """Counts the nodes that first fit looks at."""

    looked_at = 0

    def _first_above(self, node: _Gap, low: int, size: int, index: int) -> _Gap:
        self.looked_at += 1
        return super()._first_above(node, low, size, index)


def test_an_empty_tree_has_nothing() -> None:
    tree = GapTree()
    assert list(tree) == []
    assert (tree.total, tree.largest) == (0, 0)
    assert tree.first_fit(1) is None


def test_gaps_are_in_ascending_order() -> None:
    tree = tree_of((50, 5), (10, 5), (30, 5), (70, 5), (20, 5))
    assert list(tree) == [(10, 5), (20, 5), (30, 5), (50, 5), (70, 5)]


@pytest.mark.parametrize(
    ("base", "size", "left"),
    [
        (10, 10, []),
        (10, 4, [(14, 6)]),
        (16, 4, [(10, 6)]),
        (12, 4, [(10, 2), (16, 4)]),
    ],
)
def test_taking_leaves_what_lies_around_it(
    base: int, size: int, left: list[tuple[int, int]]
) -> None:
    tree = tree_of((10, 10))
    tree.take(base, size)
    assert list(tree) == left
    assert tree.total == 10 - size


@pytest.mark.parametrize(("base", "size"), [(5, 3), (8, 4), (18, 4), (5, 20), (30, 1)])
def test_taking_what_is_not_all_free_is_refused_and_changes_nothing(base: int, size: int) -> None:
    tree = tree_of((10, 10))
    with pytest.raises(ValueError, match="not all free"):
        tree.take(base, size)
    assert list(tree) == [(10, 10)]
    assert tree.total == 10


@pytest.mark.parametrize(
    ("base", "size", "gaps"),
    [
        (0, 5, [(0, 5), (10, 10), (30, 10)]),
        (0, 10, [(0, 20), (30, 10)]),
        (20, 5, [(10, 15), (30, 10)]),
        (25, 5, [(10, 10), (25, 15)]),
        (20, 10, [(10, 30)]),
        (22, 5, [(10, 10), (22, 5), (30, 10)]),
        (40, 5, [(10, 10), (30, 15)]),
    ],
)
def test_giving_joins_what_touches(base: int, size: int, gaps: list[tuple[int, int]]) -> None:
    tree = tree_of((10, 10), (30, 10))
    tree.give(base, size)
    assert list(tree) == gaps
    assert tree.total == 20 + size


@pytest.mark.parametrize(("base", "size"), [(10, 1), (19, 5), (5, 6), (0, 50), (12, 2)])
def test_giving_what_is_free_already_is_refused_and_changes_nothing(base: int, size: int) -> None:
    tree = tree_of((10, 10))
    with pytest.raises(ValueError, match="free already"):
        tree.give(base, size)
    assert list(tree) == [(10, 10)]
    assert tree.total == 10


def test_the_first_fit_is_the_lowest() -> None:
    tree = tree_of((10, 5), (20, 30), (60, 100))
    assert tree.first_fit(5) == 10
    assert tree.first_fit(6) == 20
    assert tree.first_fit(31) == 60
    assert tree.first_fit(101) is None


def test_the_first_fit_begins_at_the_lowest_number_allowed() -> None:
    tree = tree_of((10, 10), (30, 10))
    assert tree.first_fit(5, low=12) == 12
    assert tree.first_fit(5, low=15) == 15
    assert tree.first_fit(5, low=16) == 30
    assert tree.first_fit(5, low=35) == 35
    assert tree.first_fit(5, low=36) is None


def test_the_first_fit_is_aligned() -> None:
    tree = tree_of((0x11, 0x1F), (0x101, 0xFF))
    assert tree.first_fit(0x10, 0x10) == 0x20
    assert tree.first_fit(0x11, 0x10) == 0x110
    assert tree.first_fit(0x10, 0x10, low=0x21) == 0x110
    assert tree.first_fit(1, 0x1000) is None


def test_an_alignment_seen_late_counts_for_the_gaps_of_before() -> None:
    tree = tree_of(*((0x1000 * n + 1, 0xFFE) for n in range(100)), (0x10_0000, 0x1000))
    assert tree.first_fit(0x1000, 0x1000) == 0x10_0000
    tree.take(0x10_0000, 0x1000)
    assert tree.first_fit(0x1000, 0x1000) is None
    tree.give(0x10_0000, 0x1000)
    assert tree.first_fit(0x1000, 0x1000) == 0x10_0000


@pytest.mark.parametrize("order", ["ascending", "descending", "inside out"])
def test_ten_thousand_gaps_make_a_tree_of_at_most_the_height_of_an_avl_tree(order: str) -> None:
    numbers = list(range(10_000))
    if order == "descending":
        numbers.reverse()
    elif order == "inside out":
        numbers.sort(key=lambda number: abs(number - 5000))
    tree = tree_of(*((number * 4, 2) for number in numbers))
    assert height(tree) <= 1.44 * math.log2(10_002)
    for number in numbers[::2]:
        tree.take(number * 4, 2)
    assert height(tree) <= 1.44 * math.log2(5_002)


def test_ten_thousand_gaps_that_are_too_small_when_aligned_are_not_looked_at() -> None:
    tree = CountingTree()
    for number in range(10_000):
        tree.give(number * 0x4000 + 0x1000, 0x2000)  # room for 0x2000, but not aligned to it
    tree.give(0x4000 * 10_000, 0x2000)
    assert tree.first_fit(0x2000, 0x2000) == 0x4000 * 10_000
    assert tree.looked_at <= 2 * height(tree)
    tree.looked_at = 0
    assert tree.first_fit(0x2000, 0x2000, low=0x4000 * 5_000) == 0x4000 * 10_000
    assert tree.looked_at <= 2 * height(tree)
    tree.looked_at = 0
    assert tree.first_fit(0x3000, 0x2000) is None
    assert tree.looked_at == 1


def test_equal_calls_build_equal_trees() -> None:
    def shape(node: _Gap) -> object:
        return node.height and (node.base, shape(node.left), shape(node.right))

    gaps = [(number * 7919 % 1009 * 4, 2) for number in range(500)]
    assert shape(tree_of(*gaps)._root) == shape(tree_of(*gaps)._root)


# Against a set of numbers.


def runs(numbers: set[int]) -> list[tuple[int, int]]:
    """Base and size of each run of consecutive numbers."""
    bases = sorted(number for number in numbers if number - 1 not in numbers)
    ends = sorted(number + 1 for number in numbers if number + 1 not in numbers)
    return [(base, end - base) for base, end in zip(bases, ends, strict=True)]


def checked_height(tree: GapTree, node: _Gap) -> int:
    """Check what each node knows of its subtree, and its balance; return its height."""
    if node is tree._nil:
        return 0
    left, right = checked_height(tree, node.left), checked_height(tree, node.right)
    assert abs(left - right) <= 1
    assert node.height == max(left, right) + 1
    for index, align in enumerate(tree._alignments):
        room = node.size - -node.base % align
        assert node.own[index] == room
        assert node.most[index] == max(room, node.left.most[index], node.right.most[index])
    return node.height


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 255),
            st.integers(1, 40),
            st.sampled_from([1, 2, 4, 8, 32]),
            st.integers(0, 255),
        ),
        max_size=60,
    )
)
def test_a_tree_of_gaps_is_a_set_of_numbers(steps: list[tuple[int, int, int, int]]) -> None:
    tree = GapTree()
    free: set[int] = set()
    for base, size, align, low in steps:
        numbers = set(range(base, base + size))
        if numbers <= free:
            tree.take(base, size)
            free -= numbers
        elif not numbers & free:
            tree.give(base, size)
            free |= numbers
        else:
            with pytest.raises(ValueError, match="not all free"):
                tree.take(base, size)
            with pytest.raises(ValueError, match="free already"):
                tree.give(base, size)
        fitting = (
            start
            for start in range(low + -low % align, 400, align)
            if free.issuperset(range(start, start + size))
        )
        assert tree.first_fit(size, align, low) == next(fitting, None)
        assert list(tree) == runs(free)
        assert tree.total == len(free)
        assert tree.largest == max((size for _, size in runs(free)), default=0)
        checked_height(tree, tree._root)
