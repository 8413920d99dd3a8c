"""What tests with QEMU share: its environment, which is made if it isn't there, and a machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from qemulab.environment import Environment, NoEnvironment, provide
from qemulab.guest import CommandFailed
from qemulab.hosting import Server, hosting
from qemulab.machine import Machine, running
from qemulab.qmp import Gone

DISK_SIZE = 400 << 20


@pytest.fixture(scope="session")
def environment() -> Environment:
    try:
        return provide()
    except NoEnvironment as why:
        pytest.skip(f"no QEMU to test with: {why}")


@pytest.fixture(scope="session")
def boot(
    environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Machine]]:
    """What boots a machine, unless the one that it booted before still runs."""
    machines: list[Machine] = []
    with ExitStack() as closing:

        def boot() -> Machine:
            if not machines or not machines[-1].runs:
                folder = tmp_path_factory.mktemp("machine")
                machines.append(closing.enter_context(running(environment, folder)))
            return machines[-1]

        yield boot


@pytest.fixture
def machine(boot: Callable[[], Machine]) -> Iterator[Machine]:
    """A machine whose root port is empty; it serves again if a test leaves it so."""
    machine = boot()
    yield machine
    try:
        machine.guest.run("! test -e /sys/bus/pci/devices/0000:01:00.0")
    except (CommandFailed, Gone, OSError):
        machine.process.kill()
        machine.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with hosting(tmp_path / "server") as server:
        yield server


@dataclass(frozen=True, slots=True)
class House:
    """A machine with devices from two servers, there from the start.

    Attributes:
        machine: the machine.
        first: the server of disk0 and disk1.
        second: the server of disk2, rng0 and console0.
        disks: the files of the disks, DISK_SIZE bytes each.
        line: the socket of the console.
    """

    machine: Machine
    first: Server
    second: Server
    disks: list[Path]
    line: Path


@contextmanager
def _house(environment: Environment, folder: Path) -> Iterator[House]:
    disks = [folder / f"disk{number}.img" for number in range(3)]
    for disk in disks:
        with disk.open("wb") as file:
            file.truncate(DISK_SIZE)
    line = folder / "line"
    with (
        hosting(folder / "first") as first,
        hosting(folder / "second", status=None) as second,
    ):
        devices = [
            first.plug("virtio-blk", "disk0", file=disks[0]),
            first.plug("virtio-blk", "disk1", file=disks[1]),
            second.plug("virtio-blk", "disk2", file=disks[2]),
            second.plug("virtio-rng", "rng0"),
            second.plug("virtio-console", "console0", chardev=f"unix:{line}"),
        ]
        with running(environment, folder, devices=devices) as machine:
            yield House(machine, first, second, disks, line)
        if second.daemon.process.poll() is None:
            assert second.daemon.terminate() == 0


@pytest.fixture(scope="session")
def house(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house that many tests live in."""
    with _house(environment, tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture
def own_house(environment: Environment, tmp_path: Path) -> Iterator[House]:
    """A house for one test, which may leave it in ruins."""
    with _house(environment, tmp_path) as house:
        yield house
