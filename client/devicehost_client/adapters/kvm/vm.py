"""A virtual machine of KVM's: memory, interrupt controllers, vCPUs.

Invariants:
    The VM owns what it makes: `Vm.close` ends running vCPUs and closes every file
    descriptor, in whatever state the VM is.
"""

from __future__ import annotations

import errno
import os
import platform
import sys
import threading
from types import TracebackType
from typing import Final, Self

from devicehost_client.adapters.kvm import cpuid
from devicehost_client.adapters.kvm.errors import (
    BadVmArgument,
    BadVmState,
    KvmCallFailed,
    KvmForbidden,
    KvmIncomplete,
    NoKvm,
    WrongPlatform,
)
from devicehost_client.adapters.kvm.ioctl import (
    ADDRESS,
    API_VERSION,
    IRQ_LEVEL,
    IRQFD,
    IRQFD_DEASSIGN,
    PAGE_SIZE,
    PIT_CONFIG,
    PIT_SPEAKER_DUMMY,
    Call,
    Capability,
    call,
)
from devicehost_client.adapters.kvm.memory import RESERVED_BASE, GuestMemory
from devicehost_client.adapters.kvm.vcpu import Vcpu

_NEEDED: Final = frozenset(
    {
        Capability.KVM_CAP_USER_MEMORY,
        Capability.KVM_CAP_READONLY_MEM,
        Capability.KVM_CAP_SET_TSS_ADDR,
        Capability.KVM_CAP_SET_IDENTITY_MAP_ADDR,
        Capability.KVM_CAP_EXT_CPUID,
        Capability.KVM_CAP_IMMEDIATE_EXIT,
    }
)
# A kernel may be built without them.
_NEEDED_FOR_IRQCHIP: Final = frozenset(
    {Capability.KVM_CAP_IRQCHIP, Capability.KVM_CAP_PIT2, Capability.KVM_CAP_IRQFD}
)

GSI_COUNT: Final = 24
"""The pins of the in-kernel IOAPIC. GSIs 0 to 15 reach the two PICs as well."""

VCPU_COUNT: Final = 255
"""APIC ids of 8 bits; 255 means all of them."""


class Vm:
    """One virtual machine.

    Attributes:
        memory: Its memory; at first there is none.
        has_irqchip: Whether the PICs, the IOAPIC, the local APICs and the PIT are in the
            kernel. Then the vCPUs see none of their accesses (ports 0x20, 0x21, 0x40 to
            0x43, 0x61, 0xA0, 0xA1, 0x4D0, 0x4D1; pages 0xFEC00000 and 0xFEE00000), and a
            HLT waits for an interrupt inside of the kernel.
    """

    def __init__(self, *, irqchip: bool = True, device: str = "/dev/kvm") -> None:
        """Make a VM without memory and vCPUs.

        Args:
            irqchip: Whether to have the interrupt controllers and the PIT in the kernel.
            device: The KVM device.

        Raises:
            KvmUnavailable: KVM can't be used here; its subclasses say why.
            KvmCallFailed: The kernel refused.
        """
        kvm = _open(device)
        try:
            _check_kernel(kvm, device, irqchip=irqchip)
            self._page_size = call(kvm, Call.KVM_GET_VCPU_MMAP_SIZE, about=device)
            self._cpuid = cpuid.supported(kvm)
            self._tsc_deadline = irqchip and _has(kvm, Capability.KVM_CAP_TSC_DEADLINE_TIMER)
            self._fd = call(kvm, Call.KVM_CREATE_VM, about=device)
        finally:
            os.close(kvm)
        self.has_irqchip = irqchip
        self.memory = GuestMemory(self._fd)
        self._vcpus: list[Vcpu] = []
        self._irqfds: dict[int, int] = {}  # eventfd: GSI
        # So that an interrupt never meets a file descriptor that is closed or somebody else's.
        self._lock = threading.Lock()
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        about = "the new VM"
        # One page that maps itself, and three of a task state segment.
        identity_map, task_state = RESERVED_BASE, RESERVED_BASE + PAGE_SIZE
        argument = ADDRESS.pack(identity_map)
        call(self._fd, Call.KVM_SET_IDENTITY_MAP_ADDR, argument, about=about)
        call(self._fd, Call.KVM_SET_TSS_ADDR, task_state, about=about)
        if self.has_irqchip:
            call(self._fd, Call.KVM_CREATE_IRQCHIP, about=about)
            call(self._fd, Call.KVM_CREATE_PIT2, PIT_CONFIG.pack(PIT_SPEAKER_DUMMY), about=about)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the vCPUs' runs and close everything; once is enough, more is harmless.

        Raises:
            BadVmState: The port of one of the VM's own vCPUs called.
        """
        while self._vcpus:
            self._vcpus[-1].close()
            self._vcpus.pop()
        with self._lock:
            while self._irqfds:
                os.close(self._irqfds.popitem()[0])
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
        self.memory.close()

    def create_vcpu(self, number: int = 0) -> Vcpu:
        """Make a vCPU.

        With the in-kernel interrupt controllers, vCPU 0 is the bootstrap processor, and the
        others wait in `Vcpu.run` until the guest starts them.

        Args:
            number: Its number and APIC id, which no other vCPU of the VM has.

        Raises:
            BadVmArgument: The number isn't one of 0 to 254.
            KvmCallFailed: The kernel refused; EEXIST if there is such a vCPU.
        """
        if not 0 <= number < VCPU_COUNT:
            raise BadVmArgument(f"vCPU {number} isn't one of 0 to {VCPU_COUNT - 1}")
        argument = cpuid.for_vcpu(self._cpuid, number, tsc_deadline=self._tsc_deadline)
        vcpu = Vcpu(self._fd, number, self._page_size, argument)
        self._vcpus.append(vcpu)
        return vcpu

    # --- interrupts -------------------------------------------------------------------------

    def set_irq_line(self, gsi: int, *, asserted: bool) -> None:
        """Assert or deassert an interrupt line; from any thread.

        Args:
            gsi: 0 to 23. The level counts on both chips where both have the pin.
            asserted: The level from now on.

        Raises:
            BadVmArgument: There is no such GSI.
            BadVmState: The VM has no in-kernel interrupt controllers.
        """
        self._check_gsi(gsi)
        level = IRQ_LEVEL.pack(gsi, asserted)
        with self._lock:
            call(self._fd, Call.KVM_IRQ_LINE, level, about=f"GSI {gsi}")

    def add_irqfd(self, gsi: int) -> int:
        """Make an eventfd of which each signal is one edge on an interrupt line.

        Whoever has the eventfd, in whatever process, interrupts the guest without the VMM.

        Args:
            gsi: 0 to 23. One line may have several eventfds.

        Returns:
            The eventfd, non-blocking and closed on exec. The VM closes it.

        Raises:
            BadVmArgument: There is no such GSI.
            BadVmState: The VM has no in-kernel interrupt controllers.
        """
        self._check_gsi(gsi)
        with self._lock:
            eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            try:
                call(self._fd, Call.KVM_IRQFD, IRQFD.pack(eventfd, gsi, 0, 0), about=f"GSI {gsi}")
            except BaseException:
                os.close(eventfd)
                raise
            self._irqfds[eventfd] = gsi
        return eventfd

    def remove_irqfd(self, eventfd: int) -> None:
        """Take an eventfd off its interrupt line and close it.

        Raises:
            BadVmArgument: It isn't one that `add_irqfd` returned.
        """
        with self._lock:
            gsi = self._irqfds.pop(eventfd, None)
            if gsi is None:
                raise BadVmArgument(f"file descriptor {eventfd} isn't an irqfd of this VM")
            argument = IRQFD.pack(eventfd, gsi, IRQFD_DEASSIGN, 0)
            try:
                call(self._fd, Call.KVM_IRQFD, argument, about=f"GSI {gsi}")
            finally:
                os.close(eventfd)

    def _check_gsi(self, gsi: int) -> None:
        # KVM takes any number, and drops the interrupt if nothing is behind it.
        if not 0 <= gsi < GSI_COUNT:
            raise BadVmArgument(f"GSI {gsi} isn't one of 0 to {GSI_COUNT - 1}")
        if not self.has_irqchip:
            raise BadVmState("this VM has no in-kernel interrupt controllers (irqchip=False)")


def _open(device: str) -> int:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise WrongPlatform(platform.system(), platform.machine())
    try:
        return os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError as error:
        raise KvmForbidden(device) from error
    except OSError as error:
        number = error.errno or 0
        if number in {errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ENODEV}:
            raise NoKvm(device, os.strerror(number)) from error
        raise KvmCallFailed("open", number, device) from error


def _check_kernel(kvm: int, device: str, *, irqchip: bool) -> None:
    try:
        version = call(kvm, Call.KVM_GET_API_VERSION, about=device)
    except KvmCallFailed as error:
        raise NoKvm(device, "it doesn't know KVM's calls") from error
    if version != API_VERSION:
        raise KvmIncomplete(device, f"has version {version} of the API, not {API_VERSION}")
    needed = _NEEDED | _NEEDED_FOR_IRQCHIP if irqchip else _NEEDED
    missing = [wanted.name for wanted in sorted(needed) if not _has(kvm, wanted)]
    if missing:
        raise KvmIncomplete(device, f"lacks {', '.join(missing)}")


def _has(kvm: int, capability: Capability) -> bool:
    return call(kvm, Call.KVM_CHECK_EXTENSION, capability, about=capability.name) > 0
