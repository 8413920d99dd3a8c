"""A guest with a network card, and a peer that speaks QEMU's framing.

with guest("hub:lan") as alice, guest("hub:lan") as bob:
    alice.send(frame_to(bob.mac, alice.mac, b"hello"))
    assert bob.receive(1) == [...]
"""

from __future__ import annotations

import itertools
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from devicehost_server.devices.virtio.net import Config, VirtioNet
from virtiolab import DEADLINE_S, EVERYTHING, GuestRam, QueueDriver, Request, VirtioLab, Way

HEADER_SIZE = 12
BROADCAST = b"\xff" * 6

CSUM, GUEST_CSUM, MTU, MAC = 1 << 0, 1 << 1, 1 << 3, 1 << 5
GUEST_TSO4, GUEST_TSO6, HOST_TSO4, HOST_TSO6 = 1 << 7, 1 << 8, 1 << 11, 1 << 12
MRG_RXBUF, STATUS = 1 << 15, 1 << 16
OFFLOADS = CSUM | GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | HOST_TSO4 | HOST_TSO6
ALL = EVERYTHING | OFFLOADS | MTU | MAC | MRG_RXBUF | STATUS
SIMPLE = EVERYTHING | MAC | STATUS

_numbers = itertools.count()


def frame_to(target: bytes, source: bytes, payload: bytes) -> bytes:
    """An Ethernet frame of a type that is free for experiments."""
    return target + source + b"\x88\xb5" + payload


def wait(queue: QueueDriver, condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    """Wait by interrupts, and ask for another one whenever something was collected."""
    seen = queue.next_used

    def look() -> bool:
        nonlocal seen
        if condition():
            return True
        if queue.next_used != seen:
            seen = queue.next_used
            queue.lab.interrupted.set()  # so that it asks once more before it sleeps
        return False

    queue.wait(look, deadline_s)


class Guest:
    """A network card with a driver.

    Attributes:
        lab: the card.
        headers: what stood before the frames that came, in their order.
    """

    def __init__(
        self, lab: VirtioLab, features: int, buffers: int, buffer_size: int, *, indirect: bool
    ) -> None:
        self.lab = lab
        self.driver = lab.driver
        self.buffers = buffers
        self.buffer_size = buffer_size
        self.indirect = indirect
        self.headers: list[bytes] = []
        self._frames: deque[bytes] = deque()
        self._posted: deque[Request] = deque()
        self.start(features)

    def start(self, features: int) -> None:
        """Reset the card, and set it up."""
        self._posted.clear()
        self.driver.start(features)
        self.refill()

    @property
    def mac(self) -> bytes:
        return self.driver.config(0, 6)

    def link_is_up(self) -> bool:
        return self.driver.config(6, 2) == b"\1\0"

    def dropped(self) -> dict[str, int]:
        found: dict[str, int] = self.lab.device.view()["dropped"]
        return found

    def refill(self) -> None:
        """Give the card as many buffers as there should be."""
        receive = self.driver.queues[0]
        added = False
        while len(self._posted) < self.buffers:
            request = receive.add(writable=[self.buffer_size], indirect=self.indirect)
            self._posted.append(request)
            added = True
        if added:
            receive.kick()

    def send(self, frame: bytes, header: bytes = bytes(HEADER_SIZE), cut: int = 0) -> Request:
        """Send a frame; its first bytes, header included, in a buffer of their own."""
        transmit = self.driver.queues[1]
        if len(transmit.free) < 4:
            wait(transmit, lambda: len(transmit.free) >= 4)
        whole = header + frame
        parts = [whole[:cut], whole[cut:]] if cut else [header, frame]
        request = transmit.add(readable=parts, indirect=self.indirect)
        transmit.kick()
        return request

    def receive(self, count: int, deadline_s: float = DEADLINE_S) -> list[bytes]:
        """Wait for so many frames, and return them."""

        def enough() -> bool:
            self._harvest()
            return len(self._frames) >= count

        wait(self.driver.queues[0], enough, deadline_s)
        return [self._frames.popleft() for _ in range(count)]

    def waiting(self) -> int:
        """Look without waiting for an interrupt; return how many frames are there."""
        self.driver.queues[0].collect()
        self._harvest()
        return len(self._frames)

    def _harvest(self) -> None:
        posted = self._posted
        while posted and posted[0].written is not None:
            count = int.from_bytes(posted[0].data[10:12], "little")
            assert count >= 1
            requests = list(itertools.islice(posted, count))
            assert all(request.written is not None for request in requests), "half a frame"
            for _ in requests:
                posted.popleft()
            data = b"".join(request.data for request in requests)
            self.headers.append(data[:HEADER_SIZE])
            self._frames.append(data[HEADER_SIZE:])
        self.refill()


@contextmanager
def guest(
    netdev: str,
    way: Way = Way.MMIO,
    *,
    features: int = ALL,
    buffers: int = 64,
    buffer_size: int = 2048,
    queue_size: int = 256,
    indirect: bool = False,
    ram: GuestRam | None = None,
    mapped: bool = True,
    **config: object,
) -> Iterator[Guest]:
    """Plug a card into `netdev`, and start its driver."""
    device = VirtioNet(Config(netdev=netdev, queue_size=queue_size, **config))  # type: ignore[arg-type] # as a test has it
    name = f"net{next(_numbers)}"
    with VirtioLab(device, way, ram=ram, mapped=mapped, device_id=name) as lab:
        yield Guest(lab, features, buffers, buffer_size, indirect=indirect)


class Peer:
    """Somebody at the other end of a Unix socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(DEADLINE_S)
        self._data = bytearray()

    def send(self, *frames: bytes) -> None:
        self.connection.sendall(b"".join(struct.pack(">I", len(f)) + f for f in frames))

    def receive(self, count: int) -> list[bytes]:
        frames: list[bytes] = []
        while len(frames) < count:
            size = int.from_bytes(self._data[:4], "big") if len(self._data) >= 4 else 1 << 32
            if len(self._data) >= 4 + size:
                frames.append(bytes(self._data[4 : 4 + size]))
                del self._data[: 4 + size]
                continue
            piece = self.connection.recv(1 << 16)
            assert piece, "the other end left"
            self._data += piece
        return frames

    def has_been_left(self) -> bool:
        """Wait for the end."""
        while self.connection.recv(1 << 16):
            pass
        return True

    def close(self) -> None:
        self.connection.close()
