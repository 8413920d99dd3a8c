"""Looking at registers, and setting them, beside the bus: `peek` and `poke` by a table.

A device with a register map derives from `Peekable`, and says of each register how it is
told and how it is set. A register of a row is told by its index.

    class Lamp(Peekable[NoConfig]):
        register_map = MAP

        def views(self) -> Views:
            return {
                "MODE": attribute(self, "_mode"),
                "COLOUR": View(self._colours.__getitem__, self._colours.__setitem__),
                "STATUS": View(self._status),  # follows from others: can't be set
            }                                  # and COMMAND can't be told: it isn't here

What a view does has no effect but the one that it says: nothing is fetched from a FIFO, no
flag cleared, no timer set. After a poke `registers_changed` is called, once, so that
interrupt lines follow from the new state.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from devicehost.registers import Place, Register, RegisterMap, UnknownRegister, locate
from devicehost_server.devices.base import ConfigT, Device, Hosted
from devicehost_server.model.errors import BadRequest, NoSuchRegister, NotPeekable


@dataclass(frozen=True, slots=True)
class View:
    """How a register is told and set. Of a row, both take the index first.

    Attributes:
        get: returns the value; None if that can't be told.
        set: takes a value, without bits that the register doesn't have; None if it can't
            be set.
    """

    get: Callable[..., int] | None = None
    set: Callable[..., None] | None = None


Views: TypeAlias = Mapping[str, View]
"""By the name of the register, without an index."""

_BLIND = View()


def attribute(owner: object, name: str) -> View:
    """Return a view of a register that is an attribute as it is."""
    return View(partial(getattr, owner, name), partial(setattr, owner, name))


class Peekable(Device[ConfigT]):
    """A device whose registers can be looked at, and set, without an access."""

    @abstractmethod
    def views(self) -> Views:
        """How to tell and set each register; called under the lock."""

    def registers_changed(self) -> None:
        """Let follow what follows from the registers; called under the lock after a poke."""

    def peek(self, register: str) -> int:
        """Return the value of a register, by its name, without the effects of a read.

        Raises:
            NoSuchRegister: it has none of this name.
            NotPeekable: it can't tell.
        """
        place = _find(self, register)
        with self.lock:
            view = self.views().get(place.register.name, _BLIND)
            if view.get is None:
                raise NotPeekable(self.name, register)
            return view.get(*_index(place))

    def poke(self, register: str, value: int) -> None:
        """Set a register, by its name, without the effects of a write.

        What the device holds is set, bits that a guest can't write too; interrupt lines
        follow. Bits that the register doesn't have are left out.

        Raises:
            NoSuchRegister: it has none of this name.
            NotPeekable: it can't be set, since it follows from others or holds nothing.
            BadRequest: the value doesn't fit in the register.
        """
        place = _find(self, register)
        declared = place.register
        if value < 0 or value >> 8 * declared.size:
            raise BadRequest(
                f"device {self.name!r}: register {register!r}: {value:#x} is not allowed; "
                f"allowed: 0 to {(1 << 8 * declared.size) - 1:#x}",
                field="value",
            )
        with self.lock:
            view = self.views().get(declared.name, _BLIND)
            if view.set is None:
                raise NotPeekable(self.name, register)
            view.set(*_index(place), value & ~declared.reserved)
            self.registers_changed()


def _find(device: Hosted[Any], name: str) -> Place:
    """Return where a register is; NoSuchRegister if there is none of this name."""
    register_map = device.get_register_map()
    if register_map is None:
        raise NotPeekable(device.name, name)
    try:
        place = locate(register_map, name)
    except UnknownRegister:
        raise _no_such_register(device, register_map, name) from None
    if place.index is None and place.register.count > 1:
        raise _no_such_register(device, register_map, name)
    return place


def _no_such_register(device: Hosted[Any], register_map: RegisterMap, name: str) -> NoSuchRegister:
    known = ", ".join(_shown(register) for register in register_map)
    return NoSuchRegister(
        f"device {device.name!r} has no register {name!r}; known: {known}",
        device=device.name,
        register=name,
        known=known,
    )


def _index(place: Place) -> tuple[int, ...]:
    return () if place.index is None else (place.index,)


def _shown(register: Register) -> str:
    """Write a register's name, and of a row the first and the last index."""
    if register.count == 1:
        return register.name
    return f"{register.name}[0] to [{register.count - 1}]"
