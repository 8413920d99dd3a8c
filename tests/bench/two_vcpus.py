"""Two vCPUs of one VMM on the ring, beside one that does the same alone.

The vCPUs of a VMM are threads of one process, and those of a Python VMM share its
interpreter: one of them is in it at a time, and waits in it for its access. Between two
accesses each is in its guest, and leaves the interpreter to the other. Here it hashes some
memory meanwhile, which takes a processor and not the interpreter, as KVM_RUN does, and
about as long as a KVM exit. With two processors, of which the server's poller has one, the
two vCPUs have to take turns.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from statistics import median

from lab import ADDRESS, queue_of
from measure import Effort, Result, percentile

from devicehost.v1 import io_service_pb2 as pb
from devicehost_client import DeviceHost
from devicehost_client.vcpu import Vcpu

_ROUNDS = 5
_GUEST = bytes(16 << 10)
"""What is hashed between two accesses: some 10 microseconds."""


def two_vcpus(host: DeviceHost, effort: Effort) -> Iterator[Result]:
    """Measure reads of 4 bytes by one thread, and by two at once, in turns."""
    alone, both = (host.vcpu(1),), (host.vcpu(1), host.vcpu(2))
    round_s = effort.sustained_s / _ROUNDS
    rounds = [(_round(alone, round_s), _round(both, round_s)) for _ in range(_ROUNDS)]
    for which, name in enumerate(("ring.read4.1vcpu", "ring.read4.2vcpu")):
        samples = list(chain.from_iterable(each[which] for each in rounds))
        ratios = [median(each[which]) / median(each[0]) for each in rounds]
        who = ("one vCPU thread", "two vCPU threads of one process")[which]
        yield Result(
            name,
            f"4-byte read by the ring, {who} with a guest; all together per second",
            median(samples),
            percentile(samples, 99),
            per_second=len(samples) / effort.sustained_s,
            beside="ring.read4.1vcpu" if which else "",
            ratio=median(ratios) if which else None,
        )


def _round(vcpus: Sequence[Vcpu], round_s: float) -> list[float]:
    """Let these vCPUs read for so many seconds; return how long each read took, in ns."""
    together = threading.Barrier(len(vcpus))

    def read_on(vcpu: Vcpu) -> list[float]:
        data = bytearray(4)
        read, mmio = queue_of(vcpu).read, pb.SPACE_MMIO
        samples = []
        now = time.perf_counter_ns
        together.wait()
        end = now() + round_s * 1e9
        while (started := now()) < end:
            read(mmio, ADDRESS, data, 4)
            samples.append(float(now() - started))
            hashlib.sha256(_GUEST)
        return samples

    with ThreadPoolExecutor(len(vcpus)) as threads:
        return list(chain.from_iterable(threads.map(read_on, vcpus)))
