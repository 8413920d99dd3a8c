"""A disk: Linux makes a file system on it, and finds again what it wrote."""

from __future__ import annotations

import hashlib
from pathlib import Path

from qemu.conftest import DISK_SIZE, House
from qemulab.environment import Environment

CONTENT_MB = 256
WRITERS = 8
LONG_S = 100.0


def test_the_guest_sees_the_size_and_the_name_of_a_disk(house: House) -> None:
    guest = house.machine.guest
    assert int(guest.run("cat /sys/block/vda/size")) * 512 == DISK_SIZE
    assert guest.run("grep -h . /sys/block/vd*/serial").split() == ["disk0", "disk1", "disk2"]


def test_a_file_system_keeps_what_is_written_and_is_clean_on_the_host(
    environment: Environment, house: House, tmp_path: Path
) -> None:
    guest = house.machine.guest
    guest.run("mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt")
    guest.run(f"dd if=/dev/urandom of=/mnt/content bs=1M count={CONTENT_MB}; sync", LONG_S)
    written = guest.run("sha256sum < /mnt/content", LONG_S)
    guest.run("echo 3 > /proc/sys/vm/drop_caches")
    assert guest.run("sha256sum < /mnt/content", LONG_S) == written
    guest.run("umount /mnt")

    check = environment.run("e2fsck", "-f", "-n", house.disks[0])
    assert check.returncode == 0, check.stdout + check.stderr
    environment.run("debugfs", "-R", f"dump content {tmp_path}/content", house.disks[0])
    content = (tmp_path / "content").read_bytes()
    assert len(content) == CONTENT_MB << 20
    assert hashlib.sha256(content).hexdigest() == written.split()[0]


def test_what_is_discarded_takes_no_room_and_reads_as_zeros(house: House) -> None:
    guest, disk = house.machine.guest, house.disks[1]
    guest.run("dd if=/dev/urandom of=/dev/vdb bs=1M seek=8 count=16 conv=fsync 2> /dev/null")
    before = disk.stat().st_blocks * 512
    guest.run("blkdiscard -o $((8 << 20)) -l $((8 << 20)) /dev/vdb")
    assert disk.stat().st_blocks * 512 == before - (8 << 20)
    zeros = guest.run("dd if=/dev/vdb bs=1M skip=8 count=8 iflag=direct 2> /dev/null | sha256sum")
    assert zeros.split()[0] == hashlib.sha256(bytes(8 << 20)).hexdigest()


def test_requests_that_are_in_flight_together_do_not_mix(house: House) -> None:
    house.machine.guest.run(
        f"""
        for writer in $(seq {WRITERS}); do
            yes "writer $writer" | dd of=/dev/vdb bs=64k count=32 seek=$((writer * 32)) \\
                iflag=fullblock oflag=direct conv=notrunc 2> /dev/null &
        done
        wait
        """,
        LONG_S,
    )
    with house.disks[1].open("rb") as file:
        for writer in range(1, WRITERS + 1):
            size = 32 << 16
            line = b"writer %d\n" % writer
            file.seek(writer * size)
            assert file.read(size) == (line * (size // len(line) + 1))[:size], writer
