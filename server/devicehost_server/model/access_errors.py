"""The errors of one access, with all that a person needs to find out why."""

from __future__ import annotations

from devicehost_server.model.address_map import Trap
from devicehost_server.model.device_io import WritableBuffer
from devicehost_server.model.errors import (
    AccessOutOfRange,
    BadAccessSize,
    BusError,
    DeviceFault,
    NoDevice,
    hex_address,
    hex_range,
)


def no_device(space: str, address: int, size: int) -> BusError:
    """No trap holds `address`."""
    if size == 0:
        return _empty(space, address)
    return NoDevice(
        f"no device at {space} {address:#x}",
        space=space,
        address=hex_address(address),
        size=size,
    )


def bad_extent(space: str, trap: Trap, address: int, size: int) -> BusError:
    """The access is empty, or runs past the end of its trap."""
    if size == 0:
        return _empty(space, address)
    held = hex_range(trap.base, trap.size)
    return AccessOutOfRange(
        f"{space} access of {size} bytes at {address:#x} runs past the end of"
        f" {held} of device {trap.device.name!r}",
        space=space,
        address=hex_address(address),
        size=size,
        range=held,
        device=trap.device.name,
    )


def bad_operand(port: int, length: int, size: int) -> BadAccessSize:
    """The operand isn't one of IN and OUT, or doesn't divide the data."""
    return BadAccessSize(
        f"pio access of {length} bytes at {port:#x} in operands of {size};"
        " allowed: operands of 1, 2 or 4, and a whole number of them",
        space="pio",
        address=hex_address(port),
        length=length,
        size=size,
        allowed="1, 2, 4",
    )


def device_fault(trap: Trap, operation: str, address: int, error: BaseException) -> DeviceFault:
    """The device raised `error`."""
    return DeviceFault(
        trap.device.name,
        f"during {operation} at {address:#x}",
        error,
        address=hex_address(address),
    )


def device_resized(
    trap: Trap, space: str, address: int, size: int, data: WritableBuffer
) -> DeviceFault:
    """The device changed the length of the buffer that it was to fill."""
    error = ValueError(f"it filled {len(data)} bytes where {size} were read")
    data[:] = bytes(size)  # the caller's buffer gets its length back
    return device_fault(trap, f"{space} read", address, error)


def _empty(space: str, address: int) -> BadAccessSize:
    return BadAccessSize(
        f"{space} access at {address:#x} is empty; allowed: at least 1 byte",
        space=space,
        address=hex_address(address),
        size=0,
        allowed="1 and up",
    )
