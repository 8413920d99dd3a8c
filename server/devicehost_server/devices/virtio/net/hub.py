"""Guests that are joined to each other, inside of one process.

Devices with the same hub are ports of a switch. It learns behind which port an address is
from the frames that come from there, and sends a frame to one port only once it knows;
other frames, and those to groups, go to all.

A frame goes straight from the memory of the guest that sends it to the memory of the one
that receives it, on the sender's worker. What the sender left undone (checksums, TCP to be
cut) stays so if the receiver accepts that, and is done here otherwise.

A receiver without buffers has a backlog. When that is full, a sender of frames to it alone
waits; but a guest that takes nothing for `PATIENCE_S` isn't waited for any more, and what
is sent to it is dropped, until it takes something.

Locks: a port's lock is held while a frame is handed to its guest, so that frames stay in
order. A thread holds one of them at a time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from devicehost_server.devices.virtio.net.backend import LOOP, Backend, Nic
from devicehost_server.devices.virtio.net.frames import BadFrame, Frame, is_accepted
from devicehost_server.devices.virtio.net.offload import completed

BACKLOG_SIZE = 1 << 20
"""Bytes that wait for a guest before senders have to."""

BACKLOG_FRAMES = 1024
"""Frames that wait for a guest before senders have to."""

PATIENCE_S = 0.2
"""How long senders wait for a guest that takes nothing, in seconds."""

AGE_S = 300.0
"""How long an address is remembered, in seconds, as in most switches."""

ADDRESSES_MAX = 4096
"""How many addresses are remembered; the oldest gives way."""

_RELEARN_S = 1.0
_ADDRESS_SIZE = 6


@dataclass(frozen=True, slots=True)
class _Place:
    """Behind which port an address was seen, and when."""

    port: HubPort
    seen_at: float


class Hub:
    """A switch. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[bytes, _Place] = {}
        self.ports: tuple[HubPort, ...] = ()

    def join(self, port: HubPort) -> None:
        """Add a port."""
        with self._lock:
            self.ports = (*self.ports, port)

    def leave(self, port: HubPort) -> None:
        """Remove a port, and forget what was behind it."""
        with self._lock:
            self.ports = tuple(each for each in self.ports if each is not port)
            self._places = {
                address: place for address, place in self._places.items() if place.port is not port
            }

    def targets(self, addresses: bytes, source: HubPort) -> tuple[HubPort, ...]:
        """Learn from a frame, and return the ports it goes to.

        Args:
            addresses: the frame's first 12 bytes.
            source: where it comes from.
        """
        now = time.monotonic()
        sender = addresses[_ADDRESS_SIZE:]
        place = self._places.get(sender)
        if place is None or place.port is not source or now - place.seen_at > _RELEARN_S:
            self._learn(sender, _Place(source, now))
        place = self._places.get(addresses[:_ADDRESS_SIZE])
        if place is not None and now - place.seen_at < AGE_S:
            return (place.port,) if place.port is not source else ()
        return tuple(port for port in self.ports if port is not source)

    @property
    def addresses(self) -> int:
        """How many addresses it knows."""
        return len(self._places)

    def _learn(self, address: bytes, place: _Place) -> None:
        if address[0] & 1:  # that of a group, which no frame can come from
            return
        with self._lock:
            if place.port in self.ports:
                self._places.pop(address, None)  # to the end, where the newest are
                self._places[address] = place
                if len(self._places) > ADDRESSES_MAX:
                    del self._places[next(iter(self._places))]


class Hubs:
    """The hubs of a process by name. One is there while it has ports."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hubs: dict[str, Hub] = {}

    def join(self, name: str, port: HubPort) -> Hub:
        """Add `port` to the hub `name`."""
        with self._lock:
            hub = self._hubs.setdefault(name, Hub())
            hub.join(port)
            return hub

    def leave(self, name: str, port: HubPort) -> None:
        """Take `port` away."""
        with self._lock:
            hub = self._hubs[name]
            hub.leave(port)
            if not hub.ports:
                del self._hubs[name]


HUBS = Hubs()


class HubPort(Backend):
    """One device's port of the hub `name`."""

    def __init__(self, name: str) -> None:
        self.due: float | None = None
        self._name = name
        self._hub: Hub | None = None
        self._nic: Nic
        self._lock = threading.Lock()  # for what follows
        self._features = 0
        self._backlog: deque[Frame] = deque()
        self._backlog_size = 0
        self._stuck_since: float | None = None  # senders wait, or have given up waiting
        self._waiting: dict[HubPort, None] = {}
        # The worker's:
        self._touched: dict[HubPort, None] = {}

    @property
    def peer(self) -> str:
        """The hub, and how many others are there."""
        others = len(self._hub.ports) - 1 if self._hub else 0
        return f"hub {self._name}, {others} other{'' if others == 1 else 's'}"

    def start(self, nic: Nic) -> None:
        """Join the hub. To be joined to one is a link, whoever else is there."""
        self._nic = nic
        LOOP.add(self)
        self._hub = HUBS.join(self._name, self)
        nic.set_link(up=True)

    def set_features(self, features: int) -> None:
        """Take note of what the guest accepts; without a driver it gets nothing."""
        with self._lock:
            self._features = features
            if not features and self._backlog:
                self._nic.drop("no_driver", len(self._backlog))
                self._backlog.clear()
                self._backlog_size = 0
                self._stuck_since = None
        self._wake_waiting()

    def send(self, frame: Frame) -> bool:
        """Hand a frame to whom it is for; False if that one has to be waited for."""
        if self._hub is None:
            return True
        targets = self._hub.targets(frame.start(2 * _ADDRESS_SIZE), self)
        if len(targets) == 1 and targets[0].makes_wait(self):
            return False
        for target in targets:
            target.take(frame)
            self._touched[target] = None
        return True

    def flush(self) -> None:
        """Tell the guests that have received something."""
        touched, self._touched = self._touched, {}
        for port in touched:
            port.tell()

    def resume(self) -> None:
        """Hand over what waits."""
        if not self._backlog:
            return
        with self._lock:
            before = len(self._backlog)
            while self._backlog and self._nic.receive(self._backlog[0]):
                self._backlog_size -= self._backlog.popleft().size
            if len(self._backlog) < before:
                self._stuck_since = None
            has_room = not self._is_full(2)
        self._nic.received()
        if has_room:
            self._wake_waiting()

    def view(self) -> Mapping[str, int | str]:
        """The backlog, and how many addresses the hub knows."""
        return {"backlog": len(self._backlog), "addresses": self._hub.addresses if self._hub else 0}

    def close(self) -> None:
        """Leave the hub."""
        if self._hub is None:
            return
        HUBS.leave(self._name, self)
        LOOP.remove(self)
        LOOP.kick(self)  # if it was the last one, the thread has to notice
        with self._lock:
            self._hub = None
            self._features = 0
            self._backlog.clear()
        self._wake_waiting()

    # For other ports, on their workers.

    def makes_wait(self, sender: HubPort) -> bool:
        """Whether `sender` has to wait until there is room; it is told then."""
        if not self._is_full():
            return False
        with self._lock:
            now = time.monotonic()
            if self._stuck_since is None:
                self._stuck_since = now
            if not self._is_full() or now - self._stuck_since >= PATIENCE_S:
                return False
            self._waiting[sender] = None
        LOOP.kick(self)
        return True

    def take(self, frame: Frame) -> None:
        """Give a frame to the guest, or keep it until there is room."""
        with self._lock:
            if not self._features:
                self._nic.drop("no_driver")
            elif is_accepted(frame.header, self._features):
                self._take(frame)
            else:
                try:
                    for each in completed(frame):
                        self._take(each)
                except BadFrame as bad:
                    self._nic.drop(str(bad))

    def go_on(self) -> None:
        """Send again what had to wait."""
        if self._hub is not None:
            self._nic.room()

    def tell(self) -> None:
        """Tell the guest that something has come."""
        if self._hub is not None:
            self._nic.received()

    # For the loop, on its thread.

    def pump(self) -> None:
        """See whether senders have waited for long enough."""
        self.due = None
        with self._lock:
            if self._waiting and self._stuck_since is not None:
                until = self._stuck_since + PATIENCE_S
                if time.monotonic() < until:
                    self.due = until
                    return
        self._wake_waiting()

    def finish(self) -> None:
        """Leave the loop: nobody is waited for any more."""
        LOOP.remove(self)
        self._wake_waiting()

    def _take(self, frame: Frame) -> None:
        if not self._backlog and self._nic.receive(frame):
            return
        if self._is_full():
            self._nic.drop("backlog_full")
        else:
            self._backlog.append(frame.kept())
            self._backlog_size += frame.size

    def _is_full(self, divisor: int = 1) -> bool:
        return (
            self._backlog_size >= BACKLOG_SIZE // divisor
            or len(self._backlog) >= BACKLOG_FRAMES // divisor
        )

    def _wake_waiting(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for port in waiting:
            port.go_on()
