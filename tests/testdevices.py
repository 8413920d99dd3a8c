"""Device types for tests: one that works, and some that misbehave on request.

All of them are plugged like any other, over the wire or not. A test that needs the device
itself asks its server: `server.devices.device(id)`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from devicehost_server.devices.base import ConcurrentDevice, Device, DeviceContext
from devicehost_server.devices.config import option
from devicehost_server.model.device_io import ReadableBuffer, WritableBuffer
from devicehost_server.model.interrupts import InterruptLine
from devicehost_server.model.resources import (
    LegacyIrqConstraint,
    MmioAddressConstraint,
    MmioAddressRange,
    PioAddressConstraint,
    PioAddressRange,
    ResourceConstraint,
)

STEPS = ("create", "constrain", "allocate", "assign", "start", "register")
"""What can fail while a device is plugged, in order."""

LEVEL = 0xFF0
"""Register: the byte written here is the level of its interrupt."""
PULSE = 0xFF4
"""Register: a write here fires its interrupt once."""
FAULT = 0xFF8
"""Register: an access here raises."""


COPY_IN = 0x00
"""Register of a copier: the address to copy from."""
COPY_OUT = 0x08
"""Register of a copier: the address to copy to."""


@dataclass(frozen=True, slots=True)
class RegisterConfig:
    base: int | None = option(None, "MMIO address; none for any", minimum=0)
    size: int = option(0x1000, "bytes of MMIO", minimum=1)
    port: int | None = option(None, "a port as well", minimum=0)
    irq: int | None = option(None, "legacy IRQ; none for no interrupt", minimum=0)


class Register(Device[RegisterConfig]):
    """Memory that can interrupt; its one port, if it has one, is a FIFO."""

    type_name = "register"
    config_type = RegisterConfig

    line: InterruptLine | None = None

    def __init__(self, config: RegisterConfig) -> None:
        super().__init__(config)
        self.content = bytearray(config.size)
        self.written: list[bytes] = []
        self.fifo = bytearray()

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        config = self.config
        needs: list[ResourceConstraint] = [
            MmioAddressConstraint(size=config.size)
            if config.base is None
            else MmioAddressConstraint.exact(config.base, config.size)
        ]
        if config.port is not None:
            needs.append(PioAddressConstraint.exact(config.port, 4))
        if config.irq is not None:
            needs.append(LegacyIrqConstraint(config.irq))
        return needs

    def assign(self, context: DeviceContext) -> None:
        super().assign(context)
        irq = context.resources.get_legacy_irq()
        if irq is not None:
            self.line = context.interrupt_line(irq)

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:
        del base
        if offset == FAULT:
            raise ValueError("fault register was read")
        data[:] = self.content[offset : offset + len(data)]

    def write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        del base
        self.written.append(bytes(data))
        if offset == FAULT:
            raise ValueError("fault register was written")
        self.content[offset : offset + len(data)] = data
        if self.line is not None:
            if offset == LEVEL:
                self.line.set_level(asserted=bool(data[0]))
            elif offset == PULSE:
                self.line.pulse()

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:
        del base, offset
        taken = self.fifo[: len(data)].ljust(len(data), b"\0")
        del self.fifo[: len(data)]
        data[:] = taken

    def pio_write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        del base, offset
        self.fifo += data

    def close(self) -> None:
        if self.line is not None:
            self.line.set_level(asserted=False)


@dataclass(frozen=True, slots=True)
class RaiserConfig:
    step: str = option("", "the step that raises")
    exits: bool = option(default=False, help="raise SystemExit, as sys.exit() does")
    base: int = option(0xC100_0000, "MMIO address")


class Raiser(Device[RaiserConfig]):
    """Raises in the step that it is told."""

    type_name = "raiser"
    config_type = RaiserConfig

    closed: Callable[[], None] | None = None

    def __init__(self, config: RaiserConfig) -> None:
        super().__init__(config)
        self._at("create")

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        self._at("constrain")
        needs: list[ResourceConstraint] = [
            MmioAddressConstraint.exact(self.config.base, 0x1000),
            PioAddressConstraint(size=8),
            LegacyIrqConstraint(),
        ]
        if self.config.step == "allocate":  # only then does the last of several fail
            needs.append(PioAddressConstraint(size=1 << 16))
        return needs

    def assign(self, context: DeviceContext) -> None:
        super().assign(context)
        line = context.interrupt_line(context.resources.get_legacy_irq() or 0)
        line.set_level(asserted=True)
        self._line = line
        self._at("assign")

    def start(self) -> None:
        self._at("start")

    def get_trapped_io_resources(self) -> Sequence[PioAddressRange | MmioAddressRange]:
        self._at("register")
        return super().get_trapped_io_resources()

    def close(self) -> None:
        self._line.set_level(asserted=False)
        self._at("close")

    def _at(self, step: str) -> None:
        if step == self.config.step:
            error = SystemExit if self.config.exits else RuntimeError
            raise error(f"told to raise in {step}")


class Trespasser(Device[RaiserConfig]):
    """Has one range, and traps another one that it was never given."""

    type_name = "trespasser"
    config_type = RaiserConfig

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        return [MmioAddressConstraint(size=0x1000)]

    def get_trapped_io_resources(self) -> Sequence[PioAddressRange | MmioAddressRange]:
        return [MmioAddressRange(self.config.base, 0x10)]


class Copier(Device[RegisterConfig]):
    """Copies between 8 bytes of its own and guest memory; a write says to where, or from where."""

    type_name = "copier"
    config_type = RegisterConfig

    def __init__(self, config: RegisterConfig) -> None:
        super().__init__(config)
        self.content = bytes(8)

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        if self.config.base is None:
            return [MmioAddressConstraint(size=0x1000)]
        return [MmioAddressConstraint.exact(self.config.base, 0x1000)]

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:
        del base, offset
        data[:] = self.content

    def write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        del base
        address = int.from_bytes(data, "little")
        if offset == COPY_IN:
            self.content = self.context.memory.read(address, 8)
        else:
            self.context.memory.write(address, self.content)


class Blocker(ConcurrentDevice[RegisterConfig]):
    """A read waits until the test lets it go on; a write doesn't."""

    type_name = "blocker"
    config_type = RegisterConfig

    def __init__(self, config: RegisterConfig) -> None:
        super().__init__(config)
        self.entered = threading.Event()
        self.release = threading.Event()
        self.closed = threading.Event()

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        return [MmioAddressConstraint(size=0x1000)]

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:
        del base, offset
        self.entered.set()
        if not self.release.wait(60):
            raise TimeoutError("nobody let it go on")
        data[:] = b"\x5a" * len(data)

    def close(self) -> None:
        self.closed.set()


class Caller(Device[RegisterConfig]):
    """A write calls what the test put into `on_write`."""

    type_name = "caller"
    config_type = RegisterConfig

    on_write: Callable[[], object]

    def __init__(self, config: RegisterConfig) -> None:
        super().__init__(config)
        self.closed = threading.Event()

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        return [MmioAddressConstraint(size=0x1000)]

    def write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        del base, offset, data
        self.on_write()

    def close(self) -> None:
        self.closed.set()


TEST_DEVICES = (Register, Raiser, Trespasser, Copier, Blocker, Caller)
