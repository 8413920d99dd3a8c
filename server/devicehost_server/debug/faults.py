"""Faults: devices that misbehave on purpose, in a way that can be repeated.

    faults = Faults(registers, on_needed_changed=...)
    faults.create(Fault(StuckAtOne(0x20), AccessFilter(registers=("uart0.LSR",))))

`Faults` is a `Stage`: all accesses pass it while `is_needed`. A slow device, one that is
gone and one that fails are spoiled before the device is asked; stuck bits after a read that
worked. A device that is gone, or fails, has to be there to begin with.

Chance begins with a fault's seed. Of each hundred accesses that its filter lets through,
exactly `percent` are spoiled; the same seed chooses the same ones.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeAlias

from devicehost.access_status import AccessStatus
from devicehost.recording.events import Operation
from devicehost.registers import Place
from devicehost_server.debug.filters import ANY, AccessFilter
from devicehost_server.debug.matching import ByDevice, Matcher
from devicehost_server.debug.pending import PendingAccess
from devicehost_server.debug.places import Registers, operands
from devicehost_server.model.access_errors import no_device
from devicehost_server.model.errors import (
    BadRequest,
    DeviceFault,
    Draining,
    NoSuchFault,
    hex_address,
)

DELAY_MAX_US = 10_000_000
_WORD_BITS = 64
_PERCENT = 100


@dataclass(frozen=True, slots=True)
class Delay:
    """Every access takes longer by so many microseconds, at most 10,000,000."""

    us: int


@dataclass(frozen=True, slots=True)
class StuckAtOne:
    """Bits of what is read that are always set.

    They are those of the register if the filter names one, or one row; else those of the
    access, as a little-endian number.
    """

    bits: int


@dataclass(frozen=True, slots=True)
class StuckAtZero:
    """Bits of what is read that are always clear; see `StuckAtOne`."""

    bits: int


@dataclass(frozen=True, slots=True)
class Gone:
    """Nobody answers, as if no device were there."""


@dataclass(frozen=True, slots=True)
class Failing:
    """The device fails, as if it had raised."""


FaultKind: TypeAlias = Delay | StuckAtOne | StuckAtZero | Gone | Failing


class MadeToFail(Exception):
    """What a device raises that fails on purpose."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A way for a device to misbehave.

    Attributes:
        kind: what goes wrong.
        filter: which accesses.
        percent: how many of each hundred, chosen by the seed; 0 for all.
        seed: what chance begins with, 64 bits.
        id: its number, from 1 on; not looked at when it is made, and so `count`.
        count: how many accesses it has spoiled. A read of which the stuck bits were so
            already is not spoiled.
    """

    kind: FaultKind
    filter: AccessFilter = ANY
    percent: int = 0
    seed: int = 0
    id: int = 0
    count: int = 0


class _Chance:
    """Chooses so many of each hundred."""

    def __init__(self, percent: int, seed: int) -> None:
        self._percent = percent or _PERCENT
        self._random = random.Random(seed)  # noqa: S311 # it is to be repeated
        self._left: list[bool] = []

    def chooses(self) -> bool:
        if self._percent == _PERCENT:
            return True
        if not self._left:
            chosen = self._random.sample(range(_PERCENT), self._percent)
            self._left = [number in chosen for number in range(_PERCENT)]
        return self._left.pop()


class _Active:
    """A fault that is in effect."""

    def __init__(self, fault: Fault, matcher: Matcher) -> None:
        self.told = fault
        self.matcher = matcher
        self.is_stuck = isinstance(fault.kind, StuckAtOne | StuckAtZero)
        self._lock = threading.Lock()
        self._chance = _Chance(fault.percent, fault.seed)
        self._count = 0
        self._over = threading.Event()

    def present(self) -> Fault:
        return replace(self.told, count=self._count)

    def end(self) -> None:
        """Let go on what it delays."""
        self._over.set()

    def spoil_before(self, access: PendingAccess) -> None:
        """Raises what the access is to end with, if it is chosen."""
        kind = self.told.kind
        if not (access.device or isinstance(kind, Delay)) or not self._chooses():
            return
        self._count_one()
        match kind:
            case Delay(us):
                self._over.wait(us / 1e6)
            case Gone():
                raise no_device(access.space.value, access.address, access.size)
            case Failing():
                error = MadeToFail(f"fault {self.told.id} makes it fail")
                doing = f"{access.space.value} {access.operation.value} at {access.address:#x}"
                raise DeviceFault(
                    access.device,
                    f"during {doing}",
                    error,
                    address=hex_address(access.address),
                ) from error

    def spoil_after(self, access: PendingAccess) -> None:
        """Change what was read, if it is chosen."""
        if not self._chooses():
            return
        spoiled = b"".join(
            self._spoil(access, operand) for operand in operands(access.data, access.size)
        )
        if spoiled != access.data:
            access.data = spoiled
            self._count_one()

    def _spoil(self, access: PendingAccess, operand: bytes) -> bytes:
        size = len(operand)
        value = int.from_bytes(operand, "little")
        match self.told.kind:
            case StuckAtOne(bits):
                value |= self._in_access(bits, access.offset, size)
            case StuckAtZero(bits):
                value &= ~self._in_access(bits, access.offset, size)
        return value.to_bytes(size, "little")

    def _in_access(self, bits: int, offset: int, size: int) -> int:
        """Return where the bits are in an operand of `size` bytes at `offset`."""
        targets = self.matcher.targets
        if len(self.told.filter.registers) == 1 and targets:
            bits = _in_operand(targets[0].place, bits, offset, size)
        return bits & ((1 << 8 * size) - 1)

    def _chooses(self) -> bool:
        with self._lock:
            return self._chance.chooses()

    def _count_one(self) -> None:
        with self._lock:
            self._count += 1


class Faults:
    """The faults of a server. A `Stage`. Safe to use from any thread.

    Args:
        registers: the devices' registers, for filters.
        on_needed_changed: called when `is_needed` may have changed, with no lock held. What
            `create` arms is in effect when it returns.
    """

    def __init__(self, registers: Registers, *, on_needed_changed: Callable[[], None]) -> None:
        self._registers = registers
        self._on_needed_changed = on_needed_changed
        self._lock = threading.Lock()
        self._last_id = 0
        self._draining = False
        self._active: tuple[_Active, ...] = ()
        self._by_device = ByDevice[_Active]()

    @property
    def is_needed(self) -> bool:
        """Whether accesses have to pass here."""
        return bool(self._active)

    def create(self, wanted: Fault) -> Fault:
        """Make a fault; return it with its number.

        Raises:
            BadRequest: a field can't be. `field` is its name in the API.
            NoSuchDevice, NoRegisterMap, NoSuchRegister: what the filter names isn't there.
            Draining: the server is stopping.
        """
        _check(wanted)
        matcher = Matcher(wanted.filter, self._registers)
        _check_bits(wanted.kind, matcher)
        with self._lock:
            if self._draining:
                raise Draining("the server is stopping and takes no new faults")
            self._last_id += 1
            made = replace(wanted, id=self._last_id, count=0)
            self._set((*self._active, _Active(made, matcher)))
        self._on_needed_changed()
        try:
            matcher.learn()
        except BaseException:
            with suppress(NoSuchFault):
                self.delete(made.id)
            raise
        return made

    def delete(self, fault_id: int) -> None:
        """End a fault. What it delays goes on.

        Raises:
            NoSuchFault: there is none of this number.
        """
        with self._lock:
            ended = [each for each in self._active if each.told.id == fault_id]
            if not ended:
                raise NoSuchFault(f"there is no fault {fault_id}", fault=fault_id)
            self._set(tuple(each for each in self._active if each not in ended))
        ended[0].end()
        self._on_needed_changed()

    def list(self) -> tuple[Fault, ...]:
        """Return all faults, in the order of their making."""
        return tuple(each.present() for each in self._active)

    def learn_again(self, device: str) -> None:
        """Look into a device that changed by other than an access, or that came again."""
        for each in self._active:
            each.matcher.learn_again(device)

    def drain(self) -> None:
        """End all faults, and take no more."""
        with self._lock:
            self._draining = True
            ended = self._active
            self._set(())
        for each in ended:
            each.end()
        self._on_needed_changed()

    def before(self, access: PendingAccess) -> None:
        """Delay an access, or end it.

        Raises:
            NoDevice: a device is made to be gone.
            DeviceFault: a device is made to fail.
        """
        for each in self._by_device.of(access.device):
            if not each.is_stuck and each.matcher.before(access):
                each.spoil_before(access)

    def after(self, access: PendingAccess) -> None:
        """Change what was read."""
        concerned = self._by_device.of(access.device)
        was_read = access.operation is Operation.READ and access.status is AccessStatus.OK
        matched = (
            [each for each in concerned if each.is_stuck and each.matcher.after(access)]
            if was_read
            else []
        )
        for each in concerned:
            each.matcher.follow(access)  # what the device said, not what it will have said
        for each in matched:
            each.spoil_after(access)

    def _set(self, active: tuple[_Active, ...]) -> None:
        """Set which faults there are. The caller holds the lock."""
        self._active = active
        self._by_device = ByDevice((each.matcher.devices, each) for each in active)


def _in_operand(place: Place, bits: int, offset: int, size: int) -> int:
    """Return where bits of a register are in an operand, or of each register of a row."""
    register = place.register
    step = register.stride or register.size
    first = place.offset
    if first < offset and place.size > register.size:
        first += (offset - first) // step * step  # the first of the row that is in the operand
    found = 0
    while first < offset + size and first <= place.last:
        shift = 8 * (first - offset)
        found |= bits << shift if shift >= 0 else bits >> -shift
        first += step
    return found


def _check(wanted: Fault) -> None:
    """Check what the filter doesn't check."""
    if not 0 <= wanted.percent <= _PERCENT:
        raise _bad("percent", wanted.percent, f"0 to {_PERCENT}")
    if not 0 <= wanted.seed < 1 << _WORD_BITS:
        raise _bad("seed", wanted.seed, f"0 and up, {_WORD_BITS} bits")
    if wanted.filter.failed:
        raise _bad("filter.failed", "set", "unset: whether an access fails is known too late")
    is_write = wanted.filter.operation is Operation.WRITE
    match wanted.kind:
        case Delay(us):
            if not 0 < us <= DELAY_MAX_US:
                raise _bad("delay_us", us, f"1 to {DELAY_MAX_US}")
        case StuckAtOne(bits) | StuckAtZero(bits):
            if not 0 < bits < 1 << _WORD_BITS:
                raise _bad(_field_of(wanted.kind), f"{bits:#x}", f"1 to {_WORD_BITS} bits")
            if is_write:
                raise _bad("filter.operation", "write", "read, or both, with stuck bits")
            return
    if wanted.filter.mask and not is_write:
        raise _bad(
            "filter.mask",
            f"{wanted.filter.mask:#x}",
            "0, or writes only: what a read will return isn't known before",
        )


def _check_bits(kind: FaultKind, matcher: Matcher) -> None:
    """Check that stuck bits are in the register that they are to be stuck in."""
    if isinstance(kind, StuckAtOne | StuckAtZero) and len(matcher.targets) == 1:
        size = matcher.targets[0].place.register.size
        if kind.bits >> 8 * size:
            allowed = f"bits of the register, which has {8 * size}"
            raise _bad(_field_of(kind), f"{kind.bits:#x}", allowed)


def _field_of(kind: StuckAtOne | StuckAtZero) -> str:
    return "stuck_at_one" if isinstance(kind, StuckAtOne) else "stuck_at_zero"


def _bad(field: str, value: object, allowed: str) -> BadRequest:
    return BadRequest(
        f"{field} of a fault can't be {value}; allowed: {allowed}",
        field=field,
        value=str(value),
    )
