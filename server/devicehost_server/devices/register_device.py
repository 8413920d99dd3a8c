"""The short way to write a device: a register map, and a method for what a register does.

    class Timer(RegisterDevice[NoConfig]):
        '''Counts.'''

        type_name = "timer"
        register_map = MAP          # CONTROL, STATUS, and a row COMPARE

        def get_resource_constraints(self) -> list[ResourceConstraint]:
            return [MmioAddressConstraint(size=0x1000)]

        def read_status(self) -> int:
            return self._status()

        def write_control(self, value: int) -> None:
            self.registers["CONTROL"] = value
            self._restart()

        def write_compare(self, index: int, value: int) -> None: ...

Methods are found by their names: `read_`, `write_`, `peek_` or `poke_`, and the register's
name in lower case; one that names no register is a TypeError when the class is made. A
method takes the place of what is done without it:

    read_X      returns the stored value, as declared: bits that can't be read are zeros, and
                `on_read` clears or sets
    write_X     stores, as declared: read-only and reserved bits stay, and `on_write` clears,
                sets or toggles; `self.registers.write("X", value)` does the same
    peek_X      returns the stored value. If there is a `read_X`, calls that; but if
                the declaration says that a read does something, X can't be told
    poke_X      stores. If there is a `read_X`, X can't be set

Stored values are in `self.registers`, of rows in `self.registers.rows`. They are saved,
restored and reset; a device with other state extends `save`, `restore` and `reset`.

How accesses become calls is described in `register_dispatch`. An access of a size that isn't
among the declared `sizes` works like any other, as a chip knows no better: it is split into
registers. What the declaration is for then, is to find such accesses in a recording.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, TypeVar

from devicehost.registers import Register, RegisterMap
from devicehost_server.devices.base import ConfigT, DeviceContext, State
from devicehost_server.devices.peeking import Peekable, View, Views
from devicehost_server.devices.register_dispatch import Dispatch, Remembered, Way
from devicehost_server.devices.register_file import RegisterFile
from devicehost_server.devices.state import StateReader
from devicehost_server.model.device_io import ReadableBuffer, WritableBuffer
from devicehost_server.model.resources import MmioAddressRange, PioAddressRange

_Result = TypeVar("_Result")

_PREFIXES = ("read_", "write_", "peek_", "poke_")
_VALUED = ("write_", "poke_")
"""The methods that are given a value."""


class RegisterDevice(Peekable[ConfigT]):
    """A device that is written as one method for each register that does something.

    Attributes:
        partial_writes: whether a write of a part of a register changes that part; else it
            is ignored, as on buses without byte enables.
        registers: the stored values.

    Raises:
        TypeError: the class has no register map, or a method that doesn't fit it.
    """

    partial_writes: ClassVar[bool] = True

    registers: RegisterFile

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.register_map is not None:
            _check_methods(cls, cls.register_map)

    def __init__(self, config: ConfigT) -> None:
        super().__init__(config)
        register_map = self.get_register_map()
        if register_map is None:
            raise TypeError(f"{type(self).__name__} has no register_map")
        self.registers = RegisterFile(register_map)
        # These names are mangled, since a device has plenty of private names of its own.
        self.__wiring = wiring = _Wiring(self, register_map)
        dispatch = Dispatch(register_map, wiring.way, partial_writes=self.partial_writes)
        self.__ranges: dict[tuple[type, int], int] = {}  # their numbers, by kind and base
        self.__reads = self.__remembered(MmioAddressRange, dispatch.reading)
        self.__writes = self.__remembered(MmioAddressRange, dispatch.writing)
        self.__pio_reads = self.__remembered(PioAddressRange, dispatch.reading)
        self.__pio_writes = self.__remembered(PioAddressRange, dispatch.writing)

    def assign(self, context: DeviceContext) -> None:
        """Take the resources."""
        super().assign(context)
        for number, trapped in enumerate(context.resources.trapped()):
            self.__ranges[type(trapped), trapped.base] = number

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:
        """Read the registers that `data` covers."""
        self.__reads[base, offset, len(data)](data)

    def write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        """Write the registers that `data` covers."""
        self.__writes[base, offset, len(data)](data)

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:
        """Read the registers that `data` covers."""
        self.__pio_reads[base, offset, len(data)](data)

    def pio_write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        """Write the registers that `data` covers."""
        self.__pio_writes[base, offset, len(data)](data)

    def views(self) -> Views:
        """How to tell and set each register."""
        return self.__wiring.views

    def registers_changed(self) -> None:
        """Let follow what follows from the registers, as interrupt lines do.

        Called under the lock after a poke, a reset and a restore; not after a write, whose
        method knows best.
        """

    def reset(self) -> None:
        """Give the stored values their reset values."""
        with self.lock:
            self.registers.reset()
            self.registers_changed()

    def save(self) -> State:
        """Return the stored values, by the names of their registers."""
        with self.lock:
            return self.registers.save()

    def restore(self, state: State) -> None:
        """Take over stored values.

        Raises:
            BadState: they don't fit; the device is as it was.
        """
        reader = StateReader(self.name, state)
        registers = self.registers.restored(reader)
        reader.finish()
        with self.lock:
            self.registers.take(registers)
            self.registers_changed()

    def __remembered(
        self, kind: type, make: Callable[[int, int, int], Any]
    ) -> Remembered[tuple[int, int, int], Any]:
        """Return what makes accesses to ranges of a kind, by base, offset and size."""
        return Remembered(lambda key: make(self.__ranges[kind, key[0]], key[1], key[2]))


class _Wiring:
    """What is behind the registers of a device: its methods, or else stored values.

    Attributes:
        views: how registers are told and set.
    """

    def __init__(self, device: RegisterDevice[Any], register_map: RegisterMap) -> None:
        self._device = device
        self._registers = device.registers
        self.views = {each.name: self._view(each) for each in register_map}

    def way(self, register: Register, index: int | None) -> Way:
        """Return how a register is accessed."""
        name = register.name
        read, write = self._method("read_", register), self._method("write_", register)
        tell = self.views[name].get
        return Way(
            size=register.size,
            read=_of_row(read, index) if read else self._stored_read(name, index),
            write=_of_row(write, index) if write else self._stored_write(name, index),
            tell=_of_row(tell, index) if tell else None,
            rules=self._registers.rules[name],
        )

    def _stored_read(self, name: str, index: int | None) -> Callable[[], int]:
        registers = self._registers
        rules = registers.rules[name]
        if index is not None:
            return partial(registers.read_row, name, index)
        if rules.cleared or rules.set or rules.shown != rules.bits:
            return partial(registers.read, name)
        return partial(dict.__getitem__, registers, name)

    def _stored_write(self, name: str, index: int | None) -> Callable[[int], None]:
        registers = self._registers
        if index is not None:
            return partial(registers.write_row, name, index)
        if registers.rules[name].simple:
            return partial(dict.__setitem__, registers, name)
        return partial(registers.write, name)

    def _view(self, register: Register) -> View:
        name, row = register.name, self._registers.rows.get(register.name)
        read = self._method("read_", register)
        tell: Callable[..., int] | None
        poke: Callable[..., None] | None
        if read is not None:
            tell, poke = None if _is_changed_by_reads(register) else read, None
        elif row is not None:
            tell, poke = row.__getitem__, row.__setitem__
        else:
            tell = partial(dict.__getitem__, self._registers, name)
            poke = partial(dict.__setitem__, self._registers, name)
        return View(
            self._method("peek_", register) or tell, self._method("poke_", register) or poke
        )

    def _method(self, prefix: str, register: Register) -> Callable[..., Any] | None:
        return getattr(self._device, prefix + register.name.lower(), None)


def _of_row(method: Callable[..., _Result], index: int | None) -> Callable[..., _Result]:
    """Return the method for one register of a row; as it is if there is no row."""
    return method if index is None else partial(method, index)


def _is_changed_by_reads(register: Register) -> bool:
    return register.on_read is not None or any(each.on_read for each in register.fields)


def _check_methods(cls: type, register_map: RegisterMap) -> None:
    """Check that each method of a register fits the map; TypeError if one doesn't."""
    registers = {each.name.lower(): each for each in register_map}
    for prefix, name in _methods(cls):
        method = prefix + name
        register = registers.get(name)
        if register is None:
            known = ", ".join(each.name for each in register_map)
            raise TypeError(
                f"{cls.__name__}.{method}: {register_map.name} has no register {name.upper()!r}; "
                f"known: {known}"
            )
        if (prefix == "read_" and not register.readable) or (
            prefix == "write_" and not register.writable
        ):
            raise TypeError(
                f"{cls.__name__}.{method}: register {register.name} is {register.access.value}"
            )
        taken = ["self", *["index"] * (register.count > 1), *["value"] * (prefix in _VALUED)]
        try:
            inspect.signature(getattr(cls, method)).bind(*taken)
        except TypeError:
            raise TypeError(f"{cls.__name__}.{method} has to take ({', '.join(taken)})") from None


def _methods(cls: type) -> Iterator[tuple[str, str]]:
    """Go through the methods of registers: the prefix, and the rest of the name."""
    for name in dir(cls):
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                yield prefix, name.removeprefix(prefix)
