"""The part of KVM's ABI that the adapter uses: calls, flags, exit reasons, struct layouts.

Numbers in brackets are sections of the Linux kernel's Documentation/virt/kvm/api.rst.
All of it is for x86-64: structs have their natural layout and are little-endian.

    >>> hex(Call.KVM_RUN)
    '0xae80'
"""

from __future__ import annotations

import ctypes
import fcntl
import struct
from enum import IntEnum
from typing import Final

from devicehost_client.adapters.kvm.errors import BadVmState, KvmCallFailed

API_VERSION: Final = 12
"""The one version of the ABI, frozen since Linux 2.6.22 [4.1]."""

PAGE_SIZE: Final = 4096
"""Memory slots begin and end on multiples of it."""

# --- structs that travel through a call ---------------------------------------------------

MEMORY_REGION: Final = struct.Struct("<IIQQQ")
"""kvm_userspace_memory_region: slot, flags, guest address, size, host address [4.35]."""
MEM_READONLY: Final = 1 << 1
"""Flag of a slot: the guest's writes to it become MMIO exits [4.35]."""

IRQ_LEVEL: Final = struct.Struct("<II")
"""kvm_irq_level: GSI, level (1 is asserted) [4.25]."""

IRQFD: Final = struct.Struct("<IIII16x")
"""kvm_irqfd: eventfd, GSI, flags, eventfd for resampling [4.75]."""
IRQFD_DEASSIGN: Final = 1 << 0

PIT_CONFIG: Final = struct.Struct("<I60x")
"""kvm_pit_config: flags [4.71]."""
PIT_SPEAKER_DUMMY: Final = 1 << 0
"""The kernel answers port 0x61 as well, which firmware polls to calibrate its clock."""

ADDRESS: Final = struct.Struct("<Q")
"""A guest-physical address, for KVM_SET_IDENTITY_MAP_ADDR [4.40]."""

SIGNAL_MASK: Final = struct.Struct("<IQ")
"""kvm_signal_mask: bytes in the mask, the mask; bit n - 1 blocks signal n [4.21]."""
SIGNAL_MASK_BYTES: Final = 8

CPUID_HEADER: Final = struct.Struct("<I4x")
"""kvm_cpuid2: how many entries follow [4.46]."""
CPUID_ENTRY: Final = struct.Struct("<IIIIIII12x")
"""kvm_cpuid_entry2: function, index, flags, EAX, EBX, ECX, EDX [4.46]."""
CPUID_MAX_ENTRIES: Final = 256
"""KVM_MAX_CPUID_ENTRIES of the kernel's x86 code; it takes and gives no more."""


# --- calls ----------------------------------------------------------------------------------


def _io(number: int, size: int = 0, direction: int = 0) -> int:
    """Number an ioctl as <asm-generic/ioctl.h> does: direction, size, type (0xAE), number."""
    return direction << 30 | size << 16 | 0xAE << 8 | number


def _iow(number: int, size: int) -> int:
    return _io(number, size, 1)  # the kernel reads the struct


def _ior(number: int, size: int) -> int:
    return _io(number, size, 2)  # the kernel fills the struct


def _iowr(number: int, size: int) -> int:
    return _io(number, size, 3)


class Call(IntEnum):
    """The ioctls, under the names that KVM's documentation has for them."""

    # On /dev/kvm.
    KVM_GET_API_VERSION = _io(0x00)  # [4.1]
    KVM_CREATE_VM = _io(0x01)  # [4.2]
    KVM_CHECK_EXTENSION = _io(0x03)  # [4.4]
    KVM_GET_VCPU_MMAP_SIZE = _io(0x04)  # [4.5]
    KVM_GET_SUPPORTED_CPUID = _iowr(0x05, CPUID_HEADER.size)  # [4.46]

    # On a VM.
    KVM_CREATE_VCPU = _io(0x41)  # [4.7]
    KVM_SET_USER_MEMORY_REGION = _iow(0x46, MEMORY_REGION.size)  # [4.35]
    KVM_SET_TSS_ADDR = _io(0x47)  # [4.36]
    KVM_SET_IDENTITY_MAP_ADDR = _iow(0x48, ADDRESS.size)  # [4.40]
    KVM_CREATE_IRQCHIP = _io(0x60)  # [4.24]
    KVM_IRQ_LINE = _iow(0x61, IRQ_LEVEL.size)  # [4.25]
    KVM_IRQFD = _iow(0x76, IRQFD.size)  # [4.75]
    KVM_CREATE_PIT2 = _iow(0x77, PIT_CONFIG.size)  # [4.71]

    # On a vCPU.
    KVM_RUN = _io(0x80)  # [4.10]
    KVM_GET_REGS = _ior(0x81, 144)  # [4.11]
    KVM_SET_REGS = _iow(0x82, 144)  # [4.12]
    KVM_GET_SREGS = _ior(0x83, 312)  # [4.13]
    KVM_SET_SREGS = _iow(0x84, 312)  # [4.14]
    KVM_SET_SIGNAL_MASK = _iow(0x8B, 4)  # [4.21]; the header only, without the mask
    KVM_SET_CPUID2 = _iow(0x90, CPUID_HEADER.size)


class Capability(IntEnum):
    """What KVM_CHECK_EXTENSION is asked about [4.4]; 0 means that the kernel hasn't got it."""

    KVM_CAP_IRQCHIP = 0
    KVM_CAP_USER_MEMORY = 3
    KVM_CAP_SET_TSS_ADDR = 4
    KVM_CAP_EXT_CPUID = 7
    KVM_CAP_IRQFD = 32
    KVM_CAP_PIT2 = 33
    KVM_CAP_SET_IDENTITY_MAP_ADDR = 37
    KVM_CAP_TSC_DEADLINE_TIMER = 72
    KVM_CAP_READONLY_MEM = 81
    KVM_CAP_IMMEDIATE_EXIT = 136


_INT_MAX: Final = 2**31 - 1
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong)


def call(
    fd: int,
    number: Call,
    argument: int | bytes | bytearray | ctypes.Structure = 0,
    *,
    about: str,
) -> int:
    """Make one call, and give its result.

    Args:
        fd: /dev/kvm, a VM or a vCPU; negative once it is closed.
        number: Which call.
        argument: A number that isn't negative, or a struct; the kernel fills it in place.
        about: What the call is for, as an error would say it: "vCPU 0".

    Raises:
        KvmCallFailed: The kernel refused.
        BadVmState: The file descriptor is closed.
    """
    if fd < 0:
        raise BadVmState(f"{number.name} for {about}: the VM or the vCPU is closed")
    if isinstance(argument, int) and argument > _INT_MAX:
        # fcntl.ioctl of CPython 3.11 takes no more than a C int.
        if (result := _libc.ioctl(fd, number, argument)) < 0:
            raise KvmCallFailed(number.name, ctypes.get_errno(), about)
        return int(result)
    try:
        answer = fcntl.ioctl(fd, number, argument)
    except OSError as error:
        raise KvmCallFailed(number.name, error.errno or 0, about) from error
    return answer if isinstance(answer, int) else 0  # a copy of the bytes it was given


# --- struct kvm_run: the page that KVM_RUN reports through [5] --------------------------------

RUN_IMMEDIATE_EXIT: Final = 1  # u8, in: not zero makes KVM_RUN return EINTR at once
RUN_EXIT_REASON: Final = 8  # u32
RUN_EXIT_DATA: Final = 32  # where the union begins; its members:

IO_DIRECTION: Final = 32  # u8: 0 the guest reads, 1 it writes
IO_SIZE: Final = 33  # u8: bytes of one operand
IO_PORT: Final = 34  # u16
IO_COUNT: Final = 36  # u32: how many operands; more than one with REP INS
IO_DATA: Final = 4096  # the operands; the kernel says so at 40 (u64), always the same on x86

MMIO_ADDRESS: Final = 32  # u64
MMIO_DATA: Final = 40  # 8 bytes
MMIO_SIZE: Final = 48  # u32: 1 to 8
MMIO_IS_WRITE: Final = 52  # u8

FAIL_ENTRY: Final = struct.Struct("<QI")  # the processor's reason, the host CPU
NUMBER_AND_WORDS: Final = struct.Struct("<II16Q")
"""KVM_EXIT_INTERNAL_ERROR and KVM_EXIT_SYSTEM_EVENT: a number, how many words, the words."""


class ExitReason(IntEnum):
    """Why KVM_RUN returned [5]: those of them that a VM of this adapter can meet."""

    KVM_EXIT_IO = 2
    KVM_EXIT_HLT = 5
    KVM_EXIT_MMIO = 6
    KVM_EXIT_SHUTDOWN = 8
    KVM_EXIT_FAIL_ENTRY = 9
    KVM_EXIT_INTERNAL_ERROR = 17
    KVM_EXIT_SYSTEM_EVENT = 24
