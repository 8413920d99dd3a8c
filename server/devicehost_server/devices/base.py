"""What a device needs to be hosted: the steps of its life, beside the accesses.

A device type is a class. A complete one:

    class Scratch(Device[ScratchConfig]):
        '''A register that remembers what was written to it.'''

        type_name = "scratch"
        config_type = ScratchConfig

        def get_resource_constraints(self) -> list[ResourceConstraint]:
            return [MmioAddressConstraint(size=8)]

        def read(self, base: int, offset: int, data: WritableBuffer) -> None: ...
        def write(self, base: int, offset: int, data: ReadableBuffer) -> None: ...

The life of a device, as the device manager leads it (each step once, in this order):

    __init__(config)            nothing is open yet, no thread runs
    describe_function()         only if it becomes a PCI function: what that says of itself
    get_resource_constraints()  what it needs
    assign(context)             what it got; opens files, makes interrupt lines
    start()                     accesses can come from here on; timers and input may begin
    accesses, reset(), save(), restore(state)
    freeze()                    only if it is to go on in another process: it is saved then
    close()                     no access comes any more; stops and frees everything

`close` is called after `assign` whatever happened in between, and must work then.
`Device` is entered by one thread at a time. A device that handles its own concurrency
derives from `Hosted` and `DeviceIo` instead.

A device that works on threads of its own comes back to its state by an `entrance`, so that
a journal knows of it. What they do beside it, nobody sees: in a replay there are no such
threads, and `DeviceContext.dma` is None to say so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

from devicehost.registers.declare import RegisterMap
from devicehost_server.devices.chardev import DEFAULT_CAPACITY, Stream, open_stream
from devicehost_server.model.clock import Clock
from devicehost_server.model.device_io import DeviceIo, DeviceIoMut, ReadableBuffer
from devicehost_server.model.errors import NotPeekable
from devicehost_server.model.guest_memory import GuestMemory
from devicehost_server.model.interrupts import InterruptController, InterruptLine
from devicehost_server.model.pci import (
    UNKNOWN_IDENTITY,
    OfferedMemory,
    PciDescription,
    PciIdentity,
)
from devicehost_server.model.resources import DeviceResources, ResourceConstraint

State: TypeAlias = dict[str, Any]
"""A device's state: JSON values by name (int, str, bool, None, lists and dicts of them)."""

ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True, slots=True)
class NoConfig:
    """The configuration of a type that has nothing to configure."""


class Memory(Protocol):
    """The guest's memory, as far as a device sees it; see `GuestMemory`."""

    def read(self, address: int, size: int) -> bytes:
        """Return a copy of `size` bytes at guest-physical `address`."""

    def write(self, address: int, data: ReadableBuffer) -> None:
        """Write `data` to guest-physical `address`."""

    def view(self, address: int, size: int) -> memoryview:
        """Return a window on `size` bytes at guest-physical `address`."""


class StreamOpener(Protocol):
    """Opens streams; see `chardev.open_stream`."""

    def __call__(self, text: str, *, owner: str = "", capacity: int = DEFAULT_CAPACITY) -> Stream:
        """Open what `text` says."""


Entrance: TypeAlias = Callable[[str, Callable[[], None]], Callable[[], None]]
"""Makes ways into a device; see `DeviceContext.entrance`."""


def _no_doors(name: str, callback: Callable[[], None]) -> Callable[[], None]:
    """Return what calls a device that nobody locks, or keeps a journal of."""
    del name
    return callback


@dataclass(frozen=True, slots=True)
class DeviceContext:
    """What a device gets when its resources are assigned, and all that it sees of the world.

    Attributes:
        device_id: what the device is called on this server.
        resources: one for each constraint, in the same order.
        clock: the time it lives by, and its timers.
        interrupts: where its lines end; `interrupt_line` makes one.
        memory: the guest's memory, as far as the VMM has shared it, for use in accesses,
            timers and entrances.
        opener: opens its streams, for `open_stream`.
        entrance: `entrance(name, callback)` returns a function for threads of the device's
            own. It calls `callback` under the device's lock.
        dma: the guest's memory for these threads; no journal sees what they do there. None
            in a replay: then the device opens nothing and starts no thread, for what they
            did to its registers comes by the entrances.
    """

    device_id: str
    resources: DeviceResources
    clock: Clock
    interrupts: InterruptController
    memory: Memory
    opener: StreamOpener = open_stream
    entrance: Entrance = _no_doors
    dma: GuestMemory | None = None

    def interrupt_line(self, gsi: int) -> InterruptLine:
        """Return a line to `gsi`, a number from the device's resources."""
        return self.interrupts.line(gsi, self.device_id)

    def open_stream(self, spec: str, *, capacity: int = DEFAULT_CAPACITY) -> Stream:
        """Open the stream that a configuration describes.

        Raises:
            BadConfig: it can't be opened.
        """
        return self.opener(spec, owner=self.device_id, capacity=capacity)


class Hosted(ABC, Generic[ConfigT]):
    """The steps of a device's life.

    Attributes:
        type_name: what a configuration calls the type: lower-case letters, digits, dashes.
        config_type: the dataclass of its configuration (see `devices.config`).
        register_map: its registers, as they are without any configuration, if it says.
        pci_identity: its numbers as a PCI function.
    """

    type_name: ClassVar[str]
    config_type: ClassVar[type[Any]] = NoConfig
    register_map: ClassVar[RegisterMap | None] = None
    pci_identity: ClassVar[PciIdentity] = UNKNOWN_IDENTITY

    _context: DeviceContext | None = None

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @property
    def name(self) -> str:
        """The device's id, once it has resources; its type before."""
        return self._context.device_id if self._context else self.type_name

    @property
    def context(self) -> DeviceContext:
        """What it got from `assign`.

        Raises:
            RuntimeError: it has no resources yet.
        """
        if self._context is None:
            raise RuntimeError(f"device of type {self.type_name!r} has no resources yet")
        return self._context

    def describe_function(self) -> PciDescription:
        """Become a PCI function, and say what its configuration space tells.

        It isn't called of a device on the bus. Most devices are the same in both places.
        """
        return PciDescription(self.pci_identity)

    @abstractmethod
    def get_resource_constraints(self) -> Sequence[ResourceConstraint]:
        """What the device needs, in the order in which it wants to receive it."""

    def get_assigned_resources(self) -> DeviceResources:
        """What the device was given; nothing before `assign`."""
        return self._context.resources if self._context else DeviceResources()

    def offered_memory(self) -> Sequence[OfferedMemory]:
        """What is behind its memory ranges, one for each `MemAddressConstraint`, in order.

        It is asked after `assign`, and the same until `close`.
        """
        return ()

    def assign(self, context: DeviceContext) -> None:
        """Take the resources. Overriders call this first, then open what they need."""
        self._context = context

    def start(self) -> None:
        """Begin work that is not the answer to an access: timers, input."""

    def reset(self) -> None:
        """Return to the state after power-on."""

    def view(self) -> Mapping[str, Any]:
        """What somebody who debugs may want to see besides the registers: numbers and text.

        Mappings may hold mappings. It is called from any thread, without the device's lock.
        """
        return {}

    def freeze(self) -> None:
        """Stop for good what it does beside accesses: it is saved next, and then closed.

        Only a device with threads of its own has anything to do here. It is called without
        the device's lock.
        """

    def save(self) -> State:
        """Return all state that the guest could notice the loss of.

        The device goes on as one would that was restored from it. So one that catches up
        with the time to be saved drives its lines as well, and sets its timers.
        """
        return {}

    def restore(self, state: State) -> None:
        """Take over a state that `save` of the same type returned.

        Raises:
            BadState: it doesn't fit; the device is as it was.
        """

    def get_register_map(self) -> RegisterMap | None:
        """Its registers, as they are with its configuration; None if it doesn't say."""
        return self.register_map

    def peek(self, register: str) -> int:
        """Return the value of a register, by its name, without the effects of a read.

        Raises:
            NoSuchRegister: it has none of this name.
            NotPeekable: it can't tell.
        """
        raise NotPeekable(self.name, register)

    def poke(self, register: str, value: int) -> None:
        """Set a register, by its name, without the effects of a write.

        Raises:
            NoSuchRegister: it has none of this name.
            NotPeekable: it can't do that.
        """
        del value
        raise NotPeekable(self.name, register)

    def close(self) -> None:
        """Stop and free everything."""


class Device(Hosted[ConfigT], DeviceIoMut):
    """A device that is entered by one thread at a time: the usual base of a device."""


class ConcurrentDevice(Hosted[ConfigT], DeviceIo):
    """A device that handles its own concurrency: its accesses are not serialized."""
