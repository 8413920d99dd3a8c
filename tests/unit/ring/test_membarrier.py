"""The barrier, as far as one thread can see it."""

from __future__ import annotations

import platform
import subprocess
import sys

from devicehost.ring.membarrier import is_offered, register


def test_the_ring_is_offered_where_stores_keep_their_order() -> None:
    assert is_offered() == (platform.machine() == "x86_64")


def test_a_process_may_register_as_often_as_it_likes() -> None:
    for _ in range(3):
        barrier = register()
        barrier()


def test_a_kernel_that_refuses_leaves_a_barrier_that_does_nothing() -> None:
    # A filter on system calls can't be taken off again, so it goes on another process.
    program = """
import ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
load, equal, give = 0x20, 0x15, 0x06  # of a classic BPF program
steps = [(load, 0, 0, 0), (equal, 0, 1, 324), (give, 0, 0, 0x50026), (give, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in steps))
filter = struct.pack("<H6xQ", len(steps), ctypes.addressof(code))
assert libc.prctl(22, 2, filter, 0, 0) == 0, ctypes.get_errno()  # PR_SET_SECCOMP
assert libc.syscall(324, 0, 0, 0) == -1 and ctypes.get_errno() == 38  # ENOSYS
from devicehost.ring import membarrier
barrier = membarrier.register()
barrier()
print(barrier is membarrier._no_barrier)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.stderr) == ("True\n", "")
