"""The registers of a PC's keyboard controller: ports, bits and commands, and what they mean.

After IBM's Personal System/2 Hardware Interface Technical Reference, "Keyboard and
Auxiliary Device Controller (Type 1)". Commands 0xDD and 0xDF are not IBM's; QEMU has them.
"""

from __future__ import annotations

from collections.abc import Mapping

from devicehost.registers import Access, Field, OnRead, Register, RegisterMap

DATA_PORT = 0x60
COMMAND_PORT = 0x64

# "Controller Status Register".
OUTPUT_FULL = 0x01
INPUT_FULL = 0x02
SYSTEM = 0x04
LAST_WRITE_COMMAND = 0x08
NOT_INHIBITED = 0x10
OUTPUT_AUX = 0x20
TIME_OUT = 0x40
PARITY_ERROR = 0x80

# The command byte, which is byte 0 of the controller's memory ("Controller Command Byte").
KEYBOARD_INTERRUPT = 0x01
AUX_INTERRUPT = 0x02
# 0x04 is SYSTEM
KEYBOARD_DISABLED = 0x10
AUX_DISABLED = 0x20
TRANSLATE = 0x40  # the keyboard's set 2 becomes set 1

# The output port ("Output Port Definitions").
NOT_RESET = 0x01
A20 = 0x02
KEYBOARD_IRQ_PIN = 0x10
AUX_IRQ_PIN = 0x20

# "Controller Commands".
READ_MEMORY = range(0x20, 0x40)
WRITE_MEMORY = range(0x60, 0x80)
HAS_PASSWORD = 0xA4
DISABLE_AUX = 0xA7
ENABLE_AUX = 0xA8
TEST_AUX = 0xA9
SELF_TEST = 0xAA
TEST_KEYBOARD = 0xAB
DISABLE_KEYBOARD = 0xAD
ENABLE_KEYBOARD = 0xAE
READ_INPUT_PORT = 0xC0
READ_OUTPUT_PORT = 0xD0
WRITE_OUTPUT_PORT = 0xD1
WRITE_KEYBOARD_BUFFER = 0xD2
WRITE_AUX_BUFFER = 0xD3
WRITE_AUX = 0xD4
A20_OFF = 0xDD
A20_ON = 0xDF
PULSE_OUTPUT_PORT = range(0xF0, 0x100)  # of bits 3-0, those that are 0 go low for 6 us

DATA_FOLLOWS = frozenset(
    (*WRITE_MEMORY, WRITE_OUTPUT_PORT, WRITE_KEYBOARD_BUFFER, WRITE_AUX_BUFFER, WRITE_AUX)
)

# Commands that only answer, and what.
ANSWERS: Mapping[int, int] = {
    HAS_PASSWORD: 0xF1,  # no
    TEST_AUX: 0x00,  # no error
    TEST_KEYBOARD: 0x00,  # no error
    READ_INPUT_PORT: 0x80,  # not locked
}

# Commands that only change the command byte: the bits that they clear, and those they set.
INTERFACES: Mapping[int, tuple[int, int]] = {
    DISABLE_AUX: (0, AUX_DISABLED),
    ENABLE_AUX: (AUX_DISABLED, 0),
    DISABLE_KEYBOARD: (0, KEYBOARD_DISABLED),
    ENABLE_KEYBOARD: (KEYBOARD_DISABLED, 0),
}

_COMMANDS = {
    **{command: f"read memory byte {n}" for n, command in enumerate(READ_MEMORY)},
    **{command: f"write memory byte {n}" for n, command in enumerate(WRITE_MEMORY)},
    READ_MEMORY.start: "read the command byte",
    WRITE_MEMORY.start: "write the command byte",
    HAS_PASSWORD: "is a password installed?",
    DISABLE_AUX: "disable the mouse",
    ENABLE_AUX: "enable the mouse",
    TEST_AUX: "test the mouse's interface",
    SELF_TEST: "self-test",
    TEST_KEYBOARD: "test the keyboard's interface",
    DISABLE_KEYBOARD: "disable the keyboard",
    ENABLE_KEYBOARD: "enable the keyboard",
    READ_INPUT_PORT: "read the input port",
    READ_OUTPUT_PORT: "read the output port",
    WRITE_OUTPUT_PORT: "write the output port",
    WRITE_KEYBOARD_BUFFER: "answer as the keyboard",
    WRITE_AUX_BUFFER: "answer as the mouse",
    WRITE_AUX: "send to the mouse",
    A20_OFF: "A20 off",
    A20_ON: "A20 on",
    **{
        command: "pulse nothing"
        if command == PULSE_OUTPUT_PORT[-1]
        else "pulse outputs"
        if command & NOT_RESET
        else "reset the processor"
        for command in PULSE_OUTPUT_PORT
    },
}

MAP = RegisterMap(
    "i8042",
    help="keyboard controller of a PC",
    registers=(
        Register(
            "DATA",
            0,
            reset=None,
            help="the output buffer; written, data for the last command or for the keyboard",
            on_read=OnRead.CHANGES,
        ),
        Register(
            "STATUS",
            0,
            range=1,
            access=Access.READ_ONLY,
            reset=NOT_INHIBITED | LAST_WRITE_COMMAND,
            fields=(
                Field("OBF", OUTPUT_FULL, "output buffer full: there is something to read"),
                Field("IBF", INPUT_FULL, "input buffer full; never seen"),
                Field("SYS", SYSTEM, "bit 2 of the command byte: the self-test has passed"),
                Field("CMD", LAST_WRITE_COMMAND, "the last write was a command, not data"),
                Field("NOT_INHIBITED", NOT_INHIBITED, "not locked; there is no lock"),
                Field("AUX", OUTPUT_AUX, "the byte in the output buffer is the mouse's"),
                Field("TIME_OUT", TIME_OUT, "a device did not answer; never seen"),
                Field("PARITY", PARITY_ERROR, "parity error; never seen"),
            ),
            help="status",
        ),
        Register(
            "COMMAND",
            0,
            range=1,
            access=Access.WRITE_ONLY,
            reset=None,
            fields=(Field("COMMAND", 0xFF, "what to do", _COMMANDS),),
            help="commands",
        ),
    ),
)
