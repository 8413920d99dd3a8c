"""What is known of a device from outside, and how others hear of its changes."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from devicehost_server.model.resources import DeviceResources


class DeviceState(enum.Enum):
    """Where a device stands."""

    PLUGGED = "plugged"
    UNPLUGGING = "unplugging"
    """Off the bus; an access in flight may still use it."""
    UNPLUGGED = "unplugged"


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A device, as it is at one moment.

    Attributes:
        id: its name on this server.
        type: the name of its type.
        state: where it stands.
        config: what it was made with, as text.
        resources: what it has, in the order of its constraints.
        generation: the one in which it was plugged.
    """

    id: str
    type: str
    state: DeviceState
    config: Mapping[str, str]
    resources: DeviceResources
    generation: int


@dataclass(frozen=True, slots=True)
class SavedDevice:
    """A device that is to go on in another server as it was here.

    Attributes:
        id: its name on the server.
        type: the name of its type.
        config: what it was made with, as text by key.
        resources: what it had, in the order of its constraints.
        state: what its `save` returned.
        function: the same of its PCI function; None if it is on the bus.
    """

    id: str
    type: str
    config: Mapping[str, str]
    resources: DeviceResources
    state: Mapping[str, Any]
    function: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """The change with number `generation`, after which `device` is as it says."""

    generation: int
    device: DeviceInfo


DeviceListener: TypeAlias = Callable[[DeviceEvent], None]
"""Called under the manager's lock: it must return at once, and not call back."""
