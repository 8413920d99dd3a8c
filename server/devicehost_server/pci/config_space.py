"""The configuration space of a function: a type 0 header, and the list of capabilities.

    offset      what
    0x00        vendor, device; command, status; revision, class; cache line size, latency
                timer, header type (0), BIST (none)
    0x10        the BARs
    0x2c        subsystem vendor, subsystem; no expansion ROM; where the list begins
    0x3c        interrupt line, interrupt pin
    0x40        the capabilities, each at a multiple of 4

It has 256 bytes, as of a conventional function: those of PCI Express, and with them the
extended ones, have nothing that a device here needs.

Invariants:
    An access may have any size and alignment, also across registers. A write changes the
    bits that a driver can write, and no others; it isn't an error to try.
    A BAR's register holds as much of an address as its size leaves: all ones read back as
    the mask of the size.
    The bits of the status register that a driver clears by writing ones report errors on
    the bus. There are none, so they are zero.
    One thread at a time accesses it.

Source: PCI Local Bus Specification 3.0, chapter 6.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

from devicehost_server.model.device_io import ReadableBuffer, WritableBuffer
from devicehost_server.model.errors import AccessOutOfRange, BadConfig, hex_address, hex_range
from devicehost_server.model.pci import PciIdentity
from devicehost_server.pci.bars import Bar
from devicehost_server.pci.capability import Capability

SIZE = 256
"""Bytes of a conventional function's configuration space."""

_VENDOR = 0x00
COMMAND = 0x04
STATUS = 0x06
_REVISION = 0x08
_CACHE_LINE_SIZE = 0x0C
_LATENCY_TIMER = 0x0D
_BARS = 0x10
_SUBSYSTEM = 0x2C
_CAPABILITIES = 0x34
_INTERRUPT_LINE = 0x3C
_INTERRUPT_PIN = 0x3D
_FIRST_CAPABILITY = 0x40

_PIN_A = 1
_BAR_SIZE = 4
_ALIGNMENT = 4
_WORDS = struct.Struct("<HH")

COMMAND_IO = 0x0001
COMMAND_MEMORY = 0x0002
COMMAND_BUS_MASTER = 0x0004
COMMAND_INTX_DISABLE = 0x0400
_COMMAND_NAMES = {
    COMMAND_IO: "io",
    COMMAND_MEMORY: "memory",
    COMMAND_BUS_MASTER: "bus-master",
    COMMAND_INTX_DISABLE: "intx-disable",
}

STATUS_INTERRUPT = 0x0008
STATUS_CAPABILITIES = 0x0010


class ConfigSpace:
    """The configuration space of one function.

    Args:
        identity: the function's numbers.
        bars: its BARs.
        capabilities: what it can, in the order of the list.
        has_pin: whether it interrupts by INTx.
        asserted: tells whether INTx is asserted, for the status register.
        changed: called after each write.

    Raises:
        BadConfig: there is no room for all capabilities.
    """

    def __init__(
        self,
        identity: PciIdentity,
        bars: Sequence[Bar],
        capabilities: Sequence[Capability] = (),
        *,
        has_pin: bool = False,
        asserted: Callable[[], bool] = lambda: False,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._asserted = asserted
        self._changed = changed
        self._bytes = bytearray(SIZE)
        self._writable = bytearray(SIZE)
        self._capabilities: list[tuple[int, Capability]] = []  # with where the body begins
        self._put_header(identity)
        self._put_command(bars, has_pin=has_pin)
        for bar in bars:
            self._put_bar(bar)
        self._put_capabilities(capabilities)
        self._power_on = bytes(self._bytes)
        self._all_writable = bytearray(self._writable)
        for start, capability in self._capabilities:
            self._all_writable[start : start + len(capability.body)] = capability.writable

    @property
    def command(self) -> int:
        """The command register."""
        return int.from_bytes(self._bytes[COMMAND : COMMAND + 2], "little")

    @property
    def intx_disabled(self) -> bool:
        """Whether the driver has switched off INTx."""
        return bool(self.command & COMMAND_INTX_DISABLE)

    @property
    def command_names(self) -> list[str]:
        """What the driver has switched on in the command register."""
        return [name for bit, name in _COMMAND_NAMES.items() if self.command & bit]

    def address(self, bar: Bar) -> int:
        """Return where the guest has put `bar`; 0 if nowhere yet."""
        at = _BARS + bar.index * _BAR_SIZE
        register = self._bytes[at : at + bar.slots * _BAR_SIZE]
        return int.from_bytes(register, "little") & bar.address_mask

    def read(self, offset: int, data: WritableBuffer) -> None:
        """Fill `data` from `offset` on.

        Raises:
            AccessOutOfRange: it runs past the end.
        """
        end = _check(offset, len(data))
        window = memoryview(data)
        window[:] = self._bytes[offset:end]
        if offset <= STATUS < end and self._asserted():
            window[STATUS - offset] |= STATUS_INTERRUPT
        for start, first, last, capability in self._touched(offset, end):
            window[first - offset : last - offset] = capability.read_body(
                first - start, last - first
            )

    def write(self, offset: int, data: ReadableBuffer) -> None:
        """Take `data` to `offset`, as far as a driver can write there.

        Raises:
            AccessOutOfRange: it runs past the end.
        """
        end = _check(offset, len(data))
        window = memoryview(data)
        for at, new in enumerate(window, offset):
            self._bytes[at] = _mix(self._bytes[at], new, self._writable[at])
        for start, first, last, capability in self._touched(offset, end):
            capability.write_body(first - start, window[first - offset : last - offset])
        self._changed()

    def reset(self) -> None:
        """Return to the state after power-on: no BAR has an address, nothing is enabled."""
        self._bytes[:] = self._power_on
        for _, capability in self._capabilities:
            capability.reset()

    def save(self) -> bytes:
        """Return all of it, as far as a driver has written it; else as after power-on."""
        content = bytearray(self._bytes)
        for start, capability in self._capabilities:
            content[start : start + len(capability.body)] = capability.body
        return self._written(content)

    def fits(self, saved: bytes) -> bool:
        """Whether `saved` is what `save` of a function like this one returned."""
        return len(saved) == SIZE and self._written(saved) == saved

    def load(self, saved: bytes) -> None:
        """Take over what `save` returned, and fits. Nobody is told."""
        self._bytes[:] = saved
        for start, capability in self._capabilities:
            capability.store(0, saved[start : start + len(capability.body)])

    def _written(self, content: bytes | bytearray) -> bytes:
        """Return what is after power-on, with the bits of `content` that a driver can write."""
        return bytes(map(_mix, self._power_on, content, self._all_writable))

    def _touched(self, offset: int, end: int) -> Iterator[tuple[int, int, int, Capability]]:
        """Go through the bodies that an access has bytes of.

        Yields:
            Where the body begins; the first of the bytes, and the one behind the last; whose.
        """
        for start, capability in self._capabilities:
            first, last = max(offset, start), min(end, start + len(capability.body))
            if first < last:
                yield start, first, last, capability

    # When it is made.

    def _put(self, offset: int, content: bytes, writable: bytes = b"") -> None:
        self._bytes[offset : offset + len(content)] = content
        self._writable[offset : offset + len(writable)] = writable

    def _put_header(self, identity: PciIdentity) -> None:
        class_and_revision = identity.class_code << 8 | identity.revision
        self._put(_VENDOR, _WORDS.pack(identity.vendor_id, identity.device_id))
        self._put(_REVISION, class_and_revision.to_bytes(4, "little"))
        self._put(_CACHE_LINE_SIZE, b"\0", b"\xff")
        self._put(_LATENCY_TIMER, b"\0", b"\xff")
        self._put(_SUBSYSTEM, _WORDS.pack(identity.subsystem_vendor_id, identity.subsystem_id))

    def _put_command(self, bars: Sequence[Bar], *, has_pin: bool) -> None:
        writable = COMMAND_BUS_MASTER
        if any(bar.is_io for bar in bars):
            writable |= COMMAND_IO
        if not all(bar.is_io for bar in bars):
            writable |= COMMAND_MEMORY
        if has_pin:
            writable |= COMMAND_INTX_DISABLE
            self._put(_INTERRUPT_PIN, bytes([_PIN_A]))
        self._put(COMMAND, bytes(2), writable.to_bytes(2, "little"))
        self._put(_INTERRUPT_LINE, b"\0", b"\xff")

    def _put_bar(self, bar: Bar) -> None:
        size = bar.slots * _BAR_SIZE
        writable = bar.address_mask.to_bytes(size, "little")
        self._put(_BARS + bar.index * _BAR_SIZE, bar.flags.to_bytes(size, "little"), writable)

    def _put_capabilities(self, capabilities: Sequence[Capability]) -> None:
        pointer, at = _CAPABILITIES, _FIRST_CAPABILITY
        for capability in capabilities:
            if at + capability.size > SIZE:
                raise BadConfig(
                    f"PCI function: capability {capability.identifier:#04x} of {capability.size} "
                    f"bytes would be at {at:#x}; allowed: up to {SIZE - 1:#x}",
                    field="capabilities",
                )
            self._bytes[pointer] = at
            pointer = at + 1
            self._put(at, bytes([capability.identifier, 0]) + capability.lead + capability.body)
            self._capabilities.append((at + capability.body_offset, capability))
            at += -(-capability.size // _ALIGNMENT) * _ALIGNMENT
        if capabilities:
            self._bytes[STATUS] |= STATUS_CAPABILITIES


def _mix(old: int, new: int, mask: int) -> int:
    """Return `old` with the bits of `mask` as in `new`."""
    return old & ~mask | new & mask


def _check(offset: int, size: int) -> int:
    """Return where an access ends, or raise AccessOutOfRange."""
    if not 0 <= offset <= SIZE - size:
        raise AccessOutOfRange(
            f"PCI configuration space: {size} bytes at {offset:#x}; "
            f"allowed: within {hex_range(0, SIZE)}",
            offset=hex_address(offset),
            size=size,
        )
    return offset + size
