"""The ring, beside a bare spin in shared memory and a KVM exit; one vCPU, and two."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import lab
from bare_shm import shm_floor
from bare_socket import socket_floor
from measure import Case, Effort, Result, measure
from posted import posted
from two_vcpus import two_vcpus

from devicehost_client.adapters.kvm import KvmUnavailable, exit_times_ns

_NOTE = "by the ring"
_FLOOR = "floor.shm.spin"
_LONG_FLOOR = f"floor.socket.read{lab.LONG}.spin"
_FIRST_EXITS = 50  # of a new VM, which are slower


def results(effort: Effort) -> Iterator[Result]:
    """Measure reads, writes and posted writes of all sizes."""
    with ExitStack() as closing:
        host = closing.enter_context(closing.enter_context(lab.server()).client("ring"))
        floor = closing.enter_context(shm_floor())
        vcpu = host.vcpu(0)
        # What doesn't fit into an entry goes by the socket, which spins as the ring does.
        long_floor = closing.enter_context(
            socket_floor(_LONG_FLOOR, "", spin=True, data_size=lab.LONG)
        )
        cases = lab.accesses("ring", vcpu, _NOTE, beside=_FLOOR, beside_long=_LONG_FLOOR)
        locked = lab.locked_read("ring", vcpu, _NOTE, beside=_FLOOR)
        ports = lab.port_accesses("ring", vcpu, _NOTE, beside=_FLOOR)
        exits = _kvm_exits()
        measured = measure([floor, *cases, locked, long_floor, *ports, *exits], effort)
        # The part of the socket has a result for the same floor.
        yield from (each for each in measured.results() if each.name != _LONG_FLOOR)
        for found in exits:
            yield Result(
                "kvm.share",
                "4-byte read by the ring, as a part of what the KVM exit costs",
                beside=found.name,
                ratio=measured.ratio("ring.read4", found.name),
            )
        yield from posted("ring", vcpu, _NOTE, effort)
        yield from two_vcpus(host, effort)


def _kvm_exits() -> list[Case]:
    """The case `kvm.exit`; none where KVM can't be used."""
    try:
        exit_times_ns(1)
    except KvmUnavailable:
        return []

    def time_each(times: int) -> list[float]:
        return [float(exit_ns) for exit_ns in exit_times_ns(_FIRST_EXITS + times)[_FIRST_EXITS:]]

    note = "a KVM exit by IN, answered in the VMM, and back into the guest"
    return [Case("kvm.exit", note, time_each, time_each=time_each)]
