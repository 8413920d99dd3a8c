"""The virtio console: a terminal for a guest, `/dev/hvc0` in Linux.

    --device virtio-console,chardev=pty:/run/vm1/console

Bytes go between two queues and a stream (`devices.chardev`), whose peer may come and go.
A peer that is slower than the guest makes the guest wait: a buffer stays in the queue until
all of it has been taken. Input waits in the stream, and then at the peer, until the guest
gives buffers.

The guest is told the size of the terminal: that of the peer's, if it is one and says so,
else what the configuration says.

Locks: the stream is used by the worker, without any. Its listener runs on the thread of all
streams, which holds none either. It wakes the worker, and enters the device, under its lock,
only when the size has changed. Nobody who has the device's lock waits for that thread.

The stream doesn't pass the device's doors: a journal has no use for what is said without the
guest memory that it comes from. Of the size it learns by entrances. As these carry no value,
a size comes in bit by bit; each entrance flips one.

Source: VIRTIO 1.2, section 5.3.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from devicehost_server.devices.base import DeviceContext, State
from devicehost_server.devices.chardev import DEFAULT_CAPACITY, Stream, open_stream, parse_spec
from devicehost_server.devices.chardev.spec import ALLOWED
from devicehost_server.devices.config import option
from devicehost_server.devices.state import StateReader
from devicehost_server.devices.virtio.chain import CHAIN_BYTES_MAX
from devicehost_server.devices.virtio.device import VirtioConfig, VirtioDevice
from devicehost_server.devices.virtio.queue import VirtQueue
from devicehost_server.devices.virtio.sizes import check_queue_size
from devicehost_server.model.device_io import ReadableBuffer

SIZE = 1 << 0
"""Feature: the configuration tells the size of the terminal."""
EMERGENCY_WRITE = 1 << 2
"""Feature: a character can be written without any queue."""

INPUT, OUTPUT = 0, 1
"""The queues: from the stream, and to it."""

_CONFIG = struct.Struct("<HHII")  # columns, rows, ports, a character for emergencies
_EMERGENCY_OFFSET = 8
_SIZE_MAX = 0xFFFF
_SIZE_BITS = 32
_PIECE_SIZE = 64 << 10
_BUFFERS_AT_ONCE = 64  # after that many it is the other queue's turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(VirtioConfig):
    """The configuration of a `virtio-console`."""

    chardev: str = option("null", f"where the terminal is: {ALLOWED}")
    cols: int = option(80, "columns, if the terminal doesn't say", minimum=1, maximum=_SIZE_MAX)
    rows: int = option(25, "rows, if the terminal doesn't say", minimum=1, maximum=_SIZE_MAX)
    queue_size: int = option(
        64, "descriptors of each queue, a power of two", minimum=2, maximum=1024
    )
    buffer: int = option(
        DEFAULT_CAPACITY, "bytes of output that wait for a slow peer", minimum=1, maximum=1 << 30
    )


class VirtioConsole(VirtioDevice[Config]):
    """A terminal for a guest (virtio 1.2)."""

    type_name = "virtio-console"
    config_type = Config
    virtio_id = 3
    feature_names = MappingProxyType({0: "SIZE", 2: "EMERG_WRITE"})

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        parse_spec(config.chardev)
        check_queue_size(self.type_name, config.queue_size)
        self._stream: Stream | None = None  # until it is opened
        self._size = _packed(config.cols, config.rows)
        self._sent = 0  # bytes of the first buffer in the queue that have been taken already
        self._starved = False  # the stream has no room

    def queue_sizes(self) -> Sequence[int]:
        """One for each direction."""
        return (self.config.queue_size, self.config.queue_size)

    def device_features(self) -> int:
        """The size, and writing in an emergency."""
        return SIZE | EMERGENCY_WRITE

    def device_config(self) -> bytes:
        """The size. There is one port; the character can't be read."""
        return _CONFIG.pack(*_unpacked(self._size), 1, 0)

    def write_device_config(self, offset: int, data: bytes) -> None:
        """Write a character in an emergency, even before the driver is ready."""
        if offset == _EMERGENCY_OFFSET and self._stream is not None:
            self._stream.write(data[:1])

    def assign(self, context: DeviceContext) -> None:
        """Take the resources, and open the stream.

        Raises:
            BadConfig: it can't be opened.
        """
        self._flip = [
            context.entrance(f"size-bit-{bit}", partial(self._flip_size, 1 << bit))
            for bit in range(_SIZE_BITS)
        ]
        super().assign(context)

    def open(self) -> None:
        """Open the stream.

        Raises:
            BadConfig: it can't be opened.
        """
        super().open()
        self._stream = open_stream(
            self.config.chardev, owner=self.context.device_id, capacity=self.config.buffer
        )
        self._stream.follow_window()

    def start(self) -> None:
        """Let bytes go and come."""
        super().start()
        if self._stream is not None:
            self._stream.start(self._hear)

    def serve(self, queue: VirtQueue) -> None:
        """Move what can be moved."""
        if self._stream is not None:
            if queue.index == INPUT:
                self._take_input(queue, self._stream)
            elif queue.index == OUTPUT:
                with self._stream.held():
                    self._give_output(queue, self._stream)

    def reset_device(self) -> None:
        """Forget how far a buffer has been taken: there is none any more."""
        super().reset_device()
        self._sent = 0

    def disable_queue(self, index: int) -> None:
        """Forget it as well if it is that queue alone that the driver takes back."""
        super().disable_queue(index)
        if index == OUTPUT:
            self._sent = 0

    def save_device(self) -> State:
        """Return how far the first buffer has been taken, and the size."""
        return {"sent": self._sent, "size": self._size}

    def restore_device(self, state: State) -> None:
        """Go on in the middle of a buffer.

        Raises:
            BadState: it doesn't fit.
        """
        reader = StateReader(self.name, state)
        sent = reader.integer("sent", maximum=CHAIN_BYTES_MAX)
        size = reader.integer("size", maximum=(1 << _SIZE_BITS) - 1)
        reader.finish()
        self._sent, self._size = sent, size
        if self._stream is not None:
            self._stream.follow_window()  # this terminal may have another size

    def view(self) -> Mapping[str, Any]:
        """Where the terminal is, and how many bytes went and came."""
        stream = self._stream
        if stream is None:
            return super().view()
        counters = stream.counters()
        columns, rows = _unpacked(self._size)
        return {
            **super().view(),
            "peer": stream.address,
            "attached": stream.attached,
            "size": f"{columns}x{rows}",
            "sent": counters.sent,
            "dropped": counters.dropped,
            "received": counters.received,
        }

    def close(self) -> None:
        """Send what the peer takes within a second."""
        super().close()
        if self._stream is not None:
            self._stream.close()

    def _hear(self) -> None:
        """Take news of the stream, on its thread."""
        stream = self._stream
        if stream is None:
            return
        window = stream.window_size
        if window is not None and (change := _packed(*window) ^ self._size):
            for bit, flip in enumerate(self._flip):
                if change >> bit & 1:
                    flip()
            self.config_changed()
        if stream.pending:
            self.serve_soon(self.queues[INPUT])
        if self._starved:
            self.serve_soon(self.queues[OUTPUT])

    def _flip_size(self, bit: int) -> None:
        self._size ^= bit

    def _give_output(self, queue: VirtQueue, stream: Stream) -> None:
        for _ in range(_BUFFERS_AT_ONCE):
            chain = queue.pop()
            if chain is None:
                break
            self._starved = True  # before it is tried: the listener may be called meanwhile
            self._sent += _write(stream, chain.readable, self._sent)
            if self._sent < chain.readable_size:
                queue.put_back((chain,))
                break
            self._starved = False
            self._sent = 0
            queue.push(chain, 0)
        else:
            self.serve_soon(queue)
        queue.notify()

    def _take_input(self, queue: VirtQueue, stream: Stream) -> None:
        """Hand input to the guest, as it has buffers for it."""
        for _ in range(_BUFFERS_AT_ONCE):
            if not stream.pending or (chain := queue.pop()) is None:
                break
            written = 0
            for window in chain.writable:
                data = stream.read(len(window))
                window[: len(data)] = data
                written += len(data)
                if len(data) < len(window):
                    break
            queue.push(chain, written)
        else:
            self.serve_soon(queue)
        queue.notify()


def _packed(columns: int, rows: int) -> int:
    """A size as one number."""
    return columns << 16 | rows


def _unpacked(size: int) -> tuple[int, int]:
    """The columns and rows of `_packed`."""
    return size >> 16, size & _SIZE_MAX


def _write(stream: Stream, parts: Sequence[ReadableBuffer], skip: int) -> int:
    """Write `parts` but for their first `skip` bytes; return how many bytes were taken."""
    taken = 0
    for part in parts:
        first = min(skip, len(part))
        skip -= first
        while first < len(part):
            piece = part[first : first + _PIECE_SIZE]
            count = stream.write(piece)
            taken += count
            first += count
            if count < len(piece):
                return taken
    return taken
