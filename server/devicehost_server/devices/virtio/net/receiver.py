"""The receive queue: frames into the guest's buffers.

A buffer begins with a header (`frames`). A driver that merges buffers gives many small
ones, and a frame takes as many as it needs; to other drivers a frame goes into one, or
nowhere. Chains that a frame doesn't fit into go back to the queue: none is held between
two calls, so there is nothing to undo when the guest is reset or saved.

The lock is held for one frame. Under it nothing is called but the queue, and what reads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from devicehost_server.devices.virtio.chain import Chain
from devicehost_server.devices.virtio.net.backend import Reading
from devicehost_server.devices.virtio.net.frames import (
    FRAME_MAX,
    HEADER_SIZE,
    NUM_BUFFERS_OFFSET,
    PLAIN,
    Feature,
    Frame,
)
from devicehost_server.devices.virtio.queue import VirtQueue
from devicehost_server.model.device_io import ReadableBuffer

_ONE = b"\x01\x00"
_IOV_MAX = 1024  # UIO_MAXIOV, of readv(2)


class Receiver:
    """Fills the buffers of one guest. Safe to use from any thread.

    Args:
        drop: called with the reason for each frame that is lost.

    Attributes:
        frames: how many the guest was given.
        octets: their bytes.
    """

    def __init__(self, drop: Callable[[str], None]) -> None:
        self.frames = 0
        self.octets = 0
        self._drop = drop
        self._lock = threading.Lock()
        self._queue: VirtQueue | None = None
        self._merges = False
        self._takes_flags = False  # else there must be none (5.1.6.4.1), but Linux says DATA_VALID
        self._late: Frame | None = None  # read already, when buffers ran out
        self._spill = memoryview(bytearray(HEADER_SIZE + FRAME_MAX))

    def open(self, queue: VirtQueue, features: int) -> None:
        """Begin to use `queue`."""
        with self._lock:
            self._queue = queue
            self._merges = bool(features & Feature.MRG_RXBUF)
            self._takes_flags = bool(features & Feature.GUEST_CSUM)

    def close(self) -> None:
        """Write no more to guest memory from here on."""
        with self._lock:
            self._queue = None

    def forget(self) -> None:
        """Drop what is for a driver that is gone."""
        with self._lock:
            if self._late is not None:
                self._late = None
                self._drop("no_driver")

    def notify(self) -> None:
        """Interrupt the driver if it wants that. The caller holds no lock."""
        queue = self._queue
        if queue is not None:
            queue.notify()

    def deliver(self, frame: Frame) -> bool:
        """See `Nic.receive`."""
        with self._lock:
            queue = self._queue
            return queue is not None and self._deliver_late(queue) and self._deliver(queue, frame)

    def read(self, read: Reading) -> bool:
        """See `Nic.receive_into`."""
        with self._lock:
            queue = self._queue
            if queue is None or not self._deliver_late(queue):
                return False
            chain = queue.pop()
            if chain is None:
                return False
            windows, room = chain.writable, chain.writable_size
            if len(windows) >= _IOV_MAX:
                windows, room = (), 0
            try:
                size = read([*windows, self._spill])
            except OSError:
                queue.put_back((chain,))
                raise
            if size <= room and room >= HEADER_SIZE:
                _put(windows, NUM_BUFFERS_OFFSET, _ONE)
                if not self._takes_flags:
                    _put(windows, 0, b"\0")
                self._count(size - HEADER_SIZE)
                queue.push(chain, size)
                return True
            spilt = max(0, size - room)
            data = memoryview(b"".join((*windows, self._spill[:spilt])))
            queue.put_back((chain,))
            header = bytes(data[:NUM_BUFFERS_OFFSET]) if self._takes_flags else PLAIN
            frame = Frame(header, (data[HEADER_SIZE:size],), size - HEADER_SIZE)
            if not self._deliver(queue, frame):
                self._late = frame
            return True

    def _deliver_late(self, queue: VirtQueue) -> bool:
        """Deliver the frame that was read too early; False if there is no room for it still."""
        if self._late is not None and self._deliver(queue, self._late):
            self._late = None
        return self._late is None

    def _deliver(self, queue: VirtQueue, frame: Frame) -> bool:
        chain = queue.pop()
        if chain is None:
            return False
        size = HEADER_SIZE + frame.size
        if chain.writable_size >= size:
            _fill(chain.writable, (frame.header, _ONE, *frame.parts))
            queue.push(chain, size)
        elif self._merges:
            chains = [chain]
            room = chain.writable_size
            while room < size:
                chain = queue.pop()
                if chain is None:
                    queue.put_back(chains)
                    if len(chains) < queue.size:
                        return False
                    self._drop("too_long_for_buffers")
                    return True
                chains.append(chain)
                room += chain.writable_size
            _fill_all(queue, chains, frame)
        else:
            queue.put_back((chain,))
            self._drop("too_long_for_buffers")
            return True
        self._count(frame.size)
        return True

    def _count(self, size: int) -> None:
        self.frames += 1
        self.octets += size


def _fill_all(queue: VirtQueue, chains: list[Chain], frame: Frame) -> None:
    """Put a frame into several chains, which the driver gets at once."""
    windows = [window for chain in chains for window in chain.writable]
    _fill(windows, (frame.header, len(chains).to_bytes(2, "little"), *frame.parts))
    left = HEADER_SIZE + frame.size
    done = []
    for chain in chains:
        written = min(left, chain.writable_size)
        done.append((chain, written))
        left -= written
    queue.push_all(done)


def _fill(windows: Sequence[memoryview], parts: Iterable[ReadableBuffer]) -> None:
    """Write `parts`, one after the other, into `windows`, which have room for them."""
    window = windows[0]
    following = 1
    offset = 0
    for part in parts:
        size = len(part)
        if offset + size <= len(window):
            window[offset : offset + size] = part
            offset += size
            continue
        left = memoryview(part)
        while left:
            if offset == len(window):
                window = windows[following]
                following += 1
                offset = 0
            count = min(len(left), len(window) - offset)
            window[offset : offset + count] = left[:count]
            offset += count
            left = left[count:]


def _put(windows: Sequence[memoryview], offset: int, data: bytes) -> None:
    """Write `data` at `offset` of `windows`, which may be cut anywhere."""
    for window in windows:
        size = len(window)
        if offset < size:
            count = min(size - offset, len(data))
            window[offset : offset + count] = data[:count]
            data = data[count:]
            if not data:
                return
            offset = 0
        else:
            offset -= size
