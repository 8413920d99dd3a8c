"""The registers of a PC's real-time clock: their numbers and bits, and as a map what they mean.

Source: Motorola, "MC146818A Real-Time Clock plus RAM (RTC)", Advance Information: "Time,
calendar, and alarm locations", and "Registers". The PC's part of the memory is in `cmos`.
"""

from __future__ import annotations

from dataclasses import replace

from devicehost.registers import Access, Field, OnRead, OnWrite, Register, RegisterMap
from devicehost_server.devices.cmos import CMOS_REGISTERS, CMOS_SIZE, VIA, cmos_byte

INDEX = 0
DATA = 1

SECONDS = 0x00
SECONDS_ALARM = 0x01
MINUTES = 0x02
MINUTES_ALARM = 0x03
HOURS = 0x04
HOURS_ALARM = 0x05
DAY_OF_WEEK = 0x06
DAY = 0x07
MONTH = 0x08
YEAR = 0x09
REG_A = 0x0A
REG_B = 0x0B
REG_C = 0x0C
REG_D = 0x0D
CENTURY = 0x32  # not the chip's: a byte of the PC's

HOURS_PM = 0x80
ALARM_ANY = 0xC0  # an alarm byte from here on matches any value

A_UIP = 0x80
A_DIVIDER = 0x70
A_DIVIDER_32KHZ = 0x20
A_RATE = 0x0F
A_AT_POWER_ON = A_DIVIDER_32KHZ | 6  # 1024 Hz, as a PC's firmware sets it

B_SET = 0x80
B_PIE = 0x40
B_AIE = 0x20
B_UIE = 0x10
B_SQWE = 0x08
B_DM = 0x04
B_24H = 0x02
B_DSE = 0x01
B_FORMAT = B_DM | B_24H

C_IRQF = 0x80
C_PF = 0x40  # each flag has the bit of its enable in register B
C_AF = 0x20
C_UF = 0x10
C_FLAGS = C_PF | C_AF | C_UF

D_VRT = 0x80

TICK_HZ = 32_768

PERIODS = (0, 128, 256, *(4 << n for n in range(13)))
"""Ticks from one periodic flag to the next, by rate: 256, 128, 8192, 4096, ... 2 Hz."""

_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")

_RATES = {
    rate: f"{TICK_HZ // period} Hz" if period else "never" for rate, period in enumerate(PERIODS)
}

_CLOCK_BYTES = (
    cmos_byte("SECONDS", SECONDS, "0 to 59"),
    cmos_byte("SECONDS_ALARM", SECONDS_ALARM, f"as SECONDS; {ALARM_ANY:#x} and up match any"),
    cmos_byte("MINUTES", MINUTES, "0 to 59"),
    cmos_byte("MINUTES_ALARM", MINUTES_ALARM, f"as MINUTES; {ALARM_ANY:#x} and up match any"),
    cmos_byte(
        "HOURS",
        HOURS,
        "the hour",
        Field("PM", HOURS_PM, "afternoon, if hours are from 1 to 12"),
        Field("HOUR", 0xFF & ~HOURS_PM, "0 to 23, or 1 to 12"),
    ),
    cmos_byte("HOURS_ALARM", HOURS_ALARM, f"as HOURS; {ALARM_ANY:#x} and up match any"),
    cmos_byte(
        "DAY_OF_WEEK",
        DAY_OF_WEEK,
        "the day of the week, which only counts days",
        Field("DAY", 0xFF, values=dict(enumerate(_DAYS, 1))),
    ),
    cmos_byte("DAY", DAY, "day of the month, 1 to 31"),
    cmos_byte("MONTH", MONTH, "1 to 12"),
    cmos_byte("YEAR", YEAR, "0 to 99"),
    cmos_byte("CENTURY", CENTURY, "the first two digits of the year"),
)
_CLOCK = tuple(
    # The time goes on from what is written: to write the same again isn't for nothing.
    each if each.name.endswith("_ALARM") else replace(each, on_write=OnWrite.CHANGES)
    for each in _CLOCK_BYTES
)

_CONTROL = (
    cmos_byte(
        "REG_A",
        REG_A,
        "update, divider and rate",
        Field("UIP", A_UIP, "update in progress, or about to be", access=Access.READ_ONLY),
        Field(
            "DV",
            A_DIVIDER,
            "what the divider does: the time base; others hold it",
            {0: "4.194304 MHz", 1: "1.048576 MHz", 2: "32.768 kHz", 6: "reset", 7: "reset"},
        ),
        Field("RS", A_RATE, "how often the periodic flag is set", _RATES),
        reset=A_AT_POWER_ON,
    ),
    cmos_byte(
        "REG_B",
        REG_B,
        "interrupts and format",
        Field("SET", B_SET, "no updates: the program sets the time"),
        Field("PIE", B_PIE, "the periodic flag interrupts"),
        Field("AIE", B_AIE, "the alarm flag interrupts"),
        Field("UIE", B_UIE, "the update-ended flag interrupts"),
        Field("SQWE", B_SQWE, "square wave; no effect"),
        Field("DM", B_DM, "data mode", {0: "BCD", 1: "binary"}),
        Field("H24", B_24H, "hours", {0: "1 to 12", 1: "0 to 23"}),
        Field("DSE", B_DSE, "daylight saving; no effect"),
        reset=B_24H,
    ),
    cmos_byte(
        "REG_C",
        REG_C,
        "what has happened; a read acknowledges the interrupt",
        Field("IRQF", C_IRQF, "a flag is set and enabled: the interrupt line is asserted"),
        Field("PF", C_PF, "periodic"),
        Field("AF", C_AF, "alarm"),
        Field("UF", C_UF, "update ended"),
        access=Access.READ_ONLY,
        reset=0,
        on_read=OnRead.CLEARS,
    ),
    cmos_byte(
        "REG_D",
        REG_D,
        "the battery",
        Field("VRT", D_VRT, "time and memory are valid: the battery is good"),
        access=Access.READ_ONLY,
        reset=D_VRT,
    ),
)


def _unnamed(named: tuple[Register, ...]) -> tuple[Register, ...]:
    """Make a row of each run of bytes that have no name."""
    taken = {each.offset + n for each in named for n in range(each.count)}
    free = [n for n in range(CMOS_SIZE) if n not in taken]
    first = [n for n in free if n - 1 not in free]
    last = [n for n in free if n + 1 not in free]
    return tuple(
        cmos_byte(f"RAM_{begin:02X}", begin, "memory", count=end - begin + 1)
        for begin, end in zip(first, last, strict=True)
    )


_NAMED = (*_CLOCK, *_CONTROL, *CMOS_REGISTERS)

MAP = RegisterMap(
    "mc146818",
    help="real-time clock and CMOS memory of a PC; numbers are binary or BCD, as REG_B says",
    registers=(
        Register(
            VIA.index,
            INDEX,
            access=Access.WRITE_ONLY,
            help="which register DATA is",
            fields=(
                Field("NUMBER", VIA.mask, "its number"),
                Field("NMI", 0x80, "masks the non-maskable interrupt; ignored"),
            ),
        ),
        Register(
            VIA.data,
            DATA,
            reset=None,
            help="the register that INDEX is the number of",
            on_read=OnRead.CHANGES_OTHERS,
        ),
        *_NAMED,
        *_unnamed(_NAMED),
    ),
)
