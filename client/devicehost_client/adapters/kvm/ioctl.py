"""The part of KVM's ABI that the adapter uses: call numbers, exit reasons, struct layouts.

Numbers in brackets are sections of the Linux kernel's Documentation/virt/kvm/api.rst.
Everything is x86-64: structs have their natural layout there, little-endian, and a `long`
is 8 bytes.

    >>> hex(Call.KVM_RUN)
    '0xae80'
"""

from __future__ import annotations

import ctypes
import fcntl
import struct
from enum import IntEnum
from typing import Final

from devicehost_client.adapters.kvm.errors import KvmCallError

API_VERSION: Final = 12
"""The one version of the ABI, frozen since Linux 2.6.22 [4.1]."""

PAGE_SIZE: Final = 4096
"""Memory slots begin and end on multiples of it."""

# Structs that go through an ioctl whole.
IRQ_LEVEL: Final = struct.Struct("<II")  # kvm_irq_level: gsi, level [4.25]
MEMORY_REGION: Final = struct.Struct("<IIQQQ")
"""kvm_userspace_memory_region: slot, flags, guest address, size, host address [4.35]."""
PIT_CONFIG: Final = struct.Struct("<I60x")  # kvm_pit_config: flags [4.71]
IRQFD: Final = struct.Struct("<IIII16x")  # kvm_irqfd: fd, gsi, flags, resamplefd [4.75]
CPUID_HEADER: Final = struct.Struct("<II")  # kvm_cpuid2: nent, padding; entries follow [4.46]
CPUID_ENTRY: Final = struct.Struct("<IIIIIII12x")
"""kvm_cpuid_entry2: function, index, flags, eax, ebx, ecx, edx."""
SIGNAL_MASK: Final = struct.Struct("<IQ")
"""kvm_signal_mask: length of the mask (8), the mask: bit n - 1 blocks signal n [4.21]."""


class Segment(ctypes.Structure):
    """struct kvm_segment: a segment register with its hidden part."""

    base: int
    limit: int
    selector: int
    type: int
    present: int
    dpl: int
    db: int
    s: int
    l: int  # noqa: E741 - the ABI's own name: 64-bit code segment
    g: int
    avl: int
    unusable: int
    _fields_ = (
        ("base", ctypes.c_uint64),
        ("limit", ctypes.c_uint32),
        ("selector", ctypes.c_uint16),
        *((name, ctypes.c_uint8) for name in "type present dpl db s l g avl unusable".split()),
        ("_padding", ctypes.c_uint8),
    )
