"""How long an end of the ring looks before it sleeps: as long as that pays.

A wait that was shorter than the longest spin was worth spinning for, whether this spin saw
its end or not: the next spin is twice as long. A longer one was not: the next spin is half
as long. So an end whose waits are mostly short spins for the longest time, and one whose
waits are mostly long for the shortest, a sixteenth of that. Four waits lead from one to
the other.

    >>> spin = Spin(200e-6)
    >>> spin.after(0.005)
    >>> round(spin.now_s * 1e6)
    100
"""

from __future__ import annotations

SHORTEST = 1 / 16
"""The shortest spin, as a part of the longest."""


class Spin:
    """The spin of one end.

    Args:
        longest_s: the longest spin, in seconds; 0 for none at all.

    Attributes:
        longest_s: likewise.
        now_s: how long to spin the next time, in seconds.
    """

    __slots__ = ("longest_s", "now_s")

    def __init__(self, longest_s: float) -> None:
        self.longest_s = self.now_s = longest_s

    def after(self, wait_s: float) -> None:
        """Adapt to a wait that took `wait_s` seconds, spin and sleep."""
        if wait_s < self.longest_s:
            self.now_s = min(self.now_s * 2, self.longest_s)
        else:
            self.now_s = max(self.now_s / 2, self.longest_s * SHORTEST)
