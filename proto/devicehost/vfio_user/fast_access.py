r"""REGION_READ and REGION_WRITE without objects, for the path of a trapped access.

Request and reply of both begin with the same 32 bytes, which one `Struct` packs into, and
unpacks from, a buffer that is used over and over. Data stands behind them, at `DATA`, and
isn't touched here: a device reads into, or writes from, a window of the same buffer.

    offset  size
         0    16  header: message id, command, size, flags, error
        16     8  offset in the region
        24     4  region
        28     4  count
        32     -  data, in a write and in the reply to a read

The functions check all that the general way checks, and say no (None, False) to whatever
isn't plain: then the general way is taken, and finds the words for it. So there is one
place that knows the errors.

Example, both sides on one buffer:
    >>> buffer = bytearray(64)
    >>> size, reply = pack_read(buffer, 7, region=1, offset=0xFE00, count=4)
    >>> message_id, command, _, _, _, offset, region, count = take_access(buffer, 0, size, 64)
    >>> buffer[DATA : DATA + count] = b"\x78\x56\x34\x12"
    >>> size = pack_read_reply(buffer, message_id, region, offset, count)
    >>> is_reply(buffer, size, reply), buffer[DATA:size].hex()
    (True, '78563412')
"""

from __future__ import annotations

from struct import Struct
from typing import Final, TypeAlias

from devicehost.vfio_user.header import NO_REPLY, REPLY_TYPE, Command, ReadableBuffer

ACCESS: Final = Struct("<HHIIIQII")
DATA: Final = ACCESS.size
"""Where data begins in a message: 32 bytes from its first."""

REGION_READ: Final = int(Command.REGION_READ)
REGION_WRITE: Final = int(Command.REGION_WRITE)

WritableBuffer: TypeAlias = bytearray | memoryview
AccessFields: TypeAlias = tuple[int, int, int, int, int, int, int, int]
"""What ACCESS unpacks: message id, command, size, flags, error, offset, region, count."""

_END_OF_REGION: Final = 1 << 64

_pack_into = ACCESS.pack_into
_unpack_from = ACCESS.unpack_from


def pack_read(
    buffer: WritableBuffer, message_id: int, region: int, offset: int, count: int
) -> tuple[int, AccessFields]:
    """Pack a REGION_READ.

    Returns:
        Its size in bytes, and the fields that its reply has to have.
    """
    _pack_into(buffer, 0, message_id, REGION_READ, DATA, 0, 0, offset, region, count)
    reply = (message_id, REGION_READ, DATA + count, REPLY_TYPE, 0, offset, region, count)
    return DATA, reply


def pack_write(
    buffer: WritableBuffer, message_id: int, region: int, offset: int, count: int
) -> tuple[int, AccessFields]:
    """Pack a REGION_WRITE around the data, which is at `DATA` already.

    Returns:
        Its size in bytes, and the fields that its reply has to have.
    """
    size = DATA + count
    _pack_into(buffer, 0, message_id, REGION_WRITE, size, 0, 0, offset, region, count)
    return size, (message_id, REGION_WRITE, DATA, REPLY_TYPE, 0, offset, region, count)


def pack_posted_write(
    buffer: WritableBuffer, message_id: int, region: int, offset: int, count: int
) -> int:
    """Pack a REGION_WRITE that wants no reply, likewise; return its size in bytes."""
    size = DATA + count
    _pack_into(buffer, 0, message_id, REGION_WRITE, size, NO_REPLY, 0, offset, region, count)
    return size


def take_access(
    buffer: ReadableBuffer, start: int, end: int, max_count: int
) -> AccessFields | None:
    """Unpack the REGION_READ or REGION_WRITE that begins at `start`.

    Args:
        buffer: bytes that were received.
        start: where the message begins.
        end: where the bytes end.
        max_count: how many data bytes are taken.

    Returns:
        Its fields, of which the size says where it ends; None if that isn't what is there,
        or it isn't whole, or something about it is wrong.
    """
    if end - start < DATA:
        return None
    fields: AccessFields = _unpack_from(buffer, start)
    _, command, size, flags, _, offset, _, count = fields
    if command == REGION_READ:
        if size != DATA:
            return None
    elif command != REGION_WRITE or size != DATA + count:
        return None
    if (
        0 < count <= max_count
        and size <= end - start
        and not flags & ~NO_REPLY
        and offset + count <= _END_OF_REGION
    ):
        return fields
    return None


def pack_read_reply(
    buffer: WritableBuffer, message_id: int, region: int, offset: int, count: int
) -> int:
    """Pack the reply to a REGION_READ around the data, likewise; return its size in bytes."""
    size = DATA + count
    _pack_into(buffer, 0, message_id, REGION_READ, size, REPLY_TYPE, 0, offset, region, count)
    return size


def pack_write_reply(
    buffer: WritableBuffer, message_id: int, region: int, offset: int, count: int
) -> int:
    """Pack the reply to a REGION_WRITE; return its size in bytes."""
    _pack_into(buffer, 0, message_id, REGION_WRITE, DATA, REPLY_TYPE, 0, offset, region, count)
    return DATA


def is_reply(buffer: ReadableBuffer, received: int, reply: AccessFields) -> bool:
    """Whether `received` bytes are one whole message, and it is the reply with these fields."""
    return received == reply[2] and _unpack_from(buffer) == reply
