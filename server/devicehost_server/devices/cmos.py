"""What the CMOS memory of a PC tells its firmware, beside the time.

The meaning of the bytes is that of the PC AT, as far as firmware still reads them: which
ones, and in what units, after SeaBIOS (src/hw/rtc.h, src/fw/paravirt.c). All numbers are
little-endian but the checksum.
"""

from __future__ import annotations

from devicehost.registers import Access, Field, OnRead, Register, Via
from devicehost_server.model.errors import BadConfig

CMOS_SIZE = 128

SHUTDOWN = 0x0F  # what firmware does after a reset; written by software alone
EQUIPMENT = 0x14
BASE_MEMORY = 0x15
EXTENDED_MEMORY = 0x17
CHECKSUM = 0x2E
CHECKED = range(0x10, CHECKSUM)
EXTENDED_MEMORY_2 = 0x30
MEMORY_ABOVE_16M = 0x34
BOOT_THIRD = 0x38
BOOT_FIRST = 0x3D
MEMORY_ABOVE_4G = 0x5B
CPUS = 0x5F

VIA = Via("INDEX", "DATA", mask=CMOS_SIZE - 1)
"""How a byte is reached."""


def cmos_byte(
    name: str,
    number: int,
    help: str,  # noqa: A002 # as registers have it
    *fields: Field,
    count: int = 1,
    access: Access = Access.READ_WRITE,
    reset: int | None = None,
    on_read: OnRead | None = None,
) -> Register:
    """Declare a byte, or `count` of them in a row."""
    return Register(
        name,
        number,
        access=access,
        reset=reset,
        fields=fields,
        help=help,
        count=count,
        via=VIA,
        on_read=on_read,
    )


# What a PC boots from, by the letter of a configuration. The codes count from 1.
_BOOT_DEVICES = {"a": "floppy", "c": "disk", "d": "CD", "n": "network"}
_BOOT_CODES = {letter: code for code, letter in enumerate(_BOOT_DEVICES, 1)}
_BOOT_FROM = dict(enumerate(("nothing", *_BOOT_DEVICES.values())))
_BOOT_MAX = 3

CMOS_REGISTERS = (
    cmos_byte("SHUTDOWN", SHUTDOWN, "why the processor was reset; firmware acts by it"),
    cmos_byte(
        "EQUIPMENT",
        EQUIPMENT,
        "what the PC has",
        Field("FLOPPIES", 0xC0, "so many more than one"),
        Field("DISPLAY", 0x30, "the primary display"),
        Field("DISPLAY_ON", 0x08, "a display is there"),
        Field("MOUSE", 0x04, "a PS/2 mouse"),
        Field("FPU", 0x02, "a floating-point unit"),
        Field("FLOPPY", 0x01, "a floppy drive"),
    ),
    cmos_byte("BASE_MEMORY", BASE_MEMORY, "in KiB, at most 640", count=2),
    cmos_byte("EXTENDED_MEMORY", EXTENDED_MEMORY, "above 1 MiB, in KiB", count=2),
    cmos_byte(
        "CHECKSUM",
        CHECKSUM,
        f"big-endian: the sum of bytes {CHECKED.start:#x} to {CHECKED.stop - 1:#x}",
        count=2,
    ),
    cmos_byte("EXTENDED_MEMORY_2", EXTENDED_MEMORY_2, "as EXTENDED_MEMORY", count=2),
    cmos_byte(
        "MEMORY_ABOVE_16M", MEMORY_ABOVE_16M, "above 16 MiB, up to 4 GiB, in 64 KiB", count=2
    ),
    cmos_byte(
        "BOOT_THIRD",
        BOOT_THIRD,
        "the end of the boot order",
        Field("THIRD", 0xF0, "third boot device", _BOOT_FROM),
        Field("UNUSED", 0x0E, "no meaning"),
        Field("ANY_FLOPPY", 0x01, "boot a floppy without a signature, too"),
    ),
    cmos_byte(
        "BOOT_FIRST",
        BOOT_FIRST,
        "the start of the boot order",
        Field("SECOND", 0xF0, "second boot device", _BOOT_FROM),
        Field("FIRST", 0x0F, "first boot device", _BOOT_FROM),
    ),
    cmos_byte("MEMORY_ABOVE_4G", MEMORY_ABOVE_4G, "above 4 GiB, in 64 KiB", count=3),
    cmos_byte("CPUS", CPUS, "processors, less one"),
)
"""The bytes that have a meaning. Numbers of several bytes are rows, lowest byte first."""


def firmware_bytes(
    *,
    memory: int,
    memory_below_4g: int,
    cpus: int,
    boot: str,
    floppy_check: bool,
    equipment: int,
) -> bytearray:
    """Fill the memory the way a PC's firmware expects to find it; the rest is zeros.

    Args:
        memory: guest RAM, in bytes. A size that its field can't say is the largest it can.
        memory_below_4g: the most of it that is below 4 GiB, in bytes.
        cpus: how many processors.
        boot: up to three of a (floppy), c (disk), d (CD), n (network), in order.
        floppy_check: boot a floppy only if it has a signature.
        equipment: the equipment byte.

    Raises:
        BadConfig: the boot order isn't one.
    """
    cells = bytearray(CMOS_SIZE)

    def put(index: int, size: int, number: int) -> None:
        number = min(max(number, 0), (1 << 8 * size) - 1)
        cells[index : index + size] = number.to_bytes(size, "little")

    low = min(memory, memory_below_4g)
    extended_kib = (low - (1 << 20)) >> 10
    put(BASE_MEMORY, 2, min(low >> 10, 640))
    put(EXTENDED_MEMORY, 2, extended_kib)
    put(EXTENDED_MEMORY_2, 2, extended_kib)
    put(MEMORY_ABOVE_16M, 2, (low - (16 << 20)) >> 16)
    put(MEMORY_ABOVE_4G, 3, (memory - low) >> 16)
    put(CPUS, 1, cpus - 1)
    put(EQUIPMENT, 1, equipment)
    order = _boot_order(boot)
    put(BOOT_FIRST, 1, order & 0xFF)
    put(BOOT_THIRD, 1, order >> 8 << 4 | (not floppy_check))
    cells[CHECKSUM : CHECKSUM + 2] = sum(cells[CHECKED.start : CHECKED.stop]).to_bytes(2, "big")
    return cells


def _boot_order(letters: str) -> int:
    if len(letters) > _BOOT_MAX or not set(letters) <= _BOOT_CODES.keys():
        allowed = f"up to {_BOOT_MAX} letters of {', '.join(_BOOT_CODES)}"
        raise BadConfig(
            f"device type 'mc146818': field 'boot': {letters!r} is not allowed; allowed: {allowed}",
            field="boot",
            type="mc146818",
        )
    return sum(_BOOT_CODES[letter] << 4 * n for n, letter in enumerate(letters))
