"""Drives fresh devices with a recording, and compares what they do.

    for difference in Replayer(Recording.open("boot.dhrec"), DeviceTypes()).run():
        print(difference)

Nothing real is opened, and no time passes. Each device lives in a `World`, where an access,
or a waking, is an activation: what the device learned then is fed to it, and what it did is
compared. Devices don't know of each other, so each one's events are kept until the access
or waking that they belong to.

What isn't compared: how long an access took; how a device ends, and what it does while it is
set up; a GSI that something else has a hand in: a device that is left out, or somebody who
injected it. Files that a device reads when it gets its resources (those of fw-cfg) are read
again, as they are now.

A device that is plugged while one of its id is there takes its place: so a recording tells
that a device got another state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Protocol

from devicehost.recording import DeviceRecord, Header
from devicehost.recording.events import Event, Plugged
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.replay.difference import Difference
from devicehost_server.replay.player import CannotReplay
from devicehost_server.replay.spoiled import Spoiled
from devicehost_server.replay.stage import Stage, Summary

PROGRESS_EVERY = 1024
"""How many events there are from one report of progress to the next."""


class Source(Protocol):
    """A recording, or what looks like one."""

    @property
    def header(self) -> Header:
        """What it begins with."""

    def __iter__(self) -> Iterator[Event]: ...


class Replayer:
    """A replay of one recording.

    Args:
        recording: what is replayed.
        types: the types of devices that can be made.
        faults: what is to be wrong with devices that were there when it began.
        leave_out: go on without devices that can't be replayed.

    Attributes:
        summary: what the last run came to, as far as it got.

    Raises:
        CannotReplay: there are devices of an unknown type, or without a state, and they
            aren't to be left out; or a fault is one of no device. It names them.
    """

    def __init__(
        self,
        recording: Source,
        types: DeviceTypes,
        faults: Iterable[Spoiled] = (),
        *,
        leave_out: bool = False,
    ) -> None:
        self._recording = recording
        self._types = types
        self._faults = tuple(faults)
        self._leave_out = leave_out
        self.summary = Summary(0, 0, 0, [], {}, 0)
        whys = [self._why_not(device) for device in recording.header.devices]
        if not leave_out and any(whys):
            raise CannotReplay("; ".join(why for why in whys if why))
        unknown = {each.device for each in self._faults} - {
            device.id for device in recording.header.devices
        }
        if unknown:
            known = ", ".join(device.id for device in recording.header.devices)
            raise CannotReplay(
                f"a fault is one of {', '.join(sorted(unknown))}; this recording has: {known}"
            )

    def run(self, on_progress: Callable[[int], None] | None = None) -> Iterator[Difference]:
        """Replay, and give the differences as they are found.

        Args:
            on_progress: told how many events are done, now and then.

        Raises:
            CannotReplay: a device can't be made, or doesn't take its state.
            BadRecording: what the recording says of a device that came makes no sense.
        """
        self.summary = summary = Summary(0, 0, 0, [], {}, 0)
        header = self._recording.header
        stage = Stage(header, self._types, self._faults, summary, leave_out=self._leave_out)
        try:
            for device in header.devices:
                stage.enter(device, header.now_ns, self._why_not(device))
            for number, event in enumerate(self._recording):
                summary.events = number + 1
                if isinstance(event, Plugged):
                    device = DeviceRecord.from_json(event.device)
                    why = self._why_not(device)
                    if why and not self._leave_out:
                        raise CannotReplay(why)
                    stage.leave(device.id)
                    stage.enter(device, event.time_ns, why)
                for difference in stage.play(number, event):
                    yield replace(difference, index=summary.differences)
                    summary.differences += 1
                if on_progress is not None and summary.events % PROGRESS_EVERY == 0:
                    on_progress(summary.events)
        finally:
            stage.clear()

    def _why_not(self, device: DeviceRecord) -> str:
        """Why a device can't be replayed; empty if it can."""
        if device.type not in self._types.names():
            return f"device {device.id!r}: its type {device.type!r} isn't known here"
        if device.state is None:
            return f"device {device.id!r}: its state wasn't recorded"
        return ""
