"""What a vCPU's CPUID instruction says: what KVM supports, made out to one vCPU.

KVM lists the host's leaves with what it can't virtualize masked out (api.rst, 4.46); some
fields still belong to the host CPU that asked, or depend on how the VM was made.
"""

from __future__ import annotations

from typing import Final

from devicehost_client.adapters.kvm.ioctl import (
    CPUID_ENTRY,
    CPUID_HEADER,
    CPUID_MAX_ENTRIES,
    Call,
    call,
)

_BASIC: Final = 0x1  # family, features, and in EBX the initial APIC id
_TOPOLOGY: Final = (0xB, 0x1F)  # in EDX the x2APIC id
_AMD_TOPOLOGY: Final = 0x8000_001E  # in EAX the x2APIC id

_ECX_TSC_DEADLINE: Final = 1 << 24
_ECX_HYPERVISOR: Final = 1 << 31

Entry = tuple[int, int, int, int, int, int, int]
"""Function, index, flags, EAX, EBX, ECX, EDX."""


def supported(kvm_fd: int) -> tuple[Entry, ...]:
    """Ask /dev/kvm which leaves it can give to a guest.

    Raises:
        KvmCallFailed: The kernel refused.
    """
    buffer = bytearray(CPUID_HEADER.size + CPUID_MAX_ENTRIES * CPUID_ENTRY.size)
    CPUID_HEADER.pack_into(buffer, 0, CPUID_MAX_ENTRIES)
    call(kvm_fd, Call.KVM_GET_SUPPORTED_CPUID, buffer, about="the host")
    (count,) = CPUID_HEADER.unpack_from(buffer)
    end = CPUID_HEADER.size + count * CPUID_ENTRY.size
    return tuple(CPUID_ENTRY.iter_unpack(memoryview(buffer)[CPUID_HEADER.size : end]))


def for_vcpu(entries: tuple[Entry, ...], apic_id: int, *, tsc_deadline: bool) -> bytearray:
    """Make the argument of KVM_SET_CPUID2 for the vCPU with this APIC id.

    Args:
        entries: What `supported` returned.
        apic_id: The vCPU's number, which KVM makes its APIC id.
        tsc_deadline: Whether the in-kernel local APIC has a TSC deadline timer, which KVM
            leaves for the VMM to know.
    """
    buffer = bytearray(CPUID_HEADER.pack(len(entries)))
    for function, index, flags, *registers in entries:
        eax, ebx, ecx, edx = registers
        if function == _BASIC:
            ebx = ebx & 0x00FF_FFFF | (apic_id & 0xFF) << 24
            ecx |= _ECX_HYPERVISOR | (_ECX_TSC_DEADLINE if tsc_deadline else 0)
        elif function in _TOPOLOGY:
            edx = apic_id
        elif function == _AMD_TOPOLOGY:
            eax = apic_id
        buffer += CPUID_ENTRY.pack(function, index, flags, eax, ebx, ecx, edx)
    return buffer
