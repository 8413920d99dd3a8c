"""What a client that is attached and makes no access costs, in each process.

It has all that a VM has: the ring with a vCPU's queue open, guest memory handed over, and an
eventfd for each interrupt of an IOAPIC.

Run as a program, it is that client: `idle.py ENDPOINT`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

import lab
from children import child, say
from measure import Effort, Result

from devicehost_client import connect

_MEMORY_SIZE = 64 << 20
_GSIS = 24
_SETTLE_S = 0.5


def results(effort: Effort) -> Iterator[Result]:
    """Watch both processes for a while."""
    with lab.server() as running, child("idle.py", running.endpoint) as client:
        server_pid = int(client.hear())
        time.sleep(_SETTLE_S)
        pids = {"server": server_pid, "client": client.pid}
        began = time.monotonic()
        before = {role: _cpu_s(pid) for role, pid in pids.items()}
        time.sleep(effort.idle_s)
        took_s = time.monotonic() - began
        used_s = {role: _cpu_s(pid) - before[role] for role, pid in pids.items()}
    for role in pids:
        yield Result(
            f"idle.{role}",
            f"the {role}'s processor time over {effort.idle_s:g} s, attached, without accesses",
            percent=100 * used_s[role] / took_s,
        )


def attach(endpoint: str) -> None:
    """Attach, make an access, say the server's pid, and do nothing until the end of input."""
    memory = os.memfd_create("guest")
    os.ftruncate(memory, _MEMORY_SIZE)
    with connect(endpoint, transport="ring") as host:
        host.memory.add(0, _MEMORY_SIZE, memory)
        host.interrupts.attach({gsi: os.eventfd(0, os.EFD_NONBLOCK) for gsi in range(_GSIS)})
        host.vcpu(0).mmio_read(lab.ADDRESS, 4)
        say("ready")
        say(host.server().pid)
        sys.stdin.read()


def _cpu_s(pid: int) -> float:
    """The processor time of all threads of a process, in seconds (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


if __name__ == "__main__":
    attach(sys.argv[1])
