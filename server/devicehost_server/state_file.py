"""Going on after a restart: the devices of a daemon that ended, for the one that is started.

    state_file = StateFile(path)
    saved = state_file.read()                   what the last one left, if it ended cleanly
    plug_all(server.devices, specs, saved)
    state_file.discard()                        its devices go on from here: used once
    ...
    server.stop(kept.append)
    state_file.write(kept)

What a start finds in the file counts for which devices there are, where they are, and what
they hold. What it is told counts for how each is configured, and for devices that are new.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from devicehost_server.device_info import SavedDevice
from devicehost_server.device_manager import DeviceManager
from devicehost_server.device_spec import DeviceSpec, naming
from devicehost_server.model.errors import BadState
from devicehost_server.settings import ConfigError
from devicehost_server.snapshot import from_text, to_text

_SIZE_MAX = 1 << 30  # bytes; a file that is longer isn't one of ours


class StateFile:
    """The file.

    Args:
        path: where it is, or will be.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[SavedDevice, ...]:
        """Return what the last daemon left; nothing if there is no file.

        Raises:
            ConfigError: it can't be read, or isn't a snapshot. It stays where it is.
        """
        try:
            if self._path.stat().st_size > _SIZE_MAX:
                raise ConfigError(f"state file {self._path} is longer than {_SIZE_MAX} bytes")
            return from_text(self._path.read_text())
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise ConfigError(f"can't read state file {self._path}: {error.strerror}") from error
        except (BadState, UnicodeDecodeError) as error:
            raise ConfigError(f"state file {self._path}: {error}") from error

    def check(self) -> None:
        """Make sure that it can be written at the end.

        Raises:
            ConfigError: it can't.
        """
        folder = self._path.parent
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise ConfigError(f"state file {self._path}: can't write to folder {folder}")

    def discard(self) -> None:
        """Remove it, so that nobody goes on from there again.

        Raises:
            ConfigError: it can't be removed.
        """
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"can't remove state file {self._path}: {error.strerror}") from error

    def write(self, devices: Sequence[SavedDevice]) -> None:
        """Write devices; either all are there afterwards, and on disk, or there is no file.

        Raises:
            OSError: it can't be written.
            BadState: a device's state isn't JSON.
        """
        text = to_text(devices)
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            # Nobody else may read it: it holds what the guest entrusted to its devices.
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            with os.fdopen(os.open(new, flags, 0o600), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
            _sync(self._path.parent)
        except BaseException:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise


def _sync(folder: Path) -> None:
    """Have the names in a folder on disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def plug_all(
    devices: DeviceManager, specs: Sequence[DeviceSpec], saved: Sequence[SavedDevice]
) -> None:
    """Plug what was saved, at the same places and with the same state, then what is new.

    Raises:
        ConfigError: a device can't be plugged, or isn't of the type that it was.
    """
    configured = list(zip(_ids(specs), specs, strict=True))
    for each in saved:
        spec = next((spec for name, spec in configured if name == each.id), None)
        if spec is not None and spec.type != each.type:
            raise ConfigError(
                f"{spec.where}: device {each.id!r} was a {each.type!r} before the restart;"
                " remove the state file to do without what it held"
            )
        where = spec.where if spec else f"device {each.id!r} of the state file"
        config = spec.config if spec else each.config
        with naming(where):
            devices.plug(each.type, config, device_id=each.id, saved=replace(each, config=config))
    gone_on = {each.id for each in saved}
    for name, spec in configured:
        if name not in gone_on:
            with naming(spec.where):
                devices.plug(spec.type, spec.config, device_id=spec.id)


def _ids(specs: Sequence[DeviceSpec]) -> list[str]:
    """The ids that devices get, those without a name included, when all are plugged in order."""
    ids: list[str] = []
    for spec in specs:
        numbers = range(len(specs) + 1)
        free = (name for n in numbers if (name := f"{spec.type}-{n}") not in ids)
        ids.append(spec.id or next(free))
    return ids
