"""An access while it passes, for who may hold it, change it or spoil it."""

from __future__ import annotations

from typing import Protocol

from devicehost.access_status import AccessStatus
from devicehost.recording.events import Operation, Space


class PendingAccess:
    """An access on its way to a device and back. It belongs to the thread that makes it.

    Attributes:
        time_ns: when it began, on the server's monotonic clock.
        vcpu: whose it is; None if that isn't known.
        space: the address space.
        operation: read or write.
        address: of its first byte.
        size: of one operand, in bytes; `data` is longer than that in a string access.
        data: what is written, or what was read: nothing before the device was asked. A
            stage may put other bytes there, of the same length.
        length: how many bytes `data` has, or will have.
        device: the device's id; empty if there is none.
        range: which of the device's trapped ranges it is in, by their order.
        offset: from the base of that range, in bytes.
        status: how it ended; OK before the device was asked.
    """

    __slots__ = (
        "address",
        "data",
        "device",
        "length",
        "offset",
        "operation",
        "range",
        "size",
        "space",
        "status",
        "time_ns",
        "vcpu",
    )

    def __init__(
        self,
        *,
        time_ns: int,
        vcpu: int | None,
        space: Space,
        operation: Operation,
        address: int,
        size: int,
        data: bytes,
        length: int,
        device: str,
        range: int,  # noqa: A002 # as registers have it
        offset: int,
    ) -> None:
        self.time_ns = time_ns
        self.vcpu = vcpu
        self.space = space
        self.operation = operation
        self.address = address
        self.size = size
        self.data = data
        self.length = length
        self.device = device
        self.range = range
        self.offset = offset
        self.status = AccessStatus.OK


class Stage(Protocol):
    """Steps in. Called for every access while it is armed, on the thread that makes it.

    No lock is held, and the device doesn't know of the access: a stage may block.
    """

    def before(self, access: PendingAccess) -> None:
        """The device is about to be asked. What is raised here is how the access ends.

        Raises:
            DeviceHostError: the device isn't asked.
        """

    def after(self, access: PendingAccess) -> None:
        """The access has ended, as `status` says."""
