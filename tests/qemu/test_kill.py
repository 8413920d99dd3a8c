"""Servers that are killed while the guest writes: what the guest saw flushed is in the file.

QEMU doesn't connect again, and 11.1 aborts if there was a message that the server hadn't read.
So a boot has several servers, which are killed within a moment.
"""

from __future__ import annotations

import random
import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from daemonlab import wait_until
from qemulab.environment import Environment
from qemulab.hosting import hosting
from qemulab.machine import running

BOOTS = 5
DISK_SIZE = 64 << 20
RECORD = 4096

WRITE = f"""
for disk in vda vdb vdc vdd; do
    (   # Records, each flushed before the next. The console has those that the guest saw flushed.
        for number in $(seq 0 9999); do
            echo "$disk: record $number" | dd of=/dev/$disk bs={RECORD} seek=$number count=1 \\
                conv=sync,fsync,notrunc 2> /dev/null
            echo "$disk flushed $number." > /dev/ttyS0
        done
    ) > /dev/null 2>&1 &
    (   # Many more writes beside them, so that there always are some in flight.
        while dd if=/dev/zero of=/dev/$disk bs=1M seek=40 count=24 oflag=direct; do :; done
    ) > /dev/null 2>&1 &
done
"""


def flushed(console: str, disk: str) -> list[int]:
    """The records that the guest saw flushed, in order."""
    return [int(number) for number in re.findall(rf"{disk} flushed (\d+)\.", console)]


@pytest.mark.parametrize("boot", range(BOOTS))
def test_no_flushed_write_is_lost(environment: Environment, tmp_path: Path, boot: int) -> None:
    names = ["vda", "vdb", "vdc", "vdd"]
    disks = [tmp_path / name for name in names]
    with ExitStack() as serving:
        servers = [
            serving.enter_context(hosting(tmp_path / f"server-{name}", status=None))
            for name in names
        ]
        devices = []
        for name, disk, server in zip(names, disks, servers, strict=True):
            with disk.open("wb") as file:
                file.truncate(DISK_SIZE)
            devices.append(server.plug("virtio-blk", name, file=disk))
        with running(environment, tmp_path, devices=devices) as machine:
            guest = machine.guest
            guest.run(WRITE)
            enough = random.Random(boot).randint(3, 20)
            wait_until(lambda: all(len(flushed(guest.console(), name)) >= enough for name in names))
            for server in servers:
                server.daemon.process.kill()
            for server in servers:
                server.daemon.process.wait()
        console = guest.console()
    for name, disk in zip(names, disks, strict=True):
        content = disk.read_bytes()
        records = flushed(console, name)
        assert records == list(range(len(records)))
        for record in records:
            at = record * RECORD
            line = f"{name}: record {record}\n".encode()
            assert content[at : at + RECORD] == line.ljust(RECORD, b"\0"), (name, record)
