"""What the CMOS memory of a PC tells its firmware, beside the time.

The meaning of the bytes is that of the PC AT, as far as firmware still reads them: which
ones, and in what units, after SeaBIOS (src/hw/rtc.h, src/fw/paravirt.c). All numbers are
little-endian but the checksum.
"""

from __future__ import annotations

from devicehost_server.model.errors import BadConfig

CMOS_SIZE = 128

EQUIPMENT = 0x14
BASE_MEMORY = 0x15  # 2 bytes, in KiB, at most 640
EXTENDED_MEMORY = 0x17  # 2 bytes, above 1 MiB, in KiB
CHECKSUM = 0x2E  # 2 bytes, big-endian: the sum of bytes 0x10 to 0x2D
EXTENDED_MEMORY_2 = 0x30  # the same as at 0x17
MEMORY_ABOVE_16M = 0x34  # 2 bytes, up to 4 GiB, in 64 KiB
BOOT_THIRD = 0x38  # third boot device in bits 4 to 7; bit 0: boot any floppy
BOOT_FIRST = 0x3D  # first boot device in bits 0 to 3, second in bits 4 to 7
MEMORY_ABOVE_4G = 0x5B  # 3 bytes, in 64 KiB
CPUS = 0x5F  # processors, less one

_BOOT_CODES = {"a": 1, "c": 2, "d": 3, "n": 4}
_BOOT_MAX = 3


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
    cells[CHECKSUM : CHECKSUM + 2] = sum(cells[0x10:CHECKSUM]).to_bytes(2, "big")
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
