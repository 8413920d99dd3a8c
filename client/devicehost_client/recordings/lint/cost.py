"""Rules about time: what is allowed, but traps for nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from devicehost.recording import Access, Annotated, Operation, Space
from devicehost.registers import Access as Allowed
from devicehost.registers import OnRead, Register
from devicehost_client.recordings.lint.rule import (
    Problem,
    Registers,
    Rule,
    Severity,
    SheetRule,
    Tally,
)
from devicehost_client.recordings.words import decoded_text, where

POLLS_MIN = 8
"""So many equal reads in a row are a loop, if nothing else is asked for."""

_FOLLOWED_MAX = 4096
"""How many vCPUs or registers a rule follows: a recording must not fill memory."""

_ENDS_MAX = 64
"""How many ways to end a loop are told apart."""


@dataclass(slots=True)
class _Run:
    """Equal reads in a row, of one vCPU."""

    space: Space
    address: int
    data: bytes
    number: int
    first: Annotated
    began_ns: int
    ended_ns: int
    reads: int = 1


@dataclass(slots=True)
class _Loops:
    """What is known of the loops that wait for the same."""

    reads: int = 0
    longest: int = 0
    ends: Counter[str] = field(default_factory=Counter)


class PollingLoop(Rule):
    """A vCPU reads the same register again and again, and gets the same value.

    Each read is an exit. An interrupt, or a pause between reads, would cost less. Registers
    that a read takes something out of aren't meant.
    """

    name = "polling-loop"
    severity = Severity.COST

    def __init__(self, polls_min: int = POLLS_MIN) -> None:
        super().__init__()
        self._polls_min = polls_min
        self._runs: dict[int | None, _Run] = {}
        self._loops: dict[int, _Loops] = {}

    def see(self, number: int, seen: Annotated, access: Access) -> None:
        """Go on with a run of equal reads, or end it and maybe begin one."""
        run = self._runs.get(access.vcpu)
        is_read = access.operation is Operation.READ and not access.status
        if run is not None:
            if (
                is_read
                and access.address == run.address
                and access.data == run.data
                and access.space is run.space
            ):
                run.reads += 1
                run.ended_ns = access.time_ns + access.took_ns
                return
            if run.reads >= self._polls_min:
                self._end(run, self._how(run, seen, access))
        if not is_read or not seen.device or any(_takes(each.declared) for each in seen.registers):
            self._runs.pop(access.vcpu, None)
            return
        if len(self._runs) >= _FOLLOWED_MAX:
            self._runs.clear()
        ended_ns = access.time_ns + access.took_ns
        self._runs[access.vcpu] = _Run(
            access.space, access.address, access.data, number, seen, access.time_ns, ended_ns
        )

    def finish(self) -> None:
        """End all runs."""
        for run in self._runs.values():
            if run.reads >= self._polls_min:
                self._end(run, "the end of the recording")
        self._runs.clear()

    def describe(self, tally: Tally) -> str:
        """Say how long it was polled, and what ended it."""
        loops = self._loops[id(tally)]
        ((end, _times), *others) = loops.ends.most_common(2)
        return (
            f"{tally.what} is read again and again: {loops.reads} reads, up to {loops.longest} in"
            f" a row; then comes {end}{', most often' if others else ''}"
        )

    def _end(self, run: _Run, how: str) -> None:
        target = where(run.first)
        value = int.from_bytes(run.data, "little")
        key = (run.first.device, run.space, run.address, run.data)
        tally = self.tally(
            key, run.number, run.first, register=target, what=f"{target} = {value:#x}"
        )
        tally.cost_ns = (tally.cost_ns or 0) + run.ended_ns - run.began_ns
        loops = self._loops.setdefault(id(tally), _Loops())
        loops.reads += run.reads
        loops.longest = max(loops.longest, run.reads)
        if how in loops.ends or len(loops.ends) < _ENDS_MAX:
            loops.ends[how] += 1

    @staticmethod
    def _how(run: _Run, seen: Annotated, access: Access) -> str:
        """Say what came instead of one more equal read."""
        if access.address == run.address and access.space is run.space:
            if access.operation is Operation.READ:
                return decoded_text(seen.registers) or "another value"
            return "a write to it"
        name = where(seen)
        return f"{seen.device}.{name}" if seen.device and seen.registers else name


class RedundantWrite(SheetRule):
    """A register is written that has the value already, and does nothing but store it.

    Only registers that can be read back and have no effects are meant.
    """

    name = "redundant-write"
    severity = Severity.COST

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[tuple[str, str], int] = {}

    def judge(self, access: Access, registers: Registers) -> Iterator[Problem]:
        """Tell of values that are now in registers, whether they were written or read."""
        what = "the value that it has is written" if access.operation is Operation.WRITE else ""
        for each in registers:
            if each.complete and each.declared and _stores(each.declared):
                yield Problem(each.register, what, each.value)

    def meet(self, number: int, seen: Annotated, problem: Problem) -> None:
        """Count a write of a value that is there; remember what is there now."""
        place = (seen.device, problem.register)
        if self._values.get(place) != problem.value:
            if len(self._values) >= _FOLLOWED_MAX:
                self._values.clear()
            self._values[place] = problem.value
        elif problem.what and isinstance(access := seen.event, Access):
            what = problem.what
            tally = self.tally(place, number, seen, register=problem.register, what=what)
            tally.cost_ns = (tally.cost_ns or 0) + access.took_ns

    def forget(self, device: str) -> None:
        """Forget the values of a device."""
        self._values = {place: value for place, value in self._values.items() if place[0] != device}


def _takes(register: Register | None) -> bool:
    """Whether a read takes something out of a register, so that the next is another's."""
    return register is not None and register.on_read is OnRead.CHANGES


def _stores(register: Register) -> bool:
    """Whether a register does nothing but store what is written."""
    return (
        register.access is Allowed.READ_WRITE
        and register.on_read is None
        and register.on_write is None
        and all(
            each.access in {None, Allowed.READ_WRITE} and not each.on_read and not each.on_write
            for each in register.fields
        )
    )
