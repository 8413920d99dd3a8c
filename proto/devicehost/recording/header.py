"""The header of a recording: where and when it was made, and of which devices.

    >>> uart = DeviceRecord("uart0", "uart16550", ranges=((Space.PIO, 0x3F8, 8),))
    >>> header = Header((uart,), note="the boot that hangs")
    >>> Header.from_json(header.to_json()) == header
    True

What is opaque here (resources, registers, state) is JSON, and stays what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeAlias, TypeVar

from devicehost.recording.events import Space
from devicehost.recording.layout import VERSION, BadRecording

JsonObject: TypeAlias = dict[str, object]
T = TypeVar("T")

_END: Final = {Space.PIO: 1 << 16, Space.MMIO: 1 << 64}
"""How many addresses a space has."""

_KINDS: Final = {
    str: "a string",
    int: "a whole number",
    dict: "an object",
    list: "an array",
}


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """A device as it was when the recording began, or when it was plugged.

    Attributes:
        id: what it is called.
        type: its type.
        config: its configuration, as it was given to it.
        resources: what it got, in the order of its constraints; JSON objects, of the
            server's making.
        ranges: its trapped ranges, in order: space, base and size in bytes.
        registers: its register map, in the JSON form of `devicehost.registers`; None if it
            has none.
        state: what its `save` returned; None if it can't be replayed from here.
        values: of registers that decide what others mean, as far as they are known; those
            that aren't here have their reset values.
    """

    id: str
    type: str
    config: JsonObject = field(default_factory=dict)
    resources: tuple[JsonObject, ...] = ()
    ranges: tuple[tuple[Space, int, int], ...] = ()
    registers: JsonObject | None = None
    state: JsonObject | None = None
    values: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> JsonObject:
        """Return it as in a header, or in a `Plugged`."""
        return {
            "id": self.id,
            "type": self.type,
            "config": self.config,
            "resources": list(self.resources),
            "ranges": [[space.value, base, size] for space, base, size in self.ranges],
            "registers": self.registers,
            "state": self.state,
            "values": self.values,
        }

    @classmethod
    def from_json(cls, members: Mapping[str, object]) -> Self:
        """Make one of what `to_json` returned. Members that it doesn't know are passed over.

        Raises:
            BadRecording: it isn't one; says which member is wrong.
        """
        of = "a device"
        device_id = _member(of, members, "id", str)
        of = f"the device {device_id!r}"
        resources = _member(of, members, "resources", list, [])
        return cls(
            device_id,
            _member(of, members, "type", str),
            _member(of, members, "config", dict, {}),
            tuple(_item(f"a resource of {of}", each, dict) for each in resources),
            tuple(_range(of, each) for each in _member(of, members, "ranges", list, [])),
            _optional(of, members, "registers"),
            _optional(of, members, "state"),
            {
                name: _item(f"the value of {name} of {of}", value, int)
                for name, value in _member(of, members, "values", dict, {}).items()
            },
        )


@dataclass(frozen=True, slots=True)
class Header:
    """What a recording begins with.

    Attributes:
        devices: those that were there, and are recorded.
        version: of the product that made it.
        started: when it began, on the clock on the wall, in ISO 8601 with an offset.
        wall_ns: the same, in nanoseconds since 1970-01-01T00:00:00Z.
        now_ns: the same on the server's monotonic clock, which the events have.
        note: for people.
    """

    devices: tuple[DeviceRecord, ...] = ()
    version: str = ""
    started: str = ""
    wall_ns: int = 0
    now_ns: int = 0
    note: str = ""

    def to_json(self) -> JsonObject:
        """Return it as in a file."""
        return {
            "format": VERSION,
            "version": self.version,
            "started": self.started,
            "wall_ns": self.wall_ns,
            "now_ns": self.now_ns,
            "devices": [device.to_json() for device in self.devices],
            "note": self.note,
        }

    @classmethod
    def from_json(cls, members: Mapping[str, object]) -> Self:
        """Make one of what `to_json` returned. Members that it doesn't know are passed over.

        Raises:
            BadRecording: it isn't one; says which member is wrong.
        """
        of = "the header"
        devices = _member(of, members, "devices", list)
        return cls(
            tuple(DeviceRecord.from_json(_item("a device", each, dict)) for each in devices),
            _member(of, members, "version", str),
            _member(of, members, "started", str),
            _member(of, members, "wall_ns", int),
            _member(of, members, "now_ns", int),
            _member(of, members, "note", str, ""),
        )


_SHOWN_MAX: Final = 60
"""How much of a value an error shows, in characters."""


def _item(what: str, value: object, kind: type[T]) -> T:
    """Return a value of the right kind."""
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BadRecording(f"{what} is {_shown(value)}, but must be {_KINDS[kind]}")
    return value


def _member(
    of: str, members: Mapping[str, object], name: str, kind: type[T], default: T | None = None
) -> T:
    """Return a member of the right kind; one that isn't there is an error without a default."""
    if name not in members and default is not None:
        return default
    return _item(f"{name} of {of}", members.get(name), kind)


def _optional(of: str, members: Mapping[str, object], name: str) -> JsonObject | None:
    """Return an object, or None if there is none."""
    return None if members.get(name) is None else _member(of, members, name, dict)


def _range(of: str, value: object) -> tuple[Space, int, int]:
    match value:
        case ["pio" | "mmio" as space, int(base), int(size)]:
            if 0 <= base < base + size <= _END[Space(space)]:
                return Space(space), base, size
    raise BadRecording(
        f"a range of {of} is {_shown(value)}, but must be a space (pio or mmio), a base and a "
        "size in it"
    )


def _shown(value: Any) -> str:
    """Return a value as text that isn't too long."""
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"
