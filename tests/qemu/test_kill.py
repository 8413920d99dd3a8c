"""A server that is killed while the guest writes: what the guest saw flushed is in the file.

QEMU doesn't connect again, so each round has a function of its own. What the killed ones served
stays dead in the guest, with its writers waiting, and the rest of the guest goes on. But QEMU
11.1 aborts if there was a message that the server hadn't read; then the next round boots.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from daemonlab import WAIT_S, wait_until
from qemulab.environment import Environment
from qemulab.hosting import hosting
from qemulab.machine import Machine, running

ROUNDS = 20
DISK_SIZE = 64 << 20
RECORD = 4096

WRITE = """
disk=/dev/$(basename {block})
(   # Records, each flushed before the next. The console has those that the guest saw flushed.
    for number in $(seq 0 9999); do
        echo "{name}: record $number" \\
            | dd of=$disk bs={record} seek=$number count=1 conv=sync,fsync,notrunc 2> /dev/null
        echo "{name} flushed $number." > /dev/ttyS0
    done
) > /dev/null 2>&1 &
(   # Many more writes beside them, which keep the queue full.
    while dd if=/dev/zero of=$disk bs=1M seek=40 count=24 oflag=direct; do :; done
) > /dev/null 2>&1 &
"""


class Machines:
    """Machines, one after the other; each serves until it is gone, or has no port left."""

    def __init__(self, environment: Environment, folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._closing = ExitStack()
        self._machine: Machine | None = None
        self._ports: Iterator[int] = iter(())
        self.count = 0

    def free_port(self) -> tuple[Machine, int]:
        """Return a machine that runs, and the number of a port of it that is free."""
        if self._machine is None or not self._machine.runs:
            self._closing.close()
            folder = self._folder / f"machine{self.count}"
            folder.mkdir()
            self._machine = self._closing.enter_context(
                running(self._environment, folder, root_ports=ROUNDS)
            )
            self._ports = iter(range(ROUNDS))
            self.count += 1
        return self._machine, next(self._ports)

    def close(self) -> None:
        """End the one that runs."""
        self._closing.close()


@pytest.fixture
def machines(environment: Environment, tmp_path: Path) -> Iterator[Machines]:
    machines = Machines(environment, tmp_path)
    yield machines
    machines.close()


def flushed(machine: Machine, name: str) -> list[int]:
    """The records of a disk that the guest saw flushed, in order."""
    return [int(found) for found in re.findall(rf"{name} flushed (\d+)\.", machine.guest.console())]


def kill_amid_writes(machines: Machines, folder: Path, name: str, after: int) -> None:
    """Kill a server when the guest has seen `after` records flushed; check what is there."""
    disk = folder / name
    with disk.open("wb") as file:
        file.truncate(DISK_SIZE)
    machine, port = machines.free_port()
    with hosting(folder / f"server-{name}", status=None) as server:
        device = server.plug("virtio-blk", name, file=disk)
        machine.qmp.device_add({**device, "bus": f"port{port}"})
        block = f"/sys/bus/pci/devices/0000:{port + 1:02x}:00.0/virtio*/block/vd*"
        machine.guest.wait_until(f"test -e {block}")
        machine.guest.run(WRITE.format(name=name, block=block, record=RECORD))
        wait_until(lambda: len(flushed(machine, name)) >= after, "records are flushed")
        said = machine.messages.read_text()
        server.daemon.kill()
    wait_until(lambda: machine.messages.read_text() != said, "QEMU misses the server")
    if "Assertion" in machine.messages.read_text():
        machine.process.wait(WAIT_S)
    records = flushed(machine, name)
    assert records == list(range(len(records)))
    content = disk.read_bytes()
    for record in records:
        at = record * RECORD
        line = f"{name}: record {record}\n".encode()
        assert content[at : at + RECORD] == line.ljust(RECORD, b"\0"), (name, record)


@pytest.mark.timeout(300)
def test_no_flushed_write_is_lost_in_twenty_kills(machines: Machines, tmp_path: Path) -> None:
    chance = random.Random(5)
    for number in range(ROUNDS):
        kill_amid_writes(machines, tmp_path, f"disk{number}", chance.randint(3, 20))
    print(f"{ROUNDS} kills, {machines.count} boots")
