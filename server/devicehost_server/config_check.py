"""`devicehostd --check-config`: whether all devices could be plugged.

None is, and nothing is opened.
"""

from __future__ import annotations

import os
from pathlib import Path

from devicehost_server.allocation import ResourceManager
from devicehost_server.config import DaemonConfig
from devicehost_server.device_spec import naming
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.model.errors import BadConfig, DeviceExists
from devicehost_server.model.names import check_name
from devicehost_server.new_device import NewDevice
from devicehost_server.unix_socket import ListenError, check_path


def check_devices(config: DaemonConfig) -> None:
    """Make every device, find what it needs and where it would listen, and throw it away.

    Raises:
        ConfigError: a device can't be made, or not beside those before it.
    """
    types, resources = DeviceTypes(), ResourceManager(config.server.pools)
    ids: set[str] = set()
    own = (config.server.unix, config.server.local)
    sockets = {each.path.resolve(): "one of the server's own" for each in own if each is not None}
    for number, spec in enumerate(config.devices):
        with naming(spec.where):
            if spec.id:
                check_name("device id", spec.id)
            if spec.id in ids:
                raise DeviceExists(f"there is a device {spec.id!r} already", device=spec.id)
            ids |= {spec.id} - {""}
            name = spec.id or f"number {number}"
            new = NewDevice.make(types, name, spec.type, spec.config)
            resources.allocate(new.constraints(), name)
            if new.placement is not None:
                _check_socket(new.placement.socket, sockets)
                sockets[new.placement.socket.resolve()] = f"that of device {name!r}"


def _check_socket(path: Path, taken: dict[Path, str]) -> None:
    """Check that a function could listen at `path`, beside what else is listened on."""
    try:
        check_path(path)
    except ListenError as error:
        raise _bad(str(error)) from error
    if (whose := taken.get(path.resolve())) is not None:
        raise _bad(f"socket {path} is {whose}")
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK | os.X_OK)):
        raise _bad(f"socket {path}: can't write to folder {path.parent}")


def _bad(why: str) -> BadConfig:
    return BadConfig(f"'pci-socket': {why}", field="pci-socket")
