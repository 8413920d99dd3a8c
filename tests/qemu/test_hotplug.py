"""Functions that come and go while the guest runs.

QEMU 11.1 takes away a region of MSI-X twice when a vfio-user function goes, and aborts. So what
is taken away here has INTx, by itself or by `pci-msix=off`.
"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from qemulab.environment import Environment
from qemulab.hosting import Server, attached
from qemulab.machine import Machine, running
from qemulab.qmp import Gone
from qemulab.terminal import Terminal

ROUNDS = 20
BOUND = "/sys/bus/pci/drivers/serial/0000:01:00.0"
TTY = f"{BOUND}/0000:*/0000:*/tty/ttyS*"


def test_a_serial_card_is_plugged_and_unplugged_twenty_times(
    machine: Machine, server: Server, tmp_path: Path
) -> None:
    guest = machine.guest
    path = tmp_path / "line"
    card = {**server.plug("uart16550", "card", chardev=f"unix:{path}"), "bus": "port0"}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        line = Terminal(connection)
        for number in range(ROUNDS):
            machine.qmp.device_add(card)
            guest.wait_until(f"test -e {TTY}")
            guest.run(f"echo round {number}. > /dev/$(basename {TTY})")
            line.expect(f"round {number}.")
            machine.qmp.device_del("card")
            guest.run(f"! test -e {BOUND}")


def test_a_disk_is_plugged_and_unplugged_twenty_times(
    machine: Machine, server: Server, tmp_path: Path
) -> None:
    guest = machine.guest
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    device = {**server.plug("virtio-blk", "disk0", file=disk, pci_msix="off"), "bus": "port0"}
    for number in range(ROUNDS):
        machine.qmp.device_add(device)
        guest.wait_until("test -e /sys/bus/pci/devices/0000:01:00.0/virtio*/block/vda")
        guest.run(
            f"""
            echo "round {number}" | dd of=/dev/vda bs=512 seek={number} conv=sync,fsync 2> /dev/null
            """
        )
        machine.qmp.device_del("disk0")
        guest.run("! test -e /sys/block/vda")
    rounds = [f"round {number}\n".encode().ljust(512, b"\0") for number in range(ROUNDS)]
    assert disk.read_bytes().startswith(b"".join(rounds))


def test_a_function_that_the_server_takes_away_can_still_be_unplugged(
    machine: Machine, server: Server
) -> None:
    """QEMU has no way to hear that a function is to go, and the guest doesn't notice."""
    guest = machine.guest
    for _ in range(2):
        card = server.plug("uart16550", "card", chardev="null")
        machine.qmp.device_add({**card, "bus": "port0"})
        guest.wait_until(f"test -e {BOUND}")
        server.unplug("card")
        machine.qmp.device_del("card")
        guest.run(f"! test -e {BOUND}")


@pytest.mark.xfail(
    raises=Gone,
    reason="QEMU 11.1 aborts in vfio_user_msix_teardown (memory.c: subregion->container)",
)
def test_a_function_with_msix_is_unplugged(
    environment: Environment, server: Server, tmp_path: Path
) -> None:
    with (
        running(environment, tmp_path) as machine,
        attached(machine, server, "virtio-rng", "rng0"),
    ):
        machine.guest.wait_until("test -e /sys/bus/virtio/drivers/virtio_rng/virtio0")
