"""The 16550A as a chip: registers, FIFOs and interrupts, after National Semiconductor's PC16550D.

Section and table numbers are those of the data sheet's edition of June 1995; the registers are
in `pc16550d_registers`. The chip does no input or output, knows no time and takes no lock.
Its owner lets it transmit, gives it characters as it has room for them, and looks at
`interrupt` after each access:

    >>> from devicehost_server.devices.pc16550d_registers import LSR, THR
    >>> chip = Pc16550d()
    >>> chip.write(THR, 0x41)
    >>> chip.read(LSR) & LSR_THRE  # until it has been sent
    0
    >>> sent = bytearray()
    >>> chip.transmit(lambda characters: sent.extend(characters) or len(characters))
    >>> sent, chip.read(LSR) & LSR_THRE
    (bytearray(b'A'), 32)

What it does otherwise than the data sheet: word length, parity and stop bits count only for
the character time; all eight bits are carried whatever the length, since little guests never
set it. There are no parity or framing errors. A character for a full transmitter is dropped
and counted.
"""

from __future__ import annotations

from collections.abc import Callable

from devicehost_server.devices.base import State
from devicehost_server.devices.pc16550d_modem import Modem
from devicehost_server.devices.pc16550d_receiver import Receiver
from devicehost_server.devices.pc16550d_registers import (
    DIVISOR_AT_POWER_ON,
    FCR_CLEAR_RX,
    FCR_CLEAR_TX,
    FCR_ENABLE,
    FCR_STORED,
    IER_EDSSI,
    IER_ELSI,
    IER_ERBFI,
    IER_ETBEI,
    IER_MASK,
    IIR_DATA,
    IIR_FIFOS,
    IIR_LINE_STATUS,
    IIR_MODEM_STATUS,
    IIR_NONE,
    IIR_THRE,
    IIR_TIMEOUT,
    LCR_BREAK,
    LCR_DLAB,
    LCR_PARITY,
    LCR_STOP,
    LCR_WORD_LENGTH,
    LSR_BI,
    LSR_ERRORS,
    LSR_TEMT,
    LSR_THRE,
    MCR_MASK,
    MSR_DELTAS,
    MSR_INPUTS,
    WORD_LENGTH_MIN,
)
from devicehost_server.devices.peeking import View, Views, attribute
from devicehost_server.devices.state import StateReader

_INTEGERS = (  # of a saved state, and the greatest value of each, which is its mask as well
    ("ier", IER_MASK),
    ("lcr", 0xFF),
    ("scratch", 0xFF),
    ("divisor", 0xFFFF),
)


class Pc16550d:
    """The chip. `interrupt` may change with every call, but for properties.

    Attributes:
        modem: the side of the modem.
        receiver: the side that the owner gives characters to.
        dropped: how many characters were written to a full transmitter.
    """

    def __init__(self) -> None:
        self.modem = Modem()
        self.receiver = Receiver()
        self.dropped = 0
        self._readers: tuple[Callable[[], int], ...] = (
            self._read_data,
            self._read_ier,
            self._read_iir,
            lambda: self._lcr,
            lambda: self.modem.control,
            self._read_lsr,
            self._read_msr,
            lambda: self._scratch,
        )
        self._writers: tuple[Callable[[int], None], ...] = (
            self._write_data,
            self._write_ier,
            self._write_fcr,
            self._write_lcr,
            self._write_mcr,
            _ignore,
            _ignore,
            self._write_scratch,
        )
        self.reset()

    def reset(self) -> None:
        """Set the registers as a master reset does (table I), and those that it leaves alone."""
        self._ier = self._lcr = self._scratch = 0
        self._divisor = DIVISOR_AT_POWER_ON
        self.modem.reset()
        self.receiver.reset()
        self._tx = bytearray()
        self._thre_pending = False
        self._spacing = False  # a break goes around
        self._set_fcr(0)

    # For the owner.

    def read(self, register: int) -> int:
        """Read the register at offset `register`."""
        return self._readers[register]()

    def write(self, register: int, value: int) -> None:
        """Write `value`, a byte, to the register at offset `register`."""
        self._writers[register](value)

    @property
    def unsent(self) -> bool:
        """Whether `transmit` has something to do."""
        return bool(self._tx)

    @property
    def room(self) -> int:
        """How many characters `receive` takes. In loopback the input is disconnected: none."""
        return 0 if self.modem.loop else self.receiver.room

    @property
    def timeout_clocks(self) -> int:
        """How long the time-out of the receiver FIFO is: four characters, in input clocks."""
        half_bits = 2 * (
            1 + WORD_LENGTH_MIN + (self._lcr & LCR_WORD_LENGTH) + 1
        )  # start, data, stop
        if self._lcr & LCR_PARITY:
            half_bits += 2
        if self._lcr & LCR_STOP:
            half_bits += 2 if self._lcr & LCR_WORD_LENGTH else 1
        return 4 * half_bits * 8 * self._divisor  # 16 for a bit: 8.3

    def interrupt(self) -> int:
        """Return the pending interrupt of the highest priority, as IIR tells it: table IV."""
        ier, receiver = self._ier, self.receiver
        if ier & IER_ELSI and receiver.errors:
            return IIR_LINE_STATUS
        if ier & IER_ERBFI:
            if receiver.triggered:
                return IIR_DATA
            if receiver.timed_out:
                return IIR_TIMEOUT
        if ier & IER_ETBEI and self._thre_pending:
            return IIR_THRE
        if ier & IER_EDSSI and self.modem.deltas:
            return IIR_MODEM_STATUS
        return IIR_NONE

    def transmit(self, send: Callable[[bytearray], int]) -> None:
        """Send what waits, by `send`, which returns how many characters it took.

        Once none is left, THRE is set. In loopback they are received instead.
        """
        if self.modem.loop:
            if not self._spacing:
                for character in self._tx:
                    self.receiver.shift_in(character)
            self._tx.clear()
        else:
            del self._tx[: send(self._tx)]
        self._thre_pending = not self._tx

    def receive_break(self) -> None:
        """Receive a break: a zero with an error, whether there is room or not."""
        if not self.modem.loop:
            self.receiver.shift_in(0, LSR_BI)

    def time_out(self) -> None:
        """Nothing was received or read for the time of a time-out: 8.11, A."""
        self.receiver.timed_out = self.receiver.unread

    def set_inputs(self, inputs: int) -> None:
        """Set the modem inputs: bits 7:4 of MSR."""
        self.modem.inputs = inputs
        self.modem.sense()

    # Registers.

    def _read_data(self) -> int:
        """RBR: the oldest character, or if there is none the one before. Or DLL."""
        if self._lcr & LCR_DLAB:
            return self._divisor & 0xFF
        return self.receiver.fetch()

    def _read_ier(self) -> int:
        return self._divisor >> 8 if self._lcr & LCR_DLAB else self._ier

    def _read_iir(self) -> int:
        """IIR. That it tells THRE is what ends the THRE interrupt."""
        identification = self._identification()
        if identification & ~IIR_FIFOS == IIR_THRE:
            self._thre_pending = False
        return identification

    def _identification(self) -> int:
        interrupt = self.interrupt()
        return interrupt | IIR_FIFOS if self._fcr & FCR_ENABLE else interrupt

    def _read_lsr(self) -> int:
        """LSR. Errors end with it."""
        status = self._line_status()
        self.receiver.errors = 0
        return status

    def _line_status(self) -> int:
        status = self.receiver.status()
        return status if self._tx else status | LSR_THRE | LSR_TEMT

    def _read_msr(self) -> int:
        """MSR. Changes end with it."""
        status = self.modem.status
        self.modem.deltas = 0
        return status

    def _write_data(self, value: int) -> None:
        """THR, or DLL."""
        if self._lcr & LCR_DLAB:
            self._set_divisor_low(value)
            return
        self._thre_pending = False
        if len(self._tx) < self.receiver.depth:
            self._tx.append(value)
        else:
            self.dropped += 1

    def _write_ier(self, value: int) -> None:
        """IER, or DLM. To enable the THRE interrupt while THRE is set causes one."""
        if self._lcr & LCR_DLAB:
            self._set_divisor_high(value)
            return
        enabled = value & ~self._ier
        self._ier = value & IER_MASK
        if enabled & IER_ETBEI and not self._tx:
            self._thre_pending = True

    def _write_fcr(self, value: int) -> None:
        """FCR. Without the enable bit the others mean nothing; a change of it empties both."""
        changed = (value ^ self._fcr) & FCR_ENABLE
        if not value & FCR_ENABLE:
            value = 0
        if changed or value & FCR_CLEAR_RX:
            self.receiver.clear()
        if changed or (value & FCR_CLEAR_TX and self._tx):
            self._tx.clear()
            self._thre_pending = True  # at once after a change: 8.11, B
        self._set_fcr(value & FCR_STORED)

    def _write_lcr(self, value: int) -> None:
        self._lcr = value
        self._loop_break()

    def _write_mcr(self, value: int) -> None:
        self.modem.control = value & MCR_MASK
        self._loop_break()
        self.modem.sense()

    def _write_scratch(self, value: int) -> None:
        self._scratch = value

    # Inside.

    def _set_divisor_low(self, value: int) -> None:
        self._divisor = self._divisor & 0xFF00 | value

    def _set_divisor_high(self, value: int) -> None:
        self._divisor = value << 8 | self._divisor & 0xFF

    def _set_fcr(self, fcr: int) -> None:
        self._fcr = fcr
        self.receiver.configure(fcr)

    def _loop_break(self) -> None:
        """Receive one zero with an error when a break in loopback begins: LSR, bit 4."""
        was_spacing = self._spacing
        self._notice_spacing()
        if self._spacing and not was_spacing:
            self.receiver.shift_in(0, LSR_BI)

    def _notice_spacing(self) -> None:
        self._spacing = self.modem.loop and bool(self._lcr & LCR_BREAK)

    # Registers, beside the bus.

    def views(self) -> Views:
        """How to tell and set the registers without an access.

        IIR and the bits of LSR that aren't errors follow from the rest. THR can't be told.
        """
        return {
            "RBR": View(self.receiver.peek, self.receiver.poke),
            "DLL": View(lambda: self._divisor & 0xFF, self._set_divisor_low),
            "DLM": View(lambda: self._divisor >> 8, self._set_divisor_high),
            "IER": attribute(self, "_ier"),
            "IIR": View(self._identification),
            "FCR": View(lambda: self._fcr, self._poke_fcr),
            "LCR": View(lambda: self._lcr, self._poke_lcr),
            "MCR": View(lambda: self.modem.control, self._poke_mcr),
            "LSR": View(self._line_status, self._poke_lsr),
            "MSR": View(lambda: self.modem.status, self.modem.set_status),
            "SCR": attribute(self, "_scratch"),
        }

    def _poke_fcr(self, value: int) -> None:
        """FCR. What there is no place for is dropped."""
        self._set_fcr(value & FCR_STORED if value & FCR_ENABLE else 0)
        del self._tx[self.receiver.depth :]

    def _poke_lcr(self, value: int) -> None:
        """LCR. A break that goes around is not received."""
        self._lcr = value
        self._notice_spacing()

    def _poke_mcr(self, value: int) -> None:
        """MCR. A break that goes around is not received."""
        self.modem.set_control(value)
        self._notice_spacing()

    def _poke_lsr(self, value: int) -> None:
        """LSR: the errors."""
        self.receiver.errors = value & LSR_ERRORS

    # State.

    def save(self) -> State:
        """Return the registers, FIFOs and pending interrupts."""
        return {
            **{field: getattr(self, f"_{field}") for field, _ in _INTEGERS},
            "fcr": self._fcr,
            "mcr": self.modem.control,
            "msr": self.modem.status,
            "thre_pending": self._thre_pending,
            **self.receiver.save(),
            "tx": self._tx.hex(),
        }

    @classmethod
    def restored(cls, reader: StateReader) -> Pc16550d:
        """Return a chip with a saved state; bits that can't be set in it are left out.

        Raises:
            BadState: a field doesn't fit.
        """
        chip = cls()
        for field, maximum in _INTEGERS:
            setattr(chip, f"_{field}", reader.integer(field, maximum=maximum) & maximum)
        chip._set_fcr(reader.integer("fcr", maximum=FCR_STORED) & FCR_STORED)
        chip.modem.control = reader.integer("mcr", maximum=MCR_MASK) & MCR_MASK
        chip.modem.set_status(reader.integer("msr", maximum=MSR_INPUTS | MSR_DELTAS))
        chip._thre_pending = reader.boolean("thre_pending")
        chip.receiver.restore(reader)
        chip._tx += reader.octets("tx", size_max=chip.receiver.depth)
        chip._notice_spacing()
        return chip


def _ignore(_value: int) -> None:
    """Write LSR or MSR: only the factory does."""
