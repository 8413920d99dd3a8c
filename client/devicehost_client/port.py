"""The access port: what a vCPU holds to reach its devices.

A port carries the accesses of one vCPU, in order. It is the one thing an adapter
(KVM, Unicorn, a VMM of your own) needs to know: a trap becomes a call of one of the
four methods of `AccessPort`, and the call returns when the access is done.

    >>> def on_trap(port: AccessPort, address: int, data: memoryview) -> None:
    ...     port.mmio_read_into(address, data)

Invariants:
    A port never raises because of what a guest did. An access with no device behind it,
    or with no server, is answered by the port's policy (see `devicehost_client.policy`).
    A read always fills the whole of `data`.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

WritableBuffer: TypeAlias = bytearray | memoryview
"""Bytes that a read fills in place; a memoryview has format 'B' and is contiguous."""

ReadableBuffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes that a write takes; read only during the call."""


class AccessPort(Protocol):
    """The accesses of one vCPU. Numbers in `data` are little-endian.

    A port is used by one thread at a time.
    """

    def mmio_read_into(self, address: int, data: WritableBuffer) -> None:
        """Fill `data` from the guest-physical `address`; its length is the access's size."""

    def mmio_write_from(self, address: int, data: ReadableBuffer) -> None:
        """Write `data` to the guest-physical `address`; its length is the access's size."""

    def pio_read_into(self, port: int, data: WritableBuffer, size: int) -> None:
        """Fill `data` from I/O port `port`, in operands of `size` bytes (1, 2 or 4).

        `data` longer than one operand is a string access (REP INS): the same port is
        read `len(data) / size` times.
        """

    def pio_write_from(self, port: int, data: ReadableBuffer, size: int) -> None:
        """Write `data` to I/O port `port`, in operands of `size` bytes (1, 2 or 4).

        `data` longer than one operand is a string access (REP OUTS).
        """
