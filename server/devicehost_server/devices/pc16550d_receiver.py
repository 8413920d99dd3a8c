"""The receiver of a 16550A: its FIFO or buffer register, and what errors are in it.

A character with an error shows it in the line status once it is the oldest (PC16550D data
sheet, 8.4). Without FIFOs there is room for one character, and the next one replaces it;
with FIFOs, what comes while they are full is lost (8.4, bit 1).
"""

from __future__ import annotations

from collections import deque

from devicehost_server.devices.base import State
from devicehost_server.devices.pc16550d_registers import (
    FCR_ENABLE,
    FIFO_DEPTH,
    LSR_CHARACTER_ERRORS,
    LSR_DR,
    LSR_ERRORS,
    LSR_FIFO_ERROR,
    LSR_OE,
    TRIGGER_LEVELS,
)
from devicehost_server.devices.state import StateReader

_CHARACTER = 0xFF


class Receiver:
    """What was received and not fetched yet.

    Attributes:
        active: set whenever a character was received or fetched: the time-out begins anew.
            The owner of the chip clears it.
        overruns: how many characters were lost since there was no room.
        errors: bits 4:1 of the line status.
        timed_out: the time-out interrupt is pending.
        depth: how many characters there is room for.
    """

    def __init__(self) -> None:
        self.active = False
        self.overruns = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything but the counter."""
        self._fifo: deque[int] = deque()  # characters; LSR bits of those with errors in 15:8
        self._faulty = 0  # how many have errors
        self._last = 0  # the character that was fetched last
        self.errors = 0
        self.timed_out = False
        self.configure(0)

    def configure(self, fcr: int) -> None:
        """Obey the FIFO control register; what there is no room for is dropped."""
        self._buffered = bool(fcr & FCR_ENABLE)
        self.depth = FIFO_DEPTH if self._buffered else 1
        self._trigger = TRIGGER_LEVELS[fcr >> 6] if self._buffered else 1
        while len(self._fifo) > self.depth:
            self._faulty -= self._fifo.pop() > _CHARACTER

    def clear(self) -> None:
        """Empty the FIFO."""
        self._fifo.clear()
        self._faulty = 0
        self.timed_out = False

    @property
    def room(self) -> int:
        """How many characters `receive` takes."""
        return self.depth - len(self._fifo)

    @property
    def triggered(self) -> bool:
        """Whether there are as many characters as interrupt."""
        return len(self._fifo) >= self._trigger

    @property
    def unread(self) -> bool:
        """Whether the FIFO, if it is enabled, holds a character: what times out."""
        return self._buffered and bool(self._fifo)

    def receive(self, characters: bytes) -> None:
        """Receive characters without errors, at most `room` of them."""
        self._fifo.extend(characters)
        self.active = True

    def shift_in(self, character: int, errors: int = 0) -> None:
        """Receive a character that can't be held back."""
        if len(self._fifo) == self.depth:
            self.errors |= LSR_OE
            self.overruns += 1
            if self._buffered:
                return  # the FIFO keeps what it has
            self._fifo.clear()  # the buffer register doesn't
        self._fifo.append(character | errors << 8)
        self._faulty += bool(errors)
        self._reveal_errors()
        self.active = True

    def fetch(self) -> int:
        """Return the oldest character, or if there is none the one before."""
        self.timed_out = False
        if self._fifo:
            self._last = self._fifo.popleft()
            self._reveal_errors()
            self.active = True
        return self._last

    def peek(self) -> int:
        """Return what `fetch` would."""
        return self._fifo[0] & _CHARACTER if self._fifo else self._last

    def poke(self, character: int) -> None:
        """Replace what `fetch` would return."""
        if self._fifo:
            self._fifo[0] = character
        else:
            self._last = character

    def status(self) -> int:
        """Return the receiver's bits of the line status."""
        status = self.errors
        if self._buffered and (self._faulty or status & LSR_CHARACTER_ERRORS):
            status |= LSR_FIFO_ERROR
        return status | LSR_DR if self._fifo else status

    def save(self) -> State:
        """Return the state: `rx` are the characters, and `rx_errors` the LSR bits of each."""
        return {
            "buffer": self._last,
            "line_errors": self.errors,
            "timeout_pending": self.timed_out,
            "rx": bytes(entry & _CHARACTER for entry in self._fifo).hex(),
            "rx_errors": bytes(entry >> 8 for entry in self._fifo).hex(),
        }

    def restore(self, reader: StateReader) -> None:
        """Take over a state; for a receiver that is configured, and not in use yet.

        Raises:
            BadState: a field doesn't fit.
        """
        self._last = reader.integer("buffer", maximum=_CHARACTER)
        self.errors = reader.integer("line_errors", maximum=LSR_ERRORS) & LSR_ERRORS
        self.timed_out = reader.boolean("timeout_pending")
        rx = reader.octets("rx", size_max=self.depth)
        rx_errors = reader.octets("rx_errors", size_min=len(rx), size_max=len(rx))
        for character, errors in zip(rx, rx_errors, strict=True):
            self._fifo.append(character | (errors & LSR_CHARACTER_ERRORS) << 8)
            self._faulty += bool(errors & LSR_CHARACTER_ERRORS)
        self._reveal_errors()

    def _reveal_errors(self) -> None:
        """Show the errors of the oldest character in the status, since it is at the top now."""
        if self._faulty and self._fifo and self._fifo[0] > _CHARACTER:
            self.errors |= self._fifo[0] >> 8
            self._fifo[0] &= _CHARACTER
            self._faulty -= 1
