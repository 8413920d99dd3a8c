"""A snapshot: all devices of a server as one text, from which another server goes on.

    text = to_text(devices)                      a server that ends
    for saved in from_text(text): ...            the next one: plugs them at the same places

It is JSON. `devices` stand in the order in which they were plugged:

    {"format": "devicehost-snapshot", "format_version": 1, "server_version": "0.4.0",
     "devices": [{"id": "com1", "type": "uart16550", "config": {"base": "0x3f8"},
                  "resources": [{"kind": "pio", "base": 1016, "size": 8}, ...],
                  "state": {...}, "pci": null}]}

`resources` have the shape of `devicehost_server.resource_json`; `state` is what the device's
`save` returned, and `pci` the same of its PCI function, if it is one.

A snapshot is of one moment, and the guest's memory is no part of it. Who goes on from an
old one, with a guest that went on meanwhile, has a disk do again what it did before. So the
daemon uses each snapshot once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast

from devicehost_server import VERSION
from devicehost_server.device_info import SavedDevice
from devicehost_server.model.errors import BadRange, BadState
from devicehost_server.resource_json import resources_from_json, resources_to_json

FORMAT = "devicehost-snapshot"
FORMAT_VERSION = 1


def to_text(devices: Iterable[SavedDevice]) -> str:
    """Write a snapshot.

    Raises:
        BadState: a device's state isn't JSON.
    """
    return json.dumps(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "server_version": VERSION,
            "devices": [_to_json(each) for each in devices],
        },
        indent=1,
    )


def from_text(text: str) -> tuple[SavedDevice, ...]:
    """Read a snapshot; the devices in the order in which they were plugged.

    Raises:
        BadState: it isn't one, or is of another version. The message says what is wrong.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(f"it isn't JSON: {str(error) or 'nested too deeply'}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise _bad(f"it has no format {FORMAT!r}")
    if found.get("format_version") != FORMAT_VERSION:
        version, by = found.get("format_version"), found.get("server_version")
        raise _bad(
            f"its format is of version {version!r}, written by devicehost {by}; this is"
            f" devicehost {VERSION}, which knows version {FORMAT_VERSION}"
        )
    devices = found.get("devices")
    if not isinstance(devices, list):
        raise _bad("it has no list of devices")
    saved: dict[str, SavedDevice] = {}
    for number, shape in enumerate(devices):
        device = _from_json(number, shape)
        if device.id in saved:
            raise _bad(f"it has device {device.id!r} twice")
        saved[device.id] = device
    return tuple(saved.values())


def _to_json(device: SavedDevice) -> dict[str, object]:
    shape: dict[str, object] = {
        "id": device.id,
        "type": device.type,
        "config": dict(device.config),
        "resources": resources_to_json(device.resources),
        "state": device.state,
        "pci": device.function,
    }
    try:
        json.dumps(shape, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadState(
            f"state of device {device.id!r} isn't JSON: {error}", device=device.id
        ) from error
    return shape


def _from_json(number: int, shape: object) -> SavedDevice:
    """Check a device's shape; what its state holds is checked by the device."""
    if not isinstance(shape, dict) or shape.keys() != _KEYS.keys():
        raise _bad(f"device {number} isn't an object of {', '.join(_KEYS)}")
    for key, kinds in _KEYS.items():
        if not isinstance(shape[key], kinds):
            raise _bad(f"device {number}: its {key} is {str(shape[key])[:100]!r}")
    config = cast("dict[str, Any]", shape["config"])
    if not shape["id"] or not all(isinstance(value, str) for value in config.values()):
        raise _bad(f"device {number} has no id, or a configuration that isn't text")
    try:
        resources = resources_from_json(shape["resources"])
    except (ValueError, BadRange) as error:
        raise _bad(f"device {shape['id']!r}: {error}") from error
    return SavedDevice(shape["id"], shape["type"], config, resources, shape["state"], shape["pci"])


_KEYS: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "type": (str,),
    "config": (dict,),
    "resources": (list,),
    "state": (dict,),
    "pci": (dict, type(None)),
}


def _bad(why: str) -> BadState:
    return BadState(f"snapshot: {why}", field="snapshot")
