"""What can go wrong between this adapter and KVM.

    KvmError
    ├── KvmUnavailableError      KVM can't be used here at all
    │   ├── KvmPlatformError     not Linux on x86-64
    │   ├── KvmMissingError      no KVM device at the path
    │   ├── KvmPermissionError   the device is there, but not for this user
    │   └── KvmVersionError      a kernel without an interface that the adapter needs
    ├── KvmArgumentError         a value that KVM would refuse; also a ValueError
    ├── KvmStateError            closed, running already, or made without what the call needs
    └── KvmCallError             an ioctl failed; carries its name and errno

What a guest does is never an error: how a run ended is a value, see `exits`.
"""

from __future__ import annotations

import os


class KvmError(Exception):
    """The root: each error that this package raises by itself."""


class KvmUnavailableError(KvmError):
    """KVM can't be used on this machine or by this process."""


class KvmPlatformError(KvmUnavailableError):
    """The machine isn't Linux on x86-64."""

    def __init__(self, system: str, machine: str) -> None:
        super().__init__(f"the KVM adapter needs Linux on x86_64; this is {system} on {machine}")


class KvmMissingError(KvmUnavailableError):
    """There is no KVM device at the path."""

    def __init__(self, path: str, found: str) -> None:
        super().__init__(
            f"{path} {found}: is the kvm_intel or kvm_amd module loaded, virtualization enabled "
            f"in the firmware, and the device passed into this container?"
        )


class KvmPermissionError(KvmUnavailableError):
    """The KVM device is there, but this user may not open it."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path} may not be opened for reading and writing by user {os.geteuid()}: "
            f"is the user in the device's group (often 'kvm')?"
        )


class KvmVersionError(KvmUnavailableError):
    """The kernel lacks an interface that the adapter needs."""


class KvmArgumentError(KvmError, ValueError):
    """A value that KVM would refuse, or would take without doing what was meant."""


class KvmStateError(KvmError):
    """The object is closed, or running, or was made without what the call needs."""


class KvmCallError(KvmError):
    """An ioctl failed for a reason that only the kernel can know beforehand.

    Attributes:
        call: The ioctl's name, such as "KVM_CREATE_VCPU".
        errno: The kernel's error number, as in module `errno`.
    """

    def __init__(self, call: str, errno: int, about: str) -> None:
        super().__init__(f"{call} failed for {about}: {os.strerror(errno)} (errno {errno})")
        self.call = call
        self.errno = errno
