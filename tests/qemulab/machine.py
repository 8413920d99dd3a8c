"""A QEMU process with a guest in it.

The machine is a q35 without any device that isn't asked for. Serial port 0 is the kernel's
console, into a file; port 1 takes commands. It has root ports for devices that come later.
RAM is a memfd that can't shrink, since devices in other processes map it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from qemulab.environment import Environment
from qemulab.guest import Guest
from qemulab.initramfs import MODULES, initramfs
from qemulab.qmp import Gone, Qmp

WAIT_S = 30.0

MEMORY_MB = 512

SCRATCH = 0x0800_0000
"""A page of RAM that Linux leaves alone, for devices to do DMA to; guest-physical address."""

_COMMAND_LINE = f"console=ttyS0 panic=-1 memmap=4K${SCRATCH:#x} modules={','.join(MODULES)}"

Device = Mapping[str, object]
"""What `-device` and `device_add` take: a driver, an id, and more."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that runs.

    Attributes:
        process: QEMU.
        qmp: controls it.
        guest: runs commands in it.
        messages: what QEMU has to say.
    """

    process: subprocess.Popen[bytes]
    qmp: Qmp
    guest: Guest
    messages: Path

    @property
    def runs(self) -> bool:
        """Whether QEMU is still there."""
        return self.process.poll() is None


@contextmanager
def running(
    environment: Environment,
    folder: Path,
    *arguments: str,
    devices: Sequence[Device] = (),
    root_ports: int = 1,
    programs: Sequence[str] = (),
) -> Iterator[Machine]:
    """Run a machine; its guest has booted when the block begins.

    Args:
        environment: what it is made of.
        folder: where its files go.
        arguments: more of QEMU's.
        devices: what it has from the start.
        root_ports: how many devices can be plugged later, on `bus` port0, port1, …
        programs: what the guest has beside busybox and what it always has.
    """
    console, messages = folder / "console", folder / "qemu"
    ports = [
        {"driver": "pcie-root-port", "id": f"port{number}", "chassis": number, "slot": number}
        for number in range(root_ports)
    ]
    with ExitStack() as closing:
        qmp_end, qmp_fd = _pair(closing)
        guest_end, guest_fd = _pair(closing)
        command = environment.command(
            "qemu-system-x86_64",
            *("-L", environment.root / "usr/share/qemu"),
            *("-L", environment.root / "usr/share/seabios"),
            *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
            *("-accel", "tcg,thread=multi", "-cpu", "max"),
            *("-m", f"{MEMORY_MB}M"),
            *("-object", f"memory-backend-memfd,id=ram,size={MEMORY_MB}M,share=on,seal=on"),
            *("-machine", "q35,memory-backend=ram,i8042=off,hpet=off"),
            *("-kernel", environment.kernel),
            *("-initrd", initramfs(environment, *programs)),
            *("-append", _COMMAND_LINE),
            *("-serial", f"file:{console}"),
            *("-chardev", f"socket,id=guest,fd={guest_fd}", "-serial", "chardev:guest"),
            *("-chardev", f"socket,id=qmp,fd={qmp_fd}", "-mon", "chardev=qmp,mode=control"),
            *(part for each in (*ports, *devices) for part in ("-device", json.dumps(each))),
            *arguments,
        )
        with messages.open("wb") as stderr:
            process = subprocess.Popen(
                command, pass_fds=(qmp_fd, guest_fd), stdin=subprocess.DEVNULL, stderr=stderr
            )
        closing.callback(process.wait, WAIT_S)
        closing.callback(process.kill)
        os.close(qmp_fd)
        os.close(guest_fd)
        guest = Guest(guest_end, console)
        try:
            qmp = Qmp(qmp_end)
            guest.wait_until_booted()
        except (Gone, OSError) as error:
            raise Gone(f"{error}\nQEMU says: {messages.read_text()}") from error
        yield Machine(process, qmp, guest, messages)


def _pair(closing: ExitStack) -> tuple[socket.socket, int]:
    ours, theirs = socket.socketpair()
    closing.enter_context(ours)
    return ours, theirs.detach()
