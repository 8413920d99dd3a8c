"""A bench for stages: real devices on a real bus, and accesses that pass by the stages."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from devicehost.access_status import AccessStatus
from devicehost.recording import Operation, Space
from devicehost.registers import Access, Field, Register, RegisterMap, Via, When
from devicehost_server.allocation import ResourceManager
from devicehost_server.debug.breakpoint import Breakpoint
from devicehost_server.debug.breakpoints import Breakpoints
from devicehost_server.debug.faults import Fault, Faults
from devicehost_server.debug.holds import Hit, HoldEnded
from devicehost_server.debug.pending import PendingAccess, Stage
from devicehost_server.debug.registers import RegisterMaps
from devicehost_server.device_manager import DeviceManager
from devicehost_server.devices.base import Device, DeviceContext
from devicehost_server.devices.config import option
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.model.clock import SystemClock
from devicehost_server.model.device_io import ReadableBuffer, WritableBuffer
from devicehost_server.model.errors import DeviceHostError
from devicehost_server.model.guest_memory import GuestMemory
from devicehost_server.model.holds import Holds
from devicehost_server.model.interrupts import InterruptController, InterruptLine
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.resources import (
    LegacyIrq,
    LegacyIrqConstraint,
    PioAddressConstraint,
    PioAddressRange,
    ResourceConstraint,
)

T = TypeVar("T")

DEADLINE_S = 20.0
"""How long a test waits for what must come."""

UART = 0x3F8
UART_IRQ = 4
RTC = 0x70
CHIP = 0x600
CHIP_IRQ = 5

DLAB = 0x80
UART_MAP = RegisterMap(
    "given-uart",
    (
        Register("RBR", 0, access=Access.READ_ONLY),
        Register("THR", 0, access=Access.WRITE_ONLY),
        Register("DLL", 0, when=When("LCR", "DLAB", 1)),
        Register("IER", 1),
        Register("DLM", 1, when=When("LCR", "DLAB", 1)),
        Register("IIR", 2, access=Access.READ_ONLY),
        Register("FCR", 2, access=Access.WRITE_ONLY),
        Register("LCR", 3, fields=(Field("DLAB", DLAB), Field("WLS", 0x03))),
        Register("MCR", 4),
        Register("LSR", 5, access=Access.READ_ONLY),
        Register("MSR", 6, access=Access.READ_ONLY),
        Register("SCR", 7),
    ),
)

RTC_MAP = RegisterMap(
    "given-rtc",
    (
        Register("INDEX", 0, access=Access.WRITE_ONLY),
        Register("DATA", 1),
        *(
            Register(name, number, via=Via("INDEX", "DATA", 0x7F))
            for name, number in (("SECONDS", 0), ("REG_B", 0x0B), ("REG_C", 0x0C))
        ),
        Register("RAM", 0x40, count=16, via=Via("INDEX", "DATA", 0x7F)),
    ),
)

BANK, SHARED, STATUS, WIDE, ROW, SPARSE, LEVEL, RAISE = 0, 1, 2, 4, 8, 0x10, 0x18, 0x19


@dataclass(frozen=True, slots=True)
class Config:
    base: int = option(CHIP, "the first port", minimum=0)


class Chip(Device[Config]):
    """Memory of 32 bytes behind ports, whose registers share places, and that can interrupt."""

    type_name = "chip"
    config_type = Config
    register_map = RegisterMap(
        "chip",
        (
            Register("BANK", BANK, fields=(Field("SEL", 0x01),)),
            Register("A", SHARED, when=When("BANK", "SEL", 0)),
            Register("B", SHARED, when=When("BANK", "SEL", 1)),
            Register("STATUS", STATUS, access=Access.READ_ONLY),
            Register("COMMAND", STATUS, access=Access.WRITE_ONLY),
            Register("WIDE", WIDE, 4, sizes=(1, 2, 4)),
            Register("ROW", ROW, 2, count=4),
            Register("SPARSE", SPARSE, 1, count=4, stride=2),
            Register("LEVEL", LEVEL),
            Register("RAISE", RAISE),
        ),
    )
    line: InterruptLine

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.memory = bytearray(32)
        self.written: list[tuple[int, bytes]] = []

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        return [
            PioAddressConstraint.exact(self.config.base, len(self.memory)),
            LegacyIrqConstraint(CHIP_IRQ),
        ]

    def assign(self, context: DeviceContext) -> None:
        super().assign(context)
        self.line = context.interrupt_line(context.resources.of_type(LegacyIrq)[0].irq)

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:
        if offset == RAISE:
            raise LookupError("on purpose")
        data[:] = self.memory[offset : offset + len(data)]

    def pio_write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        if offset == RAISE:
            raise LookupError("on purpose")
        self.memory[offset : offset + len(data)] = data
        self.written.append((offset, bytes(data)))
        if offset == LEVEL:
            self.line.set_level(asserted=bool(data[0]))

    def peek(self, register: str) -> int:
        if register == "BANK":
            return self.memory[BANK]
        return super().peek(register)


class StageBench:
    """Devices `uart0`, `rtc0` and `chip0`; accesses to them pass by `stages`, as on a server."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.clock = SystemClock(self.errors.append)
        self.io = IoManager()
        self.interrupts = InterruptController()
        types = DeviceTypes([Chip])
        self.devices = DeviceManager(
            types=types,
            io=self.io,
            resources=ResourceManager(),
            interrupts=self.interrupts,
            memory=GuestMemory(),
            clock=self.clock,
            on_fault=lambda _, error: self.errors.append(error),
        )
        self.registers = RegisterMaps(self.devices, types)
        self.devices.plug("uart16550", {"base": hex(UART), "irq": str(UART_IRQ)}, device_id="uart0")
        self.devices.plug("mc146818", {"base": hex(RTC)}, device_id="rtc0")
        self.devices.plug("chip", {}, device_id="chip0")
        self.registers.set("uart0", UART_MAP)
        self.registers.set("rtc0", RTC_MAP)
        self.stages: list[Stage] = []
        self.threads = ThreadPoolExecutor(8)

    def close(self) -> None:
        self.threads.shutdown()
        self.devices.close()
        self.clock.close()
        assert self.errors == []

    @property
    def chip(self) -> Chip:
        chip = self.devices.device("chip0")
        assert isinstance(chip, Chip)
        return chip

    def read(self, address: int, size: int = 1, **more: Any) -> int:
        """Read a port; return the number."""
        data = self.access(Operation.READ, address, bytes(size), **more)
        return int.from_bytes(data, "little")

    def write(self, address: int, value: int, size: int = 1, **more: Any) -> None:
        """Write a number to a port."""
        self.access(Operation.WRITE, address, value.to_bytes(size, "little"), **more)

    def access(
        self,
        operation: Operation,
        port: int,
        data: bytes,
        *,
        size: int = 0,
        vcpu: int | None = 0,
        space: Space = Space.PIO,
    ) -> bytes:
        """Make an access as the server makes it when somebody looks; return its data."""
        access = self.pending(operation, port, data, size=size, vcpu=vcpu, space=space)
        try:
            try:
                for stage in self.stages:
                    stage.before(access)
                buffer = bytearray(access.data or access.length)
                self._make(access, buffer)
            except DeviceHostError as error:
                access.status = AccessStatus[error.reason]
                raise
            access.data = bytes(buffer)
        finally:
            for stage in self.stages:
                stage.after(access)
        return access.data

    def pending(
        self,
        operation: Operation,
        port: int,
        data: bytes,
        *,
        size: int = 0,
        vcpu: int | None = 0,
        space: Space = Space.PIO,
    ) -> PendingAccess:
        """An access, before it is made."""
        device, number, offset = self._place(space, port)
        return PendingAccess(
            time_ns=time.monotonic_ns(),
            vcpu=vcpu,
            space=space,
            operation=operation,
            address=port,
            size=size or len(data),
            data=data if operation is Operation.WRITE else b"",
            length=len(data),
            device=device,
            range=number,
            offset=offset,
        )

    def _make(self, access: PendingAccess, buffer: bytearray) -> None:
        read = access.operation is Operation.READ
        if access.space is Space.MMIO:
            (self.io.mmio_read if read else self.io.mmio_write)(access.address, buffer)
        else:
            call = self.io.pio_read if read else self.io.pio_write
            call(access.address, buffer, access.size)

    def _place(self, space: Space, port: int) -> tuple[str, int, int]:
        for info in self.devices.devices()[1]:
            for number, trapped in enumerate(info.resources.trapped()):
                is_pio = isinstance(trapped, PioAddressRange)
                if is_pio is (space is Space.PIO) and trapped.base <= port <= trapped.last:
                    return info.id, number, port - trapped.base
        return "", 0, 0

    def start(self, call: Callable[..., T], *args: Any, **more: Any) -> Future[T]:
        """Make an access on a thread of its own."""
        return self.threads.submit(call, *args, **more)


class BreakpointBench(StageBench):
    """The same with breakpoints, whose hits are in a queue. It is armed as they need it."""

    def __init__(self) -> None:
        super().__init__()
        self.holds = Holds()
        self.recordings = 0
        self.states: Callable[[], str] = lambda: '{"chip0": "saved"}'
        self.armed = threading.Event()
        self.disarmed = threading.Event()
        self.disarmed.set()
        self.breakpoints = Breakpoints(
            self.registers,
            self.holds,
            save_states=self._save_states,
            record=self._record,
            on_needed_changed=self._arm,
        )
        self.events: queue.Queue[Hit | HoldEnded] = queue.Queue()
        self.breakpoints.subscribe(self.events.put)
        self.interrupts.subscribe(self.breakpoints.interrupt)

    def close(self) -> None:
        self.breakpoints.drain()
        super().close()

    def _save_states(self) -> str:
        return self.states()

    def _record(self) -> None:
        self.recordings += 1

    def _arm(self) -> None:
        needed = self.breakpoints.is_needed
        self.stages = [self.breakpoints] if needed else []
        (self.armed if needed else self.disarmed).set()
        (self.disarmed if needed else self.armed).clear()

    def create(self, **fields: Any) -> int:
        """Make a breakpoint; return its number."""
        return self.breakpoints.create(Breakpoint(**fields)).id

    def next_hit(self) -> Hit:
        event = self.events.get(timeout=DEADLINE_S)
        assert isinstance(event, Hit), event
        return event

    def next_end(self) -> HoldEnded:
        event = self.events.get(timeout=DEADLINE_S)
        assert isinstance(event, HoldEnded), event
        return event

    def resume(self, hit: Hit, *args: Any, **more: Any) -> None:
        """Resume what a hit holds, and see that it ends."""
        self.breakpoints.resume(hit.id, *args, **more)
        assert self.next_end().hit_id == hit.id


class FaultBench(StageBench):
    """The same with faults."""

    def __init__(self) -> None:
        super().__init__()
        self.faults = Faults(self.registers, on_needed_changed=self._arm)

    def close(self) -> None:
        self.faults.drain()
        super().close()

    def _arm(self) -> None:
        self.stages = [self.faults] if self.faults.is_needed else []

    def create(self, kind: Any, **fields: Any) -> int:
        """Make a fault; return its number."""
        return self.faults.create(Fault(kind, **fields)).id

    def count(self, fault_id: int) -> int:
        """How many accesses a fault has spoiled."""
        return next(each.count for each in self.faults.list() if each.id == fault_id)
