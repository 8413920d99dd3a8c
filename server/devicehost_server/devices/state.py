"""Reading a saved state back, with every value checked before it is used.

A state may come from a file that somebody cut, edited or wrote for another version, so
`restore` takes each field through a `StateReader`, and assigns only when all were good:

    reader = StateReader(self.name, state)
    divisor = reader.integer("divisor", maximum=0xFFFF)
    fifo = reader.octets("fifo", size_max=16)
    reader.finish()
    self._divisor, self._fifo = divisor, fifo
"""

from __future__ import annotations

from devicehost_server.devices.base import State
from devicehost_server.model.errors import BadState


class StateReader:
    """The fields of one device's state. Each method raises `BadState`, naming the field."""

    def __init__(self, device: str, state: State) -> None:
        self._device = device
        self._state = state
        self._read: set[str] = set()

    def integer(self, field: str, *, maximum: int, minimum: int = 0) -> int:
        """Return the integer `field`, from `minimum` to `maximum`."""
        value = self._take(field)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._bad(field, f"is {value!r}, allowed: an integer")
        if not minimum <= value <= maximum:
            raise self._bad(field, f"is {value:#x}, allowed: {minimum:#x} to {maximum:#x}")
        return value

    def boolean(self, field: str) -> bool:
        """Return the boolean `field`."""
        value = self._take(field)
        if not isinstance(value, bool):
            raise self._bad(field, f"is {value!r}, allowed: true or false")
        return value

    def octets(self, field: str, *, size_max: int, size_min: int = 0) -> bytes:
        """Return the bytes that `field` holds as hexadecimal digits."""
        value = self._take(field)
        try:
            octets = bytes.fromhex(str(value))
        except ValueError:
            raise self._bad(field, f"is {value!r}, allowed: hexadecimal digits") from None
        if not size_min <= len(octets) <= size_max:
            allowed = f"allowed: {size_min} to {size_max}"
            raise self._bad(field, f"is {len(octets)} bytes long, {allowed}")
        return octets

    def finish(self) -> None:
        """Check that the state holds nothing that wasn't read."""
        for field in self._state:
            if field not in self._read:
                raise self._bad(field, "is unknown to this device")

    def _take(self, field: str) -> object:
        if field not in self._state:
            raise self._bad(field, "is missing")
        self._read.add(field)
        value: object = self._state[field]
        return value

    def _bad(self, field: str, why: str) -> BadState:
        return BadState(
            f"state of device {self._device!r}: field {field!r} {why}",
            device=self._device,
            field=field,
        )
