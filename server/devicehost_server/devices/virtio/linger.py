"""A longer look at a queue: what comes soon needs no kick.

A kick costs the driver a trap, and both sides a wake-up: more than most requests. While
somebody looks at a queue its driver need not kick. So the worker, having served a queue, looks
on for a while, and only then asks for kicks. It does so for as long as that pays
(`devicehost.ring.spin`), and not when it has anything else to do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import repeat

from devicehost.ring.spin import Spin
from devicehost_server.devices.virtio.queue import VirtQueue

LINGER_S = 100e-6
"""The longest look, in seconds. A guest that waits for the end of each request makes the next
one within this; to look for longer takes the processor from the guest."""

_LOOKS = 16  # before others have their turn: about 3 microseconds


class Linger:
    """Looks at one queue, on the thread that serves it.

    Args:
        queue: the queue. Its driver was told that it need not kick.
        is_awaited: tells whether the thread has something else to do.
    """

    def __init__(self, queue: VirtQueue, is_awaited: Callable[[], bool]) -> None:
        self._queue = queue
        self._is_awaited = is_awaited
        self._spin = Spin(LINGER_S)

    def finds_more(self) -> bool:
        """Look; return whether the driver has made something available meanwhile.

        Nobody looks any more when it returns False, and the driver doesn't know that yet.
        """
        if self._is_awaited():  # first: a queue that is never empty must not keep the thread
            return False
        queue, spin = self._queue, self._spin
        until = time.monotonic() + spin.now_s
        while queue.is_at_hand:
            for _ in repeat(None, _LOOKS):
                if queue.has_more():
                    spin.after(helped=True)
                    return True
            if time.monotonic() >= until or self._is_awaited():
                spin.after(helped=False)
                return False
            os.sched_yield()
        return False
