"""A vCPU's registers, as ctypes structs that go through KVM's calls unchanged.

`Registers` is kvm_regs [api.rst, 4.11] and `SpecialRegisters` is kvm_sregs [4.13] of
x86-64. Fields have the kernel's names.

    >>> registers = Registers(rip=0x7C00, rflags=0x2)
    >>> hex(registers.rip)
    '0x7c00'
"""

from __future__ import annotations

import ctypes
from typing import Final

RFLAGS_FIXED: Final = 1 << 1
"""The bit of RFLAGS that is always set."""

_GENERAL: Final = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
    *("rip", "rflags"),
)


class Registers(ctypes.Structure):
    """The general registers, RIP and RFLAGS."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in _GENERAL)

    rax: int
    rbx: int
    rcx: int
    rdx: int
    rsi: int
    rdi: int
    rsp: int
    rbp: int
    rip: int
    rflags: int


class Segment(ctypes.Structure):
    """A segment register with its hidden part (kvm_segment)."""

    _fields_ = (
        ("base", ctypes.c_uint64),
        ("limit", ctypes.c_uint32),
        ("selector", ctypes.c_uint16),
        ("type", ctypes.c_uint8),
        ("present", ctypes.c_uint8),
        ("dpl", ctypes.c_uint8),
        ("db", ctypes.c_uint8),
        ("s", ctypes.c_uint8),
        ("l", ctypes.c_uint8),
        ("g", ctypes.c_uint8),
        ("avl", ctypes.c_uint8),
        ("unusable", ctypes.c_uint8),
        ("padding", ctypes.c_uint8),
    )

    base: int
    limit: int
    selector: int


class DescriptorTable(ctypes.Structure):
    """GDTR or IDTR (kvm_dtable)."""

    _fields_ = (
        ("base", ctypes.c_uint64),
        ("limit", ctypes.c_uint16),
        ("padding", ctypes.c_uint16 * 3),
    )

    base: int
    limit: int


class SpecialRegisters(ctypes.Structure):
    """Segments, descriptor tables, control registers, EFER and the APIC's base."""

    _fields_ = (
        *((name, Segment) for name in ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")),
        *((name, DescriptorTable) for name in ("gdt", "idt")),
        *((name, ctypes.c_uint64) for name in ("cr0", "cr2", "cr3", "cr4", "cr8")),
        ("efer", ctypes.c_uint64),
        ("apic_base", ctypes.c_uint64),
        ("interrupt_bitmap", ctypes.c_uint64 * 4),
    )

    cs: Segment
    ds: Segment
    es: Segment
    fs: Segment
    gs: Segment
    ss: Segment
    idt: DescriptorTable
    gdt: DescriptorTable
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    efer: int
    apic_base: int
