"""What virtio 1.2 fixes for block devices (section 5.2): numbers and layouts.

All integers are little-endian. Offsets on the disk are in sectors of 512 bytes, whatever
the block size.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

DEVICE_ID = 2

SECTOR = 512
"""The unit of all offsets and counts, in bytes."""

HEADER = struct.Struct("<I4xQ")
"""What a request begins with: its type, and the first sector of a read or a write."""

SEGMENT = struct.Struct("<QII")
"""A range to discard, or to fill with zeros: first sector, count of sectors, flags."""

UNMAP = 1
"""The only flag of a segment: its space may be given back."""

ID_SIZE = 20
"""Of the string that tells one disk from another, in bytes, padded with zeros."""


class Feature(IntFlag):
    """Feature bits (5.2.3)."""

    SEG_MAX = 1 << 2
    """The most buffers of a request are known."""
    RO = 1 << 5
    """Nothing can be written."""
    BLK_SIZE = 1 << 6
    """The size of a logical block is known."""
    FLUSH = 1 << 9
    """There may be a cache, and a way to flush it."""
    TOPOLOGY = 1 << 10
    """What sizes and alignments go well is known."""
    CONFIG_WCE = 1 << 11
    """The driver says whether there is a cache."""
    MQ = 1 << 12
    """There are several queues."""
    DISCARD = 1 << 13
    """Space can be given back."""
    WRITE_ZEROES = 1 << 14
    """Ranges can be filled with zeros."""


class Kind(IntEnum):
    """Types of requests (5.2.6)."""

    IN = 0
    OUT = 1
    FLUSH = 4
    GET_ID = 8
    DISCARD = 11
    WRITE_ZEROES = 13


class Status(IntEnum):
    """How a request ended (5.2.6)."""

    OK = 0
    IOERR = 1
    UNSUPP = 2


CONFIG = struct.Struct("<Q I I HBB I BBHI B x H III II B 3x")
"""The configuration (5.2.4): capacity in sectors; size_max; seg_max; cylinders, heads and
sectors; blk_size; physical_block_exp, alignment_offset, min_io_size and opt_io_size;
writeback; num_queues; max_discard_sectors, max_discard_seg and discard_sector_alignment;
max_write_zeroes_sectors and max_write_zeroes_seg; write_zeroes_may_unmap."""

WRITEBACK_OFFSET = 32
"""Of `writeback`, the one byte of the configuration that a driver may write."""
