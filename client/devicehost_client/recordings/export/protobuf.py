"""The few words of the protobuf encoding that a trace needs (protobuf.dev, "Encoding").

A message is the concatenation of its fields; there is no need for classes:

    >>> (number(1, 150) + text(2, "hi")).hex(" ")
    '08 96 01 12 02 68 69'
"""

from __future__ import annotations

_VARINT = 0
_LENGTH = 2
_MORE = 0x80
_LOW = 0x7F
_U64 = (1 << 64) - 1


def varint(value: int) -> bytes:
    """Encode an integer of 64 bits; a negative one as its two's complement."""
    value &= _U64
    if value < _MORE:
        return bytes((value,))
    encoded = bytearray()
    while value >= _MORE:
        encoded.append(value & _LOW | _MORE)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def number(field: int, value: int) -> bytes:
    """Encode a field of a type int64, uint64, enum or bool, or one of 32 bits."""
    return varint(field << 3 | _VARINT) + varint(value)


def message(field: int, content: bytes) -> bytes:
    """Encode a field that is a message, or bytes."""
    return varint(field << 3 | _LENGTH) + varint(len(content)) + content


def text(field: int, content: str) -> bytes:
    """Encode a field that is a string. What isn't Unicode is replaced."""
    return message(field, content.encode(errors="replace"))
