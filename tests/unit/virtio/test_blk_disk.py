from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_server.devices.virtio.blk.disk import Disk, _move
from devicehost_server.devices.virtio.blk.image_lock import lock_image
from devicehost_server.model.errors import BadConfig

MIB = 1 << 20

HOLDER = """
import os, sys
from devicehost_server.devices.virtio.blk.image_lock import lock_image
fd = os.open(sys.argv[1], os.O_RDWR)
lock_image(fd, read_only=False)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(os.urandom(MIB))
    return path


@pytest.fixture
def memory_image() -> Iterator[Path]:
    """An image on a tmpfs, which can punch holes but not zero ranges."""
    path = Path(f"/dev/shm/devicehost-test-{os.getpid()}.img")  # noqa: S108 # a tmpfs is meant
    path.write_bytes(os.urandom(MIB))
    yield path
    path.unlink()


def _attach(path: Path, sector_size: int = 512) -> str:
    """Make a block device of a file, and return its path; empty if that isn't allowed here."""
    command = shutil.which("losetup", path="/usr/sbin:/sbin:/usr/bin")
    if os.geteuid() or command is None:
        return ""
    options = ["--find", "--show", "--sector-size", str(sector_size)]
    made = subprocess.run([command, *options, path], capture_output=True, text=True, check=False)
    return made.stdout.strip()


def _detach(device: str) -> None:
    command = shutil.which("losetup", path="/usr/sbin:/sbin:/usr/bin")
    assert command is not None
    subprocess.run([command, "--detach", device], check=True)


def _has_loop_devices() -> bool:
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(MIB)
        device = _attach(Path(file.name))
        if device:
            _detach(device)
        return bool(device)


WHERE = ["image", "memory_image", *(["block_device"] if _has_loop_devices() else [])]
"""Where images are. Only root makes block devices."""


@pytest.fixture
def block_device(image: Path) -> Iterator[Path]:
    device = _attach(image)
    assert device
    yield Path(device)
    _detach(device)


def opened(path: Path, *, read_only: bool = False, locked: bool = True) -> Disk:
    return Disk.open(path, read_only=read_only, locked=locked, device_type="virtio-blk")


def windows(data: bytes | bytearray, *cuts: int) -> list[memoryview]:
    whole = memoryview(data)
    return [whole[a:b] for a, b in pairwise((0, *cuts, len(data)))]


def refusal(path: Path, **options: bool) -> BadConfig:
    with pytest.raises(BadConfig) as caught:
        opened(path, **options)
    assert repr(str(path)) in str(caught.value)
    return caught.value


def test_what_is_written_from_several_windows_is_in_the_file(image: Path) -> None:
    disk = opened(image)
    before = image.read_bytes()
    data = os.urandom(5000)
    disk.write(windows(data, 1, 1, 700, 4999), 512, 5000)
    disk.close()
    assert image.read_bytes() == before[:512] + data + before[5512:]


def test_a_read_fills_several_windows(image: Path) -> None:
    disk = opened(image, read_only=True)
    room = bytearray(5000)
    disk.read(windows(room, 3, 3, 1024), 1024, 5000)
    disk.close()
    assert room == image.read_bytes()[1024:6024]


def test_there_may_be_more_windows_than_the_system_takes_at_once(image: Path) -> None:
    disk = opened(image)
    count = 3 * os.sysconf("SC_IOV_MAX") + 7
    data = os.urandom(16 * count)
    cuts = range(16, len(data), 16)
    disk.write(windows(data, *cuts), 0, len(data))
    room = bytearray(len(data))
    disk.read(windows(room, *cuts), 0, len(data))
    assert room == data == image.read_bytes()[: len(data)]
    assert not disk.read_cached(windows(room, *cuts), 0, len(data))
    disk.close()


@given(
    data=st.binary(min_size=1, max_size=300),
    cuts=st.lists(st.integers(0, 300), max_size=10),
    most=st.integers(1, 50),
)
def test_a_transfer_goes_on_where_the_system_stopped(
    data: bytes, cuts: list[int], most: int
) -> None:
    """Linux may move less than it is asked for: here it never moves more than `most` bytes."""
    moved = bytearray(len(data))

    def call(some: Sequence[memoryview], at: int) -> int:
        part = b"".join(some)[:most]
        moved[at : at + len(part)] = part
        return len(part)

    _move(call, windows(data, *sorted(each % len(data) for each in cuts)), 0, len(data))
    assert moved == data


def test_a_read_of_a_file_that_was_truncated_fails(image: Path) -> None:
    disk = opened(image)
    os.truncate(image, 1000)
    room = bytearray(1024)
    with pytest.raises(OSError, match="ends before"):
        disk.read([memoryview(room)], 0, 1024)
    assert not disk.read_cached([memoryview(room)], 0, 1024)
    disk.close()


@pytest.mark.parametrize("where", WHERE)
def test_a_read_that_must_not_wait_gives_what_is_cached_or_says_that_it_cant(
    where: str, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(where)
    disk = opened(path)
    expected = path.read_bytes()[4096:8192]
    room = bytearray(4096)
    if not disk.read_cached([memoryview(room)], 4096, 4096):
        assert not disk.tells_cached, "it was read just before"
        disk.read([memoryview(room)], 4096, 4096)
    assert room == expected
    disk.close()


@pytest.mark.parametrize("where", WHERE)
def test_all_kinds_of_disks_keep_what_is_written(
    where: str, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(where)
    disk = opened(path)
    data = os.urandom(8192)
    disk.discard(MIB // 2, MIB // 2)
    disk.write(windows(data, 100), 512, 8192)
    disk.flush()
    assert disk.size == MIB
    assert "in use" in str(refusal(path))
    disk.close()
    assert path.read_bytes()[512:8704] == data


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("unmap", [False, True])
def test_zeroed_ranges_read_as_zeros(
    where: str, request: pytest.FixtureRequest, *, unmap: bool
) -> None:
    path: Path = request.getfixturevalue(where)
    before = path.read_bytes()
    disk = opened(path)
    for _ in range(2):  # the second knows what the file system can't do
        disk.zero(512, 700 * 1024, unmap=unmap)
    disk.close()
    assert path.read_bytes() == before[:512] + bytes(700 * 1024) + before[512 + 700 * 1024 :]


@pytest.mark.parametrize("where", ["image", "memory_image"])
def test_discarded_space_is_given_back(where: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(where)
    disk = opened(path)
    disk.flush()
    before = path.stat().st_blocks
    disk.discard(0, MIB // 2)
    disk.close()
    assert path.stat().st_blocks <= before - MIB // 2 // 512
    assert path.stat().st_size == MIB


def test_zeros_that_may_not_be_unmapped_keep_their_space(image: Path) -> None:
    disk = opened(image)
    disk.flush()
    before = image.stat().st_blocks
    disk.zero(0, MIB, unmap=False)
    disk.flush()
    assert image.stat().st_blocks >= before
    disk.zero(0, MIB, unmap=True)
    disk.close()
    assert image.stat().st_blocks < before


@pytest.mark.skipif("block_device" not in WHERE, reason="only root makes block devices")
def test_ranges_smaller_than_what_a_device_takes_are_zeroed_all_the_same(image: Path) -> None:
    device = _attach(image, 4096)
    try:
        disk = opened(Path(device))
        disk.write(windows(b"x" * 8192), 0, 8192)
        disk.discard(512, 512)
        for unmap in (True, False):
            disk.zero(1024, 512, unmap=unmap)
            disk.zero(4096, 512, unmap=unmap)
        disk.zero(1536, 0, unmap=True)
        found = bytearray(8192)
        disk.read(windows(found), 0, 8192)
        assert found[:512] == found[1536:4096][:512] == b"x" * 512
        assert found[1024:1536] == found[4096:4608] == bytes(512)
        disk.discard(0, 8192)  # it still tries
        disk.close()
    finally:
        _detach(device)


def test_after_a_failed_flush_no_flush_succeeds_until_the_disk_is_opened_anew(
    image: Path,
) -> None:
    disk = opened(image)
    disk.flush()
    real, (reader, writer) = os.dup(disk._fd), os.pipe()
    os.dup2(writer, disk._fd)  # a pipe can't be flushed
    with pytest.raises(OSError, match="Invalid argument"):
        disk.flush()
    os.dup2(real, disk._fd)
    with pytest.raises(OSError, match="Invalid argument"):
        disk.flush()
    disk.close()
    for fd in (real, reader, writer):
        os.close(fd)
    again = opened(image)
    again.flush()
    again.close()


def test_flushes_from_many_threads_all_return(image: Path) -> None:
    disk = opened(image)
    threads = [threading.Thread(target=disk.flush) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert 1 <= disk._flushes <= 16
    disk.close()


def test_a_writer_has_an_image_alone(image: Path) -> None:
    disk = opened(image)
    for read_only in (False, True):
        error = refusal(image, read_only=read_only)
        assert "in use" in str(error)
        assert error.metadata["field"] == "file"
    disk.close()
    opened(image).close()


def test_readers_share_an_image_and_keep_writers_out(image: Path) -> None:
    readers = [opened(image, read_only=True) for _ in range(3)]
    assert "in use" in str(refusal(image))
    for reader in readers:
        reader.close()
    opened(image).close()


def test_without_lock_nobody_is_kept_out(image: Path) -> None:
    disks = [opened(image, locked=False), opened(image), opened(image, locked=False)]
    for disk in disks:
        disk.close()


def test_the_lock_goes_with_the_process(image: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(image)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        assert "in use" in str(refusal(image))
        holder.kill()
        holder.wait()
    opened(image).close()


@pytest.mark.parametrize(
    ("read_only", "locked"),
    [(False, {100, 101, 103, 201, 203}), (True, {100, 201, 203})],
)
def test_the_locks_are_those_that_qemu_looks_for(
    image: Path, locked: set[int], *, read_only: bool
) -> None:
    """Byte 100 + N: permission N is used; 200 + N: nobody else may have it."""
    disk = opened(image, read_only=read_only)
    with image.open("r+b") as other:
        for byte in range(90, 220):
            asked = struct.pack("@hh4xqqi4x", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
            answer = fcntl.fcntl(other, fcntl.F_OFD_GETLK, asked)
            is_locked = struct.unpack_from("@h", answer)[0] != fcntl.F_UNLCK
            assert is_locked == (byte in locked), byte
    disk.close()


def test_a_qemu_that_holds_an_image_is_seen(image: Path) -> None:
    with image.open("r+b") as qemu:
        lock_image(qemu.fileno(), read_only=True)
        assert "in use" in str(refusal(image))
        opened(image, read_only=True).close()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    error = str(refusal(tmp_path / "none.img"))
    assert "No such file" in error
    assert "read_only" not in error, "that wouldn't help"


def test_a_folder_is_no_disk(tmp_path: Path) -> None:
    error = refusal(tmp_path)
    assert "is a folder" in str(error)
    assert "allowed: a regular file or a block device" in str(error)


def test_a_character_device_is_no_disk() -> None:
    assert "allowed: a regular file or a block device" in str(refusal(Path("/dev/zero")))


@pytest.mark.parametrize("size", [0, 1, 511, 513, 5000])
def test_a_size_that_is_not_in_sectors_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "odd.img"
    path.write_bytes(bytes(size))
    assert f"has {size} bytes; allowed: a multiple of 512" in str(refusal(path))


def test_an_image_that_cant_be_written_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "program"
    shutil.copy("/bin/sleep", path)
    with path.open("r+b") as file:
        file.truncate(MIB)
    with subprocess.Popen([path, "100"]) as running:  # nobody may write a running program
        assert "Text file busy" in str(refusal(path))
        assert "read_only=yes does without" in str(refusal(path))
        opened(path, read_only=True).close()
        running.kill()


def test_a_refused_image_is_not_kept_open(image: Path) -> None:
    disk = opened(image)
    before = len(list(Path("/proc/self/fd").iterdir()))
    refusal(image)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    disk.close()
