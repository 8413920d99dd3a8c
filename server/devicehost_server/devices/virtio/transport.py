"""What the two transports have in common: registers, the interrupt status, and the line.

A transport turns accesses into calls of a `Negotiation` and a `Core`, and what the core has
to tell the driver into interrupts. Its address space is made of regions of equal size: the
device's own configuration has one to itself, registers are in the others. Each register is
`Wired`: declared, with what its accesses do. How accesses of any size and place become
accesses of registers is described in `devices.register_dispatch`.

All of it is entered under the device's lock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Protocol

from devicehost.registers import Field, Register, RegisterMap
from devicehost_server.devices.base import DeviceContext, State
from devicehost_server.devices.peeking import View, Views
from devicehost_server.devices.register_dispatch import Dispatch, Reading, Remembered, Way, Writing
from devicehost_server.devices.register_file import Rules
from devicehost_server.devices.state import StateReader
from devicehost_server.devices.virtio.features import ISR_CONFIG, ISR_QUEUE, Status
from devicehost_server.devices.virtio.negotiation import Negotiation
from devicehost_server.model.device_io import ReadableBuffer, WritableBuffer
from devicehost_server.model.interrupts import InterruptLine

_STATUS_HELP = {
    Status.ACKNOWLEDGE: "the guest has noticed the device",
    Status.DRIVER: "it has a driver for it",
    Status.DRIVER_OK: "the driver is ready",
    Status.FEATURES_OK: "driver and device agree on the features",
    Status.NEEDS_RESET: "the device has failed",
    Status.FAILED: "the driver has given up",
}
STATUS_FIELDS = tuple(Field(bit.name or "", bit.value, _STATUS_HELP[bit]) for bit in Status)
ISR_FIELDS = (
    Field("QUEUE", ISR_QUEUE, "there is something in a used ring"),
    Field("CONFIG", ISR_CONFIG, "the configuration, or the status, is another one"),
)


class Core(Protocol):
    """A virtio device, as its transport sees it."""

    @property
    def virtio_id(self) -> int:
        """What it is (section 5)."""

    @property
    def negotiation(self) -> Negotiation:
        """The state behind the registers."""

    @property
    def config_space(self) -> bytes:
        """The device's own configuration, as the driver is to see it."""

    def write_config(self, offset: int, data: bytes) -> None:
        """The driver writes to the configuration."""

    def kick(self, index: int) -> None:
        """The driver notifies queue `index`, if there is such a queue."""


def _zero() -> int:
    return 0


def _ignore(value: int) -> None:
    del value


@dataclass(frozen=True, slots=True)
class Wired:
    """A register, and what is behind it. Of a row, both functions take the index first.

    Attributes:
        register: as it is declared.
        get: returns its value, without effects; None if it holds nothing that can be told.
        write: what a guest's write does.
        read: what a guest's read does, if not just `get`.
        poke: sets it without effects, if that can be done.
    """

    register: Register
    get: Callable[..., int] | None = None
    write: Callable[..., None] = _ignore
    read: Callable[[], int] | None = None
    poke: Callable[[int], None] | None = None

    def way(self, index: int | None) -> Way:
        """Return how it is accessed."""
        get, write = self.get, self.write
        if index is not None:
            get = None if get is None else partial(get, index)
            write = partial(write, index)
        read = self.read or get or _zero
        return Way(self.register.size, read, write, get, Rules.of(self.register))


def attribute(register: Register, state: Negotiation, name: str) -> Wired:
    """Wire a register that stores an attribute of `state`."""
    write = partial(setattr, state, name)
    return Wired(register, partial(getattr, state, name), write, poke=write)


class Transport(ABC):
    """The registers of one device.

    Args:
        core: the device.

    Attributes:
        region_size: bytes of each region.
        config_region: which of them is the device's own configuration.
        partial_writes: whether a write of a part of a register changes that part.
        isr: the interrupt status.
    """

    name: ClassVar[str]
    region_size: ClassVar[int]
    config_region: ClassVar[int]
    partial_writes: ClassVar[bool]

    def __init__(self, core: Core) -> None:
        self.core = core
        self.isr = 0
        self._line: InterruptLine | None = None
        self._context: DeviceContext | None = None
        self._wired = {each.register.name: each for each in self.wire()}
        self._maps: Remembered[int, RegisterMap] = Remembered(self._map)
        dispatch = Dispatch(
            self._map(config_size=0),
            lambda register, index: self._wired[register.name].way(index),
            partial_writes=self.partial_writes,
        )
        self._reads: Remembered[tuple[int, int], Reading] = Remembered(
            lambda place: dispatch.reading(0, *place)
        )
        self._writes: Remembered[tuple[int, int], Writing] = Remembered(
            lambda place: dispatch.writing(0, *place)
        )

    @abstractmethod
    def wire(self) -> Sequence[Wired]:
        """Make the registers."""

    @property
    def register_map(self) -> RegisterMap:
        """What is where: the registers, and as much configuration as the device has."""
        return self._maps[len(self.core.config_space)]

    def _map(self, config_size: int) -> RegisterMap:
        registers = [each.register for each in self._wired.values()]
        if config_size:
            config = Register(
                "CONFIG",
                self.config_region * self.region_size,
                count=config_size,
                sizes=(1, 2, 4),
                reset=None,
                help="the device's own configuration",
            )
            registers.append(config)
        return RegisterMap(self.name, tuple(registers), "virtio device")

    # Accesses.

    def read(self, offset: int, data: WritableBuffer) -> None:
        """Read what `data` covers, from `offset` bytes into the address space on."""
        region, inside = divmod(offset, self.region_size)
        room = self.region_size - inside
        if len(data) > room:
            self.read(offset, memoryview(data)[:room])
            self.read(offset + room, memoryview(data)[room:])
        elif region == self.config_region:
            found = self.core.config_space[inside : inside + len(data)]
            data[: len(found)] = found
            data[len(found) :] = bytes(len(data) - len(found))
        else:
            self._reads[offset, len(data)](data)

    def write(self, offset: int, data: ReadableBuffer) -> None:
        """Write what `data` covers."""
        region, inside = divmod(offset, self.region_size)
        room = self.region_size - inside
        if len(data) > room:
            self.write(offset, memoryview(data)[:room])
            self.write(offset + room, memoryview(data)[room:])
        elif region == self.config_region:
            taken = bytes(data[: max(0, len(self.core.config_space) - inside)])
            if taken:
                self.core.write_config(inside, taken)
        else:
            self._writes[offset, len(data)](data)

    def views(self) -> Views:
        """How registers are told and set; see `devices.peeking`."""
        views = {name: View(each.get, each.poke) for name, each in self._wired.items()}
        return {**views, "CONFIG": View(self._config_byte)}

    def _config_byte(self, index: int) -> int:
        config = self.core.config_space
        return config[index] if index < len(config) else 0

    # Interrupts.

    def assign(self, context: DeviceContext) -> None:
        """Take the resources."""
        self._context = context
        irq = context.resources.get_legacy_irq()
        if irq is not None:
            self._line = context.interrupt_line(irq)

    def interrupt_queue(self, index: int) -> None:
        """Tell the driver that there is something in a used ring."""
        del index
        self.raise_isr(ISR_QUEUE)

    def interrupt_config(self) -> None:
        """Tell the driver that the configuration, or the status, is another one."""
        self.raise_isr(ISR_CONFIG)

    def raise_isr(self, bit: int) -> None:
        """Set a bit of the interrupt status."""
        self.isr |= bit
        self.settle()

    def set_isr(self, value: int) -> None:
        """Set the interrupt status."""
        self.isr = value
        self.settle()

    def settle(self) -> None:
        """Drive the line: it is the interrupt status."""
        if self._line is not None:
            self._line.set_level(asserted=bool(self.isr))

    # The life of the device.

    def reset(self) -> None:
        """Return to the state after power-on."""
        self.set_isr(0)

    def save(self) -> State:
        """Return the state beside the negotiation's."""
        return {"isr": self.isr}

    def restored(self, reader: StateReader) -> Callable[[], None]:
        """Return what takes over a saved state.

        Raises:
            BadState: it doesn't fit.
        """
        isr = reader.integer("isr", maximum=ISR_QUEUE | ISR_CONFIG)
        return lambda: self.set_isr(isr)

    def close(self) -> None:
        """Let go of the interrupts, for good."""
        if self._line is not None:
            self._line.set_level(asserted=False)
        self._line = self._context = None
