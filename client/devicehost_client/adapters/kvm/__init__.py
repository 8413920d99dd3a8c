"""The KVM adapter: runs a guest, and hands each trapped access to an `AccessPort`.

It is for Linux on x86-64, needs nothing but the standard library and /dev/kvm, and leaves
to the VMM what a VMM is about: what is where in memory, and what a port does.

    with Vm() as vm:
        vm.memory.add_ram(0, 1 << 20)
        vm.memory.load(0x7C00, boot_sector)
        vcpu = vm.create_vcpu()
        vcpu.enter_real_mode(0, 0x7C00)
        end = vcpu.run(port)

Without `enter_real_mode` a vCPU starts at the reset vector, where firmware is. Another
thread may call `Vcpu.stop`, `Vm.set_irq_line` and `Vm.close` at any time. `attach` hands
the VM's memory and interrupts to a device server.
"""

from __future__ import annotations

from devicehost_client.adapters.kvm.attach import attach
from devicehost_client.adapters.kvm.errors import (
    BadVmArgument,
    BadVmState,
    KvmCallFailed,
    KvmError,
    KvmForbidden,
    KvmIncomplete,
    KvmUnavailable,
    NoKvm,
    WrongPlatform,
)
from devicehost_client.adapters.kvm.exit_cost import exit_times_ns
from devicehost_client.adapters.kvm.exits import (
    EntryFailed,
    ExitCounts,
    Halted,
    InternalError,
    RunEnd,
    Shutdown,
    Stopped,
    SystemEvent,
    UnknownExit,
)
from devicehost_client.adapters.kvm.memory import GuestMemory, MemoryRegion, MemorySlot
from devicehost_client.adapters.kvm.registers import (
    DescriptorTable,
    Registers,
    Segment,
    SpecialRegisters,
)
from devicehost_client.adapters.kvm.vcpu import KICK_SIGNAL, Vcpu
from devicehost_client.adapters.kvm.vm import Vm

__all__ = [
    "KICK_SIGNAL",
    "BadVmArgument",
    "BadVmState",
    "DescriptorTable",
    "EntryFailed",
    "ExitCounts",
    "GuestMemory",
    "Halted",
    "InternalError",
    "KvmCallFailed",
    "KvmError",
    "KvmForbidden",
    "KvmIncomplete",
    "KvmUnavailable",
    "MemoryRegion",
    "MemorySlot",
    "NoKvm",
    "Registers",
    "RunEnd",
    "Segment",
    "Shutdown",
    "SpecialRegisters",
    "Stopped",
    "SystemEvent",
    "UnknownExit",
    "Vcpu",
    "Vm",
    "WrongPlatform",
    "attach",
    "exit_times_ns",
]
