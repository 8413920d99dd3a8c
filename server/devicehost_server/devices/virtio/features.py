"""Feature bits and status bits that all virtio devices share.

Source: VIRTIO 1.2, sections 2.1 (status), 2.2 and 6 (features).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

INDIRECT_DESC = 1 << 28
"""A chain may stand in a table of its own."""
EVENT_IDX = 1 << 29
"""Each side says from which index on it wants to be notified."""
VERSION_1 = 1 << 32
"""The device isn't a legacy one. A driver has to accept it."""
RING_RESET = 1 << 40
"""One queue can be reset by itself."""

CORE_FEATURES = INDIRECT_DESC | EVENT_IDX | VERSION_1 | RING_RESET
"""What the core offers beside what a device does."""

_CORE_NAMES = {
    INDIRECT_DESC: "INDIRECT_DESC",
    EVENT_IDX: "EVENT_IDX",
    VERSION_1: "VERSION_1",
    RING_RESET: "RING_RESET",
}


class Status(enum.IntFlag):
    """The bits of the device status field."""

    ACKNOWLEDGE = 0x01
    DRIVER = 0x02
    DRIVER_OK = 0x04
    FEATURES_OK = 0x08
    NEEDS_RESET = 0x40
    FAILED = 0x80


DRIVER_STATUS = 0x8F
"""The bits of the status that are the driver's to set."""


ISR_QUEUE = 0x01
"""Why the device interrupts: there is something in a used ring."""
ISR_CONFIG = 0x02
"""Why the device interrupts: its configuration, or its status, is another one."""

# Plain numbers, where every request passes: arithmetic with an enum's members costs more.
DRIVER_OK = Status.DRIVER_OK.value


def feature_names(features: int, own: Mapping[int, str]) -> list[str]:
    """Name feature bits, those of a device by `own`; others are called by their numbers."""
    return [
        own.get(bit) or _CORE_NAMES.get(1 << bit, f"bit-{bit}")
        for bit in range(features.bit_length())
        if features >> bit & 1
    ]


def status_names(status: int) -> list[str]:
    """Name the bits of a status."""
    return [bit.name or "" for bit in Status if status & bit]
