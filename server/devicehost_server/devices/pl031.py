"""The Arm boards' real-time clock: a PrimeCell PL031, a counter of seconds with a match.

Source: Arm, "PrimeCell Real Time Clock (PL031) Technical Reference Manual", DDI 0224.

The counter is the wall clock's seconds since 1970-01-01 00:00:00 UTC, plus an offset that
a write of the load register changes, modulo 2**32. As on the hardware, a load sets the
seconds and leaves the second's beginning where it is. The raw interrupt is set when the
counter arrives at the match register, and by a write that makes the two equal; it is
worked out when somebody looks, and a timer is set only while it could raise an interrupt.

Where the manual leaves a choice:
    - The clock was started long ago: the control register reads as 1, and writes to it
      have no effect, as the manual has it for a running clock. A reset leaves the time.
    - If the wall clock is set back, the counter follows, and no match happens. If it is
      set forward past the match, the match happens.
    - The bus has 32-bit registers. A read of any width returns the bytes that it covers,
      little-endian. A write acts on each register that it covers whole, and bytes that
      are only a part of a register are dropped. Reserved offsets read as zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from devicehost.registers import Access, Field, OnWrite, Register, RegisterMap
from devicehost_server.devices.base import DeviceContext, State
from devicehost_server.devices.config import option
from devicehost_server.devices.register_device import RegisterDevice
from devicehost_server.devices.state import StateReader
from devicehost_server.model.clock import Timer
from devicehost_server.model.interrupts import InterruptLine
from devicehost_server.model.resources import (
    LegacyIrqConstraint,
    MmioAddressConstraint,
    ResourceConstraint,
)

SIZE = 0x1000

INTERRUPT = 0x01
RUNNING = 0x01

WORD = 4
ID_BASE = 0xFE0
IDS = bytes.fromhex("31100400 0df005b1")
"""PeriphID0 to 3 (part 0x031, designer 0x41, revision 0) and PCellID0 to 3, one a word."""


def _word(
    name: str,
    offset: int,
    help: str,  # noqa: A002 # as registers have it
    *fields: Field,
    access: Access = Access.READ_WRITE,
    reset: int | None = 0,
    on_write: OnWrite | None = None,
) -> Register:
    return Register(name, offset, WORD, access, reset, fields, help, on_write=on_write)


# DDI 0224, "Summary of RTC registers".
MAP = RegisterMap(
    "pl031",
    help="ARM PrimeCell Real Time Clock",
    registers=(
        _word("DR", 0x000, "data: the counter, in seconds", access=Access.READ_ONLY, reset=None),
        _word("MR", 0x004, "match: interrupt when the counter gets here, in seconds"),
        _word("LR", 0x008, "load: sets the counter, in seconds", on_write=OnWrite.CHANGES),
        _word(
            "CR",
            0x00C,
            "control",
            Field("RTCEN", RUNNING, "the clock runs", on_write=OnWrite.ONE_SETS),
            reset=RUNNING,
        ),
        _word("IMSC", 0x010, "interrupt mask", Field("RTCIMSC", INTERRUPT, "interrupt enabled")),
        _word(
            "RIS",
            0x014,
            "raw interrupt status",
            Field("RTCRIS", INTERRUPT, "the counter has arrived at the match"),
            access=Access.READ_ONLY,
        ),
        _word(
            "MIS",
            0x018,
            "masked interrupt status",
            Field("RTCMIS", INTERRUPT, "the interrupt line: RIS and IMSC"),
            access=Access.READ_ONLY,
        ),
        _word(
            "ICR",
            0x01C,
            "interrupt clear",
            Field("RTCICR", INTERRUPT, "a one clears RIS", on_write=OnWrite.CHANGES),
            access=Access.WRITE_ONLY,
        ),
        *(
            _word(
                f"{'PERIPHID' if n < WORD else 'PCELLID'}{n % WORD}",
                ID_BASE + n * WORD,
                "identification of the part",
                access=Access.READ_ONLY,
                reset=octet,
            )
            for n, octet in enumerate(IDS)
        ),
    ),
)

COUNTER_MASK = 0xFFFF_FFFF
SECOND_NS = 1_000_000_000

LOOK_AGAIN_SECONDS = 60
"""The longest that a timer is set for: the wall clock may be stepped meanwhile."""


@dataclass(frozen=True, slots=True)
class Pl031Config:
    """Where it is, and how it interrupts."""

    base: int | None = option(None, "guest-physical address; none to be given one", minimum=0)
    irq: int | None = option(None, "legacy IRQ; none to have no interrupt", minimum=0)


class Pl031(RegisterDevice[Pl031Config]):
    """ARM PrimeCell Real Time Clock PL031."""

    type_name = "pl031"
    config_type = Pl031Config
    register_map = MAP
    partial_writes = False

    _line: InterruptLine | None = None
    _timer: Timer | None = None

    def __init__(self, config: Pl031Config) -> None:
        super().__init__(config)
        self._offset = 0  # from the wall clock's seconds to the counter, modulo 2**32
        self._seen = 0  # the wall clock's second up to which matches have been noticed

    def get_resource_constraints(self) -> Sequence[ResourceConstraint]:
        """One page of registers, and the interrupt if there is one."""
        if self.config.base is None:
            page = MmioAddressConstraint(size=SIZE)
        else:
            page = MmioAddressConstraint.exact(self.config.base, SIZE)
        if self.config.irq is None:
            return [page]
        return [page, LegacyIrqConstraint(self.config.irq)]

    def assign(self, context: DeviceContext) -> None:
        """Take the resources; the counter is the wall clock's seconds."""
        super().assign(context)
        irq = context.resources.get_legacy_irq()
        if irq is not None:
            self._line = context.interrupt_line(irq)
        self._seen = context.clock.wall_ns() // SECOND_NS

    def reset(self) -> None:
        """Clear match, load and interrupt; the time goes on."""
        with self.lock:
            self._catch_up()
            super().reset()

    def save(self) -> State:
        """Return the registers, and the second up to which the raw interrupt is right."""
        with self.lock:
            self._catch_up()
            self._settle()  # the state is as of now, and so are the line and the timer
            registers = self.registers
            return {
                "offset": self._offset,
                "seen": self._seen,
                "match": registers["MR"],
                "load": registers["LR"],
                "mask": registers["IMSC"],
                "raw": registers["RIS"],
            }

    def restore(self, state: State) -> None:
        """Take over a state; a match in the time that has passed since then is noticed now."""
        reader = StateReader(self.name, state)
        offset = reader.integer("offset", maximum=COUNTER_MASK)
        seen = reader.integer("seen", maximum=(1 << 63) - 1)
        match = reader.integer("match", maximum=COUNTER_MASK)
        load = reader.integer("load", maximum=COUNTER_MASK)
        mask = reader.integer("mask", maximum=INTERRUPT)
        raw = reader.integer("raw", maximum=INTERRUPT)
        reader.finish()
        with self.lock:
            self._offset, self._seen = offset, seen
            self.registers.update(MR=match, LR=load, IMSC=mask, RIS=raw)
            self._catch_up()
            self._settle()

    def close(self) -> None:
        """Cancel the timer, and let go of the line."""
        with self.lock:
            if self._timer is not None:
                self._timer.cancel()
            if self._line is not None:
                self._line.set_level(asserted=False)
                self._line = None

    def read_dr(self) -> int:
        """DR."""
        self._catch_up()
        return self._counter(self._seen)

    def peek_dr(self) -> int:
        """DR: the counter, though nobody has looked yet."""
        return self._counter(self._now())

    def poke_dr(self, value: int) -> None:
        """DR. It counts on from there; that it may be the match is not noticed."""
        self._catch_up()
        self._offset = (value - self._seen) & COUNTER_MASK

    def write_mr(self, value: int) -> None:
        """MR."""
        self.poke_mr(value)
        self._compare()
        self._settle()

    def poke_mr(self, value: int) -> None:
        """MR. Up to now the old one counted."""
        self._catch_up()
        self.registers["MR"] = value

    def write_lr(self, value: int) -> None:
        """LR."""
        self.registers["LR"] = value
        self.poke_dr(value)
        self._compare()
        self._settle()

    def write_imsc(self, value: int) -> None:
        """IMSC."""
        self._catch_up()
        self.registers["IMSC"] = value
        self._settle()

    def read_ris(self) -> int:
        """RIS."""
        self._catch_up()
        return self.registers["RIS"]

    def peek_ris(self) -> int:
        """RIS: also if the match was passed, and nobody has looked yet."""
        return INTERRUPT if self._passes_match(self._now()) else self.registers["RIS"]

    def poke_ris(self, value: int) -> None:
        """RIS."""
        self._catch_up()
        self.registers["RIS"] = value

    def read_mis(self) -> int:
        """MIS."""
        return self.read_ris() & self.registers["IMSC"]

    def peek_mis(self) -> int:
        """MIS."""
        return self.peek_ris() & self.registers["IMSC"]

    def write_icr(self, value: int) -> None:
        """ICR."""
        self._catch_up()
        self.registers["RIS"] &= ~value
        self._settle()

    def registers_changed(self) -> None:
        """Drive the line, and set the timer anew."""
        self._settle()

    def _now(self) -> int:
        return self.context.clock.wall_ns() // SECOND_NS

    def _counter(self, second: int) -> int:
        """What the counter is in a second of the wall clock."""
        return (second + self._offset) & COUNTER_MASK

    def _compare(self) -> None:
        if self._counter(self._seen) == self.registers["MR"]:
            self.registers["RIS"] = INTERRUPT

    def _seconds_to_match(self) -> int:
        """How many seconds after `_seen` the counter arrives at the match, at least 1."""
        return ((self.registers["MR"] - self._counter(self._seen) - 1) & COUNTER_MASK) + 1

    def _passes_match(self, now: int) -> bool:
        """Whether the counter arrives at the match after `_seen`, and by then."""
        return now - self._seen >= self._seconds_to_match()

    def _catch_up(self) -> None:
        """Notice a match in the seconds that have passed since somebody last looked."""
        now = self._now()
        if self._passes_match(now):
            self.registers["RIS"] = INTERRUPT
        self._seen = now

    def _settle(self) -> None:
        """Drive the line; have a timer look again by the time that it could be asserted."""
        if self._line is None:
            return
        raw, mask = self.registers["RIS"], self.registers["IMSC"]
        self._line.set_level(asserted=bool(raw & mask))
        if raw or not mask:
            return
        clock = self.context.clock
        seconds = min(self._seconds_to_match(), LOOK_AGAIN_SECONDS)
        wait_ns = (self._seen + seconds) * SECOND_NS - clock.wall_ns()
        deadline_ns = clock.now_ns() + max(wait_ns, 0)
        # A timer that runs too early does no harm, so an earlier one may stay.
        if self._timer is None or deadline_ns < self._timer.deadline_ns:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = clock.call_at(deadline_ns, self._on_timer)

    def _on_timer(self) -> None:
        with self.lock:
            self._timer = None
            self._catch_up()
            self._settle()
