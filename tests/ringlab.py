"""Clients of a ring for tests: in this process, or in one of their own.

    ring = Ring(io.initiator)
    with attached(ring, queue=0) as client:
        client.read(Operation.MMIO_READ, 0x1000, data)

    with client_process(ring, 0, "read_with_gaps", accesses=1000) as process:
        facts = process.facts()

A process runs one of the programs at the end of this module, and prints what it found out
as JSON. It imports nothing but the client's end.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from devicehost.bus_regions import RING_QUEUES
from devicehost.ring.layout import (
    ADDRESS,
    COMPLETION,
    CONTROL_SIZE,
    CONTROLS,
    ENTRIES,
    ENTRY_SIZE,
    LOOK_AGAIN_S,
    WHAT,
    Operation,
    RingLayout,
)
from devicehost.ring.membarrier import register
from devicehost.ring.producer import Producer

WAIT_S = 30.0
"""How long a test waits for what should happen at once. The machine may be busy."""

LATE_S = LOOK_AGAIN_S + 1.0
"""The bound for an access whose wake-up was lost, and a margin for a busy machine."""


class SharedRing(Protocol):
    """What a client gets of a ring: descriptors."""

    fd: int
    size: int
    doorbell: int
    wake_ups: list[int]


@dataclass(frozen=True, slots=True)
class Fds:
    """The descriptors of one queue."""

    memory: int
    size: int
    doorbell: int
    wake_up: int

    @classmethod
    def of(cls, ring: SharedRing, queue: int) -> Fds:
        return cls(ring.fd, ring.size, ring.doorbell, ring.wake_ups[queue])


class Client(Producer):
    """A client of one queue, with all that the kernel does for it.

    Attributes:
        memory: all of the ring.
        fds: its descriptors.
        rung: how often it rang the doorbell.
        drowsy: how often it said that it would sleep.
        slept: how often it did, with nothing to be seen at the last look.
    """

    def __init__(
        self,
        fds: Fds,
        queue: int,
        *,
        timeout_s: float = WAIT_S,
        spin_s: float = 20e-6,
    ) -> None:
        self.fds = fds
        self.rung = self.drowsy = self.slept = 0
        self._all_processors = register()
        self.memory = memoryview(mmap.mmap(fds.memory, fds.size))
        self._poll = select.poll()
        self._poll.register(fds.wake_up, select.POLLIN)
        super().__init__(
            self.memory,
            queue,
            doorbell=self.ring,
            wait=self.wait,
            barrier=self.barrier,
            timeout_s=timeout_s,
            spin_s=spin_s,
        )

    def ring(self) -> None:
        self.rung += 1
        os.eventfd_write(self.fds.doorbell, 1)

    def barrier(self) -> None:
        self._all_processors()
        self.drowsy += 1
        self._awake = True

    def wait(self, timeout_s: float) -> bool:
        self.slept += self._awake
        self._awake = False
        if not self._poll.poll(timeout_s * 1000):
            return False
        os.eventfd_read(self.fds.wake_up)
        return True

    def mmio_read(self, address: int, size: int) -> bytes:
        data = bytearray(size)
        self.read(Operation.MMIO_READ, address, data)
        return bytes(data)

    def mmio_write(self, address: int, data: bytes) -> None:
        self.write(Operation.MMIO_WRITE, address, data)

    def mmio_post(self, address: int, data: bytes) -> None:
        self.post(Operation.MMIO_POST, address, data)

    def close(self) -> None:
        super().close()
        self.memory.release()


@contextmanager
def attached(ring: SharedRing, queue: int = 0, **options: Any) -> Iterator[Client]:
    """A client in this process, of a queue that is open."""
    client = Client(Fds.of(ring, queue), queue, **options)
    try:
        yield client
    finally:
        client.close()


class ClientProcess:
    """A process that runs a program below."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def stop(self) -> None:
        """Tell it that it has run for long enough."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.stdin = None

    def facts(self, timeout_s: float = WAIT_S) -> dict[str, Any]:
        """Wait for its end; return what it found out."""
        out, _ = self._process.communicate(timeout=timeout_s)
        assert self._process.returncode == 0, "its last words are in the output"
        facts: dict[str, Any] = json.loads(out)
        return facts


@contextmanager
def client_process(
    ring: SharedRing, queue: int, program: str, **arguments: Any
) -> Iterator[ClientProcess]:
    """Run `program` in a process of its own, which doesn't outlive the block."""
    fds = Fds.of(ring, queue)
    with subprocess.Popen(
        [sys.executable, str(Path(__file__)), program, json.dumps([asdict(fds), queue, arguments])],
        pass_fds=(fds.memory, fds.doorbell, fds.wake_up),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield ClientProcess(process)
        finally:
            process.kill()


# The programs. Each gets descriptors, the number of its queue, and arguments of its own.


def read_with_gaps(
    fds: Fds,
    queue: int,
    *,
    address: int,
    accesses: int,
    gaps_s: list[float],
    spin_s: float,
    processors: list[int],
) -> dict[str, Any]:
    """Read a counter, with a random gap before each access, of up to one of `gaps_s`."""
    os.sched_setaffinity(0, processors)
    client = Client(fds, queue, spin_s=spin_s)
    chance = random.Random(accesses)  # repeatable, not secret
    slowest_s, late = 0.0, 0
    for number in range(1, accesses + 1):
        _let_pass(chance.uniform(0, chance.choice(gaps_s)))
        began = time.perf_counter()
        read = client.mmio_read(address, 8)
        took_s = time.perf_counter() - began
        assert read == number.to_bytes(8, "little"), f"access {number} read {read!r}"
        slowest_s = max(slowest_s, took_s)
        late += took_s >= LOOK_AGAIN_S
    return {
        "slowest_s": slowest_s,
        "late": late,
        "late_wakeups": client.late_wakeups,
        "rung": client.rung,
        "slept": client.slept,
        "nearly_slept": client.drowsy - client.slept,
    }


def write_and_read_back(fds: Fds, queue: int, *, address: int, size: int) -> dict[str, Any]:
    """Write, post and read memory until told to stop; what is read is what was written."""
    client = Client(fds, queue)
    chance = random.Random(address)  # repeatable, not secret
    content = bytearray(size)
    accesses = 0
    while not _is_told_to_stop():
        for _ in range(100):
            length = chance.randint(1, 32)
            at = chance.randrange(size - length)
            data = chance.randbytes(length)
            (client.mmio_post if chance.random() < 0.5 else client.mmio_write)(address + at, data)
            content[at : at + length] = data
            at = chance.randrange(size - length)
            read = client.mmio_read(address + at, length)
            assert read == content[at : at + length], f"{length} bytes at {at} are {read!r}"
            accesses += 2
    return {"accesses": accesses, "posted_failures": client.posted_failures}


def scribble(fds: Fds, queue: int, *, address: int, everywhere: bool, seed: int) -> dict[str, Any]:
    """Write rubbish into a queue, or all over the ring and its eventfds, until told to stop.

    Entries are announced all the while, half of them close to what is allowed. The server
    takes them only if their numbers are right, so what tells us of its progress is spared:
    the completions, which it doesn't read.
    """
    layout = RingLayout(RING_QUEUES)
    entries = range(layout.entries * ENTRY_SIZE)
    first = ENTRIES + queue * len(entries)
    control = CONTROLS + queue * CONTROL_SIZE
    areas = [range(control, control + CONTROL_SIZE, 8), range(first, first + len(entries), 8)]
    if everywhere:
        areas += [range(0, ENTRIES, 8), range(0, fds.size, 8)]
    spared = range(first + COMPLETION * 8, first + len(entries), ENTRY_SIZE)
    chance = random.Random(seed)
    following, scribbled = 1, 0
    with mmap.mmap(fds.memory, fds.size) as mapped, memoryview(mapped) as memory:
        words = layout.queue_entries(memory, queue).cast("Q")
        while not _is_told_to_stop():
            for sequence in range(following, following + layout.entries):
                entry = (sequence % layout.entries) * (ENTRY_SIZE // 8)
                if chance.random() < 0.5:
                    words[entry + ADDRESS] = address + chance.randrange(-8, 0x100)
                    words[entry + WHAT] = chance.randrange(8) | chance.randrange(40) << 8
                words[entry] = sequence
                place = chance.choice(chance.choice(areas))
                if place not in spared:
                    rubbish = chance.randbytes(chance.randint(1, 8))
                    memory[place : place + len(rubbish)] = rubbish
                    scribbled += 1
            _abuse(fds, chance if everywhere and chance.random() < 0.1 else None)
            following = 1 + max(words[COMPLETION :: ENTRY_SIZE // 8]) // 2
        words.release()
    return {"scribbled": scribbled, "taken": following - 1}


def _abuse(fds: Fds, chance: random.Random | None) -> None:
    """Ring the doorbell, or do to the eventfds whatever one can."""
    for fd in (fds.doorbell, fds.wake_up):
        os.set_blocking(fd, False)
        with suppress(BlockingIOError):
            os.eventfd_read(fd)
        if chance is not None:
            os.eventfd_write(fd, chance.choice([1, chance.randrange(1 << 63), (1 << 64) - 2]))
            os.set_blocking(fd, chance.random() < 0.5)
    if chance is None:
        os.eventfd_write(fds.doorbell, 1)


def _let_pass(seconds: float) -> None:
    """Wait more exactly than by sleeping."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def _is_told_to_stop() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


if __name__ == "__main__":
    _program, _arguments = sys.argv[1:]
    _fds, _queue, _options = json.loads(_arguments)
    _programs: dict[str, Callable[..., dict[str, Any]]] = {
        program.__name__: program for program in (read_with_gaps, scribble, write_and_read_back)
    }
    print(json.dumps(_programs[_program](Fds(**_fds), _queue, **_options)))  # noqa: T201 # its result
