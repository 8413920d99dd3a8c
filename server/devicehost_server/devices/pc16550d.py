"""The 16550A as a chip: registers, FIFOs and interrupts, after National Semiconductor's PC16550D.

Section and table numbers are those of the data sheet's edition of June 1995. The chip does
no input or output, knows no time and takes no lock. Its owner lets it transmit, gives it
characters as it has room for them, and looks at `interrupt` after each access:

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

from collections import deque
from collections.abc import Callable

from devicehost_server.devices.base import State
from devicehost_server.devices.state import StateReader

# Registers, by offset (table II). With DLAB set, offsets 0 and 1 are the divisor latch.
RBR = THR = DLL = 0  # receiver buffer (read), transmitter holding (write); divisor, low
IER = DLM = 1  # interrupt enable; divisor, high
IIR = FCR = 2  # interrupt identification (read), FIFO control (write)
LCR = 3  # line control
MCR = 4  # modem control
LSR = 5  # line status; read-only
MSR = 6  # modem status; read-only
SCR = 7  # scratchpad, 8.10
REGISTER_COUNT = 8

# IER, 8.7
IER_ERBFI = 0x01  # received data, and the time-out
IER_ETBEI = 0x02  # transmitter holding register empty
IER_ELSI = 0x04  # receiver line status
IER_EDSSI = 0x08  # modem status
IER_MASK = 0x0F

# IIR, 8.6 and table IV, by descending priority
IIR_LINE_STATUS = 0x06
IIR_DATA = 0x04  # received data available, or the trigger level reached
IIR_TIMEOUT = 0x0C  # characters in the FIFO that nobody fetches
IIR_THRE = 0x02
IIR_MODEM_STATUS = 0x00
IIR_NONE = 0x01
IIR_FIFOS = 0xC0  # the FIFOs are enabled

# FCR, 8.5
FCR_ENABLE = 0x01
FCR_CLEAR_RX = 0x02  # clears itself
FCR_CLEAR_TX = 0x04  # clears itself
FCR_DMA = 0x08  # how RXRDY and TXRDY behave, which aren't connected
FCR_TRIGGER = 0xC0
FCR_STORED = FCR_ENABLE | FCR_DMA | FCR_TRIGGER
TRIGGER_LEVELS = (1, 4, 8, 14)  # characters, by bits 7 and 6
FIFO_DEPTH = 16

# LCR, 8.1
LCR_WORD_LENGTH = 0x03  # 5 bits and this
LCR_STOP = 0x04  # two stop bits, or one and a half with 5 data bits
LCR_PARITY = 0x08
LCR_BREAK = 0x40
LCR_DLAB = 0x80

# MCR, 8.8
MCR_DTR = 0x01
MCR_RTS = 0x02
MCR_OUT1 = 0x04
MCR_OUT2 = 0x08
MCR_LOOP = 0x10
MCR_MASK = 0x1F

# LSR, 8.4
LSR_DR = 0x01  # data ready
LSR_OE = 0x02  # overrun
LSR_PE = 0x04  # parity
LSR_FE = 0x08  # framing
LSR_BI = 0x10  # break
LSR_THRE = 0x20  # holding register, or transmitter FIFO, empty
LSR_TEMT = 0x40  # shift register empty as well
LSR_FIFO_ERROR = 0x80  # a character in the FIFO has an error
LSR_CHARACTER_ERRORS = LSR_PE | LSR_FE | LSR_BI
LSR_ERRORS = LSR_OE | LSR_CHARACTER_ERRORS

# MSR, 8.9: an input in bits 7:4, and its change in bits 3:0
MSR_DCTS = 0x01
MSR_DDSR = 0x02
MSR_TERI = 0x04  # RI went from on to off
MSR_DDCD = 0x08
MSR_CTS = 0x10
MSR_DSR = 0x20
MSR_RI = 0x40
MSR_DCD = 0x80
MSR_DELTAS = 0x0F
MSR_INPUTS = 0xF0

DIVISOR_AT_POWER_ON = 12  # 9600 baud from 1.8432 MHz; the data sheet leaves it open

_INTEGERS = (  # of a saved state, and the greatest value of each, which is its mask as well
    ("ier", IER_MASK),
    ("lcr", 0xFF),
    ("mcr", MCR_MASK),
    ("scratch", 0xFF),
    ("divisor", 0xFFFF),
    ("buffer", 0xFF),
    ("line_errors", LSR_ERRORS),
)


class Pc16550d:
    """The chip. `interrupt` may change with every call, but for properties.

    Attributes:
        active: set whenever a character was received or read: the time-out begins anew.
            The owner clears it.
        dropped: how many characters were written to a full transmitter.
        overruns: how many were received by a full receiver.
    """

    def __init__(self) -> None:
        self.active = False
        self.dropped = 0
        self.overruns = 0
        self._inputs = 0  # of the modem, outside
        self._readers: tuple[Callable[[], int], ...] = (
            self._read_data,
            self._read_ier,
            self._read_iir,
            lambda: self._lcr,
            lambda: self._mcr,
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
        self._ier = self._lcr = self._mcr = self._scratch = 0
        self._divisor = DIVISOR_AT_POWER_ON
        self._buffer = 0  # the character that was read last
        self._rx: deque[int] = deque()  # characters; LSR bits of those with errors in 15:8
        self._rx_errors = 0  # how many have errors
        self._tx = bytearray()
        self._line_errors = 0  # bits 4:1 of LSR
        self._modem = self._inputs  # bits 7:4 of MSR
        self._deltas = 0  # bits 3:0 of MSR
        self._thre_pending = False
        self._timeout_pending = False
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
    def unread(self) -> bool:
        """Whether the receiver FIFO, if it is enabled, holds a character: what times out."""
        return bool(self._rx) and self._fcr & FCR_ENABLE != 0

    @property
    def room(self) -> int:
        """How many characters `receive` takes. In loopback the input is disconnected: none."""
        return 0 if self._mcr & MCR_LOOP else self._depth - len(self._rx)

    @property
    def out2(self) -> bool:
        """Whether the pin OUT2 is on. In loopback it is off, whatever the bit."""
        return self._mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2

    @property
    def timeout_clocks(self) -> int:
        """How long the time-out of the receiver FIFO is: four characters, in input clocks."""
        half_bits = 2 * (1 + 5 + (self._lcr & LCR_WORD_LENGTH) + 1)  # start, data, stop
        if self._lcr & LCR_PARITY:
            half_bits += 2
        if self._lcr & LCR_STOP:
            half_bits += 2 if self._lcr & LCR_WORD_LENGTH else 1
        return 4 * half_bits * 8 * self._divisor  # 16 for a bit: 8.3

    def interrupt(self) -> int:
        """Return the pending interrupt of the highest priority, as IIR tells it: table IV."""
        ier = self._ier
        if ier & IER_ELSI and self._line_errors:
            return IIR_LINE_STATUS
        if ier & IER_ERBFI:
            if len(self._rx) >= self._trigger:
                return IIR_DATA
            if self._timeout_pending:
                return IIR_TIMEOUT
        if ier & IER_ETBEI and self._thre_pending:
            return IIR_THRE
        if ier & IER_EDSSI and self._deltas:
            return IIR_MODEM_STATUS
        return IIR_NONE

    def transmit(self, send: Callable[[bytearray], int]) -> None:
        """Send what waits, by `send`, which returns how many characters it took.

        Once none is left, THRE is set. In loopback they are received instead.
        """
        if self._mcr & MCR_LOOP:
            if not self._spacing:
                for character in self._tx:
                    self._shift_in(character)
            self._tx.clear()
        else:
            del self._tx[: send(self._tx)]
        self._thre_pending = not self._tx

    def receive(self, characters: bytes) -> None:
        """Receive `characters`, at most `room` of them."""
        self._rx.extend(characters)
        self.active = True

    def receive_break(self) -> None:
        """Receive a break: a zero with an error, whether there is room or not."""
        if not self._mcr & MCR_LOOP:
            self._shift_in(0, LSR_BI)

    def time_out(self) -> None:
        """Nothing was received or read for the time of a time-out: 8.11, A."""
        self._timeout_pending = self.unread

    def set_inputs(self, inputs: int) -> None:
        """Set the modem inputs: bits 7:4 of MSR."""
        self._inputs = inputs
        self._sense_modem()

    # Registers.

    def _read_data(self) -> int:
        """RBR: the oldest character, or if there is none the one before. Or DLL."""
        if self._lcr & LCR_DLAB:
            return self._divisor & 0xFF
        self._timeout_pending = False
        if self._rx:
            self._buffer = self._rx.popleft()
            self._reveal_errors()
            self.active = True
        return self._buffer

    def _read_ier(self) -> int:
        return self._divisor >> 8 if self._lcr & LCR_DLAB else self._ier

    def _read_iir(self) -> int:
        """IIR. That it tells THRE is what ends the THRE interrupt."""
        interrupt = self.interrupt()
        if interrupt == IIR_THRE:
            self._thre_pending = False
        return interrupt | IIR_FIFOS if self._fcr & FCR_ENABLE else interrupt

    def _read_lsr(self) -> int:
        """LSR. Errors end with it."""
        status = self._line_errors
        self._line_errors = 0
        if self._fcr & FCR_ENABLE and (self._rx_errors or status & LSR_CHARACTER_ERRORS):
            status |= LSR_FIFO_ERROR
        if self._rx:
            status |= LSR_DR
        if not self._tx:
            status |= LSR_THRE | LSR_TEMT
        return status

    def _read_msr(self) -> int:
        """MSR. Changes end with it."""
        status = self._modem | self._deltas
        self._deltas = 0
        return status

    def _write_data(self, value: int) -> None:
        """THR, or DLL."""
        if self._lcr & LCR_DLAB:
            self._divisor = self._divisor & 0xFF00 | value
            return
        self._thre_pending = False
        if len(self._tx) < self._depth:
            self._tx.append(value)
        else:
            self.dropped += 1

    def _write_ier(self, value: int) -> None:
        """IER, or DLM. To enable the THRE interrupt while THRE is set causes one."""
        if self._lcr & LCR_DLAB:
            self._divisor = value << 8 | self._divisor & 0xFF
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
            self._rx.clear()
            self._rx_errors = 0
            self._timeout_pending = False
        if changed or (value & FCR_CLEAR_TX and self._tx):
            self._tx.clear()
            self._thre_pending = True  # at once after a change: 8.11, B
        self._set_fcr(value & FCR_STORED)

    def _write_lcr(self, value: int) -> None:
        self._lcr = value
        self._loop_break()

    def _write_mcr(self, value: int) -> None:
        self._mcr = value & MCR_MASK
        self._loop_break()
        self._sense_modem()

    def _write_scratch(self, value: int) -> None:
        self._scratch = value

    # Inside.

    def _set_fcr(self, fcr: int) -> None:
        self._fcr = fcr
        fifos = fcr & FCR_ENABLE
        self._depth = FIFO_DEPTH if fifos else 1
        self._trigger = TRIGGER_LEVELS[fcr >> 6] if fifos else 1

    def _shift_in(self, character: int, errors: int = 0) -> None:
        """Receive a character that can't be held back."""
        if len(self._rx) == self._depth:
            self._line_errors |= LSR_OE
            self.overruns += 1
            if self._fcr & FCR_ENABLE:
                return  # the FIFO keeps what it has
            self._rx.clear()  # the buffer register doesn't
        self._rx.append(character | errors << 8)
        self._rx_errors += bool(errors)
        self._reveal_errors()
        self.active = True

    def _reveal_errors(self) -> None:
        """Show the errors of the oldest character in LSR, since it is at the top now."""
        if self._rx_errors and self._rx and self._rx[0] > 0xFF:  # noqa: PLR2004 # has errors
            self._line_errors |= self._rx[0] >> 8
            self._rx[0] &= 0xFF
            self._rx_errors -= 1

    def _loop_break(self) -> None:
        """Receive one zero with an error when a break in loopback begins: LSR, bit 4."""
        spacing = bool(self._mcr & MCR_LOOP and self._lcr & LCR_BREAK)
        if spacing and not self._spacing:
            self._shift_in(0, LSR_BI)
        self._spacing = spacing

    def _sense_modem(self) -> None:
        """Note the modem inputs, and what has changed of them."""
        inputs, mcr = self._inputs, self._mcr
        if mcr & MCR_LOOP:  # the outputs are connected to them: DTR to DSR, and so on
            inputs = (
                (MSR_DSR if mcr & MCR_DTR else 0)
                | (MSR_CTS if mcr & MCR_RTS else 0)
                | (MSR_RI if mcr & MCR_OUT1 else 0)
                | (MSR_DCD if mcr & MCR_OUT2 else 0)
            )
        changed = inputs ^ self._modem
        self._deltas |= (changed & ~MSR_RI) >> 4
        if changed & self._modem & MSR_RI:
            self._deltas |= MSR_TERI
        self._modem = inputs

    # State.

    def save(self) -> State:
        """Return the registers, FIFOs and pending interrupts.

        `rx` are the characters of the receiver, and `rx_errors` the LSR bits of each.
        """
        return {
            **{field: getattr(self, f"_{field}") for field, _ in _INTEGERS},
            "fcr": self._fcr,
            "msr": self._modem | self._deltas,
            "thre_pending": self._thre_pending,
            "timeout_pending": self._timeout_pending,
            "rx": bytes(entry & 0xFF for entry in self._rx).hex(),
            "rx_errors": bytes(entry >> 8 for entry in self._rx).hex(),
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
        msr = reader.integer("msr", maximum=MSR_INPUTS | MSR_DELTAS)
        chip._modem, chip._deltas = msr & MSR_INPUTS, msr & MSR_DELTAS
        chip._thre_pending = reader.boolean("thre_pending")
        chip._timeout_pending = reader.boolean("timeout_pending")
        rx = reader.octets("rx", size_max=chip._depth)
        rx_errors = reader.octets("rx_errors", size_min=len(rx), size_max=len(rx))
        for character, errors in zip(rx, rx_errors, strict=True):
            chip._rx.append(character | (errors & LSR_CHARACTER_ERRORS) << 8)
            chip._rx_errors += bool(errors & LSR_CHARACTER_ERRORS)
        chip._reveal_errors()
        chip._tx += reader.octets("tx", size_max=chip._depth)
        chip._spacing = bool(chip._mcr & MCR_LOOP and chip._lcr & LCR_BREAK)
        return chip


def _ignore(_value: int) -> None:
    """Write LSR or MSR: only the factory does."""
