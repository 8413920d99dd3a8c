"""The virtio network device: a network card for a guest.

A driver may leave checksums to the device, and the cutting of TCP into segments, whatever
it is plugged into: what the other end doesn't want undone is done here.

Threads and locks: frames to be sent are the worker's. Frames that come are handed to the
receive queue on the thread that they come on: that of all sockets and taps, or another
guest's worker. `receiver` has a lock for that, which is held for one frame and under which
nobody is called; so `quiesce`, under the device's lock, waits for no more than that. News
of the link enter the device under its lock, from threads that hold no other.

Source: VIRTIO 1.2, section 5.1.
"""

from __future__ import annotations

import hashlib
import re
import struct
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from devicehost_server.devices.base import DeviceContext, State
from devicehost_server.devices.config import option
from devicehost_server.devices.state import StateReader
from devicehost_server.devices.virtio.device import VirtioConfig, VirtioDevice
from devicehost_server.devices.virtio.net.backend import Backend, Reading
from devicehost_server.devices.virtio.net.frames import (
    FEATURE_NAMES,
    BadFrame,
    Feature,
    Frame,
    take,
)
from devicehost_server.devices.virtio.net.hub import HubPort
from devicehost_server.devices.virtio.net.receiver import Receiver
from devicehost_server.devices.virtio.net.spec import (
    ALLOWED,
    HubSpec,
    Spec,
    TapSpec,
    UnixSpec,
    bad_spec,
    parse_spec,
)
from devicehost_server.devices.virtio.net.stream import ConnectingBackend, ListeningBackend
from devicehost_server.devices.virtio.net.tap import TapBackend
from devicehost_server.devices.virtio.queue import VirtQueue
from devicehost_server.devices.virtio.sizes import check_queue_size
from devicehost_server.model.errors import BadConfig

RECEIVE, TRANSMIT = 0, 1
"""The queues: frames to the guest, and from it."""

LINK_UP = 1
"""In the configuration's status: somebody is at the other end."""

_CONFIG = struct.Struct("<6sHHH")  # MAC, status, pairs of queues, MTU
_MAC = re.compile(r"([0-9a-fA-F]{2})(:[0-9a-fA-F]{2}){5}")
_BATCH = 64  # frames after which the other end is told
_FRAMES_AT_ONCE = 512  # after that many it is the other queue's turn

_SENDING = Feature.CSUM | Feature.HOST_TSO4 | Feature.HOST_TSO6
_RECEIVING = Feature.GUEST_CSUM | Feature.GUEST_TSO4 | Feature.GUEST_TSO6


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(VirtioConfig):
    """The configuration of a `virtio-net`."""

    netdev: str = option(help=f"what it is plugged into: {ALLOWED}")
    mac: str | None = option(
        None, "its address, like 52:54:00:12:34:56; none for one made of its id and netdev"
    )
    mtu: int | None = option(
        None,
        "bytes of the longest packet that the driver sends; none not to say",
        minimum=68,
        maximum=0xFFFF,
    )
    queue_size: int = option(
        256, "descriptors of each queue, a power of two", minimum=16, maximum=1024
    )


class VirtioNet(VirtioDevice[Config]):
    """A network card for a guest (virtio 1.2)."""

    type_name = "virtio-net"
    config_type = Config
    virtio_id = 1
    feature_names = FEATURE_NAMES

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        check_queue_size(self.type_name, config.queue_size)
        self._spec = parse_spec(config.netdev)
        self._given_mac = None if config.mac is None else parse_mac(config.mac)
        self._backend: Backend | None = None  # until it is opened
        self._receiver = Receiver(self.drop)
        self._link = False
        self._is_link_stale = False  # the driver was told otherwise, before a restore
        self._started = False
        self._negotiated = 0
        self._sent = 0
        self._sent_octets = 0
        self._drops: Counter[str] = Counter()
        self._drops_lock = threading.Lock()

    @property
    def mac(self) -> bytes:
        """Its address: as configured, or one that follows from its id and its netdev."""
        if self._given_mac is not None:
            return self._given_mac
        return default_mac(self.context.device_id, self.config.netdev)

    # What it is to the core.

    def queue_sizes(self) -> Sequence[int]:
        """One for each direction."""
        return (self.config.queue_size, self.config.queue_size)

    def device_features(self) -> int:
        """What helps at this other end: metadata comes from taps and guests only."""
        features = _SENDING | Feature.MAC | Feature.STATUS | Feature.MRG_RXBUF
        if not isinstance(self._spec, UnixSpec):
            features |= _RECEIVING
        if self.config.mtu is not None:
            features |= Feature.MTU
        return features

    def device_config(self) -> bytes:
        """The address, the link, and the MTU; one pair of queues."""
        return _CONFIG.pack(self.mac, LINK_UP if self._link else 0, 1, self.config.mtu or 0)

    def assign(self, context: DeviceContext) -> None:
        """Take the resources, and open the other end.

        Raises:
            BadConfig: it can't be opened.
        """
        self._note_link = {
            up: context.entrance(f"link-{'up' if up else 'down'}", partial(self._take_link, up=up))
            for up in (False, True)
        }
        super().assign(context)

    def open(self) -> None:
        """Open the other end. Nothing is sent or received before `start`.

        Raises:
            BadConfig: it can't be opened.
        """
        super().open()
        try:
            self._backend = _open(self._spec)
        except OSError as error:
            why = f"can't be opened: {error.strerror or error}"
            raise bad_spec(self.config.netdev, why) from error

    def start(self) -> None:
        """Let frames come, and the queues run."""
        self._started = True
        if self._backend is not None:
            self._backend.start(self)
        super().start()

    def activate(self, features: int) -> None:
        """Use what was negotiated."""
        super().activate(features)
        self._negotiated = features
        if self._backend is not None:
            self._backend.set_features(features)
        self._receiver.open(self.queues[RECEIVE], features)
        if self._is_link_stale:
            self._is_link_stale = False
            self.config_changed()

    def quiesce(self) -> None:
        """Stop writing to guest memory. Frames that come meanwhile wait."""
        super().quiesce()
        self._receiver.close()

    def reset_device(self) -> None:
        """Forget the driver, and what was for it."""
        super().reset_device()
        self._negotiated = 0
        self._receiver.forget()
        if self._backend is not None:
            self._backend.set_features(0)

    def serve(self, queue: VirtQueue) -> None:
        """Send what there is to be sent, or go on with what waits for buffers."""
        if self._backend is not None:
            if queue.index == RECEIVE:
                self._backend.resume()
            elif queue.index == TRANSMIT:
                self._transmit(queue, self._backend)

    def save_device(self) -> State:
        """Return what the driver was told of the link."""
        return {"link": self._link}

    def restore_device(self, state: State) -> None:
        """Remember what the driver was told of the link.

        Raises:
            BadState: it doesn't fit.
        """
        reader = StateReader(self.name, state)
        link = reader.boolean("link")
        reader.finish()
        if self._started and self._backend is not None:
            self._is_link_stale = link != self._link
        else:
            self._link = link

    def view(self) -> Mapping[str, Any]:
        """What went and came, what was lost and why, and who is at the other end."""
        if self._backend is None:
            return super().view()
        with self._drops_lock:
            drops = dict(self._drops)
        return {
            **super().view(),
            "mac": self.mac.hex(":"),
            "peer": self._backend.peer,
            "link": "up" if self._link else "down",
            "sent": {"frames": self._sent, "bytes": self._sent_octets},
            "received": {"frames": self._receiver.frames, "bytes": self._receiver.octets},
            "dropped": drops,
            "netdev": self._backend.view(),
        }

    def close(self) -> None:
        """Leave the other end."""
        super().close()
        if self._backend is not None:
            self._backend.close()

    # What it is to the other end; see `backend.Nic`.

    def receive(self, frame: Frame) -> bool:
        """Hand a frame to the guest; False if it can't be taken now."""
        return self._receiver.deliver(frame)

    def receive_into(self, read: Reading) -> bool:
        """Let `read` put a frame into guest memory; False if it can't be taken now."""
        return self._receiver.read(read)

    def received(self) -> None:
        """Tell the guest of what was handed to it."""
        self._receiver.notify()

    def set_link(self, *, up: bool) -> None:
        """Tell the guest whether anybody is at the other end."""
        if up != self._link:
            self._note_link[up]()
            self.config_changed()

    def room(self) -> None:
        """Send again what the other end refused."""
        self.serve_soon(self.queues[TRANSMIT])

    def drop(self, reason: str, frames: int = 1) -> None:
        """Count frames that are lost."""
        with self._drops_lock:
            self._drops[reason] += frames

    def _take_link(self, *, up: bool) -> None:
        self._link = up

    def _transmit(self, queue: VirtQueue, backend: Backend) -> None:
        done = 0
        while (chain := queue.pop()) is not None:
            try:
                frame = take(chain.readable, chain.readable_size, self._negotiated)
            except BadFrame as bad:
                self.drop(str(bad))
            else:
                if not backend.send(frame):
                    queue.put_back((chain,))
                    break
                self._sent += 1
                self._sent_octets += frame.size
            queue.push(chain, 0)
            done += 1
            if done == _FRAMES_AT_ONCE:
                self.serve_soon(queue)
                break
            if done % _BATCH == 0:
                backend.flush()
                queue.notify()
        backend.flush()
        queue.notify()


def parse_mac(text: str) -> bytes:
    """Read an address of one station.

    Raises:
        BadConfig: it isn't one.
    """
    allowed = "allowed: six bytes like 52:54:00:12:34:56, the first one even"
    if not _MAC.fullmatch(text):
        raise BadConfig(f"mac {text!r} is not an address; {allowed}", field="mac", value=text)
    mac = bytes.fromhex(text.replace(":", ""))
    if mac[0] & 1 or not any(mac):
        raise BadConfig(f"mac {text!r} can't be a station's; {allowed}", field="mac", value=text)
    return mac


def default_mac(device_id: str, netdev: str) -> bytes:
    """Return a locally administered address, the same for the same device each time.

    The netdev counts as well, since devices of two servers are often called the same.
    """
    digest = hashlib.sha256(f"{device_id}\0{netdev}".encode()).digest()
    return bytes((digest[0] & 0xFC | 0x02,)) + digest[1:6]


def _open(spec: Spec) -> Backend:
    match spec:
        case TapSpec(name):
            return TapBackend(name)
        case UnixSpec(path, listens):
            return ListeningBackend(path) if listens else ConnectingBackend(path)
        case HubSpec(name):
            return HubPort(name)
