"""The seam between a network device and what it is plugged into.

A `Backend` carries frames from a `Nic`, the guest's side, to somewhere, and back. One is
plugged into one device for all of its life.

Threads and locks:
    `send`, `flush` and `resume` are called by the device's worker, the rest by whoever
    leads the device through its life.
    `Nic.receive` and `Nic.receive_into` may be called under a backend's own locks. They
    hold the receive queue's lock, and under that nothing is called.
    The other methods of `Nic` may enter the device, under its lock. A caller holds none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from devicehost_server.devices.chardev.loop import Loop
from devicehost_server.devices.virtio.net.frames import Frame

LOOP = Loop("virtio-net")
"""The thread that waits for all sockets and taps of the process."""

Reading: TypeAlias = Callable[[list[memoryview]], int]
"""Reads one header and frame into windows; returns the bytes of both."""


class Nic(Protocol):
    """The guest's side, as a backend sees it."""

    def receive(self, frame: Frame) -> bool:
        """Hand a frame to the guest, which accepts its metadata (`frames.is_accepted`).

        Returns:
            False if it can't be taken now. `Backend.resume` is called when it may be.
        """

    def receive_into(self, read: Reading) -> bool:
        """Let `read` put a frame straight into the guest's memory. Returns as `receive`.

        Raises:
            OSError: `read` has; nothing has come.
        """

    def received(self) -> None:
        """Tell the guest of what was handed to it; once after several frames."""

    def set_link(self, *, up: bool) -> None:
        """Tell the guest whether anybody is at the other end."""

    def room(self) -> None:
        """Have what `Backend.send` refused sent again."""

    def drop(self, reason: str, frames: int = 1) -> None:
        """Count frames that are lost. May be called under any lock."""


class Backend(ABC):
    """Where frames go to, and come from."""

    @property
    @abstractmethod
    def peer(self) -> str:
        """Who is at the other end, in a few words."""

    @abstractmethod
    def start(self, nic: Nic) -> None:
        """Begin: frames may come from here on, and news of the link."""

    @abstractmethod
    def set_features(self, features: int) -> None:
        """Take note of what the driver has negotiated; 0 if there is no driver any more."""

    @abstractmethod
    def send(self, frame: Frame) -> bool:
        """Send a frame.

        Returns:
            False if it can't be taken now. `Nic.room` is called when it may be.
        """

    @abstractmethod
    def flush(self) -> None:
        """Do what is done once after several frames."""

    @abstractmethod
    def resume(self) -> None:
        """Go on with `Nic.receive`: there may be room."""

    def view(self) -> Mapping[str, int | str]:
        """Figures of its own."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """Stop, and free everything. No method of the `Nic` is called after it."""
