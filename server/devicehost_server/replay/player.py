"""A device in a replay: made anew, of what its record says, in a world of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, cast

from devicehost.recording import DeviceRecord, Operation
from devicehost.registers import RegisterMap, from_json
from devicehost_server.devices.base import DeviceContext, Hosted
from devicehost_server.devices.doors import ENTRANCE, SAVE, STREAM, TIMER
from devicehost_server.devices.placement import split
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.model.device_io import DEVICE_EXCEPTIONS
from devicehost_server.model.errors import DebugError, DeviceHostError
from devicehost_server.model.interrupts import InterruptController
from devicehost_server.model.io_manager import IoManager
from devicehost_server.replay.spoiled import Spoiled, Spoiler, spoil
from devicehost_server.replay.world import World
from devicehost_server.resource_json import resources_from_json


class CannotReplay(ValueError):
    """A device of a recording can't be made here, or not begin as it did then."""


class NotPlayed(Exception):
    """A waking can't be repeated. The argument says why."""


class Player:
    """A device on the bus of a replay, ready for its first access.

    Args:
        record: what it was.
        types: what can be made.
        io: the bus.
        interrupts: where its lines end.
        world: what surrounds it, as it was when the state was saved.
        faults: what is to be wrong with it.

    Raises:
        CannotReplay: it can't be made, or doesn't take its state; says which, and why.
    """

    def __init__(
        self,
        record: DeviceRecord,
        types: DeviceTypes,
        io: IoManager,
        interrupts: InterruptController,
        *,
        world: World,
        faults: Iterable[Spoiled] = (),
    ) -> None:
        self.id = record.id
        self.world = world
        self._io = io
        self._interrupts = interrupts
        try:
            place, config = split(record.type, cast("dict[str, str]", record.config))
            self._device = types.make(record.type, config)
            hosted = cast("Hosted[Any]", self._device)
            self._hosted = hosted
            if place is not None:
                hosted.describe_function()
            resources = resources_from_json(list(record.resources))
            hosted.assign(
                DeviceContext(
                    record.id,
                    resources,
                    self.world.clock,
                    interrupts,
                    self.world.memory,
                    self.world.open_stream,
                    self.world.entrance,
                )
            )
            hosted.start()
            hosted.restore(record.state or {})
            self._trapped = tuple(self._device.get_trapped_io_resources())
            self._spoilers = [Spoiler(each, _registers(record, hosted)) for each in faults]
            io.register_device_io(self._device, self._trapped)
        except (*DEVICE_EXCEPTIONS, DeviceHostError) as error:
            raise CannotReplay(f"device {record.id!r} of type {record.type!r}: {error}") from error

    def close(self) -> None:
        """Take the device off the bus, and end it."""
        self._io.unregister_device_io(self._trapped)
        with contextlib.suppress(*DEVICE_EXCEPTIONS):
            self._hosted.close()
        self._interrupts.lower_all(self.id)

    def wake(self, source: str) -> None:
        """Do what woke the device.

        Raises:
            NotPlayed: it can't be done.
            Exception: whatever the device raises.
        """
        if source == STREAM:
            for listener in self.world.listeners:
                listener()
        elif source.startswith(TIMER):
            callback = self.world.due(source)
            if callback is None:
                raise NotPlayed(f"it has no timer for {source.removeprefix(TIMER)!r} now")
            callback()
        elif source.startswith(ENTRANCE):
            name = source.removeprefix(ENTRANCE)
            if name not in self.world.entrances:
                raise NotPlayed(f"it has no entrance {name!r}")
            self.world.entrances[name]()
        elif source == SAVE:
            self._hosted.save()
        else:
            self._call(source)

    def spoil(
        self, range_: int, offset: int, operation: Operation, data: bytes, size: int
    ) -> bytes:
        """Return what an access carried, as it is with the faults; operands of `size` bytes."""
        if not self._spoilers:
            return data
        return b"".join(
            spoil(self._spoilers, range_, offset, operation, data[at : at + size])
            for at in range(0, len(data), size)
        )

    def _call(self, call: str) -> None:
        name, _, argument = call.partition(":")
        register, _, value = argument.partition("=")
        with contextlib.suppress(DebugError):  # then it was refused when it was recorded, too
            match name:
                case "reset":
                    self._hosted.reset()
                case "peek":
                    self._hosted.peek(register)
                case "poke" if value.isdecimal():
                    self._hosted.poke(register, int(value))
                case _:
                    raise NotPlayed(f"nobody knows how to do {call!r}")


def _registers(record: DeviceRecord, hosted: Hosted[Any]) -> RegisterMap:
    register_map = hosted.get_register_map()
    if record.registers is not None:
        return from_json(record.registers)
    if register_map is None:
        raise CannotReplay("it has no register map, so no register of it can be spoiled")
    return register_map
