"""Memory that guests and processes of the host share, as a BAR of a PCI function.

    shared-memory,file=/dev/shm/frames,size=16M,pci-socket=/run/vm1/frames.sock

Whoever maps the file, or has a device with it, sees the same bytes: a guest by the device's
only BAR, a process of the host by the file. There is nothing else: no registers, and no
interrupt. Who needs to tell the other side something puts it there, or uses another device.

On the bus the device has a range of addresses for memory, which doesn't trap. A VMM maps the
file there by itself.

It isn't QEMU's `ivshmem`, whose drivers expect registers in BAR 0 and the memory in BAR 2.
It has the numbers of a test device, of the class of memory, which no driver binds to by
itself: a program in the guest maps the BAR through sysfs, or binds `uio_pci_generic`.

What is in memory without a file is lost with the device: it isn't part of its state.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devicehost_server.devices.base import Device, DeviceContext
from devicehost_server.devices.config import option
from devicehost_server.model.errors import BadConfig
from devicehost_server.model.pci import OfferedMemory, PciIdentity
from devicehost_server.model.resources import (
    PAGE_SIZE,
    MemAddressConstraint,
    ResourceConstraint,
)

SIZE = 1 << 20
"""How many bytes there are, if nothing else is configured."""

_MODE = 0o600
_FIXED_SIZE = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


@dataclass(frozen=True, slots=True)
class SharedMemoryConfig:
    """Which memory it is."""

    file: Path | None = option(None, "what is shared; made, or made larger, if need be")
    size: int = option(SIZE, "how many bytes, whole pages", minimum=PAGE_SIZE)
    readonly: bool = option(default=False, help="the guest can't write it")


class SharedMemoryDevice(Device[SharedMemoryConfig]):
    """Memory that guests and processes of the host share.

    Raises:
        BadConfig: the size isn't in whole pages, or nobody could ever write the memory.
    """

    type_name = "shared-memory"
    config_type = SharedMemoryConfig
    pci_identity = PciIdentity(0x1B36, 0x0005, 0x050000)

    _fd: int | None = None

    def __init__(self, config: SharedMemoryConfig) -> None:
        super().__init__(config)
        if config.size % PAGE_SIZE:
            raise self._bad("size", f"{config.size:#x} is not allowed; allowed: whole pages")
        if config.readonly and config.file is None:
            raise self._bad("readonly", "nobody could write the memory; allowed: with a file")

    def get_resource_constraints(self) -> Sequence[ResourceConstraint]:
        """Addresses for the memory."""
        return [MemAddressConstraint(size=self.config.size)]

    def offered_memory(self) -> Sequence[OfferedMemory]:
        """All of it; nothing in a replay."""
        if self._fd is None:
            return ()
        return [OfferedMemory(self._fd, 0, self.config.size, not self.config.readonly)]

    def assign(self, context: DeviceContext) -> None:
        """Take the addresses, and open the file.

        Raises:
            BadConfig: it can't be opened, isn't a regular file, or isn't large enough.
        """
        super().assign(context)
        if context.dma is None:
            return
        try:
            self._open()
        except OSError as error:
            self.close()
            raise self._bad("file", f"{self.config.file}: {error.strerror}") from error

    def view(self) -> Mapping[str, object]:
        """What is shared."""
        return {"file": str(self.config.file or "memfd"), "size": self.config.size}

    def close(self) -> None:
        """Let go of the memory; clients that have mapped it still have it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> None:
        size, file = self.config.size, self.config.file
        if file is None:
            self._fd = os.memfd_create(self.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(self._fd, size)
            # A client that has it can't make it shorter, under another one that has mapped it.
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _FIXED_SIZE)
            return
        access = os.O_RDONLY if self.config.readonly else os.O_RDWR | os.O_CREAT
        # A FIFO without a writer must not make us wait.
        self._fd = os.open(file, access | os.O_CLOEXEC | os.O_NONBLOCK, _MODE)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it isn't a regular file")
        if status.st_size < size and self.config.readonly:
            raise OSError(errno.EINVAL, f"it has {status.st_size:#x} bytes, allowed: {size:#x}")
        if status.st_size < size:
            os.ftruncate(self._fd, size)

    def _bad(self, field: str, why: str) -> BadConfig:
        return BadConfig(
            f"device type {self.type_name!r}: field {field!r}: {why}",
            field=field,
            type=self.type_name,
        )
