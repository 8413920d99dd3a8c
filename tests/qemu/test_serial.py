"""A serial card: Linux's own driver for PCI cards binds to it, and somebody logs in by it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemulab.guest import Guest
from qemulab.hosting import Server, attached
from qemulab.machine import Machine
from qemulab.terminal import Terminal

TTY = "/sys/bus/pci/drivers/serial/0000:*/0000:*/0000:*/tty/ttyS*"


@pytest.fixture
def line(machine: Machine, server: Server, tmp_path: Path) -> Iterator[Terminal]:
    """The host's end of the card's line, while the card is in the machine."""
    path = tmp_path / "line"
    with (
        attached(machine, server, "uart16550", "card", chardev=f"unix:{path}"),
        socket.socket(socket.AF_UNIX) as connection,
    ):
        connection.connect(str(path))
        machine.guest.wait_until(f"test -e {TTY}")
        yield Terminal(connection)


def port(guest: Guest) -> str:
    return guest.run(f"basename {TTY}").strip()


def test_somebody_logs_in_and_works(machine: Machine, line: Terminal) -> None:
    guest = machine.guest
    assert f"{port(guest)} at I/O" in guest.run("dmesg | grep 16550A")
    guest.run(
        f"""
        mkdir -p /etc
        echo "joan:$(mkpasswd -m sha256 swordfish):0:0::/tmp:/bin/sh" > /etc/passwd
        echo "root:x:0:" > /etc/group
        setsid getty 115200 {port(guest)} vt100 > /dev/null 2>&1 &
        """
    )
    line.expect("login: ")
    line.type("joan\r")
    line.expect("Password: ")
    line.type("swordfish\r")
    line.expect("# ")
    line.type("echo $((6 * 7)) from $(tty)\r")
    line.expect(f"\n42 from /dev/{port(guest)}\r\n")
    line.type("seq 2000 | sha256sum; seq 2000\r")
    said = line.expect("\n2000\r\n")
    numbers = said[said.index("\r\n1\r\n") :].split()
    assert [int(number) for number in numbers] == list(range(1, 2001))
    line.type("exit\r")  # its echo may not come any more: the line is hung up
    guest.wait_until(f"! ls -l /proc/[0-9]*/fd | grep /dev/{port(guest)}")


def test_bytes_of_every_value_come_through_both_ways(machine: Machine, line: Terminal) -> None:
    everything = bytes(range(256)) * 16
    machine.guest.run(
        f"""
        exec 3<> /dev/{port(machine.guest)}
        stty raw -echo 115200 <&3
        (head -c {len(everything)} <&3 > /run/taken; cat /run/taken >&3) &
        """
    )
    line.send(everything)
    assert line.read(len(everything)) == everything
