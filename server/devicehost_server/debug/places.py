"""Where the registers are that a filter names, and which of those are there at the moment.

Most registers are found by their place alone. Where several share one (a UART's DLL is
there only while DLAB is set, a clock's register C only while the index says so), a
decoder tells, which follows the accesses of its device.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, TypeAlias

from devicehost.access_status import AccessStatus
from devicehost.recording.events import Operation
from devicehost.registers import Decoder, Place, RegisterMap, UnknownRegister, locate
from devicehost_server.debug.pending import PendingAccess
from devicehost_server.model.errors import BadRequest, NoSuchRegister

_Operand: TypeAlias = tuple[int, int, Operation, bytes]  # range, offset


class Registers(Protocol):
    """Knows the registers of the devices that are plugged."""

    def of(self, device_id: str) -> RegisterMap:
        """Return the registers of a device.

        Raises:
            NoSuchDevice: there is none of this id.
            NoRegisterMap: it has none.
            DeviceError: it can't be asked.
        """

    def decoder(self, device_id: str) -> Decoder | None:
        """Return a new decoder that knows the device's present state; None without a map.

        Raises:
            NoSuchDevice, DeviceError: as for `of`.
        """


class Target(NamedTuple):
    """A register that a filter names.

    Attributes:
        device: whose it is.
        place: where it is accessed.
        alone: whether each access there is one to it, so that nobody need be asked.
    """

    device: str
    place: Place
    alone: bool

    def is_at(self, range_: int, offset: int, size: int) -> bool:
        """Whether one of `size` bytes at `offset` of a range is the register's place."""
        place = self.place
        return range_ == place.range and offset <= place.last and offset + size > place.offset


def split_name(name: str) -> tuple[str, str]:
    """Split "DEVICE.REGISTER" at its last dot.

    Raises:
        BadRequest: there is none, or nothing beside it.
    """
    device, _, register = name.rpartition(".")
    if not device or not register:
        raise BadRequest(
            f"filter.registers can't be {name!r}; allowed: 'DEVICE.REGISTER', one of a row as "
            "'DEVICE.REGISTER[3]'",
            field="filter.registers",
            value=name,
        )
    return device, register


def find_target(name: str, registers: Registers) -> Target:
    """Return the register of a name as filters have it.

    Raises:
        BadRequest: it isn't such a name.
        NoSuchDevice: there is no such device at the moment. Its map would be needed.
        NoRegisterMap: the device has none.
        NoSuchRegister: the map doesn't have it.
        DeviceError: the device can't be asked.
    """
    device, register = split_name(name)
    register_map = registers.of(device)
    try:
        place = locate(register_map, register)
    except UnknownRegister as error:
        raise NoSuchRegister(
            f"device {device!r}: {error}",
            device=device,
            register=register,
            known=", ".join(each.name for each in register_map),
        ) from None
    return Target(device, place, _is_alone(place, register_map))


def _is_alone(place: Place, register_map: RegisterMap) -> bool:
    """Whether no other register, and no gap in a row, can be at a place."""
    own = place.register
    if own.when or (place.index is None and own.stride not in {0, own.size}):
        return False
    for other in register_map:
        if other.via:
            if other.via.data == own.name:
                return False  # an access is one to what is behind it
        elif other.name != own.name:
            there = locate(register_map, other.name)
            if (
                there.range == place.range
                and there.offset <= place.last
                and place.offset <= there.last
            ):
                return False
    return True


class Follower:
    """Tells which registers of one device an access touches. Safe to use from any thread.

    It finds none before `learn`, and from then on has to see all accesses of the device.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._decoder: Decoder | None = None
        self._kept: list[_Operand] | None = None

    def learn(self, look: Callable[[], Decoder | None]) -> None:
        """Begin anew, with the decoder that somebody makes who looks into the device.

        That takes a while, and no lock is held. What is accessed meanwhile is made up for.
        """
        with self._lock:
            self._kept = []
        decoder = None
        try:
            decoder = look()
        finally:
            with self._lock:
                if decoder is not None:
                    for operand in self._kept:
                        decoder.decode(*operand)
                self._decoder, self._kept = decoder, None

    def names(self, access: PendingAccess) -> tuple[str, ...]:
        """Return the registers that an access would touch now."""
        with self._lock:
            if self._decoder is None:
                return ()
            return self._decoder.names(access.range, access.offset, access.operation, access.size)

    def follow(self, access: PendingAccess) -> None:
        """Take note of an access that has ended."""
        if self._decoder is None and self._kept is None:
            return  # its registers have places of their own
        if access.status is not AccessStatus.OK:
            return
        with self._lock:
            for data in operands(access.data, access.size):
                operand = (access.range, access.offset, access.operation, data)
                if self._kept is not None:
                    self._kept.append(operand)
                if self._decoder is not None:
                    self._decoder.decode(*operand)


def operands(data: bytes, size: int) -> Iterator[bytes]:
    """Split the data of an access into its operands; there are several in a string access."""
    if not size or len(data) <= size:
        yield data
    else:
        for at in range(0, len(data), size):
            yield data[at : at + size]
