"""A bench for looking into devices: a device manager with a bus, and devices that misbehave.

with debugging(Teller) as bench:
    bench.devices.plug("teller", device_id="t")
    bench.registers.peek("t", "A")
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from devicehost.registers import Access, Field, Register, RegisterMap, When
from devicehost_server.allocation import ResourceManager
from devicehost_server.debug.registers import RegisterMaps
from devicehost_server.debug.states import States
from devicehost_server.device_manager import DeviceManager
from devicehost_server.devices.base import Device, Hosted, NoConfig, State
from devicehost_server.devices.config import option
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.devices.state import StateReader
from devicehost_server.model.clock import ManualClock
from devicehost_server.model.errors import NoSuchRegister, NotPeekable
from devicehost_server.model.guest_memory import GuestMemory
from devicehost_server.model.interrupts import InterruptController
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.resources import MmioAddressConstraint, ResourceConstraint

TELLER_MAP = RegisterMap(
    "teller",
    (
        Register(
            "MODE",
            0,
            fields=(
                Field("BANK", 0x80),
                Field("SPEED", 0x03, values={1: "slow", 3: "fast"}),
            ),
        ),
        Register("A", 1, when=When("MODE", "BANK", 0)),
        Register("B", 1, when=When("MODE", "BANK", 1)),
        Register("SECRET", 2),
        Register("WIDE", 4, 4),
        Register("ROW", 8, 2, count=4),
        Register("COMMAND", 3, access=Access.WRITE_ONLY),
    ),
    "tells its registers",
)


@dataclass(frozen=True, slots=True)
class TellerConfig:
    mapped: bool = option(default=True, help="whether it has a register map")


class Teller(Device[TellerConfig]):
    """Tells and takes its registers, but for SECRET; what it does can be broken from outside.

    Attributes:
        values: its registers by name.
        raises: what it raises from now on, whatever it is asked.
        refuses: whether it refuses states.
        peeked: the names that it was asked for.
    """

    type_name = "teller"
    config_type = TellerConfig
    register_map = TELLER_MAP

    def __init__(self, config: TellerConfig) -> None:
        super().__init__(config)
        names = ("MODE", "A", "B", "WIDE", "COMMAND", *(f"ROW[{n}]" for n in range(4)))
        self.values = dict.fromkeys(names, 0)
        self.raises: BaseException | None = None
        self.refuses = False
        self.peeked: list[str] = []

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        return [MmioAddressConstraint(size=0x1000)]

    def get_register_map(self) -> RegisterMap | None:
        self._may_raise()
        return self.register_map if self.config.mapped else None

    def peek(self, register: str) -> int:
        self._may_raise()
        self.peeked.append(register)
        self._know(register)
        return self.values[register]

    def poke(self, register: str, value: int) -> None:
        self._may_raise()
        self._know(register)
        self.values[register] = value

    def save(self) -> State:
        self._may_raise()
        return {"values": self.values}

    def restore(self, state: State) -> None:
        self._may_raise()
        if self.refuses:
            reader = StateReader(self.name, {**state, "values": 5})
            reader.boolean("values")
        self.values = dict(state["values"])

    def _may_raise(self) -> None:
        if self.raises is not None:
            raise self.raises

    def _know(self, register: str) -> None:
        if register == "SECRET":
            raise NotPeekable(self.name, register)
        if register not in self.values:
            raise NoSuchRegister(f"no {register}", device=self.name, register=register)


class Plain(Device[NoConfig]):
    """A device with no state, no registers, nothing."""

    type_name = "plain"

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        return [MmioAddressConstraint(size=0x1000)]


class DebugBench:
    """A device manager and what looks into its devices."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, BaseException]] = []
        self.io = IoManager()
        self.interrupts = InterruptController()
        self.resources = ResourceManager()
        self.memory = GuestMemory()
        types = DeviceTypes([Teller, Plain])
        self.devices = DeviceManager(
            types=types,
            io=self.io,
            resources=self.resources,
            interrupts=self.interrupts,
            memory=self.memory,
            clock=ManualClock(0),
            on_fault=lambda device, error: self.errors.append((device, error)),
        )
        self.registers = RegisterMaps(self.devices, types)
        self.states = States(self.devices)

    def teller(self, device_id: str, **config: str) -> Teller:
        """Plug a teller, and return the device."""
        self.devices.plug("teller", config, device_id=device_id)
        return cast("Teller", self.devices.device(device_id))


@contextmanager
def debugging() -> Iterator[DebugBench]:
    """Make a bench; its devices go with the block."""
    bench = DebugBench()
    try:
        yield bench
    finally:
        bench.devices.close()
    assert bench.errors == []


@contextmanager
def occupied(device: Hosted[Any]) -> Iterator[None]:
    """Have another thread in a device, as an access that doesn't end, while the block runs."""
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with cast("Device[Any]", device).lock:
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait(60)
    try:
        yield
    finally:
        leave.set()
        thread.join()
