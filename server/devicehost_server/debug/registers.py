"""The registers of the devices that are plugged: what they are called, and what they hold.

    maps = RegisterMaps(devices, types)
    print(maps.peek("uart0", "LCR"))        LCR = 0x03 (WLS=3 8 bits)
    maps.poke("uart0", "SCR", 0x55)
    maps.set("board", from_svd(text))       a device that has no map of its own

A device's registers are those of the map that it was given here, or of its own. A given map
goes with its device: one that is plugged later under the same id doesn't get it.

Only the device can look at a register, or set it. It does so by its own names; where the map
that it was given has others, they are told apart by the place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any, TypeAlias, cast

from devicehost.access_status import AccessStatus
from devicehost.recording.events import Access
from devicehost.registers import (
    BadRegisterMap,
    Decoded,
    DecodedField,
    Decoder,
    Place,
    Register,
    RegisterMap,
    UnknownRegister,
    check,
    locate,
    places,
)
from devicehost_server.debug.entered import entered
from devicehost_server.device_info import DeviceEvent, DeviceState
from devicehost_server.device_manager import DeviceManager
from devicehost_server.devices.base import Hosted
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.model.device_io import DEVICE_EXCEPTIONS
from devicehost_server.model.errors import (
    BadRequest,
    DeviceFault,
    DeviceHostError,
    NoRegisterMap,
    NoSuchRegister,
    NotPeekable,
)

ALL_MAX = 4096
"""How many registers `peek_all` looks at: a map may have millions."""

_Extent: TypeAlias = tuple[int, int, int, int, bool]


class RegisterMaps:
    """The registers of one VM's devices. Safe to use from any thread.

    Args:
        devices: the devices.
        types: what they can be.
    """

    def __init__(self, devices: DeviceManager, types: DeviceTypes) -> None:
        self._devices = devices
        self._types = types
        self._lock = threading.Lock()
        self._given: dict[tuple[str, int], RegisterMap] = {}  # by id and generation
        self._checked: dict[str, RegisterMap] = {}  # what devices have told, and is sound
        self._on_changed: Callable[[str], None] = _nobody
        self._on_changed_inside: Callable[[str], None] = _nobody
        devices.subscribe(self._device_changed)

    def on_changed(self, listener: Callable[[str], None], inside: Callable[[str], None]) -> None:
        """Tell of each device, by its id, that was poked or has other names.

        Both are told on the thread that did it: first `inside`, when nobody else has been in
        the device since, then `listener`, when the thread is in no device any more.
        """
        self._on_changed = listener
        self._on_changed_inside = inside

    # What they are called.

    def of(self, device_id: str) -> RegisterMap:
        """Return the registers of a device.

        Raises:
            NoSuchDevice: there is no such device.
            NoRegisterMap: it has none, and was given none.
            DeviceFault: it raised when it was asked, or its map breaks a rule.
            DeviceTimeout: another thread is in it for too long.
        """
        generation = self._devices.get(device_id).generation
        with self._lock:
            given = self._given.get((device_id, generation))
        if given is not None:
            return given
        with self._inside(device_id, "when its registers were asked for") as hosted:
            own = hosted.get_register_map()
            if own is not None and own is not self._checked.get(device_id):
                check(own)
                self._checked[device_id] = own
        if own is None:
            raise NoRegisterMap(
                f"device {device_id!r} has no register map; it can be given one", device=device_id
            )
        return own

    def of_type(self, type_name: str) -> RegisterMap:
        """Return the registers of a type of device, as they are without any configuration.

        Raises:
            UnknownDeviceType: there is none of this name.
            BadConfig: no device of this type is without a configuration.
            NoRegisterMap: it has none.
            DeviceFault: it raised when it was made, or asked.
        """
        try:
            # Nothing is open, and no thread runs, before a device gets resources.
            hosted = cast("Hosted[Any]", self._types.make(type_name, {}))
            own = hosted.get_register_map()
        except DeviceHostError:
            raise
        except DEVICE_EXCEPTIONS as error:
            raise DeviceFault(type_name, "when its registers were asked for", error) from error
        if own is None:
            raise NoRegisterMap(f"device type {type_name!r} has no register map", type=type_name)
        return own

    def set(self, device_id: str, register_map: RegisterMap | None) -> None:
        """Give a device a register map; None for its own again.

        Raises:
            NoSuchDevice: there is no such device.
            BadRequest: the map breaks a rule.
        """
        if register_map is not None:
            try:
                check(register_map)
            except BadRegisterMap as error:
                raise BadRequest(f"register_map: {error}", field="register_map") from None
        generation = self._devices.get(device_id).generation
        with self._lock:
            if register_map is None:
                self._given.pop((device_id, generation), None)
            else:
                self._given[device_id, generation] = register_map
        self._on_changed_inside(device_id)
        self._on_changed(device_id)

    def decoder(self, device_id: str) -> Decoder | None:
        """Return a new decoder that knows the device's present state; None without a map.

        The registers that decide what is where are looked at. One that the device can't
        tell begins with its reset value.

        Raises:
            NoSuchDevice: there is no such device.
            DeviceFault: it raised when it was asked.
            DeviceTimeout: another thread is in it for too long.
        """
        try:
            register_map = self.of(device_id)
        except NoRegisterMap:
            return None
        decoder = Decoder(register_map)
        if decoder.follows:
            with self._inside(device_id, "in a peek") as hosted:
                names = _OwnNames(hosted)
                for name in decoder.follows:
                    try:
                        decoder.learn(name, hosted.peek(names.of(locate(register_map, name))))
                    except (NotPeekable, NoSuchRegister):
                        continue
        return decoder

    # What they hold.

    def peek(self, device_id: str, register: str) -> Decoded:
        """Look at a register, or at one of a row, without the effects of a read.

        Raises:
            NoSuchDevice: there is no such device.
            NoRegisterMap: it has none.
            NoSuchRegister: it has no register of this name.
            NotPeekable: it can't tell.
            DeviceFault: it raised, or told a value that isn't one of the register.
            DeviceTimeout: another thread is in it for too long.
        """
        place = self._find(device_id, register)
        with self._inside(device_id, f"in a peek of {register!r}") as hosted:
            return _looked_at(hosted, _OwnNames(hosted).of(place), place)

    def peek_all(self, device_id: str) -> list[Decoded]:
        """Look at all registers that can be told, `ALL_MAX` at most, in the order of the map.

        All are looked at in one moment.

        Raises:
            NoSuchDevice, NoRegisterMap, DeviceFault, DeviceTimeout: as for `peek`.
        """
        register_map = self.of(device_id)
        found = []
        with self._inside(device_id, "in a peek of all registers") as hosted:
            names = _OwnNames(hosted)
            for place in islice(places(register_map), ALL_MAX):
                try:
                    found.append(_looked_at(hosted, names.of(place), place))
                except (NotPeekable, NoSuchRegister):
                    continue
        return found

    def poke(self, device_id: str, register: str, value: int) -> None:
        """Set a register, or one of a row, without the effects of a write.

        Raises:
            NoSuchDevice, NoRegisterMap, NoSuchRegister, DeviceTimeout: as for `peek`.
            NotPeekable: the device can't do that.
            BadRequest: the value doesn't fit into the register.
            DeviceFault: the device raised.
        """
        place = self._find(device_id, register)
        if not 0 <= value <= _largest(place):
            raise BadRequest(
                f"value {value:#x} doesn't fit into register {register!r} of device"
                f" {device_id!r}; allowed: 0 to {_largest(place):#x}",
                field="value",
            )
        with self._inside(device_id, f"in a poke of {register!r}") as hosted:
            hosted.poke(_OwnNames(hosted).of(place), value)
            self._on_changed_inside(device_id)
        self._on_changed(device_id)

    def touched(
        self, device_id: str, range_: int, offset: int, access: Access
    ) -> tuple[Decoded, ...]:
        """Return the registers that one access touches, as the device is at this moment.

        It is for a single access, which is held say. Of a row of them, a decoder that
        follows each tells more exactly.

        Args:
            device_id: the device.
            range_: which of its trapped ranges the access is in, by their order.
            offset: from the base of that range, in bytes.
            access: the access. Of a read that has no data yet, the registers have no value.

        Returns:
            What is known: nothing if the access failed, or the device can't be asked.
        """
        try:
            decoder = self.decoder(device_id)
            register_map = self.of(device_id)
        except DeviceHostError:
            return ()
        if decoder is None or access.status is not AccessStatus.OK:
            return ()
        if access.data:
            first = access.data[: access.size or len(access.data)]
            return decoder.decode(range_, offset, access.operation, first)
        names = decoder.names(range_, offset, access.operation, access.size)
        declared = (locate(register_map, name).register if name else None for name in names)
        return tuple(
            Decoded(name, 0, (), 0, each, complete=False)
            for name, each in zip(names, declared, strict=True)
        )

    def _find(self, device_id: str, register: str) -> Place:
        """Return where one register is."""
        register_map = self.of(device_id)
        try:
            place = locate(register_map, register)
        except UnknownRegister as error:
            raise _no_such_register(device_id, register, str(error), register_map) from None
        if place.index is None and place.register.count > 1:
            why = f"{register!r} is a row; allowed: one of it, {register}[0] say"
            raise _no_such_register(device_id, register, why, register_map)
        return place

    def _inside(self, device_id: str, doing: str) -> AbstractContextManager[Hosted[Any]]:
        return entered(self._devices.device(device_id), device_id, doing)

    def _device_changed(self, event: DeviceEvent) -> None:
        device = event.device
        if device.state is DeviceState.UNPLUGGED:
            with self._lock:
                self._given.pop((device.id, device.generation), None)
            self._checked.pop(device.id, None)


def _nobody(_device_id: str) -> None:
    """Be told of a change, and do nothing."""


class _OwnNames:
    """What a device itself calls its registers, which may have other names in a given map."""

    def __init__(self, hosted: Hosted[Any]) -> None:
        own = hosted.get_register_map()
        self._names: set[str] = set()
        self._by_place: dict[_Extent, list[str]] = {}
        for register in own or ():
            self._names.add(register.name)
            self._by_place.setdefault(_extent(register), []).append(register.name)

    def of(self, place: Place) -> str:
        """Return the device's name for what is at a place; the name as it is if that isn't told.

        Several registers may share a place: then only the same name tells which is meant.
        """
        register = place.register
        there = self._by_place.get(_extent(register), [])
        if register.name in self._names or len(there) != 1:
            return place.name
        return there[0] + place.name.removeprefix(register.name)


def _extent(register: Register) -> _Extent:
    """What tells the place of a register, or of a row, from others."""
    via = register.via is not None
    return register.range, register.offset, register.size, register.count, via


def _looked_at(hosted: Hosted[Any], name: str, place: Place) -> Decoded:
    """Look at one register; ValueError if the device tells nonsense."""
    value = hosted.peek(name)
    if not 0 <= value <= _largest(place):
        raise ValueError(f"{place.name} is {value:#x}, which isn't of {place.register.size} bytes")
    register = place.register
    fields = tuple(
        DecodedField(each.name, each.of(value), each.values.get(each.of(value), ""))
        for each in sorted(register.fields, key=lambda field: -field.mask)
    )
    return Decoded(place.name, value, fields, value & register.reserved, register, complete=True)


def _largest(place: Place) -> int:
    """The largest value of a register."""
    return (1 << 8 * place.register.size) - 1


def _no_such_register(
    device_id: str, register: str, why: str, register_map: RegisterMap
) -> NoSuchRegister:
    return NoSuchRegister(
        f"device {device_id!r}: {why}",
        device=device_id,
        register=register,
        known=", ".join(each.name for each in register_map),
    )
