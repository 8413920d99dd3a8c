"""Threads that watch a server for `top`, and wait for it when it is gone.

What they find is handed to one function, as `News`, from any of the threads:

    source = Source(host, interval_s=1.0, tell=post)
    source.start()
    source.peek("com1")        # a `Peeked` comes
    source.close()             # nothing is told from here on

Invariant: no method waits for the server.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeAlias

import grpc

from devicehost.recording.events import Space
from devicehost.v1 import hotplug_service_pb2 as hotplug_pb
from devicehost.v1 import io_service_pb2 as io_pb
from devicehost_client import ClientError, DeviceHost, RemoteError
from devicehost_client.ctl.resource_text import format_resource
from devicehost_client.ctl.shapes import last_address
from devicehost_client.ctl.top.details import Peeked
from devicehost_client.ctl.top.frames import Device, Range, ServerInfo
from devicehost_client.debug import Activity, Feed

RETRY_S = 0.5
"""How long to wait before the server is looked for again."""

_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
"""It stops, or we were too slow: that passes."""

_IRQ = "legacy_irq"
_SPACES = {io_pb.SPACE_PIO: Space.PIO, io_pb.SPACE_MMIO: Space.MMIO}


@dataclass(frozen=True, slots=True)
class Placed:
    """All devices, and the address map."""

    devices: tuple[Device, ...]
    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """The server is gone, for the reason that is given. It is being looked for."""

    why: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The server will not say what we want to know."""

    error: ClientError


News: TypeAlias = ServerInfo | Placed | Activity | Peeked | Lost | Refused


class Source:
    """Watches a server.

    Args:
        host: the connection.
        interval_s: how often it is to tell what was accessed, 0.1 to 60 seconds.
        tell: takes what is found.
    """

    def __init__(
        self, host: DeviceHost, *, interval_s: float, tell: Callable[[News], None]
    ) -> None:
        self._host = host
        self._interval_s = interval_s
        self._tell_it = tell
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._feed: Feed[Activity] | None = None
        self._peeks: SimpleQueue[str | None] = SimpleQueue()

    def start(self) -> None:
        """Begin."""
        for work in (self._watch_activity, self._watch_devices, self._peek):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def set_interval(self, interval_s: float) -> None:
        """Go on with another interval."""
        with self._lock:
            self._interval_s = interval_s
            feed = self._feed
        if feed is not None:
            feed.close()

    def peek(self, device: str) -> None:
        """Ask what the registers of a device hold."""
        self._peeks.put(device)

    def close(self) -> None:
        """End. What a thread still waits for ends with the connection."""
        with self._lock:
            self._closed.set()
            feed = self._feed
        self._peeks.put(None)
        if feed is not None:
            feed.close()

    def _tell(self, news: News) -> None:
        with self._lock:  # so that `close` is the end of it
            if not self._closed.is_set():
                self._tell_it(news)

    def _watch_activity(self) -> None:
        is_lost = False
        while not self._closed.is_set():
            try:
                self._tell(server_info(self._host))
                is_lost = False
                with self._open_feed() as feed:
                    for activity in feed:
                        self._tell(activity)
            except ClientError as error:
                if _is_final(error):
                    self._tell(Refused(error))
                    return
                if not is_lost:
                    self._tell(Lost(str(error)))
                is_lost = True
                self._closed.wait(RETRY_S)
            except ValueError:  # gRPC's, for a call on a channel that we have closed
                if not self._closed.is_set():
                    raise

    def _open_feed(self) -> Feed[Activity]:
        with self._lock:
            feed = self._feed = self._host.debug.activity(self._interval_s)
            if self._closed.is_set():
                feed.close()
        return feed

    def _watch_devices(self) -> None:
        while not self._closed.is_set():
            devices: dict[str, hotplug_pb.Device] = {}
            try:
                for message in self._host.hotplug.watch():
                    _update(devices, message)
                    self._tell(placed(list(devices.values()), self._host.ranges()))
            except ClientError as error:
                if _is_final(error):
                    self._tell(Refused(error))
                    return
                self._closed.wait(RETRY_S)  # the other thread says what is wrong
            except ValueError:  # gRPC's, for a call on a channel that we have closed
                if not self._closed.is_set():
                    raise

    def _peek(self) -> None:
        while (device := self._peeks.get()) is not None:
            try:
                found = Peeked(device, tuple(self._host.debug.peek_all(device)))
            except ClientError as error:
                found = Peeked(device, problem=str(error))
            except ValueError:  # likewise
                if not self._closed.is_set():
                    raise
                return
            self._tell(found)


def _is_final(error: ClientError) -> bool:
    """Whether a server means to say that it won't, ever."""
    return isinstance(error, RemoteError) and error.code not in _PASSING


def server_info(host: DeviceHost) -> ServerInfo:
    """Ask the server who it is.

    Raises:
        ClientError: it doesn't answer.
    """
    server = host.server()
    # The server's clock may be ahead of ours.
    uptime_s = max(0.0, time.time() - server.start_time.ToNanoseconds() / 1e9)
    return ServerInfo(server.version, server.instance_id, uptime_s)


def placed(
    devices: list[hotplug_pb.Device], ranges: list[io_pb.ListRangesResponse.Range]
) -> Placed:
    """Return devices and ranges of the API's."""
    return Placed(
        tuple(
            Device(
                each.id,
                each.type,
                tuple(sorted(each.config.items())),
                tuple(map(format_resource, each.resources)),
                tuple(
                    resource.legacy_irq
                    for resource in each.resources
                    if resource.WhichOneof("kind") == _IRQ
                ),
            )
            for each in devices
        ),
        tuple(
            Range(_SPACES[each.space], each.base, last_address(each), each.device_id)
            for each in ranges
            if each.space in _SPACES
        ),
    )


def _update(
    devices: dict[str, hotplug_pb.Device], message: hotplug_pb.WatchDevicesResponse
) -> None:
    """Take a message of a watch."""
    match message.WhichOneof("event"):
        case "snapshot":
            devices.clear()
            devices.update({each.id: each for each in message.snapshot.devices})
        case "changed":
            if message.changed.state == hotplug_pb.DEVICE_STATE_UNPLUGGED:
                devices.pop(message.changed.id, None)
            else:
                devices[message.changed.id] = message.changed
