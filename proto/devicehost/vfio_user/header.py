"""The header that each message begins with, and the numbers of the commands.

    offset  size
         0     2  message id: chosen by the sender of a command, echoed in its reply
         2     2  command
         4     4  message size in bytes, with this header
         8     4  flags: bits 0-3 type (0 command, 1 reply), bit 4 No_reply, bit 5 Error
        12     4  error: an errno in a reply with the Error flag
        16     -  payload

Source: vfio-user protocol specification 0.9, "Header" and "Commands". It leaves the byte
order to the host; here it is little-endian throughout.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final, TypeAlias

ReadableBuffer: TypeAlias = bytes | bytearray | memoryview

HEADER: Final = Struct("<HHIII")
HEADER_SIZE: Final = HEADER.size

TYPE_MASK: Final = 0xF
COMMAND_TYPE: Final = 0x0
REPLY_TYPE: Final = 0x1
NO_REPLY: Final = 0x10
ERROR: Final = 0x20
KNOWN_FLAGS: Final = TYPE_MASK | NO_REPLY | ERROR

MAX_ERRNO: Final = 4095
"""The highest errno that Linux can return. libvfio-user takes no higher one either."""


class Command(IntEnum):
    """The commands, by number."""

    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    DEVICE_GET_INFO = 4
    DEVICE_GET_REGION_INFO = 5
    DEVICE_GET_REGION_IO_FDS = 6
    DEVICE_GET_IRQ_INFO = 7
    DEVICE_SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    DMA_READ = 11
    DMA_WRITE = 12
    DEVICE_RESET = 13
    DIRTY_PAGES = 14  # gone from the specification, with the first migration protocol
    REGION_WRITE_MULTI = 15
    DEVICE_FEATURE = 16
    MIG_DATA_READ = 17
    MIG_DATA_WRITE = 18


def command_name(command: int) -> str:
    """Name a command, whether it is one or not: `REGION_READ`, `command 77`."""
    try:
        return Command(command).name
    except ValueError:
        return f"command {command}"


def error_text(errno: int) -> str:
    """Say what an errno from a peer means, whatever number it is: `22 (Invalid argument)`."""
    return f"{errno} ({os.strerror(errno)})" if errno <= MAX_ERRNO else f"{errno}"


@dataclass(frozen=True, slots=True, repr=False)
class Header:
    """The header of one message.

    Example:
        >>> Header(message_id=7, command=Command.REGION_READ, size=36, flags=REPLY_TYPE)
        <REGION_READ #7: reply, 36 bytes>
    """

    message_id: int
    command: int
    size: int
    flags: int = COMMAND_TYPE
    error: int = 0

    @classmethod
    def decode(cls, buffer: ReadableBuffer, start: int = 0) -> Header:
        """Take the header that begins at `start`. There must be 16 bytes; nothing is checked."""
        return cls(*HEADER.unpack_from(buffer, start))

    @property
    def type(self) -> int:
        """COMMAND_TYPE, REPLY_TYPE, or a number that means nothing."""
        return self.flags & TYPE_MASK

    @property
    def posted(self) -> bool:
        """Whether a command doesn't want a reply."""
        return bool(self.flags & NO_REPLY)

    @property
    def name(self) -> str:
        """The command's name."""
        return command_name(self.command)

    def __repr__(self) -> str:
        kind = {COMMAND_TYPE: "command", REPLY_TYPE: "reply"}.get(self.type, f"type {self.type}")
        parts = [kind, f"{self.size} bytes"]
        if self.posted:
            parts.append("no reply wanted")
        if self.flags & ERROR:
            parts.append(f"error {error_text(self.error)}")
        if unknown := self.flags & ~KNOWN_FLAGS:
            parts.append(f"unknown flags {unknown:#x}")
        return f"<{self.name} #{self.message_id}: {', '.join(parts)}>"


def encode_message(message_id: int, command: int, flags: int, payload: bytes) -> bytes:
    """Put a header in front of a payload."""
    return HEADER.pack(message_id, command, HEADER_SIZE + len(payload), flags, 0) + payload


def encode_error(message_id: int, command: int, errno: int) -> bytes:
    """Encode an error reply, which is a header alone."""
    return HEADER.pack(message_id, command, HEADER_SIZE, REPLY_TYPE | ERROR, errno)
