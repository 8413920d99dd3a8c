"""How long an end of the ring looks before it sleeps: as long as that pays.

A spin that was in vain makes the next one half as long, down to a 64th of the longest;
a spin that saw what it looked for makes the next one twice as long. So an end that mostly
waits long spins little. Now and then it tries the longest spin once, in case the times have
changed: that is the 16th spin after the shortest was first in vain.

It counts whether a spin helped, not how long the wait was. Where both ends have to share a
processor, a wait lasts until the one that spins goes to sleep; to spin longer only makes it
longer.

    >>> spin = Spin(200e-6)
    >>> spin.after(helped=False)
    >>> round(spin.now_s * 1e6)
    100
"""

from __future__ import annotations

SHORTEST = 1 / 64
"""The shortest spin, as a part of the longest."""

TRY_AGAIN = 16
"""How many of the shortest spins in vain there are to one of the longest."""


class Spin:
    """The spin of one end.

    Args:
        longest_s: the longest spin, in seconds; 0 for none at all.

    Attributes:
        now_s: how long to spin the next time, in seconds.
    """

    __slots__ = ("_in_vain", "_longest_s", "now_s")

    def __init__(self, longest_s: float) -> None:
        self._longest_s = self.now_s = longest_s
        self._in_vain = 0  # how many of the shortest were

    def after(self, *, helped: bool) -> None:
        """Adapt to whether a spin saw what it looked for."""
        shortest_s = self._longest_s * SHORTEST
        if helped:
            self.now_s = min(self.now_s * 2, self._longest_s)
            self._in_vain = 0
        elif self.now_s > shortest_s:
            self.now_s = max(self.now_s / 2, shortest_s)
        else:
            self._in_vain = (self._in_vain + 1) % TRY_AGAIN
            self.now_s = shortest_s if self._in_vain else self._longest_s
