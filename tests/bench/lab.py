"""A `devicehostd` with the device of the bench, clients of it, and what they are made to do.

with server() as lab, lab.client("ring") as host:
    cases = accesses("ring", host.vcpu(0), "by the ring", beside="floor.shm.spin")
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

import ledger
from measure import Case

from devicehost.v1 import io_service_pb2 as pb
from devicehost_client import DeviceHost, connect
from devicehost_client.demo.server_process import device_server
from devicehost_client.transports import Queue
from devicehost_client.vcpu import Vcpu

Transport = Literal["ring", "socket", "grpc-stream"]

ADDRESS = ledger.BASE
LOCKED_ADDRESS = ledger.LOCKED_BASE
SIZES = (1, 4, 8)
LONG = 4096


@dataclass(frozen=True, slots=True)
class Lab:
    """A server with the bench's device.

    Attributes:
        endpoint: the server's.
        folder: for whatever has to lie somewhere.
    """

    endpoint: str
    folder: Path

    @contextmanager
    def client(self, transport: Transport, **options: Any) -> Iterator[DeviceHost]:
        """A client that takes this way, and no other. Its accesses are not to fail."""
        with connect(self.endpoint, transport=transport, **options) as host:
            assert host.transport == transport, host.transport
            yield host
            failures = [vcpu.last_failure for vcpu in host._vcpus.values() if vcpu.failures]
            assert not failures, f"accesses failed: {failures}"


@contextmanager
def server(*, spin_s: float | None = None, debug: bool = True) -> Iterator[Lab]:
    """Run a server.

    Args:
        spin_s: how long it looks before it sleeps, in seconds; None for its own choice.
        debug: whether it offers debugging.
    """
    settings = {} if spin_s is None else {"DEVICEHOST_SPIN": str(spin_s)}
    if not debug:
        settings["DEVICEHOST_NO_DEBUG"] = "true"
    with tempfile.TemporaryDirectory(prefix="devicehost-bench-") as name:
        folder = Path(name)
        settings["PYTHONPATH"] = str(_install_device(folder / "packages"))
        with _environment(settings), device_server(folder) as endpoint:
            with connect(endpoint, transport="grpc-stream") as host:
                host.hotplug.plug(ledger.Ledger.type_name)
                host.hotplug.plug(ledger.LockedLedger.type_name, {"base": hex(LOCKED_ADDRESS)})
            yield Lab(endpoint, folder)


def accesses(
    way: str, vcpu: Vcpu, note: str, *, beside: str, suffix: str = "", beside_long: str = ""
) -> list[Case]:
    """Reads and synchronous writes of all sizes over the transport of a vCPU.

    What is measured is the transport's queue, without the policy of the port.

    Args:
        way: what the names begin with.
        vcpu: which one makes them.
        note: how they travel.
        beside: the floor.
        suffix: what the names end with.
        beside_long: the floor of a long transfer, if it is another one.
    """
    queue = queue_of(vcpu)
    return [
        Case(
            f"{way}.{operation}{size}{suffix}",
            f"{size}-byte {operation} {note}",
            calls(queue, size),
            beside=beside_long or beside if size == LONG else beside,
        )
        for operation, calls in (("read", _queue_reads), ("write", _queue_writes))
        for size in (*SIZES, LONG)
    ]


def port_accesses(way: str, vcpu: Vcpu, note: str, *, beside: str) -> list[Case]:
    """Reads and synchronous writes of 4 bytes by the port that a VMM has."""
    data = memoryview(bytearray(4))

    def read(times: int) -> None:
        read_into = vcpu.mmio_read_into
        for _ in repeat(None, times):
            read_into(ADDRESS, data)

    def write(times: int) -> None:
        write_from = vcpu.mmio_write_from
        for _ in repeat(None, times):
            write_from(ADDRESS, data)

    return [
        Case(f"{way}.read4.vcpu", f"4-byte read {note}, by Vcpu", read, beside),
        Case(f"{way}.write4.vcpu", f"4-byte write {note}, by Vcpu", write, beside),
    ]


def locked_read(way: str, vcpu: Vcpu, note: str, *, beside: str) -> Case:
    """A read of a device that is entered by one thread at a time, as devices are by default."""
    read = _queue_reads(queue_of(vcpu), 4, LOCKED_ADDRESS)
    return Case(f"{way}.read4.locked", f"4-byte read {note}, of a device with a lock", read, beside)


def queue_of(vcpu: Vcpu) -> Queue:
    """What is below a port."""
    return vcpu._queue


def _queue_reads(queue: Queue, size: int, address: int = ADDRESS) -> Callable[[int], None]:
    data = memoryview(bytearray(size))

    def read(times: int) -> None:
        read, mmio = queue.read, pb.SPACE_MMIO
        for _ in repeat(None, times):
            read(mmio, address, data, size)

    return read


def _queue_writes(queue: Queue, size: int) -> Callable[[int], None]:
    data = bytes(size)

    def write(times: int) -> None:
        write, mmio = queue.write, pb.SPACE_MMIO
        for _ in repeat(None, times):
            write(mmio, ADDRESS, data, size)

    return write


def _install_device(folder: Path) -> Path:
    """Lay out the device's package as an installer would; return where it is."""
    info = folder / "bench_ledger-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-ledger\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        f"[devicehost.devices]\n{ledger.Ledger.type_name} = ledger:Ledger\n"
        f"{ledger.LockedLedger.type_name} = ledger:LockedLedger\n"
    )
    shutil.copy(ledger.__file__, folder)
    return folder


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Set variables, which the server inherits, while the block begins and runs."""
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
