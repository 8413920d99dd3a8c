"""How a run of a vCPU ended, as values to match on, and how many accesses it had.

What the guest did is never an exception. A VMM's main loop looks like this:

    >>> def goes_on(end: RunEnd) -> bool:
    ...     match end:
    ...         case Stopped():
    ...             return True
    ...         case InternalError(suberror=number):
    ...             raise RuntimeError(f"KVM gave up: suberror {number}")
    ...     return False
    >>> goes_on(Shutdown())
    False
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Stopped:
    """`Vcpu.stop` was called. The guest is as it was; run again to go on."""


@dataclass(frozen=True, slots=True)
class Halted:
    """The guest executed HLT, and no in-kernel interrupt controller is there to wait with."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The processor shut down: a triple fault, which real machines answer with a reset."""


@dataclass(frozen=True, slots=True)
class SystemEvent:
    """The guest asked for something that concerns the whole machine.

    Attributes:
        type: KVM_SYSTEM_EVENT_*: 1 shutdown, 2 reset, 3 crash, and others since.
        data: What comes with it, depending on the type.
    """

    type: int
    data: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EntryFailed:
    """The processor refused to enter the guest: its state is not a valid one.

    Attributes:
        hardware_reason: The processor's own number (VMX exit reason or SVM exit code).
        host_cpu: The host's CPU that refused.
    """

    hardware_reason: int
    host_cpu: int


@dataclass(frozen=True, slots=True)
class InternalError:
    """KVM can't go on, most often with an instruction that it had to emulate and can't.

    Attributes:
        suberror: KVM_INTERNAL_ERROR_*: 1 emulation, 2 simultaneous exceptions,
            3 delivery of an event, 4 an exit of the processor that KVM doesn't expect.
        data: What comes with it, depending on the suberror.
    """

    suberror: int
    data: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class UnknownExit:
    """An exit that this adapter doesn't handle.

    Attributes:
        reason: KVM_EXIT_*, see the kernel's <linux/kvm.h>.
    """

    reason: int


RunEnd: TypeAlias = (
    Stopped | Halted | Shutdown | SystemEvent | EntryFailed | InternalError | UnknownExit
)
"""How a run ended."""


@dataclass(slots=True)
class ExitCounts:
    """How many accesses a vCPU has handed to its port; a string access counts once."""

    pio_reads: int = 0
    pio_writes: int = 0
    mmio_reads: int = 0
    mmio_writes: int = 0
