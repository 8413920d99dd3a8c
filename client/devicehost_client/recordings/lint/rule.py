"""What a rule of `lint` is, and what it finds.

A rule sees each event of a recording once, in order. What it finds it counts by groups
(one register written wrongly a million times is one finding), and of each it keeps the
first place. A rule whose verdict depends on nothing but the access itself is a `SheetRule`:
equal accesses, of which a recording is full, are judged once.

A new one is a class:

    class WordWrite(SheetRule):
        '''A driver wrote two bytes at once.'''

        name = "word-write"
        severity = Severity.NOTE

        def judge(self, access: Access, registers: Registers) -> Iterator[Problem]:
            if access.operation is Operation.WRITE and access.size == 2:
                yield Problem(registers[0].register, "two bytes are written")
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from devicehost.recording import Access, Annotated
from devicehost.registers import Decoded
from devicehost_client.recordings.words import access_text, decoded_text

Registers: TypeAlias = tuple[Decoded, ...]

GROUPS_MAX = 200
"""How many findings a rule tells apart. What comes later is counted as one."""

_JUDGED_MAX = 8192
"""How many verdicts a rule remembers: a recording must not fill memory."""


class Severity(enum.Enum):
    """How bad a finding is."""

    ERROR = "error"
    """A data sheet forbids it."""
    COST = "cost"
    """It is allowed, and costs time."""
    NOTE = "note"
    """Good to know."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is in a recording.

    Attributes:
        number: of the event.
        time_ns: when it began, on the server's monotonic clock.
        vcpu: whose access it was; None if that isn't known.
        access: what it was, in words.
        decoded: what that means, in names of registers and fields; maybe empty.
    """

    number: int
    time_ns: int
    vcpu: int | None
    access: str
    decoded: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a rule found, once or many times.

    Attributes:
        rule: the rule's name.
        severity: how bad it is.
        device: whose registers are concerned; empty if none's.
        register: which of them; empty if none, or many.
        what: was found, in a sentence without its full stop.
        count: how often.
        cost_ns: the time that it took, if it is about that.
        first: where it is found first.
    """

    rule: str
    severity: Severity
    device: str
    register: str
    what: str
    count: int
    cost_ns: int | None
    first: Place


@dataclass(slots=True)
class Tally:
    """A finding that is being counted; as in `Finding`."""

    device: str
    register: str
    what: str
    first: Place
    count: int = 0
    cost_ns: int | None = None


class Rule(ABC):
    """Something that recordings are looked through for. Its docstring is its help.

    Attributes:
        name: in kebab-case.
        severity: of all that it finds.
        on_first: called with the first place of each finding, at the time it is found.
    """

    name: ClassVar[str]
    severity: ClassVar[Severity]

    def __init__(self) -> None:
        self._tallies: dict[Hashable, Tally] = {}
        self._rest: Tally | None = None
        self.on_first: Callable[[int], None] = _nobody_asks

    @abstractmethod
    def see(self, number: int, seen: Annotated, access: Access) -> None:
        """Look at the next access; `access` is the event of `seen`."""

    def forget(self, device: str) -> None:  # noqa: B027 # most rules follow no state
        """A device came or went: what was known of its state is void."""

    def finish(self) -> None:  # noqa: B027 # likewise
        """There are no more events."""

    def findings(self) -> Iterator[Finding]:
        """Go through what was found."""
        tallies = [*self._tallies.values(), *([self._rest] if self._rest else [])]
        for each in tallies:
            yield Finding(
                self.name,
                self.severity,
                each.device,
                each.register,
                each.what if each is self._rest else self.describe(each),
                each.count,
                each.cost_ns,
                each.first,
            )

    def describe(self, tally: Tally) -> str:
        """Say what was found, now that all of it is known."""
        return tally.what

    def tally(
        self, key: Hashable, number: int, seen: Annotated, *, register: str, what: str
    ) -> Tally:
        """Count one more of a group; the caller may add to what is returned."""
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._new_tally(key, number, seen, register, what)
        tally.count += 1
        return tally

    def _new_tally(
        self, key: Hashable, number: int, seen: Annotated, register: str, what: str
    ) -> Tally:
        if len(self._tallies) < GROUPS_MAX:
            tally = Tally(seen.device, register, what, place(number, seen))
            self._tallies[key] = tally
            self.on_first(number)
            return tally
        if self._rest is None:
            what = f"more of the kind, beyond the first {GROUPS_MAX} places"
            self._rest = Tally("", "", what, place(number, seen))
        return self._rest


@dataclass(frozen=True, slots=True)
class Problem:
    """What a `SheetRule` says of an access to one register.

    Attributes:
        register: the register's name.
        what: is wrong.
        value: a number that the rule wants to keep with it.
    """

    register: str
    what: str
    value: int = 0


class SheetRule(Rule):
    """A rule that judges accesses to registers one by one, by the register map."""

    def __init__(self) -> None:
        super().__init__()
        # The registers are kept along with the verdict, or their ids would be others' soon.
        self._judged: dict[Hashable, tuple[Registers, tuple[Problem, ...]]] = {}

    @abstractmethod
    def judge(self, access: Access, registers: Registers) -> Iterator[Problem]:
        """Say what is wrong with an access that didn't fail.

        It depends on the access's operation and size, and on the registers, only.
        """

    def meet(self, number: int, seen: Annotated, problem: Problem) -> None:
        """Count a problem. Overriders may find that it is none."""
        key = (seen.device, problem.register, problem.what)
        self.tally(key, number, seen, register=problem.register, what=problem.what)

    def see(self, number: int, seen: Annotated, access: Access) -> None:
        """Judge an access, or remember how an equal one was judged."""
        registers = seen.registers
        if not registers or access.status:
            return
        # Decoders return the same objects for equal accesses.
        key = (identity(registers), access.operation, access.size)
        judged = self._judged.get(key)
        if judged is None:
            if len(self._judged) >= _JUDGED_MAX:
                self._judged.clear()
            judged = self._judged[key] = (registers, tuple(self.judge(access, registers)))
        for problem in judged[1]:
            self.meet(number, seen, problem)


def identity(registers: Registers) -> Hashable:
    """Return a key that is the same for the same objects, as long as they are kept."""
    return id(registers[0]) if len(registers) == 1 else tuple(map(id, registers))


def _nobody_asks(_number: int) -> None:
    """Stands for who wants to know of first places."""


def place(number: int, seen: Annotated) -> Place:
    """Describe where an access is."""
    access = seen.event
    if not isinstance(access, Access):
        raise TypeError(f"event {number} is not an access: {access}")
    return Place(
        number,
        access.time_ns,
        access.vcpu,
        access_text(access),
        decoded_text(seen.registers),
    )
