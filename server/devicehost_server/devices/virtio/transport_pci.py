"""The virtio-pci transport, modern: registers in BAR 0, MSI-X with INTx to fall back on.

Source: VIRTIO 1.2, section 4.1.4 (virtio structure PCI capabilities). BAR 0 has 16 KiB, four
regions of a page:

    0x0000    common configuration
    0x1000    ISR status; a read clears it
    0x2000    the device's own configuration
    0x3000    notifications: 4 bytes for each queue, any write there kicks it

A write of a part of a register changes that part, so 64-bit fields can be written in halves.
An event with an MSI-X vector is a message; one without sets the ISR and asserts INTx. A
function whose client has MSI-X enabled keeps INTx to itself.

The registers can also be reached by the configuration space, through a window (section
4.1.4.9): a capability says which bytes of BAR 0 its data are. Such accesses don't go over the
bus, so nobody who looks on there sees them: no trace, breakpoint or recording. Firmware that
can't reach a BAR makes them; drivers don't.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from devicehost.registers import Access, Field, OnRead, OnWrite, Register
from devicehost_server.devices.base import DeviceContext, State
from devicehost_server.devices.state import StateReader
from devicehost_server.devices.virtio.features import ISR_CONFIG, ISR_QUEUE
from devicehost_server.devices.virtio.negotiation import NO_VECTOR, Negotiation
from devicehost_server.devices.virtio.transport import (
    ISR_FIELDS,
    STATUS_FIELDS,
    Core,
    Transport,
    Wired,
    attribute,
)
from devicehost_server.model.pci import PciDescription, PciIdentity, VendorCapability
from devicehost_server.model.resources import (
    LegacyIrqConstraint,
    MmioAddressConstraint,
    PciMsixIrqConstraint,
    ResourceConstraint,
)

REGION = 0x1000
COMMON, ISR, DEVICE, NOTIFY = (number * REGION for number in range(4))
SIZE = 4 * REGION

COMMON_SIZE = 0x3C
"""Bytes of the common configuration, up to queue_reset."""
NOTIFY_MULTIPLIER = 4

VENDOR_ID = 0x1AF4
DEVICE_ID_BASE = 0x1040
REVISION = 1
SUBSYSTEM_ID = 0x1100
"""Of QEMU's devices: drivers don't care, as long as it is 0x40 or more."""

CLASS_CODES = {1: 0x020000, 2: 0x010000, 3: 0x078000, 4: 0x00FF00}
"""By the kind of device: network, SCSI storage as QEMU has it, communication, and other."""
OTHER_CLASS = 0x00FF00

# cfg_type of a capability (section 4.1.4).
COMMON_CFG, NOTIFY_CFG, ISR_CFG, DEVICE_CFG, PCI_CFG = 1, 2, 3, 4, 5

_BODY = struct.Struct("<BBBxxII")
"""A capability from its type on: type, BAR, id, offset, length."""

_READ_ONLY = Access.READ_ONLY

_AREAS = (
    ("QUEUE_DESC", "table", 0x20, "address of the descriptor table"),
    ("QUEUE_DRIVER", "driver", 0x28, "address of the available ring"),
    ("QUEUE_DEVICE", "device", 0x30, "address of the used ring"),
)


def describe(core: Core, window: Window) -> PciDescription:
    """Say what the configuration space of a device tells."""
    identity = PciIdentity(
        VENDOR_ID,
        DEVICE_ID_BASE + core.virtio_id,
        CLASS_CODES.get(core.virtio_id, OTHER_CLASS),
        REVISION,
        VENDOR_ID,
        SUBSYSTEM_ID,
    )
    queues = len(core.negotiation.sizes)
    multiplier = NOTIFY_MULTIPLIER.to_bytes(4, "little")
    return PciDescription(
        identity,
        (
            VendorCapability(_BODY.pack(COMMON_CFG, 0, 0, COMMON, COMMON_SIZE)),
            VendorCapability(_BODY.pack(ISR_CFG, 0, 0, ISR, 1)),
            VendorCapability(_BODY.pack(DEVICE_CFG, 0, 0, DEVICE, REGION)),
            VendorCapability(
                _BODY.pack(NOTIFY_CFG, 0, 0, NOTIFY, NOTIFY_MULTIPLIER * queues) + multiplier
            ),
            VendorCapability(bytes([PCI_CFG]) + bytes(16), _WINDOW_WRITABLE, window),
        ),
    )


def constraints(queues: int) -> list[ResourceConstraint]:
    """Return what the transport needs: BAR 0, INTx, and a vector for each queue and one."""
    return [
        MmioAddressConstraint(size=SIZE),
        LegacyIrqConstraint(),
        PciMsixIrqConstraint(queues + 1),
    ]


class PciTransport(Transport):
    """The registers of a PCI function."""

    name = "virtio-pci"
    region_size = REGION
    config_region = DEVICE // REGION
    partial_writes = True

    def __init__(self, core: Core) -> None:
        self.config_vector = NO_VECTOR
        self.vectors = len(core.negotiation.sizes) + 1
        super().__init__(core)
        self._first_vector = 0

    def assign(self, context: DeviceContext) -> None:
        """Take the resources."""
        super().assign(context)
        vectors = context.resources.get_pci_msix_irqs()
        if vectors is not None:
            self._first_vector = vectors.base

    def wire(self) -> Sequence[Wired]:
        """Make the registers."""
        state = self.core.negotiation
        queues = len(state.sizes)
        return (
            *_features(state),
            Wired(
                Register("CONFIG_MSIX_VECTOR", 0x10, 2, reset=NO_VECTOR, help="none: 0xffff"),
                get=lambda: self.config_vector,
                write=self._write_config_vector,
            ),
            Wired(
                Register("NUM_QUEUES", 0x12, 2, _READ_ONLY, queues, help="how many there are"),
                get=lambda: queues,
            ),
            Wired(
                Register("DEVICE_STATUS", 0x14, fields=STATUS_FIELDS, help="0 resets"),
                get=lambda: state.status,
                write=state.write_status,
            ),
            Wired(
                Register(
                    "CONFIG_GENERATION", 0x15, 1, _READ_ONLY, None, help="changes with CONFIG"
                ),
                get=lambda: state.generation & 0xFF,
            ),
            *_queue(state, self.vectors),
            Wired(
                Register(
                    "ISR_STATUS",
                    ISR,
                    1,
                    _READ_ONLY,
                    fields=ISR_FIELDS,
                    help="why it asserts INTx",
                    on_read=OnRead.CLEARS,
                ),
                get=lambda: self.isr,
                read=self._take_isr,
                poke=partial(setattr, self, "isr"),
            ),
            Wired(
                Register(
                    "NOTIFY",
                    NOTIFY,
                    2,
                    Access.WRITE_ONLY,
                    count=queues,
                    stride=NOTIFY_MULTIPLIER,
                    sizes=(2, 4),
                    help="kick a queue",
                ),
                write=self._kick if queues > 1 else partial(self._kick, 0),
            ),
        )

    def _kick(self, index: int, value: int) -> None:
        del value  # the number of the queue once more, which the place says
        self.core.kick(index)

    def _take_isr(self) -> int:
        isr = self.isr
        self.set_isr(0)
        return isr

    def _write_config_vector(self, value: int) -> None:
        self.config_vector = value if value < self.vectors else NO_VECTOR

    def interrupt_queue(self, index: int) -> None:
        """Tell the driver that there is something in a used ring."""
        self._interrupt(self.core.negotiation.queues[index].vector, ISR_QUEUE)

    def interrupt_config(self) -> None:
        """Tell the driver that the configuration, or the status, is another one."""
        self._interrupt(self.config_vector, ISR_CONFIG)

    def _interrupt(self, vector: int, bit: int) -> None:
        if vector >= self.vectors or self._context is None:
            self.raise_isr(bit)
        else:
            context = self._context
            context.interrupts.pulse(self._first_vector + vector, context.device_id)

    def reset(self) -> None:
        """Return to the state after power-on."""
        self.config_vector = NO_VECTOR
        super().reset()

    def save(self) -> State:
        """Return the state beside the negotiation's."""
        return {**super().save(), "config_vector": self.config_vector}

    def restored(self, reader: StateReader) -> Callable[[], None]:
        """Return what takes over a saved state."""
        take_isr = super().restored(reader)
        vector = reader.integer("config_vector", maximum=NO_VECTOR)

        def take() -> None:
            self._write_config_vector(vector)
            take_isr()

        return take


def _features(state: Negotiation) -> Sequence[Wired]:
    return (
        attribute(
            Register("DEVICE_FEATURE_SELECT", 0x00, 4, help="which 32"), state, "offered_select"
        ),
        Wired(
            Register("DEVICE_FEATURE", 0x04, 4, _READ_ONLY, None, help="offered, 32 of them"),
            get=state.offered,
        ),
        attribute(
            Register("DRIVER_FEATURE_SELECT", 0x08, 4, help="which 32"), state, "accepted_select"
        ),
        Wired(
            Register("DRIVER_FEATURE", 0x0C, 4, help="accepted, 32 of them"),
            get=state.accepted,
            write=state.accept,
        ),
    )


def _queue(state: Negotiation, vectors: int) -> Sequence[Wired]:
    """Wire the registers of the queue that is selected."""

    def enable(value: int) -> None:
        if value == 1:
            state.enable()

    return (
        attribute(Register("QUEUE_SELECT", 0x16, 2, help="which queue"), state, "queue_select"),
        Wired(
            Register("QUEUE_SIZE", 0x18, 2, reset=None, help="descriptors, a power of two"),
            get=lambda: state.queue.size,
            write=state.write_size,
        ),
        Wired(
            Register("QUEUE_MSIX_VECTOR", 0x1A, 2, reset=NO_VECTOR, help="none: 0xffff"),
            get=lambda: state.queue.vector,
            write=lambda value: state.write_vector(value, vectors),
        ),
        Wired(
            Register(
                "QUEUE_ENABLE",
                0x1C,
                2,
                fields=(Field("ENABLE", 1, "the driver uses it"),),
                help="whether the queue is in use",
            ),
            get=lambda: int(state.queue.enabled),
            write=enable,
        ),
        Wired(
            Register("QUEUE_NOTIFY_OFF", 0x1E, 2, _READ_ONLY, None, help="its place in NOTIFY"),
            get=lambda: state.queue_select if state.size_max else 0,
        ),
        *(
            Wired(
                Register(name, offset, 8, sizes=(4, 8), help=help_),
                get=_getter(state, area),
                write=partial(state.write_address, area),
            )
            for name, area, offset, help_ in _AREAS
        ),
        Wired(
            Register("QUEUE_NOTIFY_DATA", 0x38, 2, _READ_ONLY, None, help="its number"),
            get=lambda: state.queue_select if state.size_max else 0,
        ),
        Wired(
            Register(
                "QUEUE_RESET",
                0x3A,
                2,
                fields=(Field("RESET", 1, "take it out of use, and forget its settings"),),
                help="reset the queue",
                on_write=OnWrite.CHANGES,
            ),
            get=lambda: 0,
            write=state.reset_queue,
        ),
    )


def _getter(state: Negotiation, area: str) -> Callable[[], int]:
    return lambda: int(getattr(state.queue, area))


_WINDOW = struct.Struct("<BBBxxII")
_WINDOW_DATA = 13
"""Where the data are in the body of the capability for access by configuration space."""
_WINDOW_WRITABLE = bytes([0, 0xFF, 0, 0, 0]) + b"\xff" * 12
"""The BAR, offset, length and data."""


class Window:
    """The capability by which the registers are reached through the configuration space.

    Args:
        transport: the registers.
        lock: the device's.
    """

    def __init__(self, transport: Transport, lock: AbstractContextManager[Any]) -> None:
        self._transport = transport
        self._lock = lock

    def before_read(self, body: bytearray, offset: int, size: int) -> None:
        """Read the registers that the window is on, if its data are to be read."""
        place = self._place(body, offset, size)
        if place is not None:
            data = bytearray(place[1])
            with self._lock:
                self._transport.read(place[0], data)
            body[_WINDOW_DATA : _WINDOW_DATA + len(data)] = data

    def after_write(self, body: bytearray, offset: int, size: int) -> None:
        """Write the registers that the window is on, if its data have been written."""
        place = self._place(body, offset, size)
        if place is not None:
            data = bytes(body[_WINDOW_DATA : _WINDOW_DATA + place[1]])
            with self._lock:
                self._transport.write(place[0], data)

    @staticmethod
    def _place(body: bytearray, offset: int, size: int) -> tuple[int, int] | None:
        """Return offset and size of the window, if an access to `body` goes through it."""
        _, bar, _, at, length = _WINDOW.unpack_from(body)
        if offset + size <= _WINDOW_DATA or offset >= _WINDOW_DATA + 4:
            return None
        if bar or length not in {1, 2, 4} or at % length or at + length > SIZE:
            return None
        return at, length
