"""A memory barrier on all processors, for the side of the ring that is about to sleep.

membarrier(2), MEMBARRIER_CMD_GLOBAL_EXPEDITED: when it returns, each running thread of
each registered process has passed a full barrier. A process registers once, and so says
that it may be interrupted for one. Without it the ring still works: sleepers look again.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable

_SYS_MEMBARRIER = 324  # x86-64 (Linux, arch/x86/entry/syscalls/syscall_64.tbl)
_CMD_GLOBAL_EXPEDITED = 1 << 1
_CMD_REGISTER_GLOBAL_EXPEDITED = 1 << 2


def is_offered() -> bool:
    """Whether the ring can be used on this machine: its processor keeps stores in order."""
    return platform.machine() == "x86_64"


def register() -> Callable[[], None]:
    """Register this process; return the barrier, which does nothing on an old kernel."""
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    if syscall(_SYS_MEMBARRIER, _CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) != 0:
        return _no_barrier

    def barrier() -> None:
        syscall(_SYS_MEMBARRIER, _CMD_GLOBAL_EXPEDITED, 0, 0)

    return barrier


def _no_barrier() -> None:
    """Stands for the barrier where there is none."""
