r"""The free numbers of a pool, as gaps in a balanced tree: first fit in logarithmic time.

    >>> gaps = GapTree()
    >>> gaps.give(0x1000, 0x9000)
    >>> gaps.take(0x4000, 0x1000)
    >>> list(gaps)
    [(4096, 12288), (20480, 20480)]
    >>> hex(gaps.first_fit(0x4000, 0x2000) or 0)
    '0x6000'

A gap is a run of free numbers, as long as it gets. The gaps are the nodes of an AVL tree,
ordered by base. First fit wants the lowest gap that is large enough, so each node also
knows the most room that any gap of its subtree has. The search goes left while the left
subtree has the room, and never enters a subtree in vain:

                    [40..79] most 50
                    /              \
          [10..19] most 10    [90..99] most 50      want 30: the left subtree has 10,
                                    \               the node itself has 40. Found.
                                [200..249] most 50

Alignment is where first fit usually turns linear: a thousand gaps may be large enough,
and none of them once its base is rounded up. Here the room of a gap is what is left after
the rounding, and each node keeps one figure for each alignment. So the search is exact
for all of them. An alignment is kept from its first use on, which costs one walk of the
tree; there are 64 powers of two, and a pool meets two or three of them.

Invariants:
    No two gaps overlap or touch: what touches is one gap.
    The heights of two siblings differ by at most one, so a tree of n gaps is at most
    1.44 log2(n) high (Knuth, The Art of Computer Programming, volume 3, 6.2.3).
    Equal calls build equal trees: nothing is random.
"""

from __future__ import annotations

from collections.abc import Iterator

from devicehost_server.model.errors import hex_range


class _Gap:
    """A node: `size` free numbers from `base` on.

    Attributes:
        own: the room in this gap, for each alignment of the tree.
        most: the most room of any gap in this subtree, likewise.
        height: of this subtree; a leaf has 1.
    """

    __slots__ = ("base", "height", "left", "most", "own", "right", "size")

    left: _Gap
    right: _Gap

    def __init__(self, base: int, size: int) -> None:
        self.base = base
        self.size = size
        self.own: list[int] = []
        self.most: list[int] = []
        self.height = 0

    @property
    def end(self) -> int:
        """The first number after the gap."""
        return self.base + self.size


class GapTree:
    """A set of integers, held as gaps. Not thread-safe."""

    def __init__(self) -> None:
        # One empty subtree for all: it has no room, which makes it end every search.
        self._nil = nil = _Gap(0, 0)
        nil.left = nil.right = nil
        nil.own = nil.most = [0]
        self._root = nil
        self._alignments = [1]  # figure i of `own` and `most` is for alignment i
        self.total = 0
        """How many numbers are free."""

    @property
    def largest(self) -> int:
        """The size of the largest gap; 0 if there is none."""
        return self._root.most[0]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield each gap's base and size, in ascending order."""
        waiting: list[_Gap] = []
        node = self._root
        while waiting or node is not self._nil:
            while node is not self._nil:
                waiting.append(node)
                node = node.left
            node = waiting.pop()
            yield node.base, node.size
            node = node.right

    def first_fit(self, size: int, align: int = 1, low: int = 0) -> int | None:
        """Return the lowest multiple of `align`, not below `low`, with `size` free from there.

        Args:
            size: at least 1.
            align: a power of two.
            low: where to begin.
        """
        index = self._index_of(align)
        around = self._floor(low)  # the one gap of which `low` may cut off a part
        start = low + -low % align
        if around is not self._nil and start + size <= around.end:
            return start
        found = self._first_above(self._root, low, size, index)
        return None if found is self._nil else found.base + -found.base % align

    def take(self, base: int, size: int) -> None:
        """Remove `size` numbers from `base` on.

        Raises:
            ValueError: they are not all there. Nothing has changed.
        """
        gap = self._floor(base)
        after = gap.end - (base + size)
        before = base - gap.base
        if gap is self._nil or after < 0:
            raise ValueError(f"{hex_range(base, size)} is not all free")
        if before and after:
            self._resize(gap, gap.base, before)
            self._insert(base + size, after)
        elif before:
            self._resize(gap, gap.base, before)
        elif after:
            self._resize(gap, base + size, after)
        else:
            self._remove(base)
        self.total -= size

    def give(self, base: int, size: int) -> None:
        """Add `size` numbers from `base` on.

        Raises:
            ValueError: one of them is there already. Nothing has changed.
        """
        end = base + size
        below = self._floor(end - 1)
        if below is not self._nil and below.end > base:
            raise ValueError(f"a part of {hex_range(base, size)} is free already")
        joins_below = below is not self._nil and below.end == base
        above = self._floor(end)
        joins_above = above is not self._nil and above.base == end
        if joins_below and joins_above:
            above_size = above.size
            self._remove(end)
            self._resize(below, below.base, below.size + size + above_size)
        elif joins_below:
            self._resize(below, below.base, below.size + size)
        elif joins_above:
            self._resize(above, base, size + above.size)
        else:
            self._insert(base, size)
        self.total += size

    # Searching.

    def _floor(self, number: int) -> _Gap:
        """Return the gap with the highest base that isn't above `number`, or nil."""
        nil = found = self._nil
        node = self._root
        while node is not nil:
            if node.base <= number:
                found = node
                node = node.right
            else:
                node = node.left
        return found

    def _first_above(self, node: _Gap, low: int, size: int, index: int) -> _Gap:
        """Return the lowest gap of a subtree with base > `low` and the room, or nil.

        It goes down one path along `low`, and below that only where it will find.
        """
        if node.most[index] < size:
            return self._nil
        if node.base > low:
            found = self._first_above(node.left, low, size, index)
            if found is not self._nil:
                return found
            if node.own[index] >= size:
                return node
        return self._first_above(node.right, low, size, index)

    # Room.

    def _index_of(self, align: int) -> int:
        """Return which figure is for `align`; from its first use on, there is one."""
        if align not in self._alignments:
            self._alignments.append(align)
            self._nil.own = self._nil.most = [0] * len(self._alignments)
            self._measure_all(self._root)
        return self._alignments.index(align)

    def _measure_all(self, node: _Gap) -> None:
        if node is not self._nil:
            self._measure_all(node.left)
            self._measure_all(node.right)
            self._measure(node)
            self._refresh(node)

    def _measure(self, gap: _Gap) -> None:
        """Work out the room of one gap. Less than nothing is no room, too."""
        base, size = gap.base, gap.size
        gap.own = [size - -base % align for align in self._alignments]

    @staticmethod
    def _refresh(node: _Gap) -> None:
        """Work out what a node knows of its subtree from its two children."""
        left, right = node.left, node.right
        node.height = 1 + max(left.height, right.height)
        node.most = list(map(max, node.own, left.most, right.most))

    # Changing. Each returns the subtree's new root, and leaves it balanced.

    def _resize(self, gap: _Gap, base: int, size: int) -> None:
        """Move a gap's ends, within its neighbours: the tree keeps its shape."""
        path = []
        node = self._root
        while node is not gap:
            path.append(node)
            node = node.left if gap.base < node.base else node.right
        gap.base, gap.size = base, size
        self._measure(gap)
        self._refresh(gap)
        for node in reversed(path):
            self._refresh(node)

    def _insert(self, base: int, size: int) -> None:
        gap = _Gap(base, size)
        gap.left = gap.right = self._nil
        self._measure(gap)
        self._root = self._inserted(self._root, gap)

    def _inserted(self, node: _Gap, gap: _Gap) -> _Gap:
        if node is self._nil:
            self._refresh(gap)
            return gap
        if gap.base < node.base:
            node.left = self._inserted(node.left, gap)
        else:
            node.right = self._inserted(node.right, gap)
        return self._balanced(node)

    def _remove(self, base: int) -> None:
        self._root = self._removed(self._root, base)

    def _removed(self, node: _Gap, base: int) -> _Gap:
        """Remove the gap at `base`, which is in this subtree."""
        if base < node.base:
            node.left = self._removed(node.left, base)
        elif base > node.base:
            node.right = self._removed(node.right, base)
        elif node.left is self._nil:
            return node.right
        elif node.right is self._nil:
            return node.left
        else:  # the next gap takes the place of this one
            heir = node.right
            while heir.left is not self._nil:
                heir = heir.left
            heir.right = self._removed(node.right, heir.base)
            heir.left = node.left
            node = heir
        return self._balanced(node)

    def _balanced(self, node: _Gap) -> _Gap:
        """Restore the balance of a node whose children are balanced, and refresh it."""
        left, right = node.left, node.right
        if left.height > right.height + 1:
            if left.left.height < left.right.height:
                node.left = self._rotated_left(left)
            return self._rotated_right(node)
        if right.height > left.height + 1:
            if right.right.height < right.left.height:
                node.right = self._rotated_right(right)
            return self._rotated_left(node)
        self._refresh(node)
        return node

    def _rotated_left(self, node: _Gap) -> _Gap:
        """Lift the right child above `node`."""
        top = node.right
        node.right = top.left
        top.left = node
        self._refresh(node)
        self._refresh(top)
        return top

    def _rotated_right(self, node: _Gap) -> _Gap:
        """Lift the left child above `node`."""
        top = node.left
        node.left = top.right
        top.right = node
        self._refresh(node)
        self._refresh(top)
        return top
