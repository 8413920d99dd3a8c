"""What all virtio devices have in common, and what each one adds.

A device type says what it is, and serves its queues:

    class Zeros(VirtioDevice[VirtioConfig]):
        '''A source of zeros.'''

        type_name = "virtio-zeros"
        config_type = VirtioConfig
        virtio_id = 4

        def queue_sizes(self) -> Sequence[int]:
            return [64]

        def serve(self, queue: VirtQueue) -> None:
            while (chain := queue.pop()) is not None:
                for buffer in chain.writable:
                    buffer[:] = bytes(len(buffer))
                queue.push(chain, chain.writable_size)
            queue.notify()

On the bus it is a virtio-mmio device, as a PCI function a virtio-pci one. The life of the
hooks, beside those of every device (see `devices.base`):

    queue_sizes                         any time; follows from the configuration alone
    open                                in `assign`: opens what the configuration names
    activate(features)                  queues run from here on
    serve(queue), from the worker       there may be something in the queue
    quiesce                             nothing is served; finish, or let go of, what is in flight
    activate(features), ... quiesce     once more, as often as it takes
    close                               after a last `quiesce`

Which thread is in what. `serve` runs on the device's own thread, without a lock. `activate`
and `quiesce` run on a thread that is in the device, under its lock, while nothing is served.
So whatever `quiesce` waits for must not wait for the device's lock. `VirtQueue.pop`, `push`
and `notify`, `config_changed`, `serve_soon` and `fail` never do: an interrupt that can't be
delivered at once is delivered by the worker.

In a replay there is no guest memory, no thread and no file: none of the hooks in this list
is called but `queue_sizes`. Interrupts come by the entrances `queue-N`, `config` and `failed`.

Source: VIRTIO 1.2, sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import structlog

from devicehost.registers import RegisterMap
from devicehost_server.devices.base import DeviceContext, State
from devicehost_server.devices.peeking import Views
from devicehost_server.devices.state import StateReader
from devicehost_server.devices.virtio import transport_mmio, transport_pci
from devicehost_server.devices.virtio.chain import Chain
from devicehost_server.devices.virtio.deliveries import Deliveries
from devicehost_server.devices.virtio.features import (
    CORE_FEATURES,
    DRIVER_OK,
    EVENT_IDX,
    INDIRECT_DESC,
    Status,
    feature_names,
    status_names,
)
from devicehost_server.devices.virtio.hooks import VirtioConfig, VirtioConfigT, VirtioHooks
from devicehost_server.devices.virtio.negotiation import BITS_32, Negotiation
from devicehost_server.devices.virtio.queue import VirtQueue
from devicehost_server.devices.virtio.queue_state import QueueSettings, SavedQueue
from devicehost_server.devices.virtio.transport import Transport
from devicehost_server.devices.virtio.transport_mmio import MmioTransport
from devicehost_server.devices.virtio.transport_pci import PciTransport
from devicehost_server.devices.virtio.worker import Worker
from devicehost_server.model.device_io import (
    DEVICE_EXCEPTIONS,
    ReadableBuffer,
    WritableBuffer,
)
from devicehost_server.model.errors import BadState
from devicehost_server.model.pci import PciDescription
from devicehost_server.model.resources import ResourceConstraint

__all__ = ["Chain", "VirtQueue", "VirtioConfig", "VirtioDevice"]

logger = structlog.get_logger()

# The causes of interrupts, and after them one for each queue.
_FAILED, _CONFIG = 0, 1


def _queue_cause(index: int) -> int:
    return 2 + index


def _prefix(queue: VirtQueue) -> str:
    """What the fields of a queue begin with in a state."""
    return f"queue{queue.index}_"


class VirtioDevice(VirtioHooks[VirtioConfigT]):
    """A virtio device, whatever it does."""

    _is_function = False
    _worker: Worker | None = None
    _active = False  # queues run, or did until it failed
    _failed = ""  # why it did
    _frozen = False
    _config = b""

    def __init__(self, config: VirtioConfigT) -> None:
        super().__init__(config)
        self._deliveries = Deliveries(self.lock, self._leave_to_worker)

    # What it may ask of the core, on any thread.

    def config_changed(self) -> None:
        """Tell the driver that `device_config` is another one now."""
        self._post(_CONFIG)

    def serve_soon(self, queue: VirtQueue) -> None:
        """Have `serve` called for a queue, though the driver didn't kick."""
        worker = self._worker
        if worker is not None:
            worker.kick(queue.index)

    def fail(self, reason: str) -> None:
        """Stop: the driver has to reset the device. Logged once, until that happens."""
        if self._failed or self.context.dma is None:
            return
        self._failed = reason
        for queue in self.queues:
            queue.pause()
        logger.warning("virtio_device_failed", device=self.name, reason=reason)
        self._post(_FAILED)

    # The life of the device.

    @cached_property
    def negotiation(self) -> Negotiation:
        """The state behind the registers."""
        return Negotiation(self, self.queue_sizes())

    @cached_property
    def queues(self) -> tuple[VirtQueue, ...]:
        """The queues, by their numbers."""
        sizes = self.negotiation.sizes
        return tuple(VirtQueue(index, size, self) for index, size in enumerate(sizes))

    @cached_property
    def transport(self) -> Transport:
        """The registers."""
        return PciTransport(self) if self._is_function else MmioTransport(self)

    @property
    def features(self) -> int:
        """What was negotiated: what the driver has accepted so far."""
        return self.negotiation.features

    def describe_function(self) -> PciDescription:
        """Become a virtio-pci function."""
        self._is_function = True
        return transport_pci.describe(self, transport_pci.Window(self.transport, self.lock))

    def get_resource_constraints(self) -> Sequence[ResourceConstraint]:
        """What the transport needs."""
        if self._is_function:
            return transport_pci.constraints(len(self.queues))
        return transport_mmio.constraints(self.config.base, self.config.irq)

    def assign(self, context: DeviceContext) -> None:
        """Take the resources, and open what the configuration names."""
        super().assign(context)
        self.transport.assign(context)
        deliveries = self._deliveries
        for queue in self.queues:
            interrupt = partial(self._queue_interrupt, queue.index)
            way_in = context.entrance(f"queue-{queue.index}", interrupt)
            deliveries.add(_queue_cause(queue.index), way_in)
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
            self._worker = Worker(f"virtio {self.name}", self._serve, self._deliveries.deliver)
            dma.subscribe(self._memory_changed)
            with self.lock:
                self.run()

    def reset(self) -> None:
        """Return to the state after power-on."""
        with self.lock:
            self.reset_by_driver()

    def freeze(self) -> None:
        """Come to rest for good: what is made available from here on is for the next device."""
        with self.lock:
            self._frozen = True
            self.stop()

    def save(self) -> State:
        """Return all registers and indexes, and what is in flight."""
        with self.lock:
            was_active = self._active
            self.stop()
            state = {
                "transport": self.transport.name,
                **self.negotiation.save(),
                **self.transport.save(),
                "pending": self._deliveries.causes,
                "device": self.save_device(),
            }
            for queue in self.queues:
                state.update(queue.saved().to_state(_prefix(queue)))
            if was_active:
                self.run()
            return state

    def restore(self, state: State) -> None:
        """Take over a state; look at all queues anew, and interrupt once.

        Raises:
            BadState: it doesn't fit; the device is as it was.
        """
        rest = dict(state)
        of_device = rest.pop("device", {})
        transport = rest.pop("transport", None)
        if transport != self.transport.name:
            raise self._bad_state(
                "transport", f"is {transport!r}, allowed: {self.transport.name!r}"
            )
        reader = StateReader(self.name, rest)
        negotiation = self.negotiation.restored(reader)
        take_transport = self.transport.restored(reader)
        saved = [SavedQueue.read(reader, _prefix(each), each.size_max) for each in self.queues]
        causes = reader.integer("pending", maximum=self._deliveries.known)
        reader.finish()
        with self.lock:
            self.stop()
            try:
                self._take_device_state(of_device, negotiation)
            except BadState:
                self.run()  # as before
                raise
            self._failed = ""
            for queue, where, registers in zip(self.queues, saved, negotiation.queues, strict=True):
                queue.reset()
                if registers.enabled:
                    queue.enable(registers.settings)
                    queue.take(where)
                    causes |= 1 << _queue_cause(queue.index)
            self.negotiation.take(negotiation)
            take_transport()
            self._refresh_config()
            self.run()
            if self.context.dma is not None:
                self._deliveries.causes = causes
                self._deliveries.deliver()

    def view(self) -> Mapping[str, Any]:
        """Tell of queues, features and status."""
        negotiation = self.negotiation
        return {
            "transport": self.transport.name,
            "status": " ".join(status_names(negotiation.status)),
            "offered": " ".join(feature_names(self.offered(), self.feature_names)),
            "accepted": " ".join(feature_names(negotiation.features, self.feature_names)),
            "failed": self._failed,
            "queues": {str(queue.index): queue.view() for queue in self.queues},
        }

    def close(self) -> None:
        """Come to rest, and end the worker. Overriders call this first."""
        worker = self._worker
        with self.lock:
            self.stop()
        if worker is not None:
            dma = self.context.dma
            if dma is not None:
                dma.unsubscribe(self._memory_changed)
            worker.close()
            self._worker = None
        self.transport.close()

    # Registers.

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:  # noqa: ARG002 # one range
        """Read registers."""
        self.transport.read(offset, data)

    def write(self, base: int, offset: int, data: ReadableBuffer) -> None:  # noqa: ARG002 # one range
        """Write registers."""
        self.transport.write(offset, data)

    def get_register_map(self) -> RegisterMap:
        """Those of the transport."""
        return self.transport.register_map

    def views(self) -> Views:
        """How to tell and set each register."""
        return self.transport.views()

    def registers_changed(self) -> None:
        """Drive the line."""
        self.transport.settle()

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
        features = self.features
        for queue in self.queues:
            self._run_queue(queue)
        self.activate(features)
        self._active = True
        worker.resume()
        for queue in self.queues:
            worker.kick(queue.index)

    def stop(self) -> None:
        """Come to rest. What is in flight will be popped again, if queues aren't reset."""
        worker = self._worker
        if worker is None or not self._active:
            return
        for queue in self.queues:
            queue.pause()  # so that what is being served comes to an end
        worker.pause()
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

    # What queues and the worker ask for, on any thread.

    def interrupt(self, index: int) -> None:
        """The driver of queue `index` wants to be interrupted."""
        self._post(_queue_cause(index))

    def violated(self, index: int, reason: str) -> None:
        """The driver broke a rule in queue `index`."""
        self.fail(f"queue {index}: {reason}")

    def look_again(self, index: int, delay_s: float) -> None:
        """Queue `index` should be served once more, after a while."""
        worker = self._worker
        if worker is not None:
            worker.kick_after(index, delay_s)

    def _serve(self, index: int) -> None:
        """Serve a queue, on the worker's thread."""
        queue = self.queues[index]
        queue.suppress()
        try:
            self.serve(queue)
        except DEVICE_EXCEPTIONS as error:
            logger.exception("virtio_serve_failed", device=self.name, queue=index)
            self.fail(f"queue {index}: {type(error).__name__}: {error}")
            return
        queue.notify()
        if queue.ask_for_kicks():
            self.serve_soon(queue)  # after others

    def _memory_changed(self) -> None:
        """Have all queues look at the memory anew."""
        worker = self._worker
        if worker is not None:
            for queue in self.queues:
                worker.kick(queue.index)

    # Interrupts.

    def _post(self, cause: int) -> None:
        if self.context.dma is not None:
            self._deliveries.post(cause)

    def _leave_to_worker(self) -> None:
        worker = self._worker
        if worker is not None:
            worker.post()

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

    def _take_device_state(self, state: State, negotiation: Negotiation) -> None:
        """Take over what the device type saved, if what was negotiated is offered then."""
        before = self.save_device()
        self.restore_device(state)
        missing = negotiation.features & ~self.offered()
        if missing and negotiation.is_running:
            self.restore_device(before)
            names = ", ".join(feature_names(missing, self.feature_names))
            raise self._bad_state("features", f"has what isn't offered here: {names}")

    def _bad_state(self, field: str, why: str) -> BadState:
        return BadState(
            f"state of device {self.name!r}: field {field!r} {why}",
            device=self.name,
            field=field,
        )
