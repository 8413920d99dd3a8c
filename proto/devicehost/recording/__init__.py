"""Recordings: all that passed between a VM and its devices, in a file. And traces.

    bytes of accesses ──► Packer ──► blocks ──► file_block ──► a file ──► Recording ──┐
                                       └──────► decode_block (a live trace) ──────────┴► events
                                                                  events ──► Annotator

    | module      | what is in it                                                      |
    |-------------|--------------------------------------------------------------------|
    | events      | what can happen, as values                                         |
    | header      | `Header`, `DeviceRecord`: what a recording begins with             |
    | packer      | `Packer`: events into blocks, the hot path                         |
    | encoding    | the records that the hot path doesn't write itself                 |
    | decoding    | `decode_block`: blocks into events                                 |
    | writer      | `RecordingWriter`, `file_start`, `file_block`, `file_end`          |
    | reader      | `Recording`: files into events, and what is wrong with them        |
    | annotator   | `Annotator`: events to devices, offsets and registers              |
    | layout      | the numbers of the format                                          |
    | strict_json | JSON as every language has it                                      |

Example:
    >>> import io
    >>> packer = Packer()
    >>> packer.access(1_000, 900, 0, False, True, 0x3FD, 1, b"a", 0)
    True
    >>> data = file_start(Header(note="a poll")) + file_block(packer.take()) + file_end(1)
    >>> recording = Recording.read(io.BytesIO(data))
    >>> recording.header.note, [event.data for event in recording], recording.is_complete
    ('a poll', [b'a'], True)

The file, version 1
===================

All numbers are little-endian. A `varint` has seven bits of an unsigned number of 64 bits in
each byte, the low ones first; all bytes but the last have bit 7 set. CRC-32 is that of
Ethernet and zlib. `bytes` are a varint, how many, and then so many bytes.

A file begins with 8 bytes of magic, 89 44 48 52 45 43 0D 0A, and the version, u32. A reader
refuses other versions. Chunks follow:

    offset  size
         0     4  type: "HEAD", "EVTS", "END " in ASCII
         4     4  length of the payload, in bytes
         8     4  how many events are in it; 0 if it isn't EVTS
        12     4  CRC-32 of the payload
        16     4  CRC-32 of the 16 bytes before
        20     -  payload

The first is HEAD, at most 16 MiB of JSON in UTF-8, an object (NaN and infinities aren't
JSON). Members that a reader doesn't know are passed over, here and in END:

    format   1
    version  of the product that made it
    started  when it began, ISO 8601;  wall_ns  the same, in ns since 1970 (UTC)
    now_ns   the same, on the server's monotonic clock, which all other times are of
    note     for people
    devices  each: id, type, config (an object), resources (an array of objects), ranges (an
             array of [space "pio" or "mmio", base, size]), registers (a register map, see
             devicehost.registers, or null), state (an object; null: it can't be replayed
             from here), values (an object: registers that decide what others mean)

Then any number of EVTS, of which each is a block; then END, a JSON object with `events`, how
many there are in all, if that was counted. A file without END was cut. Chunks of types that
a reader doesn't know are passed over. A block with a wrong checksum is lost, but the header
of its chunk says how many events that is; a chunk whose header has a wrong checksum is the
end of what can be read. A block that was cut is good as far as it goes.

A block can be decoded without any other. It begins with its base, u64, the moment that times
are counted from, and how many events are in it, u32. It is at most 256 KiB long, unless it
has only one event; never more than 64 MiB. Records follow, without padding. The first byte is
the kind. Those of accesses are a form in bits 4 and 5, and

    bit 0  write     bit 1  port (PIO)     bits 2, 3  log2 of the size in bytes: 1, 2, 4 or 8

    0x00   short     vcpu i8, took u16, time u32, address, data
    0x10   far       vcpu i8, took u16, time u32, address u64, data; not for ports
    0x20   wide      status u8, vcpu i16, took u32, time u32, address u32, data
    0x30   long      status u8, time u32, vcpu + 1 varint, took varint, address varint,
                     size varint, data as bytes; bits 2 and 3 are zero

`time` is from the base to the access's beginning, `took` its duration, both in ns. `vcpu` -1
is an unknown one. `address` of the short form is u16 for ports and u32 for memory. In a u32
there are the low bits of a memory address; the high ones are those of the last far record in
the block, or zero. Data has the size of the access, but in the long form any length: of a
string access more than one operand, of a failed read none. `status` is a number of
`devicehost.access_status`; without it the access succeeded. So a read of 4 bytes of memory
takes 16 bytes, one of a port 11, and no access of a usual size more than 24, unless it is odd
in several ways.

    0x40   base      u64: times are counted from there on from this moment
    0x41   name      text as bytes, UTF-8: it has the next number in its block, from 0 on

The others are events. After the kind comes `time`, u32, as above, but not in the last one; a
`name` is a varint, the number of one that was given before:

    0x50   interrupt   kind u8 (0 asserted, 1 deasserted, 2 pulsed), GSI varint, device name
    0x51   DMA         operation u8 (0 read, 1 write), device name, address varint, bytes
    0x52   plugged     bytes: JSON, at most 16 MiB, as one of `devices`
    0x53   unplugged   device name
    0x54   learned     device name, source name, zigzag varint (0, -1, 1, -2 as 0, 1, 2, 3)
    0x55   learned     device name, source name, bytes
    0x56   woken       device name, source name
    0x57   told        device name, bytes
    0x58   lost        varint: how many events are missing here

An event is written when it has ended, so times need not increase; the base may move back.
"""

from __future__ import annotations

from devicehost.recording.annotator import Annotated, Annotator
from devicehost.recording.decoding import decode_block
from devicehost.recording.events import (
    Access,
    Dma,
    Event,
    Interrupt,
    InterruptKind,
    Learned,
    Lost,
    Operation,
    Plugged,
    Space,
    Told,
    Unplugged,
    Woken,
)
from devicehost.recording.header import DeviceRecord, Header
from devicehost.recording.layout import VERSION, BadRecording
from devicehost.recording.packer import Packer
from devicehost.recording.reader import Recording
from devicehost.recording.writer import RecordingWriter, file_block, file_end, file_start

__all__ = [
    "VERSION",
    "Access",
    "Annotated",
    "Annotator",
    "BadRecording",
    "DeviceRecord",
    "Dma",
    "Event",
    "Header",
    "Interrupt",
    "InterruptKind",
    "Learned",
    "Lost",
    "Operation",
    "Packer",
    "Plugged",
    "Recording",
    "RecordingWriter",
    "Space",
    "Told",
    "Unplugged",
    "Woken",
    "decode_block",
    "file_block",
    "file_end",
    "file_start",
]
