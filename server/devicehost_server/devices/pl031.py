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

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from devicehost_server.devices.base import Device, DeviceContext, State
from devicehost_server.devices.config import option
from devicehost_server.devices.state import StateReader
from devicehost_server.model.clock import Timer
from devicehost_server.model.device_io import ReadableBuffer, WritableBuffer
from devicehost_server.model.interrupts import InterruptLine
from devicehost_server.model.resources import (
    LegacyIrqConstraint,
    MmioAddressConstraint,
    ResourceConstraint,
)

SIZE = 0x1000

# Registers (DDI 0224, "Summary of RTC registers"), by offset.
DR = 0x000  # data: the counter, in seconds; read-only
MR = 0x004  # match: interrupt when the counter gets here
LR = 0x008  # load: sets the counter
CR = 0x00C  # control: bit 0 is set while the clock runs
IMSC = 0x010  # interrupt mask: bit 0 enables the interrupt
RIS = 0x014  # raw interrupt status: bit 0; read-only
MIS = 0x018  # masked interrupt status: bit 0, RIS and IMSC; read-only
ICR = 0x01C  # interrupt clear: writing 1 to bit 0 clears RIS; write-only

INTERRUPT = 0x01
CR_ENABLED = 0x01

ID_BASE = 0xFE0
IDS = bytes.fromhex("31100400 0df005b1")
"""PeriphID0 to 3 (part 0x031, designer 0x41, revision 0) and PCellID0 to 3, one a word."""

WORD = 4
COUNTER_MASK = 0xFFFF_FFFF
SECOND_NS = 1_000_000_000

LOOK_AGAIN_SECONDS = 60
"""The longest that a timer is set for: the wall clock may be stepped meanwhile."""


@dataclass(frozen=True, slots=True)
class Pl031Config:
    """Where it is, and how it interrupts."""

    base: int | None = option(None, "guest-physical address; none to be given one", minimum=0)
    irq: int | None = option(None, "legacy IRQ; none to have no interrupt", minimum=0)


class Pl031(Device[Pl031Config]):
    """ARM PrimeCell Real Time Clock PL031."""

    type_name = "pl031"
    config_type = Pl031Config

    _line: InterruptLine | None = None
    _timer: Timer | None = None

    def __init__(self, config: Pl031Config) -> None:
        super().__init__(config)
        self._offset = 0  # from the wall clock's seconds to the counter, modulo 2**32
        self._seen = 0  # the wall clock's second up to which matches have been noticed
        self._match = self._load = self._mask = self._raw = 0
        self._readers: dict[int, Callable[[], int]] = {
            DR: self._counter,
            MR: lambda: self._match,
            LR: lambda: self._load,
            CR: lambda: CR_ENABLED,
            IMSC: lambda: self._mask,
            RIS: lambda: self._raw,
            MIS: lambda: self._raw & self._mask,
        }

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

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:  # noqa: ARG002 # one range
        """Fill `data` with the bytes of the registers that it covers."""
        skipped = offset % WORD
        if not skipped and len(data) == WORD:
            data[:] = self._read_register(offset).to_bytes(WORD, "little")
            return
        size = len(data)
        words = range(offset - skipped, offset + size, WORD)
        octets = b"".join(self._read_register(word).to_bytes(WORD, "little") for word in words)
        data[:] = octets[skipped : skipped + size]

    def write(self, base: int, offset: int, data: ReadableBuffer) -> None:  # noqa: ARG002 # one range
        """Write the registers that `data` covers whole."""
        last_word = len(data) - WORD
        for at in range(-offset % WORD, last_word + 1, WORD):
            self._write_register(offset + at, int.from_bytes(data[at : at + WORD], "little"))

    def reset(self) -> None:
        """Clear match, load and interrupt; the time goes on."""
        with self.lock:
            self._catch_up()
            self._match = self._load = self._mask = self._raw = 0
            self._settle()

    def save(self) -> State:
        """Return the registers, and the second up to which the raw interrupt is right."""
        with self.lock:
            self._catch_up()
            return {
                "offset": self._offset,
                "seen": self._seen,
                "match": self._match,
                "load": self._load,
                "mask": self._mask,
                "raw": self._raw,
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
            self._match, self._load, self._mask, self._raw = match, load, mask, raw
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

    def _read_register(self, offset: int) -> int:
        self._catch_up()
        reader = self._readers.get(offset)
        if reader is not None:
            return reader()
        return IDS[(offset - ID_BASE) // WORD] if offset >= ID_BASE else 0

    def _write_register(self, offset: int, value: int) -> None:
        self._catch_up()
        if offset == MR:
            self._match = value
            self._compare()
        elif offset == LR:
            self._load = value
            self._offset = (value - self._seen) & COUNTER_MASK
            self._compare()
        elif offset == IMSC:
            self._mask = value & INTERRUPT
        elif offset == ICR:
            self._raw &= ~value
        else:
            return  # read-only, or reserved
        self._settle()

    def _counter(self) -> int:
        return (self._seen + self._offset) & COUNTER_MASK

    def _compare(self) -> None:
        if self._counter() == self._match:
            self._raw = INTERRUPT

    def _seconds_to_match(self) -> int:
        """How many seconds after `_seen` the counter arrives at the match, at least 1."""
        return ((self._match - self._counter() - 1) & COUNTER_MASK) + 1

    def _catch_up(self) -> None:
        """Notice a match in the seconds that have passed since somebody last looked."""
        now = self.context.clock.wall_ns() // SECOND_NS
        if now - self._seen >= self._seconds_to_match():
            self._raw = INTERRUPT
        self._seen = now

    def _settle(self) -> None:
        """Drive the line; have a timer look again by the time that it could be asserted."""
        if self._line is None:
            return
        self._line.set_level(asserted=bool(self._raw & self._mask))
        if self._raw or not self._mask:
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
