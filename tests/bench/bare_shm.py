"""The floor of the ring: two Python processes that look at each other's word in memory.

A ping stores a number, and waits until the other word has it; the peer copies it there.
Nothing less can be had from Python between two processes.

Run as a program, it is the peer: `bare_shm.py FD`. It spins only during a round, so that
it takes no processor from others the rest of the time, and looks whether that is over only
once in a block of pings: the client ends a round with the end of a block.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from children import child, one_round, say
from measure import Case

# Words, far enough apart not to share a cache line or one that is fetched with it.
_PING = 0
_PONG = 16
_LAST = 32  # the ping with which a round ends
_BLOCK = 64
_ENDLESS = (1 << 64) - 1


@contextmanager
def shm_floor() -> Iterator[Case]:
    """The case `floor.shm.spin`."""
    fd = os.memfd_create("bench")
    os.ftruncate(fd, mmap.PAGESIZE)
    words = memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("Q")
    sent = 0

    def ping(times: int) -> None:
        nonlocal sent
        mine = words
        for number in range(sent + 1, sent + times + 1):
            mine[_PING] = number
            while mine[_PONG] != number:
                pass
        sent += times

    with child("bare_shm.py", fd, fds=(fd,)) as peer:

        def begin() -> None:
            words[_LAST] = _ENDLESS
            peer.tell("begin")

        def end() -> None:
            # The peer is in this block, or about to look whether there is another one.
            rest = _BLOCK - sent % _BLOCK
            words[_LAST] = sent + rest
            ping(rest)

        yield Case(
            "floor.shm.spin",
            "bare Python: a word there and back in shared memory, both ends spin",
            ping,
            begin=begin,
            end=end,
        )
    words.release()
    os.close(fd)


def echo(fd: int) -> None:
    """Copy what is pinged, for a round from each line on."""
    words = memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("Q")
    say("ready")
    copied = 0
    for _ in sys.stdin:
        with one_round():
            while copied < words[_LAST]:
                for number in range(copied + 1, copied + _BLOCK + 1):
                    while words[_PING] != number:
                        pass
                    words[_PONG] = number
                copied += _BLOCK


if __name__ == "__main__":
    echo(int(sys.argv[1]))
