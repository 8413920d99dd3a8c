"""A console: a shell behind it takes commands and answers."""

from __future__ import annotations

import socket

from qemu.conftest import House
from qemulab.terminal import Terminal


def test_a_shell_takes_commands_and_answers(house: House) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(house.line))
        house.machine.guest.run("setsid -c sh -i <> /dev/hvc0 >&0 2>&1 &")
        line = Terminal(connection)
        line.expect("# ")
        line.type("echo $((6 * 7)) from $(tty)\r")
        line.expect("\n42 from /dev/hvc0\r\n")
        line.type("seq 3000; echo end\r")
        said = line.expect("\nend\r\n")
        numbers = said[said.index("\r\n1\r\n") :].split()
        assert numbers == [*(str(number) for number in range(1, 3001)), "end"]
        line.type("exit\r")
        line.expect("exit\r\n")
