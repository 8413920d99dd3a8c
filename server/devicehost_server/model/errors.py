"""Everything that can go wrong on the server, as one tree.

    DeviceHostError
    ├── BusError                    the address map and the accesses to it
    │   ├── NoDevice                NO_DEVICE
    │   ├── DeviceOverlap           RANGE_OVERLAP
    │   ├── AccessOutOfRange        ACCESS_OUT_OF_RANGE
    │   ├── BadAccessSize           BAD_ACCESS_SIZE
    │   ├── BadAccess               BAD_ACCESS
    │   ├── BadRange                BAD_RANGE
    │   ├── BadTransaction          BAD_TRANSACTION
    │   └── DeviceBusy              DEVICE_BUSY
    ├── DeviceError                 what a device did, or did not do in time
    │   ├── DeviceFault             DEVICE_FAULT
    │   └── DeviceTimeout           DEVICE_TIMEOUT
    ├── GuestMemoryError            the guest's memory
    │   ├── MemoryMapped            MEMORY_MAPPED
    │   └── MemoryNotMapped         MEMORY_NOT_MAPPED
    ├── AllocationError             resources
    │   ├── BadConstraint           BAD_CONSTRAINT
    │   ├── NothingLeft             (abstract: requested, largest free)
    │   │   ├── NoSpace             NO_SPACE
    │   │   ├── NoIrq               NO_IRQ
    │   │   ├── NoMsi               NO_MSI
    │   │   └── NoSlot              NO_SLOT
    │   ├── RangeTaken              RANGE_TAKEN
    │   └── NotAllocated            NOT_ALLOCATED
    ├── LifecycleError              devices coming and going
    │   ├── UnknownDeviceType       UNKNOWN_DEVICE_TYPE
    │   ├── BadConfig               BAD_CONFIG
    │   ├── BadState                BAD_STATE
    │   ├── DeviceExists            DEVICE_EXISTS
    │   └── NoSuchDevice            NO_SUCH_DEVICE
    ├── DebugError                  seeing, and stepping in
    │   ├── NoRegisterMap           NO_REGISTER_MAP
    │   ├── NoSuchRegister          NO_SUCH_REGISTER
    │   ├── NotPeekable             NOT_PEEKABLE
    │   ├── NoSuchBreakpoint        NO_SUCH_BREAKPOINT
    │   ├── NoSuchHit               NO_SUCH_HIT
    │   ├── NoSuchFault             NO_SUCH_FAULT
    │   ├── NoSuchPath              NO_SUCH_PATH
    │   ├── NotArmed                NOT_ARMED
    │   └── RecordingTooSlow        RECORDING_TOO_SLOW
    └── RequestError                the request itself, whatever it asks for
        ├── BadRequest              BAD_REQUEST
        ├── RequestIdReused         REQUEST_ID_REUSED
        ├── GenerationMismatch      GENERATION_MISMATCH
        ├── TooManyStreams          TOO_MANY_STREAMS
        ├── WatchTooSlow            WATCH_TOO_SLOW
        ├── Draining                DRAINING
        └── PeerDenied              PEER_DENIED

Each error has a `reason`, which is stable and for programs, a message, which is for
people, and `metadata`, the facts of the message as strings. They travel as they are.
"""

from __future__ import annotations

from typing import ClassVar, TypeAlias

Fact: TypeAlias = str | int


def hex_address(value: int) -> str:
    """Format an address or offset the way messages and metadata show it: `0x3f8`."""
    return f"{value:#x}"


def hex_range(base: int, size: int) -> str:
    """Format a range by its first and last byte: `0x3f8-0x3ff`."""
    return f"{base:#x}-{base + size - 1:#x}"


class DeviceHostError(Exception):
    """The root. `str(error)` is the message.

    Attributes:
        reason: an UPPER_SNAKE_CASE name that never changes.
        metadata: the facts, by name; values are strings, addresses in `0x` form.
    """

    reason: ClassVar[str] = "UNKNOWN"

    def __init__(self, message: str, /, **facts: Fact) -> None:
        super().__init__(message)
        self.metadata: dict[str, str] = {name: str(fact) for name, fact in facts.items()}

    def in_step(self, step: str) -> None:
        """Say in which step of something larger this happened, if nobody has yet."""
        if "step" not in self.metadata:
            self.metadata["step"] = step
            self.args = (f"{self} (in step {step!r})",)


class BusError(DeviceHostError):
    """The address map, or an access to it, is at fault."""


class NoDevice(BusError):
    """No registered range holds the address, or the range to unregister isn't registered."""

    reason = "NO_DEVICE"


class DeviceOverlap(BusError):
    """A range shares at least one byte with a registered one."""

    reason = "RANGE_OVERLAP"


class AccessOutOfRange(BusError):
    """An access begins in a trapped range and runs past its last byte."""

    reason = "ACCESS_OUT_OF_RANGE"


class BadAccessSize(BusError):
    """The operation doesn't allow an access of this size."""

    reason = "BAD_ACCESS_SIZE"


class BadAccess(BusError):
    """The access isn't one at all: an unknown operation or address space."""

    reason = "BAD_ACCESS"


class BadRange(BusError):
    """A range is empty, or runs past the end of its address space."""

    reason = "BAD_RANGE"


class BadTransaction(BusError):
    """A transaction was used out of turn, or with another manager than its own."""

    reason = "BAD_TRANSACTION"


class DeviceBusy(BusError):
    """An access in flight on the device did not finish in the time allowed."""

    reason = "DEVICE_BUSY"


class DeviceError(DeviceHostError):
    """A device misbehaved."""


class DeviceFault(DeviceError):
    """A device raised an exception, which is this error's `__cause__`."""

    reason = "DEVICE_FAULT"

    def __init__(self, device: str, doing: str, error: BaseException, /, **facts: Fact) -> None:
        kind = type(error).__qualname__
        try:
            text = str(error)
        except Exception:  # noqa: BLE001 # a device may raise anything, broken errors included
            text = "(an error that can't be printed)"
        super().__init__(
            f"device {device!r} raised {kind} {doing}: {text}",
            device=device,
            exception=kind,
            **facts,
        )


class DeviceTimeout(DeviceError):
    """A device did not answer an access within its deadline."""

    reason = "DEVICE_TIMEOUT"


class GuestMemoryError(DeviceHostError):
    """The guest's memory can't be shared, or reached, as asked."""


class MemoryMapped(GuestMemoryError):
    """A block of memory shares a byte with one that is there already."""

    reason = "MEMORY_MAPPED"


class MemoryNotMapped(GuestMemoryError):
    """Guest memory that the VMM hasn't shared, or not for this."""

    reason = "MEMORY_NOT_MAPPED"


class AllocationError(DeviceHostError):
    """Resources could not be allocated or released."""


class BadConstraint(AllocationError):
    """A constraint that no resource can ever satisfy: it is nonsense."""

    reason = "BAD_CONSTRAINT"


class NothingLeft(AllocationError):
    """Nothing left satisfies the constraint.

    Metadata: `requested` (size), `largest_free` (size of the largest free piece of the
    whole pool), `pool`.
    """


class NoSpace(NothingLeft):
    """No free piece of the address space is large enough, or aligned, or in the window."""

    reason = "NO_SPACE"


class NoIrq(NothingLeft):
    """No legacy IRQ is left."""

    reason = "NO_IRQ"


class NoMsi(NothingLeft):
    """No run of MSI numbers is long enough."""

    reason = "NO_MSI"


class NoSlot(NothingLeft):
    """No KVM memory slot is left."""

    reason = "NO_SLOT"


class RangeTaken(AllocationError):
    """The exact range that was asked for belongs to somebody else. Metadata: `holder`."""

    reason = "RANGE_TAKEN"


class NotAllocated(AllocationError):
    """What is to be released isn't allocated, or not in this shape."""

    reason = "NOT_ALLOCATED"


class LifecycleError(DeviceHostError):
    """A device could not be brought into being, or found."""


class UnknownDeviceType(LifecycleError):
    """No device type has this name."""

    reason = "UNKNOWN_DEVICE_TYPE"


class BadConfig(LifecycleError):
    """A device's configuration is wrong. Metadata: `field`."""

    reason = "BAD_CONFIG"


class BadState(LifecycleError):
    """A saved state doesn't fit the device that should take it. Metadata: `field`."""

    reason = "BAD_STATE"


class DeviceExists(LifecycleError):
    """The device id is in use."""

    reason = "DEVICE_EXISTS"


class NoSuchDevice(LifecycleError):
    """No device has this id."""

    reason = "NO_SUCH_DEVICE"


class DebugError(DeviceHostError):
    """Something can't be seen, or be done, for somebody who debugs."""


class NoRegisterMap(DebugError):
    """Nobody has said which registers the device has."""

    reason = "NO_REGISTER_MAP"


class NoSuchRegister(DebugError):
    """The device has no register of this name. Metadata: `device`, `register`, `known`."""

    reason = "NO_SUCH_REGISTER"


class NotPeekable(DebugError):
    """The device can't tell, or set, a register without an access."""

    reason = "NOT_PEEKABLE"

    def __init__(self, device: str, register: str) -> None:
        super().__init__(
            f"device {device!r} can't look at register {register!r} without an access",
            device=device,
            register=register,
        )


class NoSuchBreakpoint(DebugError):
    """No breakpoint has this number."""

    reason = "NO_SUCH_BREAKPOINT"


class NoSuchHit(DebugError):
    """No access is held by this number, or no longer."""

    reason = "NO_SUCH_HIT"


class NoSuchFault(DebugError):
    """No fault has this number."""

    reason = "NO_SUCH_FAULT"


class NoSuchPath(DebugError):
    """Nothing is at this place in the tree."""

    reason = "NO_SUCH_PATH"


class NotArmed(DebugError):
    """The flight recorder holds nothing, since it wasn't armed."""

    reason = "NOT_ARMED"


class RecordingTooSlow(DebugError):
    """The reader of a recording fell so far behind that events would be missing."""

    reason = "RECORDING_TOO_SLOW"


class RequestError(DeviceHostError):
    """The request can't be served, whatever it asks for."""


class BadRequest(RequestError):
    """A field of the request is missing or malformed. Metadata: `field`."""

    reason = "BAD_REQUEST"


class RequestIdReused(RequestError):
    """A request id came again with another request."""

    reason = "REQUEST_ID_REUSED"


class GenerationMismatch(RequestError):
    """The state has moved on from the generation that the caller expected."""

    reason = "GENERATION_MISMATCH"


class TooManyStreams(RequestError):
    """All workers that streams may hold are taken."""

    reason = "TOO_MANY_STREAMS"


class WatchTooSlow(RequestError):
    """A watcher fell so far behind that changes would have to be dropped."""

    reason = "WATCH_TOO_SLOW"


class Draining(RequestError):
    """The server is about to stop and takes no new work."""

    reason = "DRAINING"


class PeerDenied(RequestError):
    """The peer isn't allowed to talk to this server."""

    reason = "PEER_DENIED"
