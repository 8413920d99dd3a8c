"""The virtio-mmio transport, version 2: registers on the bus, and one interrupt line.

Source: VIRTIO 1.2, section 4.2.2 (device register layout).

Control registers have 32 bits, and drivers access them whole. A read of any other size or
place returns the bytes that it covers; a write of a part of a register is ignored. There
is no shared memory: its registers read as all ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from devicehost.registers import Access, Field, OnWrite, Register
from devicehost_server.devices.virtio.negotiation import BITS_32, Negotiation
from devicehost_server.devices.virtio.transport import (
    ISR_FIELDS,
    STATUS_FIELDS,
    Transport,
    Wired,
    attribute,
)
from devicehost_server.model.resources import (
    LegacyIrqConstraint,
    MmioAddressConstraint,
    ResourceConstraint,
)

SIZE = 0x200

MAGIC = 0x74726976
"""`virt`, little-endian."""
VERSION = 2
VENDOR = 0x74736F68
"""`host`, little-endian; a vendor is free to choose."""

WORD = 4

READ_ONLY, WRITE_ONLY = Access.READ_ONLY, Access.WRITE_ONLY

_AREAS = (
    ("DESC", "table", 0x080, "descriptor table"),
    ("DRIVER", "driver", 0x090, "available ring"),
    ("DEVICE", "device", 0x0A0, "used ring"),
)


def constraints(base: int | None, irq: int | None) -> list[ResourceConstraint]:
    """Return what the transport needs, at `base` and with `irq` if these are given."""
    if base is None:
        registers = MmioAddressConstraint(size=SIZE)
    else:
        registers = MmioAddressConstraint.exact(base, SIZE)
    return [registers, LegacyIrqConstraint(irq)]


def _word(
    name: str,
    offset: int,
    access: Access,
    help: str,  # noqa: A002 # as registers have it
    *fields: Field,
    reset: int | None = 0,
    on_write: OnWrite | None = None,
) -> Register:
    return Register(name, offset, WORD, access, reset, fields, help, on_write=on_write)


class MmioTransport(Transport):
    """The registers of a device on the bus."""

    name = "virtio-mmio"
    region_size = 0x100
    config_region = 1
    partial_writes = False

    def wire(self) -> Sequence[Wired]:
        """Make the registers."""
        state = self.core.negotiation
        return (
            _constant("MAGIC_VALUE", 0x000, MAGIC, "virt"),
            _constant("VERSION", 0x004, VERSION, "of the register layout"),
            _constant("DEVICE_ID", 0x008, self.core.virtio_id, "kind of device"),
            _constant("VENDOR_ID", 0x00C, VENDOR, "who made it"),
            *_features(state),
            *_queue(state),
            Wired(
                _word("QUEUE_NOTIFY", 0x050, WRITE_ONLY, "kick a queue, by its number"),
                write=self.core.kick,
            ),
            Wired(
                _word("INTERRUPT_STATUS", 0x060, READ_ONLY, "why it interrupts", *ISR_FIELDS),
                get=lambda: self.isr,
                poke=partial(setattr, self, "isr"),
            ),
            Wired(
                _word(
                    "INTERRUPT_ACK",
                    0x064,
                    WRITE_ONLY,
                    "ones clear bits of INTERRUPT_STATUS",
                    *ISR_FIELDS,
                    on_write=OnWrite.CHANGES,
                ),
                write=self._acknowledge,
            ),
            Wired(
                Register("STATUS", 0x070, WORD, fields=STATUS_FIELDS, help="0 resets"),
                get=lambda: state.status,
                write=state.write_status,
            ),
            Wired(_word("SHM_SEL", 0x0AC, WRITE_ONLY, "which shared memory")),
            *(
                _constant(name, offset, BITS_32, "there is no shared memory")
                for name, offset in (
                    ("SHM_LEN_LOW", 0x0B0),
                    ("SHM_LEN_HIGH", 0x0B4),
                    ("SHM_BASE_LOW", 0x0B8),
                    ("SHM_BASE_HIGH", 0x0BC),
                )
            ),
            Wired(
                _word("CONFIG_GENERATION", 0x0FC, READ_ONLY, "changes with CONFIG", reset=None),
                get=lambda: state.generation & BITS_32,
            ),
        )

    def _acknowledge(self, value: int) -> None:
        self.set_isr(self.isr & ~value)


def _constant(name: str, offset: int, value: int, help: str) -> Wired:  # noqa: A002 # as registers have it
    return Wired(_word(name, offset, READ_ONLY, help, reset=value), get=lambda: value)


def _features(state: Negotiation) -> Sequence[Wired]:
    return (
        Wired(
            _word("DEVICE_FEATURES", 0x010, READ_ONLY, "offered, 32 of them", reset=None),
            get=state.offered,
        ),
        attribute(
            _word("DEVICE_FEATURES_SEL", 0x014, WRITE_ONLY, "which 32"), state, "offered_select"
        ),
        Wired(
            _word("DRIVER_FEATURES", 0x020, WRITE_ONLY, "accepted, 32 of them"),
            get=state.accepted,
            write=state.accept,
        ),
        attribute(
            _word("DRIVER_FEATURES_SEL", 0x024, WRITE_ONLY, "which 32"), state, "accepted_select"
        ),
    )


def _queue(state: Negotiation) -> Sequence[Wired]:
    """Wire the registers of the queue that is selected."""

    def ready(value: int) -> None:
        if value & 1:
            state.enable()
        else:
            state.disable()

    return (
        attribute(_word("QUEUE_SEL", 0x030, WRITE_ONLY, "which queue"), state, "queue_select"),
        Wired(
            _word("QUEUE_NUM_MAX", 0x034, READ_ONLY, "most descriptors", reset=None),
            get=lambda: state.size_max,
        ),
        Wired(
            _word("QUEUE_NUM", 0x038, WRITE_ONLY, "descriptors, a power of two", reset=None),
            get=lambda: state.queue.size,
            write=state.write_size,
        ),
        Wired(
            Register(
                "QUEUE_READY",
                0x044,
                WORD,
                fields=(Field("READY", 1, "the driver uses it"),),
                help="whether the queue is in use",
            ),
            get=lambda: int(state.queue.enabled),
            write=ready,
        ),
        Wired(
            Register(
                "QUEUE_RESET",
                0x0C0,
                WORD,
                fields=(Field("RESET", 1, "take it out of use, and forget its settings"),),
                help="reset the queue",
                on_write=OnWrite.CHANGES,
            ),
            get=lambda: 0,
            write=state.reset_queue,
        ),
        *(
            Wired(
                _word(f"QUEUE_{name}_{half}", offset, WRITE_ONLY, f"address of the {help_}"),
                get=_half_getter(state, area, shift),
                write=_half_setter(state, area, shift),
            )
            for name, area, base, help_ in _AREAS
            for half, offset, shift in (("LOW", base, 0), ("HIGH", base + WORD, 32))
        ),
    )


def _half_getter(state: Negotiation, area: str, shift: int) -> Callable[[], int]:
    return lambda: getattr(state.queue, area) >> shift & BITS_32


def _half_setter(state: Negotiation, area: str, shift: int) -> Callable[[int], None]:
    return lambda value: state.write_address(area, value << shift, mask=BITS_32 << shift)
