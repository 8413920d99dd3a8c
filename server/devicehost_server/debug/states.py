"""The state of devices, taken out and put back while the server runs.

    saved = states.save(["uart0"])      {"uart0": {"type": "uart16550", "state": {...}}}
    states.restore(saved)

A device's state is taken while nobody else is in it. Of several devices each is taken at a
moment of its own: who needs one moment for all stops the vCPUs first.

Invariants:
    What `save` returns is JSON through and through, and shares nothing with the devices.
    `restore` gives all devices their states, or leaves all as they were.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias, cast

import structlog

from devicehost_server.debug.entered import entered
from devicehost_server.device_info import DeviceState
from devicehost_server.device_manager import DeviceManager
from devicehost_server.devices.base import State
from devicehost_server.devices.doors import SAVE
from devicehost_server.model.device_io import DeviceIo
from devicehost_server.model.errors import (
    BadRequest,
    BadState,
    DeviceHostError,
    NoSuchDevice,
)

_log = structlog.get_logger(__name__)

SavedStates: TypeAlias = dict[str, dict[str, Any]]
"""By device id, `{"type": TYPE, "state": STATE}`."""

TEXT_MAX = 3 << 20
"""The longest text of states, in bytes: it has to fit into a message of gRPC, 4 MiB."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A state, and the device that is to have it."""

    device_id: str
    device: DeviceIo
    state: State


class States:
    """Saves and restores devices. Safe to use from any thread.

    Args:
        devices: the devices.
    """

    def __init__(self, devices: DeviceManager) -> None:
        self._devices = devices
        self._on_changed: Callable[[str], None] = _nobody
        self._on_changed_inside: Callable[[str], None] = _nobody

    def on_changed(self, listener: Callable[[str], None], inside: Callable[[str], None]) -> None:
        """Tell of each device, by its id, that got another state.

        Both are told on the thread that did it: first `inside`, when nobody else has been in
        the device since, then `listener`, when the thread is in no device any more.
        """
        self._on_changed = listener
        self._on_changed_inside = inside

    def save(self, device_ids: Iterable[str] = ()) -> SavedStates:
        """Return the state of these devices; of all that are on the bus if none is named.

        Raises:
            NoSuchDevice: one isn't there.
            DeviceFault: a device raised, or its state isn't JSON.
            DeviceTimeout: another thread is in a device for too long.
        """
        named = list(device_ids)
        if named:
            return {device_id: self._save(device_id) for device_id in named}
        saved = {}
        for info in self._devices.devices()[1]:
            if info.state is DeviceState.PLUGGED:
                try:
                    saved[info.id] = self._save(info.id)
                except NoSuchDevice:
                    continue  # it went meanwhile
        return saved

    def restore(self, states: object) -> None:
        """Give devices the states that `save` returned for them.

        All is checked before the first device is touched. If a device then refuses its
        state, those before it get back what they had.

        Raises:
            BadState: the object isn't one that `save` returns, a device isn't there or is
                of another type, or its state doesn't fit. Metadata: `device`, `field`.
            DeviceFault: a device raised something else.
            DeviceTimeout: another thread is in a device for too long.
        """
        former: list[_Wanted] = []
        try:
            for wanted in self._checked(states):
                self._restore(wanted, former)
        finally:
            for each in former:
                self._on_changed(each.device_id)

    def _restore(self, wanted: _Wanted, former: list[_Wanted]) -> None:
        """Restore one device; add what it had to `former`, or give all of that back."""
        try:
            with entered(wanted.device, wanted.device_id, "while it got a state") as hosted:
                before = copied(hosted.save())
                former.append(_Wanted(wanted.device_id, wanted.device, before))
                hosted.restore(wanted.state)
                self._on_changed_inside(wanted.device_id)
        except DeviceHostError as error:
            self._give_back(former)
            error.metadata.setdefault("device", wanted.device_id)
            raise

    def _save(self, device_id: str) -> dict[str, Any]:
        info = self._devices.get(device_id)
        device = self._devices.device(device_id)
        doing = "while its state was saved"
        with (
            entered(device, device_id, doing, is_recorded=True) as hosted,
            # A device may do now what was due, so who records it has to know.
            self._devices.doors.calling(hosted, SAVE),
        ):
            return {"type": info.type, "state": copied(hosted.save())}

    def _checked(self, states: object) -> list[_Wanted]:
        if not isinstance(states, dict):
            raise BadState(
                f"states are {_kind(states)}; allowed: an object with a device's id for each"
                " of its names",
                field="states",
            )
        return [self._checked_one(str(name), entry) for name, entry in states.items()]

    def _checked_one(self, device_id: str, entry: object) -> _Wanted:
        """Check that a state is for a device that is there; what is in it, the device does."""
        if not isinstance(entry, dict) or entry.keys() != {"type", "state"}:
            what = sorted(map(str, entry)) if isinstance(entry, dict) else _kind(entry)
            _refuse(device_id, "states", f"is {what}; allowed: an object of type and state")
        if not isinstance(entry["state"], dict):
            _refuse(device_id, "state", f"is {_kind(entry['state'])}; allowed: an object")
        try:
            info = self._devices.get(device_id)
            device = self._devices.device(device_id)
        except NoSuchDevice:
            _refuse(device_id, "device", "is for a device that isn't there")
        if entry["type"] != info.type:
            _refuse(device_id, "type", f"is {entry['type']!r}; the device is a {info.type!r}")
        return _Wanted(device_id, device, entry["state"])

    def _give_back(self, former: list[_Wanted]) -> None:
        """Restore what devices had, the last first; one that can't take it is only logged."""
        for each in reversed(former):
            try:
                with entered(each.device, each.device_id, "while it got its state back") as hosted:
                    hosted.restore(each.state)
                    self._on_changed_inside(each.device_id)
            except DeviceHostError as error:
                _log.error("state_not_given_back", device=each.device_id, error=str(error))


def _nobody(_device_id: str) -> None:
    """Be told of a change, and do nothing."""


def to_text(states: SavedStates) -> str:
    """Return states as JSON.

    Raises:
        BadRequest: it would be longer than `TEXT_MAX`.
    """
    text = json.dumps(states, separators=(",", ":"))  # of ASCII: a character is a byte
    if len(text) > TEXT_MAX:
        raise BadRequest(
            f"the states are {len(text)} bytes long; allowed: {TEXT_MAX}; ask for fewer devices",
            field="device_ids",
        )
    return text


def from_text(text: str) -> SavedStates:
    """Return the states that `to_text` wrote; what they hold is checked by `restore`.

    Raises:
        BadState: the text isn't JSON, is too long, or names something twice.
    """
    # Of a text that is longer than this in characters there is no need to count the bytes.
    if len(text) > TEXT_MAX or len(text.encode(errors="replace")) > TEXT_MAX:
        raise BadState(f"states: the text is longer than {TEXT_MAX} bytes", field="states")
    try:
        states = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        why = str(error) or "nested too deeply"
        raise BadState(f"states: the text isn't JSON: {why}", field="states") from None
    return cast("SavedStates", states)


def copied(state: State) -> State:
    """Return a state by itself. Raises what json raises if it isn't JSON."""
    return cast("State", json.loads(json.dumps(state, allow_nan=False)))


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} stands twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} isn't a value of JSON")


def _kind(value: object) -> str:
    """What a value is, without quoting all of it."""
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a truth value"}
    return "null" if value is None else kinds.get(type(value), "a number")


def _refuse(device_id: str, field: str, why: str) -> NoReturn:
    raise BadState(f"state of device {device_id!r}: {field} {why}", device=device_id, field=field)
