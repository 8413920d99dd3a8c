"""PCI functions to test: a server that has some, and a vfio-user client as a VMM is one.

with functions(tmp_path) as there:
    there.plug("messenger")
    with there.vmm() as vmm:
        vmm.put(0, SEND_MSIX, 2)
"""

from __future__ import annotations

import mmap
import os
import select
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from buslab import Client, memfd
from daemonlab import WAIT_S, Lab
from devicehost.vfio_user import (
    DeviceReset,
    DmaUnmap,
    GetIrqInfo,
    GetRegionInfo,
    IrqAction,
    IrqData,
    IrqInfo,
    RegionInfo,
    SetIrqs,
)
from devicehost_server.devices.base import Device, DeviceContext, NoConfig
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.listeners import UnixListener
from devicehost_server.model.device_io import ReadableBuffer, WritableBuffer
from devicehost_server.model.resources import (
    LegacyIrqConstraint,
    MmioAddressConstraint,
    MsiIrq,
    PciMsiIrqConstraint,
    PciMsixIrqConstraint,
    PioAddressConstraint,
    ResourceConstraint,
)
from devicehost_server.server import DeviceServer, ServerConfig
from testdevices import TEST_DEVICES

INTX, MSI, MSIX, ERR, REQ = range(5)
ROM, CONFIG, VGA = 6, 7, 8

COMMAND = 0x04
STATUS = 0x06
BAR0 = 0x10
BUS_MASTER = 0x4
INTX_DISABLE = 0x400
ALL_ONES = 0xFFFF_FFFF

CAP_MSI, CAP_MSIX = 0x05, 0x11
MSI_ENABLE = 0x0001
MSIX_ENABLE = 0x8000

SIZE = 0x1800
"""Bytes of MMIO of a messenger; its BAR has 0x2000."""
PORTS = 6
"""I/O ports of a messenger; their BAR has 8."""
MSI_COUNT, MSIX_COUNT = 4, 20

MMIO_BAR, IO_BAR, MSIX_BAR = 0, 1, 2

LEVEL = 0x00
"""Register of a messenger: the byte written is the level of INTx."""
SEND_MSI = 0x04
"""Register of a messenger: the byte written is the number of a message."""
SEND_MSIX = 0x08
"""Likewise, of MSI-X."""
FAULT = 0x0C
"""Register of a messenger: an access raises."""


class Messenger(Device[NoConfig]):
    """Interrupts in all ways, and remembers what is written to it, but for the registers above.

    Attributes:
        accesses: offset and size of each access, in order.
        first_msix: the number on the server of MSI-X vector 0.
    """

    type_name = "messenger"

    def __init__(self, config: NoConfig) -> None:
        super().__init__(config)
        self.content = bytearray(SIZE)
        self.ports = bytearray(PORTS)
        self.accesses: list[tuple[int, int]] = []

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        return [
            MmioAddressConstraint.exact(0xFEB0_0000, SIZE),
            PioAddressConstraint.exact(0x3F8, PORTS),
            LegacyIrqConstraint(4),
            PciMsiIrqConstraint(MSI_COUNT),
            PciMsixIrqConstraint(MSIX_COUNT),
        ]

    def assign(self, context: DeviceContext) -> None:
        super().assign(context)
        self.line = context.interrupt_line(context.resources.get_legacy_irq() or 0)
        msi, msix = context.resources.of_type(MsiIrq)
        self.first_msix = msix.base
        self._first = {SEND_MSI: msi.base, SEND_MSIX: msix.base}

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:
        del base
        self.accesses.append((offset, len(data)))
        if offset == FAULT:
            raise ValueError("fault register was read")
        data[:] = self.content[offset : offset + len(data)]

    def write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        del base
        self.accesses.append((offset, len(data)))
        if offset == LEVEL:
            self.line.set_level(asserted=bool(data[0]))
        elif offset in self._first:
            self.context.interrupts.pulse(self._first[offset] + data[0], self.name)
        else:
            self.content[offset : offset + len(data)] = data

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:
        del base
        self.accesses.append((offset, len(data)))
        data[:] = self.ports[offset : offset + len(data)]

    def pio_write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        del base
        self.accesses.append((offset, len(data)))
        self.ports[offset : offset + len(data)] = data

    def reset(self) -> None:
        with self.lock:
            self.line.set_level(asserted=False)
            self.content[:] = bytes(SIZE)


class Eventfd:
    """An eventfd of the client."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0)

    def wait(self) -> int:
        """Return how often it was signalled, once it was."""
        assert select.select([self.fd], [], [], WAIT_S)[0], "nobody signalled it"
        return os.eventfd_read(self.fd)

    def is_signalled(self) -> bool:
        """Whether it is now; what signals it must have returned before."""
        return bool(select.select([self.fd], [], [], 0)[0])

    def close(self) -> None:
        os.close(self.fd)


class Vmm(Client):
    """A client of one function. Its eventfds and memory end with the block."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self._eventfds: list[Eventfd] = []

    def close(self) -> None:
        super().close()
        while self._eventfds:
            self._eventfds.pop().close()

    # Regions.

    def region(self, index: int, argsz: int = 4096) -> RegionInfo:
        """Return what a region is; close what came along."""
        reply = self.ask(GetRegionInfo(index, argsz))
        for fd in reply.fds:
            os.close(fd)
        assert isinstance(reply.payload, RegionInfo)
        return reply.payload

    def map_region(self, index: int) -> mmap.mmap:
        """Map a region that has a file."""
        reply = self.ask(GetRegionInfo(index, 4096))
        assert isinstance(reply.payload, RegionInfo)
        [fd] = reply.fds
        mapped = mmap.mmap(fd, reply.payload.size, offset=reply.payload.offset)
        os.close(fd)
        return mapped

    def get(self, region: int, offset: int, size: int = 4) -> int:
        return int.from_bytes(self.read(offset, size, region), "little")

    def put(self, region: int, offset: int, value: int, size: int = 4) -> None:
        self.write(offset, value.to_bytes(size, "little"), region)

    def set_command(self, bits: int) -> None:
        self.put(CONFIG, COMMAND, bits, 2)

    def capability(self, identifier: int) -> int:
        """Return where in configuration space a capability is."""
        at = self.get(CONFIG, 0x34, 1)
        while at:
            found, following = self.read(at, 2, CONFIG)
            if found == identifier:
                return at
            at = following
        raise LookupError(f"there is no capability {identifier:#x}")

    def enable_messages(self, identifier: int, control: int) -> None:
        """Set message control of MSI or MSI-X, as a driver does."""
        self.put(CONFIG, self.capability(identifier) + 2, control, 2)

    def reset(self) -> None:
        self.ask(DeviceReset())

    # Interrupts.

    def irq(self, index: int) -> IrqInfo:
        info = self.ask(GetIrqInfo(index)).payload
        assert isinstance(info, IrqInfo)
        return info

    def connect(self, index: int, start: int = 0, count: int = 1) -> list[Eventfd]:
        """Connect new eventfds to interrupts, in one message."""
        made = [Eventfd() for _ in range(count)]
        self._eventfds += made
        self.set_irqs(index, IrqAction.TRIGGER, IrqData.EVENTFD, start, made)
        return made

    def set_irqs(
        self,
        index: int,
        action: IrqAction,
        data: IrqData = IrqData.NONE,
        start: int = 0,
        eventfds: list[Eventfd] | None = None,
        *,
        count: int = 1,
        bools: bytes = b"",
    ) -> None:
        fds = [each.fd for each in eventfds or ()]
        self.ask(SetIrqs(index, start, len(fds) or count, action, data, bools), *fds)

    def mask(self, index: int = INTX, start: int = 0) -> None:
        self.set_irqs(index, IrqAction.MASK, start=start)

    def unmask(self, index: int = INTX, start: int = 0) -> None:
        self.set_irqs(index, IrqAction.UNMASK, start=start)

    def disable(self, index: int) -> None:
        """Disconnect all eventfds of an index."""
        self.set_irqs(index, IrqAction.TRIGGER, count=0)

    # Memory.

    def share(self, base: int, size: int) -> mmap.mmap:
        """Share memory of its own; return it."""
        fd = memfd(size)
        self.map(base, size, fd)
        mapped = mmap.mmap(fd, size)
        os.close(fd)
        return mapped

    def unshare(self, base: int, size: int) -> None:
        self.ask(DmaUnmap(base, size))


class Functions:
    """Functions of a server in this process, by name; each is on a socket of its own.

    Attributes:
        lab: the server.
    """

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self._directory = directory

    def path(self, name: str = "f") -> Path:
        return self._directory / f"{name}.sock"

    def plug(self, type_name: str, name: str = "f", **config: str) -> Any:
        """Plug a function; return the device."""
        devices = self.lab.server.devices
        place = {"pci-socket": str(self.path(name))}
        devices.plug(type_name, {**config, **place}, device_id=name)
        return devices.device(name)

    def messenger(self, name: str = "f") -> Messenger:
        """Plug a messenger; return it."""
        return cast("Messenger", self.plug("messenger", name))

    def vmm(self, name: str = "f") -> Vmm:
        """Attach to a function."""
        return Vmm(self.path(name))


@contextmanager
def functions(directory: Path, **config: Any) -> Iterator[Functions]:
    """Serve in this process, with the devices for tests; `config` as of `ServerConfig`."""
    path = directory / "host.sock"
    types = DeviceTypes((*TEST_DEVICES, Messenger))
    server = DeviceServer(ServerConfig(unix=UnixListener(path), **config), types)
    server.start()
    try:
        with ExitStack() as closing:
            yield Functions(Lab(server, path, closing), directory)
    finally:
        server.stop()


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
