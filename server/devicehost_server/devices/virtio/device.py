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
from functools import cached_property
from typing import Any

from devicehost.registers import RegisterMap
from devicehost_server.devices.base import DeviceContext, State
from devicehost_server.devices.peeking import Views
from devicehost_server.devices.state import StateReader
from devicehost_server.devices.virtio import transport_mmio, transport_pci
from devicehost_server.devices.virtio.chain import Chain
from devicehost_server.devices.virtio.engine import VirtioEngine, queue_cause
from devicehost_server.devices.virtio.features import Status, feature_names, status_names
from devicehost_server.devices.virtio.hooks import VirtioConfig, VirtioConfigT
from devicehost_server.devices.virtio.negotiation import Negotiation
from devicehost_server.devices.virtio.queue import VirtQueue
from devicehost_server.devices.virtio.queue_state import SavedQueue
from devicehost_server.devices.virtio.transport import Transport
from devicehost_server.devices.virtio.transport_mmio import MmioTransport
from devicehost_server.devices.virtio.transport_pci import PciTransport
from devicehost_server.model.device_io import ReadableBuffer, WritableBuffer
from devicehost_server.model.errors import BadState
from devicehost_server.model.pci import PciDescription
from devicehost_server.model.resources import ResourceConstraint

__all__ = ["Chain", "VirtQueue", "VirtioConfig", "VirtioDevice"]


def _prefix(queue: VirtQueue) -> str:
    """What the fields of a queue begin with in a state."""
    return f"queue{queue.index}_"


class VirtioDevice(VirtioEngine[VirtioConfigT]):
    """A virtio device, whatever it does."""

    _is_function = False

    @cached_property
    def transport(self) -> Transport:
        """The registers."""
        return PciTransport(self) if self._is_function else MmioTransport(self)

    # The life of the device.

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
        self.transport.assign(context)
        super().assign(context)

    def reset(self) -> None:
        """Return to the state after power-on."""
        with self.lock:
            self.reset_by_driver()

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
            self._deliveries.clear()  # that was about the state before
            for queue, where, registers in zip(self.queues, saved, negotiation.queues, strict=True):
                queue.reset()
                if registers.enabled:
                    queue.enable(registers.settings)
                    queue.take(where)
                    causes |= 1 << queue_cause(queue.index)
            self.negotiation.take(negotiation)
            take_transport()
            self._refresh_config()
            if self.context.dma is not None:
                self._deliveries.note(causes)
                self._deliveries.deliver()  # first: it may be that it has failed
            self.run()

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
        """Come to rest, and end the worker. Overriders call this first.

        Raises:
            TimeoutError: `serve` hasn't returned in `REST_S`; what it uses isn't freed.
        """
        try:
            super().close()
        finally:
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

    # Small things.

    def _take_device_state(self, state: State, negotiation: Negotiation) -> None:
        """Take over what the device type saved, if what was negotiated is offered then."""
        before = self.save_device()
        self.restore_device(state)
        missing = negotiation.features & ~self.offered()
        if missing and negotiation.status & Status.FEATURES_OK:
            self.restore_device(before)
            names = ", ".join(feature_names(missing, self.feature_names))
            raise self._bad_state("features", f"has what isn't offered here: {names}")

    def _bad_state(self, field: str, why: str) -> BadState:
        return BadState(
            f"state of device {self.name!r}: field {field!r} {why}",
            device=self.name,
            field=field,
        )
