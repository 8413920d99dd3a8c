"""Several functions in one server, and several servers on one QEMU."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from daemonlab import WAIT_S
from qemu.conftest import House

LONG_S = 60.0
WRITE = """
for disk in {disks}; do
    yes "disk $disk" | dd of=/dev/$disk bs=64k count={count} iflag=fullblock oflag=direct &
done 2> /dev/null
wait
"""


def is_written(disk: Path, name: str, count: int) -> bool:
    size = count << 16
    line = f"disk {name}\n".encode()
    with disk.open("rb") as file:
        return file.read(size) == (line * (size // len(line) + 1))[:size]


def test_functions_of_two_servers_work_at_once(house: House) -> None:
    names = ("vda", "vdb", "vdc")
    house.machine.guest.run(WRITE.format(disks=" ".join(names), count=200), LONG_S)
    for disk, name in zip(house.disks, names, strict=True):
        assert is_written(disk, name, 200)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_functions_of_a_server_outlive_another_server(
    own_house: House, ending: signal.Signals
) -> None:
    guest, process = own_house.machine.guest, own_house.second.daemon.process
    process.send_signal(ending)
    assert process.wait(WAIT_S) == (0 if ending is signal.SIGTERM else -ending)
    guest.run("dd if=/dev/vdc of=/dev/null bs=4k count=1 iflag=direct 2> /dev/null &")
    guest.run(WRITE.format(disks="vda vdb", count=400), LONG_S)
    for disk, name in zip(own_house.disks, ("vda", "vdb"), strict=False):
        assert is_written(disk, name, 400)
