"""Breakpoints: where an access is to be held, or is worth a report.

    breakpoints = Breakpoints(registers, holds, ...)
    watched = breakpoints.subscribe(listener)
    breakpoints.create(Breakpoint(AccessFilter(registers=("uart0.LCR",))))
    # ... the listener gets a Hit; the access waits
    breakpoints.resume(hit.id, ResumeAction.STEP)

`Breakpoints` is a `Stage`: all accesses pass it while `is_needed`. Each access that goes
through `before` goes through `after` on the same thread, whatever becomes of it.

When several breakpoints match an access, they hold it one after the other, in the order of
their making. An access that a breakpoint holds before it is made ends a step as well.

An interrupt is told under a lock of its controller, so it is only noted. The access in
which it was raised is then held at its end; if that was in none, the next access of any
vCPU is held before it is made. To save the states, or to record, waits for that moment
too. A mere report doesn't.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import structlog

from devicehost.recording.events import Interrupt, InterruptKind
from devicehost_server.debug.breakpoint import (
    Armed,
    Breakpoint,
    BreakpointAction,
    BreakpointEvent,
    ResumeAction,
    check_breakpoint,
)
from devicehost_server.debug.holds import (
    HeldAccesses,
    Hit,
    HitListener,
    hit_at_access,
    hit_at_interrupt,
)
from devicehost_server.debug.matching import ByDevice, Matcher
from devicehost_server.debug.pending import PendingAccess
from devicehost_server.debug.places import Registers
from devicehost_server.model.device_io import DEVICE_EXCEPTIONS
from devicehost_server.model.errors import Draining, NoSuchBreakpoint
from devicehost_server.model.holds import Holds
from devicehost_server.model.interrupts import InterruptEvent

_log = structlog.get_logger(__name__)

HOLD_LIMIT_MS = 30_000
"""How long an access is held at most if nobody says, in milliseconds."""


@dataclass(slots=True)
class _Step:
    """The next access of a vCPU is to be held."""

    limit_ms: int
    taken: bool = False


@dataclass(frozen=True, slots=True)
class _Raised:
    """An interrupt that hit a breakpoint, until an access can be held for it."""

    armed: Armed
    event: Interrupt


class _OfThread(threading.local):
    def __init__(self) -> None:
        self.accesses: list[tuple[PendingAccess, int]] = []  # with held_ns at their beginning


class Breakpoints:
    """The breakpoints of a server, and the accesses that they hold. A `Stage`.

    Safe to use from any thread.

    Args:
        registers: the devices' registers, for filters.
        holds: told how many accesses are held, and their threads how long.
        save_states: returns the states of all devices as text. Called with no lock held.
        record: arms the flight recorder if it isn't. Called with no lock held.
        on_needed_changed: called when `is_needed` may have changed, on any thread, those
            included that make accesses, with no lock held. What `create` and `resume` arm is
            in effect when it returns.
        limit_ms: the longest that an access is held if its breakpoint doesn't say.
    """

    def __init__(
        self,
        registers: Registers,
        holds: Holds,
        *,
        save_states: Callable[[], str],
        record: Callable[[], None],
        on_needed_changed: Callable[[], None],
        limit_ms: int = HOLD_LIMIT_MS,
    ) -> None:
        self._registers = registers
        self._holds = holds
        self._held = HeldAccesses(holds)
        self._save_states = save_states
        self._record = record
        self._on_needed_changed = on_needed_changed
        self._limit_ms = limit_ms
        self._of_thread = _OfThread()
        self._lock = threading.Lock()
        self._last_id = 0
        self._draining = False
        self._armed: dict[int, Armed] = {}
        self._steps: dict[int | None, _Step] = {}  # by vCPU
        self._raised: dict[int | None, list[_Raised]] = {}  # by thread; None: in no access
        self._any_spent = False
        # What accesses and interrupts look at, without the lock.
        self._of_accesses = ByDevice[Armed]()
        self._of_interrupts: tuple[Armed, ...] = ()

    # For who debugs.

    @property
    def is_needed(self) -> bool:
        """Whether accesses have to pass here."""
        return bool(self._armed or self._steps or self._raised)

    def create(self, wanted: Breakpoint) -> Breakpoint:
        """Make a breakpoint; return it with its number.

        Raises:
            BadRequest: a field can't be. `field` is its name in the API.
            NoSuchDevice, NoRegisterMap, NoSuchRegister: what the filter names isn't there.
            Draining: the server is stopping.
        """
        check_breakpoint(wanted)
        matcher = Matcher(wanted.filter, self._registers)
        with self._lock:
            if self._draining:
                raise Draining("the server is stopping and holds nothing any more")
            self._last_id += 1
            made = replace(wanted, id=self._last_id, matches=0, hits=0)
            self._armed[made.id] = Armed(made, matcher, self._limit_ms)
            self._sort()
        self._on_needed_changed()
        try:
            matcher.learn()
        except BaseException:
            with suppress(NoSuchBreakpoint):
                self.delete(made.id)
            raise
        return made

    def delete(self, breakpoint_id: int) -> None:
        """Remove a breakpoint, and let go of what it holds.

        Raises:
            NoSuchBreakpoint: there is none of this number, maybe no longer.
        """
        with self._changing():
            armed = self._armed.get(breakpoint_id)
            if armed is None or armed.is_spent:
                raise NoSuchBreakpoint(
                    f"there is no breakpoint {breakpoint_id}", breakpoint=breakpoint_id
                )
            armed.deleted = True
            del self._armed[breakpoint_id]
            self._sort()
            for thread, raised in list(self._raised.items()):
                self._raised[thread] = [each for each in raised if each.armed is not armed]
                if not self._raised[thread]:
                    del self._raised[thread]
        self._held.let_go_of(breakpoint_id)

    def list(self) -> tuple[Breakpoint, ...]:
        """Return all breakpoints, in the order of their making."""
        with self._lock:
            return tuple(each.present() for each in self._armed.values() if not each.is_spent)

    def subscribe(self, listener: HitListener) -> tuple[Hit, ...]:
        """Tell `listener` each hit, and each end of a hold, from now on.

        Returns:
            What is held at this moment, which the listener's first event follows without
            a gap.
        """
        return self._held.subscribe(listener)

    def unsubscribe(self, listener: HitListener) -> None:
        """Tell `listener` nothing more. No call to it begins after this returns."""
        self._held.unsubscribe(listener)

    def resume(
        self,
        hit_id: int,
        action: ResumeAction = ResumeAction.CONTINUE,
        data: bytes | None = None,
    ) -> None:
        """Let an access go that is held.

        Args:
            hit_id: the hit that holds it.
            action: how it goes on.
            data: before a write, what the device is to get; after a read, what the guest is
                to get. As long as the access.

        Raises:
            NoSuchHit: nothing is held by this number, maybe no longer.
            BadRequest: the access can't have such data; it is held on.
        """
        with self._held.letting_go(hit_id, data) as held:
            if action is ResumeAction.STEP:
                with self._lock:
                    if not self._draining:
                        self._steps[held.access.vcpu] = _Step(held.limit_ms)
                self._on_needed_changed()

    def learn_again(self, device: str) -> None:
        """Look into a device that changed by other than an access, or that came again."""
        with self._lock:
            all_armed = list(self._armed.values())
        for each in all_armed:
            each.matcher.learn_again(device)

    def drain(self) -> None:
        """Remove all breakpoints, let everything go, and hold nothing more."""
        with self._changing():
            self._draining = True
            for each in self._armed.values():
                each.deleted = True
            self._armed.clear()
            self._steps.clear()
            self._raised.clear()
            self._sort()
        self._held.drain()

    # For what happens.

    def before(self, access: PendingAccess) -> None:
        """Hold an access that is about to be made, if it is to be held."""
        self._of_thread.accesses.append((access, self._holds.held_ns()))
        step = self._take_step(access.vcpu) if self._steps else None
        was_held = False
        if self._raised:
            was_held = self._serve_raised(None, access, after=False)
        for each in self._of_accesses.of(access.device):
            if each.matches_before(access):
                was_held |= self._hit(each, access, after=False)
        if step is not None:
            if not was_held:
                hit = self._describe(0, access, after=False)
                self._held.hold(access, hit, step.limit_ms, lambda: True)
            self._end_step(access.vcpu, step)

    def after(self, access: PendingAccess) -> None:
        """Hold an access that has ended, if it is to be held."""
        concerned = self._of_accesses.of(access.device)
        matched = [each for each in concerned if each.matches_after(access)]
        for each in concerned:
            each.matcher.follow(access)
        thread = threading.get_ident()
        if thread in self._raised:
            self._serve_raised(thread, access, after=True)
        for each in matched:
            self._hit(each, access, after=True)
        accesses = self._of_thread.accesses
        if accesses and accesses[-1][0] is access:
            accesses.pop()
        if self._any_spent:
            self._remove_spent()

    def interrupt(self, event: InterruptEvent) -> None:
        """Take note of an interrupt. It returns at once."""
        for each in self._of_interrupts:
            if each.told.gsi in {None, event.gsi} and self._count(each):
                kind = InterruptKind(event.kind.value)
                raised = Interrupt(time.monotonic_ns(), event.gsi, kind, event.device)
                if each.told.action is BreakpointAction.LOG:
                    self._held.report(hit_at_interrupt(each.id, raised, after=False))
                    continue
                thread = threading.get_ident() if self._of_thread.accesses else None
                with self._lock:
                    if not each.deleted:
                        self._raised.setdefault(thread, []).append(_Raised(each, raised))

    # Hits.

    def _hit(self, armed: Armed, access: PendingAccess, *, after: bool) -> bool:
        """An access matched a breakpoint. Return whether it was held."""
        if not self._count(armed):
            return False
        return self._act(armed, self._describe(armed.id, access, after=after), access)

    def _serve_raised(self, thread: int | None, access: PendingAccess, *, after: bool) -> bool:
        """Do what interrupts wait for. Return whether the access was held."""
        with self._changing():
            raised = self._raised.pop(thread, [])
        was_held = False
        for each in raised:
            hit = hit_at_interrupt(each.armed.id, each.event, after=after)
            was_held |= self._act(each.armed, hit, access)
        return was_held

    def _act(self, armed: Armed, hit: Hit, access: PendingAccess) -> bool:
        action = armed.told.action
        if action is BreakpointAction.HOLD:
            return self._held.hold(access, hit, armed.limit_ms, armed.is_wanted)
        try:
            if action is BreakpointAction.SAVE_STATE:
                hit = replace(hit, states=self._save_states())
            elif action is BreakpointAction.RECORD:
                self._record()
        except DEVICE_EXCEPTIONS as error:  # the guest's access has no part in it
            _log.warning(
                "breakpoint_action_failed",
                breakpoint=armed.id,
                action=action.value,
                error=str(error),
            )
        self._held.report(hit)
        return False

    def _count(self, armed: Armed) -> bool:
        """Count a match. Return whether it is a hit."""
        with self._lock:
            is_hit = armed.count()
            self._any_spent |= is_hit and armed.is_spent
            return is_hit

    def _describe(self, breakpoint_id: int, access: PendingAccess, *, after: bool) -> Hit:
        took_ns = 0
        if after:
            held_ns = self._holds.held_ns() - self._held_before(access)
            took_ns = max(0, time.monotonic_ns() - access.time_ns - held_ns)
        return hit_at_access(breakpoint_id, access, after=after, took_ns=took_ns)

    def _held_before(self, access: PendingAccess) -> int:
        """How long the thread had been held in all when the access began."""
        for one, held_ns in self._of_thread.accesses:
            if one is access:
                return held_ns
        return self._holds.held_ns()

    # Steps, and what there is.

    def _take_step(self, vcpu: int | None) -> _Step | None:
        """Return the step that ends with this access. Only one access ends it."""
        with self._lock:
            step = self._steps.get(vcpu)
            if step is None or step.taken:
                return None
            step.taken = True
            return step

    def _end_step(self, vcpu: int | None, step: _Step) -> None:
        """Forget a step, unless there is a new one by now."""
        with self._changing():
            if self._steps.get(vcpu) is step:
                del self._steps[vcpu]

    def _remove_spent(self) -> None:
        with self._changing():
            self._any_spent = False
            for each in [each for each in self._armed.values() if each.is_spent]:
                del self._armed[each.id]
            self._sort()

    def _sort(self) -> None:
        """Set what accesses and interrupts look at. The caller holds the lock."""
        of_interrupts, of_accesses = [], []
        for each in self._armed.values():
            if each.told.event is BreakpointEvent.INTERRUPT:
                of_interrupts.append(each)
            else:
                of_accesses.append((each.matcher.devices, each))
        self._of_interrupts = tuple(of_interrupts)
        self._of_accesses = ByDevice(of_accesses)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock, and tell if `is_needed` is another afterwards."""
        with self._lock:
            was_needed = self.is_needed
            yield
            is_needed = self.is_needed
        if is_needed != was_needed:
            self._on_needed_changed()
