"""A device that is being plugged: by its type, and by its place on the bus or as a PCI function.

    new = NewDevice.make(types, "s0", "scratch", {"pci-socket": "/run/vm1/scratch.sock"})
    allocated = manager.allocate(new.constraints(), owner)
    resources = new.resources(allocated)
    new.listen(functions)
    new.hosted.assign(new.context(resources, clock, interrupts, memory))

On the bus a device gets what it asks for. A function asks for the same kinds of things, but
lets the guest choose the place (`devicehost_server.pci`): so what is allocated and what the
device is told aren't the same. And the memory that it sees is that of its own client.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Self, cast

from devicehost_server.device_info import SavedDevice
from devicehost_server.devices.base import DeviceContext, Hosted, State
from devicehost_server.devices.placement import PciPlacement, split
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.functions import Functions, FunctionSocket
from devicehost_server.model.clock import Clock
from devicehost_server.model.device_io import DEVICE_EXCEPTIONS, DeviceIo, DeviceIoMut
from devicehost_server.model.errors import BadConfig, BadState, DeviceFault, DeviceHostError
from devicehost_server.model.guest_memory import GuestMemory
from devicehost_server.model.interrupts import InterruptController
from devicehost_server.model.resources import DeviceResources, ResourceConstraint
from devicehost_server.pci.function import PciFunction


@dataclass(slots=True)
class NewDevice:
    """A device, and its place.

    Attributes:
        device_id: what it is to be called.
        device: the device; nothing is open yet.
        placement: where it is a function; None on the bus.
        function: it as a function, once it has said what it needs; None on the bus.
        socket: where clients get at the function, once that is taken; None on the bus.
    """

    device_id: str
    device: DeviceIo
    placement: PciPlacement | None
    function: PciFunction | None = None
    socket: FunctionSocket | None = None

    @classmethod
    def make(
        cls, types: DeviceTypes, device_id: str, type_name: str, config: Mapping[str, str]
    ) -> Self:
        """Make a device.

        Raises:
            UnknownDeviceType, BadConfig: there is no such type, or no such place, or a value
                is wrong.
        """
        placement, rest = split(type_name, config)
        return cls(device_id, types.make(type_name, rest), placement)

    @property
    def hosted(self) -> Hosted[Any]:
        """The device, by the steps of its life."""
        return cast("Hosted[Any]", self.device)

    def constraints(self) -> Sequence[ResourceConstraint]:
        """Return what is to be allocated for it. Once is enough: the device is asked.

        Raises:
            BadConfig, BadConstraint: a function can't have that.
        """
        hosted = self.hosted
        if self.placement is None:
            return list(hosted.get_resource_constraints())
        description = self.placement.adapt(hosted.describe_function())
        needs = hosted.get_resource_constraints()
        self.function = PciFunction(
            self.device_id, description, needs, offer_msix=self.placement.msix
        )
        return self.function.constraints

    def resources(self, allocated: DeviceResources) -> DeviceResources:
        """Return what the device gets of what was allocated for it."""
        return allocated if self.function is None else self.function.assign(allocated)

    def listen(self, functions: Functions | None) -> None:
        """Take the socket of a function; on the bus there is none.

        Raises:
            BadConfig: it can't be had, or nobody lets clients at functions.
        """
        if self.placement is None or self.function is None:
            return
        if functions is None:
            raise BadConfig(
                f"device {self.device_id!r}: there are no PCI functions here;"
                " allowed: no 'pci-socket'",
                field="pci-socket",
            )
        path = self.placement.socket
        self.socket = functions.listen(path, self.device_id, self.hosted, self.function)

    def context(
        self,
        resources: DeviceResources,
        clock: Clock,
        interrupts: InterruptController,
        memory: GuestMemory,
    ) -> DeviceContext:
        """Return all that the device gets; a function has memory of its own for `memory`."""
        if self.function is not None:
            memory = self.function.memory
        return DeviceContext(self.device_id, resources, clock, interrupts, memory, dma=memory)

    def save(self) -> tuple[State, State | None]:
        """Return the state of the device, and of it as a function, if it is one."""
        with self._locked():
            return self.hosted.save(), None if self.function is None else self.function.save()

    def restore(self, saved: SavedDevice) -> None:
        """Go on as a device that was saved.

        Raises:
            BadState: it doesn't fit.
        """
        if (self.function is None) != (saved.function is None):
            raise BadState(
                f"state of device {self.device_id!r}: it is of one that is"
                f" {'on the bus' if saved.function is None else 'a PCI function'}",
                device=self.device_id,
            )
        with self._locked():
            if self.function is not None and saved.function is not None:
                self.function.restore(saved.function)
            self.hosted.restore(dict(saved.state))

    def _locked(self) -> AbstractContextManager[Any]:
        """Hold its lock, if it has one: its timers may call it."""
        return self.device.lock if isinstance(self.device, DeviceIoMut) else nullcontext()


@contextmanager
def step(name: str, device_id: str) -> Iterator[None]:
    """Let an error that leaves the block say in which step of plugging it happened."""
    try:
        yield
    except DeviceHostError as error:
        error.in_step(name)
        raise
    except DEVICE_EXCEPTIONS as error:
        raise DeviceFault(device_id, f"in step {name!r}", error, step=name) from error
