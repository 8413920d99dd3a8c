"""The registers of the 16550A: their numbers and bits, and as a map what they mean.

Section and table numbers are those of National Semiconductor's PC16550D data sheet, edition
of June 1995. A value that a master reset leaves open is what the chip here starts with.
"""

from __future__ import annotations

from devicehost.registers import Access, Field, OnRead, OnWrite, Register, RegisterMap, When

# Offsets, table II. With DLAB set, the first two are the divisor latch.
RBR = THR = DLL = 0
IER = DLM = 1
IIR = FCR = 2
LCR = 3
MCR = 4
LSR = 5
MSR = 6
SCR = 7
REGISTER_COUNT = 8

IER_ERBFI = 0x01
IER_ETBEI = 0x02
IER_ELSI = 0x04
IER_EDSSI = 0x08

# What IIR tells, by descending priority: table IV.
IIR_ID = 0x0F
IIR_LINE_STATUS = 0x06
IIR_DATA = 0x04
IIR_TIMEOUT = 0x0C
IIR_THRE = 0x02
IIR_MODEM_STATUS = 0x00
IIR_NONE = 0x01
IIR_FIFOS = 0xC0

FCR_ENABLE = 0x01
FCR_CLEAR_RX = 0x02
FCR_CLEAR_TX = 0x04
FCR_DMA = 0x08
FCR_TRIGGER = 0xC0
FCR_STORED = FCR_ENABLE | FCR_DMA | FCR_TRIGGER
TRIGGER_LEVELS = (1, 4, 8, 14)  # characters, by the field
FIFO_DEPTH = 16

LCR_WORD_LENGTH = 0x03
LCR_STOP = 0x04
LCR_PARITY = 0x08
LCR_EVEN = 0x10
LCR_STICK = 0x20
LCR_BREAK = 0x40
LCR_DLAB = 0x80
WORD_LENGTH_MIN = 5  # bits, and so many more as the field says

MCR_DTR = 0x01
MCR_RTS = 0x02
MCR_OUT1 = 0x04
MCR_OUT2 = 0x08
MCR_LOOP = 0x10

LSR_DR = 0x01
LSR_OE = 0x02
LSR_PE = 0x04
LSR_FE = 0x08
LSR_BI = 0x10
LSR_THRE = 0x20
LSR_TEMT = 0x40
LSR_FIFO_ERROR = 0x80
LSR_CHARACTER_ERRORS = LSR_PE | LSR_FE | LSR_BI
LSR_ERRORS = LSR_OE | LSR_CHARACTER_ERRORS

# An input in bits 7:4, and its change in bits 3:0.
MSR_DCTS = 0x01
MSR_DDSR = 0x02
MSR_TERI = 0x04
MSR_DDCD = 0x08
MSR_CTS = 0x10
MSR_DSR = 0x20
MSR_RI = 0x40
MSR_DCD = 0x80
MSR_DELTAS = 0x0F
MSR_INPUTS = 0xF0

DIVISOR_AT_POWER_ON = 12  # 9600 baud from 1.8432 MHz

_DATA = When("LCR", "DLAB", 0)
_DIVISOR = When("LCR", "DLAB", 1)


def _until_read(name: str, mask: int, help: str) -> Field:  # noqa: A002 # as fields have it
    return Field(name, mask, help, on_read=OnRead.CLEARS)


MAP = RegisterMap(
    "pc16550d",
    help="UART with FIFOs",
    registers=(
        Register(
            "RBR",
            RBR,
            access=Access.READ_ONLY,
            help="receiver buffer: the oldest character",
            when=_DATA,
            on_read=OnRead.CHANGES,
        ),
        Register(
            "THR",
            THR,
            access=Access.WRITE_ONLY,
            reset=None,
            help="transmitter holding: a character to send",
            when=_DATA,
        ),
        Register(
            "DLL", DLL, reset=DIVISOR_AT_POWER_ON & 0xFF, help="divisor latch, low", when=_DIVISOR
        ),
        Register(
            "DLM", DLM, reset=DIVISOR_AT_POWER_ON >> 8, help="divisor latch, high", when=_DIVISOR
        ),
        Register(
            "IER",
            IER,
            help="interrupt enable (8.7)",
            when=_DATA,
            fields=(
                Field("ERBFI", IER_ERBFI, "received data, and the time-out"),
                Field("ETBEI", IER_ETBEI, "transmitter holding register empty"),
                Field("ELSI", IER_ELSI, "receiver line status"),
                Field("EDSSI", IER_EDSSI, "modem status"),
            ),
        ),
        Register(
            "IIR",
            IIR,
            access=Access.READ_ONLY,
            reset=IIR_NONE,
            help="interrupt identification (8.6); to be told of THRE ends that interrupt",
            on_read=OnRead.CHANGES,
            fields=(
                Field(
                    "ID",
                    IIR_ID,
                    "the pending interrupt of the highest priority",
                    {
                        IIR_LINE_STATUS: "line status",
                        IIR_DATA: "received data, or the trigger level reached",
                        IIR_TIMEOUT: "time-out: characters in the FIFO that nobody fetches",
                        IIR_THRE: "transmitter holding register empty",
                        IIR_MODEM_STATUS: "modem status",
                        IIR_NONE: "none",
                    },
                ),
                Field("FIFOS", IIR_FIFOS, "the FIFOs are enabled", {0: "disabled", 3: "enabled"}),
            ),
        ),
        Register(
            "FCR",
            FCR,
            access=Access.WRITE_ONLY,
            help="FIFO control (8.5)",
            fields=(
                Field("ENABLE", FCR_ENABLE, "FIFOs enabled; a change empties both"),
                Field("CLEAR_RX", FCR_CLEAR_RX, "empty the receiver", on_write=OnWrite.CLEARS),
                Field("CLEAR_TX", FCR_CLEAR_TX, "empty the transmitter", on_write=OnWrite.CLEARS),
                Field("DMA", FCR_DMA, "mode of RXRDY and TXRDY, which aren't connected"),
                Field(
                    "TRIGGER",
                    FCR_TRIGGER,
                    "how many characters interrupt",
                    {n: f"{level} or more" for n, level in enumerate(TRIGGER_LEVELS)},
                ),
            ),
        ),
        Register(
            "LCR",
            LCR,
            help="line control (8.1)",
            fields=(
                Field(
                    "WLS",
                    LCR_WORD_LENGTH,
                    "word length",
                    {n: f"{WORD_LENGTH_MIN + n} bits" for n in range(4)},
                ),
                Field("STB", LCR_STOP, "two stop bits, or one and a half with 5 data bits"),
                Field("PEN", LCR_PARITY, "parity"),
                Field("EPS", LCR_EVEN, "even parity"),
                Field("STICK", LCR_STICK, "the parity bit is the opposite of EPS"),
                Field("BREAK", LCR_BREAK, "send a break"),
                Field("DLAB", LCR_DLAB, "divisor latch access: at offsets 0 and 1"),
            ),
        ),
        Register(
            "MCR",
            MCR,
            help="modem control (8.8)",
            fields=(
                Field("DTR", MCR_DTR, "data terminal ready"),
                Field("RTS", MCR_RTS, "request to send"),
                Field("OUT1", MCR_OUT1, "output 1"),
                Field("OUT2", MCR_OUT2, "output 2; on a PC it lets the interrupt through"),
                Field("LOOP", MCR_LOOP, "loopback"),
            ),
        ),
        Register(
            "LSR",
            LSR,
            access=Access.READ_ONLY,
            reset=LSR_THRE | LSR_TEMT,
            help="line status (8.4)",
            fields=(
                Field("DR", LSR_DR, "data ready"),
                _until_read("OE", LSR_OE, "overrun"),
                _until_read("PE", LSR_PE, "parity error"),
                _until_read("FE", LSR_FE, "framing error"),
                _until_read("BI", LSR_BI, "break"),
                Field("THRE", LSR_THRE, "holding register, or transmitter FIFO, empty"),
                Field("TEMT", LSR_TEMT, "shift register empty as well"),
                Field("FIFOERR", LSR_FIFO_ERROR, "a character in the FIFO has an error"),
            ),
        ),
        Register(
            "MSR",
            MSR,
            access=Access.READ_ONLY,
            reset=None,
            help="modem status (8.9): the inputs, and what has changed of them",
            fields=(
                _until_read("DCTS", MSR_DCTS, "CTS has changed"),
                _until_read("DDSR", MSR_DDSR, "DSR has changed"),
                _until_read("TERI", MSR_TERI, "RI went from on to off"),
                _until_read("DDCD", MSR_DDCD, "DCD has changed"),
                Field("CTS", MSR_CTS, "clear to send"),
                Field("DSR", MSR_DSR, "data set ready"),
                Field("RI", MSR_RI, "ring indicator"),
                Field("DCD", MSR_DCD, "data carrier detect"),
            ),
        ),
        Register("SCR", SCR, help="scratchpad (8.10): no effect"),
    ),
)

IER_MASK = 0xFF & ~MAP.register("IER").reserved
MCR_MASK = 0xFF & ~MAP.register("MCR").reserved
