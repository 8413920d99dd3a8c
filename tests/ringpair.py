"""The server's end of a ring for tests, and a device behind it.

A `Pair` is both ends of a queue in one thread. Where the client would sleep, the server
works:

    pair = Pair(io)
    pair.client.read(Operation.MMIO_READ, BASE, data)
"""

from __future__ import annotations

from collections.abc import Callable

from daemonlab import wait_until
from devicehost.ring.consumer import Accesses, Consumer
from devicehost.ring.layout import RingLayout
from devicehost.ring.producer import Producer
from devicehost_server.endpoints.ring import Ring
from devicehost_server.endpoints.statuses import status_of
from devicehost_server.model.device_io import DeviceIo, ReadableBuffer, WritableBuffer
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.resources import MmioAddressRange, PioAddressRange

BASE = 0xD000_0000
PORT = 0x3F8
SIZE = 0x100


class Board(DeviceIo):
    """Memory, and a list of all that was done to it; it may be told to fail.

    Args:
        bases: of its ranges; by default those of `bus_with`.

    Attributes:
        content: the memory, the same for all ranges.
        seen: the accesses, in order: operation, offset, data written or size read.
        failing: what it raises, if anything.
        before: what happens at the beginning of each access.
    """

    def __init__(self, *bases: int) -> None:
        self._bases = bases or (BASE, PORT)
        self.content = bytearray(SIZE)
        self.seen: list[tuple[str, int, bytes | int]] = []
        self.failing: BaseException | None = None
        self.before: Callable[[WritableBuffer | ReadableBuffer], object] = lambda _data: None

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:
        self._read("mmio_read", base, offset, data)

    def write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        self._write("mmio_write", base, offset, data)

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:
        self._read("pio_read", base, offset, data)

    def pio_write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        self._write("pio_write", base, offset, data)

    def _read(self, operation: str, base: int, offset: int, data: WritableBuffer) -> None:
        self._begin(base, data)
        self.seen.append((operation, offset, len(data)))
        data[:] = self.content[offset : offset + len(data)]

    def _write(self, operation: str, base: int, offset: int, data: ReadableBuffer) -> None:
        self._begin(base, data)
        self.seen.append((operation, offset, bytes(data)))
        self.content[offset : offset + len(data)] = data

    def _begin(self, base: int, data: WritableBuffer | ReadableBuffer) -> None:
        assert base in self._bases
        self.before(data)
        if self.failing is not None:
            raise self.failing


def bus_with(board: DeviceIo) -> IoManager:
    """Return a bus with `SIZE` bytes at `BASE`, and as many ports at `PORT`."""
    io = IoManager()
    io.register_device_io(board, [MmioAddressRange(BASE, SIZE), PioAddressRange(PORT, SIZE)])
    return io


class Pair:
    """A queue and both of its ends.

    Attributes:
        memory: the ring.
        client: the producer. It doesn't spin.
        server: the consumer.
        slept: the time-outs, in seconds, with which the client slept.
        woken: how often the server woke the client.
        signalled: what the client is told after its sleep.
        at_doorbell: what happens when the client rings.
        at_barrier: what happens elsewhere at the barrier of the client.
        asleep: what happens while the client sleeps.
    """

    def __init__(self, accesses: Accesses, entries: int = 8, *, timeout_s: float = 10.0) -> None:
        layout = RingLayout(1, entries)
        self.memory = memoryview(bytearray(layout.size))
        layout.write_header(self.memory)
        self.slept: list[float] = []
        self.woken = 0
        self.signalled = True
        self.at_doorbell: Callable[[], object] = lambda: None
        self.at_barrier: Callable[[], object] = lambda: None
        self.asleep: Callable[[], object] = lambda: self.server.serve(1)
        self.client = Producer(
            self.memory,
            0,
            doorbell=self._doorbell,
            wait=self._wait,
            barrier=self._barrier,
            timeout_s=timeout_s,
            spin_s=0,
        )
        self.server = Consumer(
            self.memory, layout, 0, accesses, status_of=status_of, wake=self._wake
        )

    def _doorbell(self) -> None:
        self.at_doorbell()

    def _barrier(self) -> None:
        self.at_barrier()

    def _wait(self, timeout_s: float) -> bool:
        self.slept.append(timeout_s)
        self.asleep()
        return self.signalled

    def _wake(self) -> None:
        self.woken += 1


class WatchedRing(Ring):
    """A ring whose poller can be watched falling asleep.

    Attributes:
        slept: how often it looked for the last time before a sleep, and found nothing.
        nearly_slept: how often it found something.
        at_last_look: what happens just before.
    """

    slept = nearly_slept = 0

    @staticmethod
    def at_last_look() -> object:
        """Nothing, unless a test puts something else here."""

    def until_asleep(self) -> None:
        """Wait until the next sleep has begun; it looks again, so there is always one more."""
        before = self.slept
        wait_until(lambda: self.slept > before, "the poller doesn't fall asleep")

    def _is_pending(self) -> bool:
        self.at_last_look()
        pending = super()._is_pending()
        if pending:
            self.nearly_slept += 1
        else:
            self.slept += 1
        return pending
