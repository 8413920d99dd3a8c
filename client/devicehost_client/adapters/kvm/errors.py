"""What can go wrong between this adapter and KVM.

    KvmError
    ├── KvmUnavailable      KVM can't be used here at all
    │   ├── WrongPlatform   not Linux on x86-64
    │   ├── NoKvm           no KVM device at the path
    │   ├── KvmForbidden    the device is there, but not for this user
    │   └── KvmIncomplete   the kernel's KVM lacks an interface that the adapter needs
    ├── BadVmArgument       a value that KVM would refuse; a ValueError as well
    ├── BadVmState          closed, running, or made without what is asked of it
    └── KvmCallFailed       a system call failed; carries its name and errno

What a guest does is never an error: how a run ended is a value, see `exits`.
"""

from __future__ import annotations

import os


class KvmError(Exception):
    """The root: each error that this package raises by itself."""


class KvmUnavailable(KvmError):
    """KVM can't be used on this machine or by this process."""


class WrongPlatform(KvmUnavailable):
    """The machine isn't Linux on x86-64."""

    def __init__(self, system: str, machine: str) -> None:
        super().__init__(f"the KVM adapter needs Linux on x86_64; this is {system} on {machine}")


class NoKvm(KvmUnavailable):
    """There is no KVM device at the path."""

    def __init__(self, path: str, found: str) -> None:
        super().__init__(
            f"no KVM at {path} ({found}): is the kvm_intel or kvm_amd module loaded, "
            f"virtualization enabled in the firmware, and the device passed into this container?"
        )


class KvmForbidden(KvmUnavailable):
    """The KVM device is there, but this user may not open it."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"user {os.geteuid()} may not open {path} for reading and writing: "
            f"is the user in the device's group (often 'kvm')?"
        )


class KvmIncomplete(KvmUnavailable):
    """The kernel's KVM lacks an interface that the adapter needs."""

    def __init__(self, path: str, lack: str) -> None:
        super().__init__(f"the KVM of {path} {lack}")


class BadVmArgument(KvmError, ValueError):
    """A value that KVM would refuse, or would take without doing what was meant."""


class BadVmState(KvmError):
    """The object is closed, or running, or was made without what is asked of it."""


class KvmCallFailed(KvmError):
    """A system call failed, for a reason that only the kernel can know beforehand.

    Attributes:
        call: Its name, such as "KVM_CREATE_VCPU".
        errno: The kernel's error number, as in module `errno`.
    """

    def __init__(self, call: str, errno: int, about: str) -> None:
        super().__init__(f"{call} failed for {about}: {os.strerror(errno)} (errno {errno})")
        self.call = call
        self.errno = errno
