"""The types of devices that a server can make.

Types come from entry points of the group `devicehost.devices`, ours like anybody's: a
package adds one without touching this one, by three lines in its pyproject.toml:

    [project.entry-points."devicehost.devices"]
    doorbell = "mypackage.doorbell:Doorbell"

The name of the entry point is the name of the type. A type is imported when it is first
asked for; one that can't be imported is an error of that type, not of the server.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from devicehost_server.devices.base import Hosted
from devicehost_server.devices.config import OptionSchema, parse, schema
from devicehost_server.model.device_io import DeviceIo
from devicehost_server.model.errors import UnknownDeviceType

ENTRY_POINT_GROUP = "devicehost.devices"


@dataclass(frozen=True, slots=True)
class DeviceTypeInfo:
    """A device type, for people.

    Attributes:
        name: what configurations call it.
        summary: the first line of its class's docstring.
        options: its configuration.
    """

    name: str
    summary: str
    options: tuple[OptionSchema, ...]


class DeviceTypes:
    """The types by name.

    Args:
        classes: types in addition to those of the entry points, or instead of them.
        discover: whether to look for entry points.
    """

    def __init__(self, classes: Iterable[type[Any]] = (), *, discover: bool = True) -> None:
        found = entry_points(group=ENTRY_POINT_GROUP) if discover else ()
        self._entry_points: dict[str, EntryPoint] = {entry.name: entry for entry in found}
        self._classes: dict[str, type[Any]] = {}
        for cls in classes:
            self._classes[cls.type_name] = _checked(cls.type_name, cls)

    def names(self) -> list[str]:
        """All names, sorted; of types that can't be imported, too."""
        return sorted({*self._entry_points, *self._classes})

    def info(self, name: str) -> DeviceTypeInfo:
        """Describe a type.

        Raises:
            UnknownDeviceType: there is none of this name, or it can't be imported.
        """
        cls = self._load(name)
        summary = (inspect.getdoc(cls) or "").partition("\n")[0]
        return DeviceTypeInfo(name, summary, tuple(schema(cls.config_type)))

    def infos(self) -> list[DeviceTypeInfo]:
        """Describe all types, by name; one that can't be imported says so in its summary."""
        return [self._info_or_why_not(name) for name in self.names()]

    def make(self, name: str, config: Mapping[str, str]) -> DeviceIo:
        """Make a device, with its configuration checked; it has no resources yet.

        The result is a `Hosted` as well.

        Raises:
            UnknownDeviceType: there is none of this name, or it can't be imported.
            BadConfig: the configuration doesn't fit its schema.
        """
        cls = self._load(name)
        device: DeviceIo = cls(parse(name, cls.config_type, config))
        return device

    def _info_or_why_not(self, name: str) -> DeviceTypeInfo:
        try:
            return self.info(name)
        except UnknownDeviceType as error:
            return DeviceTypeInfo(name, str(error), ())

    def _load(self, name: str) -> type[Any]:
        if (cls := self._classes.get(name)) is not None:
            return cls
        entry = self._entry_points.get(name)
        if entry is None:
            known = ", ".join(self.names())
            raise UnknownDeviceType(
                f"no device type {name!r}; known: {known}", type=name, known=known
            )
        try:
            cls = _checked(name, entry.load())
        except Exception as error:
            raise UnknownDeviceType(
                f"device type {name!r} can't be loaded from {entry.value}: {error}",
                type=name,
                entry_point=entry.value,
            ) from error
        self._classes[name] = cls
        return cls


def _checked(name: str, cls: Any) -> type[Any]:
    """Check that `cls` is what a type has to be; TypeError if it isn't."""
    if not (isinstance(cls, type) and issubclass(cls, Hosted) and issubclass(cls, DeviceIo)):
        raise TypeError(f"{cls!r} is not a subclass of Device or ConcurrentDevice")
    if getattr(cls, "type_name", None) != name:
        raise TypeError(f"its type_name is {getattr(cls, 'type_name', None)!r}, not {name!r}")
    schema(cls.config_type)
    return cls
