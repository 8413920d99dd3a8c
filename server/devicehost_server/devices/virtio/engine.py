"""What moves in a virtio device: its queues, the thread that serves them, and interrupts.

It runs while the driver is ready, and comes to rest when that is reset, gives up or takes a
queue back, and when the server saves, freezes or unplugs it.

    run     queues give chains, `activate`, then the worker serves
    stop    queues give none, the worker rests, `quiesce`; what is in flight is popped again

Source: VIRTIO 1.2, sections 2.1, 2.3 (notifications) and 2.6.1 (queue reset).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property, partial

import structlog

from devicehost_server.devices.base import DeviceContext
from devicehost_server.devices.virtio.deliveries import Deliveries
from devicehost_server.devices.virtio.features import (
    CORE_FEATURES,
    DRIVER_OK,
    EVENT_IDX,
    INDIRECT_DESC,
    Status,
)
from devicehost_server.devices.virtio.hooks import VirtioConfigT, VirtioHooks
from devicehost_server.devices.virtio.linger import Linger
from devicehost_server.devices.virtio.negotiation import BITS_32, Negotiation
from devicehost_server.devices.virtio.queue import VirtQueue
from devicehost_server.devices.virtio.queue_state import QueueSettings
from devicehost_server.devices.virtio.transport import Transport
from devicehost_server.devices.virtio.worker import FOREVER, Worker
from devicehost_server.model.device_io import DEVICE_EXCEPTIONS

REST_S = 5.0
"""How long a device may serve a queue when it is to end. A driver that resets it has to wait:
what it takes back must be its own."""

logger = structlog.get_logger()

# The causes of interrupts, and after them one for each queue.
_FAILED, _CONFIG = 0, 1


def queue_cause(index: int) -> int:
    """The cause of an interrupt by a queue, as `Deliveries` know it."""
    return 2 + index


class VirtioEngine(VirtioHooks[VirtioConfigT]):
    """The moving parts of a virtio device."""

    _worker: Worker | None = None
    _lingers: Sequence[Linger] = ()  # by queue
    _active = False  # queues run, or did until it failed
    _failed = ""  # why it did
    _frozen = False
    _config = b""

    def __init__(self, config: VirtioConfigT) -> None:
        super().__init__(config)
        self._deliveries = Deliveries(self.lock, self._leave_to_worker)

    # What a device type may ask for, on any thread.

    def config_changed(self) -> None:
        """Tell the driver that `device_config` is another one now."""
        self._post(_CONFIG)

    def serve_soon(self, queue: VirtQueue) -> None:
        """Have `serve` called for a queue, though the driver didn't kick."""
        worker = self._worker
        if worker is not None:
            worker.kick(queue.index)

    def look_again(self, index: int, delay_s: float) -> None:
        """Have `serve` called for queue `index` once more, after a while."""
        worker = self._worker
        if worker is not None:
            worker.kick_after(index, delay_s)

    def fail(self, reason: str) -> None:
        """Stop: the driver has to reset the device. Logged once, until that happens."""
        if self._failed or self.context.dma is None:
            return
        self._failed = reason
        for queue in self.queues:
            queue.pause()
        logger.warning("virtio_device_failed", device=self.name, reason=reason)
        self._post(_FAILED)

    # The parts.

    @cached_property
    def negotiation(self) -> Negotiation:
        """The state behind the registers."""
        return Negotiation(self, self.queue_sizes())

    @cached_property
    def queues(self) -> tuple[VirtQueue, ...]:
        """The queues, by their numbers."""
        sizes = self.negotiation.sizes
        return tuple(VirtQueue(index, size, self) for index, size in enumerate(sizes))

    @property
    @abstractmethod
    def transport(self) -> Transport:
        """The registers."""

    @property
    def features(self) -> int:
        """What was negotiated: what the driver has accepted so far."""
        return self.negotiation.features

    # Its life, as far as the device's moves it.

    def assign(self, context: DeviceContext) -> None:
        """Take the resources, and open what the configuration names."""
        super().assign(context)
        deliveries = self._deliveries
        for queue in self.queues:
            interrupt = partial(self._queue_interrupt, queue.index)
            way_in = context.entrance(f"queue-{queue.index}", interrupt)
            deliveries.add(queue_cause(queue.index), way_in)
        deliveries.add(_CONFIG, context.entrance("config", self._config_interrupt))
        deliveries.add(_FAILED, context.entrance("failed", self._failure))
        if context.dma is not None:
            for queue in self.queues:
                queue.attach(context.dma)
            self.open()
        self._refresh_config()

    def start(self) -> None:
        """Start the worker, and listen for changes of the guest's memory."""
        dma = self.context.dma
        if dma is not None:
            self._worker = worker = Worker(f"virtio {self.name}", self._serve, self._deliver)
            self._lingers = [Linger(queue, worker.is_awaited) for queue in self.queues]
            dma.subscribe(self._memory_changed)
            with self.lock:
                self.run()

    def freeze(self) -> None:
        """Come to rest for good: what is made available from here on is for the next device.

        Raises:
            TimeoutError: `serve` hasn't returned in `REST_S`.
        """
        with self.lock:
            self._frozen = True
            self.stop(REST_S)

    def close(self) -> None:
        """Come to rest, and end the worker. What `serve` pushes later is dropped.

        Raises:
            TimeoutError: `serve` hasn't returned in `REST_S`.
        """
        worker = self._worker
        if worker is None:
            return
        if (dma := self.context.dma) is not None:
            dma.unsubscribe(self._memory_changed)
        try:
            with self.lock:
                self.stop(REST_S)
        finally:
            self._worker = None
            for queue in self.queues:
                queue.reset()
            worker.close()

    # What the negotiation asks for, under the lock.

    def offered(self) -> int:
        """The features that it offers."""
        return self.device_features() | CORE_FEATURES

    def run(self) -> None:
        """Let queues run, if the driver is ready and nothing is wrong."""
        worker = self._worker
        if worker is None or self._active or self._failed or self._frozen:
            return
        if not self.negotiation.is_running:
            return
        for queue in self.queues:
            self._run_queue(queue)
        with self._deliveries.held():  # until the driver is ready in a replay, too
            self.activate(self.features)
        self._active = True
        worker.resume()
        for queue in self.queues:
            worker.kick(queue.index)

    def stop(self, timeout_s: float = FOREVER) -> None:
        """Come to rest. What is in flight will be popped again, if queues aren't reset.

        Args:
            timeout_s: how long that may take `serve`.

        Raises:
            TimeoutError: it took longer. No queue gives anything any more.
        """
        worker = self._worker
        if worker is None or not self._active:
            return
        for queue in self.queues:
            queue.pause()  # so that what is being served comes to an end
        if not worker.pause(timeout_s):
            raise TimeoutError(f"device {self.name!r} hasn't come to rest in {timeout_s} s")
        self.quiesce()
        self._active = False
        for queue in self.queues:
            queue.abandon()

    def reset_by_driver(self) -> None:
        """Reset everything."""
        self.stop()
        for queue in self.queues:
            queue.reset()
        self.negotiation.reset()
        self._deliveries.clear()
        self._failed = ""
        self.reset_device()
        self.transport.reset()
        self._refresh_config()

    def enable_queue(self, index: int, settings: QueueSettings) -> None:
        """The driver uses a queue from here on."""
        queue = self.queues[index]
        queue.enable(settings)
        worker = self._worker
        if worker is not None and self._active and not self._failed:
            self._run_queue(queue)
            worker.kick(index)

    def disable_queue(self, index: int) -> None:
        """The driver takes a queue back."""
        self.stop()
        self.queues[index].reset()
        self.run()

    # What the transport asks for, under the lock.

    @property
    def config_space(self) -> bytes:
        """The configuration, as the driver is to see it."""
        return self._config

    def write_config(self, offset: int, data: bytes) -> None:
        """The driver writes to the configuration."""
        self.write_device_config(offset, data)
        self._refresh_config()

    def kick(self, index: int) -> None:
        """The driver notifies queue `index`, if there is such a queue."""
        if index < len(self.queues):
            self.queues[index].kicks += 1
            worker = self._worker
            if worker is not None and self._active:
                worker.kick(index)

    # What queues ask for, on any thread.

    def interrupt(self, index: int) -> None:
        """The driver of queue `index` wants to be interrupted."""
        self._post(queue_cause(index))

    def violated(self, index: int, reason: str) -> None:
        """The driver broke a rule in queue `index`."""
        self.fail(f"queue {index}: {reason}")

    # The worker.

    def _serve(self, index: int) -> None:
        """Serve a queue."""
        queue = self.queues[index]
        try:
            queue.suppress()
            self.serve(queue)
            queue.notify()
            while self._lingers[index].finds_more():
                self.serve(queue)
                queue.notify()
            if queue.ask_for_kicks():
                self.serve_soon(queue)  # after others
        except DEVICE_EXCEPTIONS as error:
            self._caught("virtio_serve_failed", f"queue {index}", error)

    def _deliver(self) -> None:
        """Deliver what could not be delivered where it was posted."""
        try:
            self._deliveries.deliver()
        except DEVICE_EXCEPTIONS as error:
            self._caught("virtio_interrupt_failed", "an interrupt", error)

    def _caught(self, event: str, where: str, error: BaseException) -> None:
        """Fail, by a fault of the device type's own. The worker goes on."""
        logger.error(event, device=self.name, where=where, exc_info=error)
        self.fail(f"{where}: {type(error).__name__}: {error}")

    def _memory_changed(self) -> None:
        """Have all queues look at the memory anew."""
        for queue in self.queues:
            self.serve_soon(queue)

    def _leave_to_worker(self) -> None:
        worker = self._worker
        if worker is not None:
            worker.post()

    # Interrupts.

    def _post(self, cause: int) -> None:
        if self.context.dma is not None:
            self._deliveries.post(cause)

    def _queue_interrupt(self, index: int) -> None:
        if self.negotiation.status & DRIVER_OK:
            self.transport.interrupt_queue(index)

    def _config_interrupt(self) -> None:
        self._refresh_config()
        self.negotiation.generation = (self.negotiation.generation + 1) & BITS_32
        if self.negotiation.status & DRIVER_OK:
            self.transport.interrupt_config()

    def _failure(self) -> None:
        self.negotiation.status |= Status.NEEDS_RESET.value
        if self.negotiation.status & DRIVER_OK:
            self.transport.interrupt_config()

    # Small things.

    def _run_queue(self, queue: VirtQueue) -> None:
        features = self.features
        queue.run(event_index=bool(features & EVENT_IDX), indirect=bool(features & INDIRECT_DESC))

    def _refresh_config(self) -> None:
        self._config = bytes(self.device_config())
