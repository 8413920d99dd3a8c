"""The local socket without the ring: both ends block, or both spin, beside bare ping-pongs.

Where both block, a 4-byte read is also measured with the two processes in a place of our
choice: see `placement`.
"""

from __future__ import annotations

from collections.abc import Iterator

import lab
from bare_socket import socket_floor
from measure import Effort, Result, measure
from placement import placed, placements
from posted import posted

_SPIN_S = 0.002  # longer than any answer takes


def results(effort: Effort) -> Iterator[Result]:
    """Measure reads, writes and posted writes of all sizes, blocking and spinning."""
    for spin in (False, True):
        suffix = ".spin" if spin else ""
        how = "both ends spin" if spin else "both ends block"
        spin_s = _SPIN_S if spin else 0.0
        floor = f"floor.socket{suffix}"
        long_floor = f"floor.socket.read{lab.LONG}{suffix}"
        ping_pong = f"bare Python socket ping-pong, {how}"
        with (
            lab.server(spin_s=spin_s) as running,
            running.client("socket", spin_s=spin_s) as host,
            socket_floor(floor, f"{ping_pong}, 32 bytes and 36", spin=spin) as short,
            socket_floor(
                long_floor, f"{ping_pong}, 32 bytes and 4 KiB more", spin=spin, data_size=lab.LONG
            ) as long,
        ):
            note = f"by the local socket, {how}"
            cases = lab.accesses(
                "socket", host.vcpu(0), note, beside=floor, suffix=suffix, beside_long=long_floor
            )
            yield from measure([short, *cases, long], effort).results()
            if not spin:
                server = host.server().pid
                read = next(case for case in cases if case.name == "socket.read4")
                for place in placements():
                    pair = [placed(short, place, short.peer), placed(read, place, server)]
                    yield from measure(pair, effort).results()
            yield from posted("socket", host.vcpu(0), note, effort, suffix=suffix)
