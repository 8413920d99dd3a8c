"""Memory that guests and processes share: where it is, and who may do what with it."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devicehost_server.allocation import ResourceManager
from devicehost_server.devices.base import DeviceContext
from devicehost_server.devices.config import parse
from devicehost_server.devices.shared_memory import SharedMemoryConfig, SharedMemoryDevice
from devicehost_server.model.clock import ManualClock
from devicehost_server.model.errors import BadConfig
from devicehost_server.model.guest_memory import GuestMemory
from devicehost_server.model.interrupts import InterruptController
from devicehost_server.model.pci import OfferedMemory
from devicehost_server.pci.bars import BarKind
from devicehost_server.pci.function import PciFunction

Hosting = Callable[..., SharedMemoryDevice]


@pytest.fixture
def hosted() -> Iterator[Hosting]:
    """Make devices, and end them."""
    made: list[SharedMemoryDevice] = []

    def host(*, replayed: bool = False, **config: object) -> SharedMemoryDevice:
        texts = {key: str(value) for key, value in config.items()}
        device = SharedMemoryDevice(parse("shared-memory", SharedMemoryConfig, texts))
        made.append(device)
        resources = ResourceManager().allocate(device.get_resource_constraints(), "shm0")
        memory = GuestMemory()
        context = DeviceContext(
            "shm0",
            resources,
            ManualClock(),
            InterruptController(),
            memory,
            dma=None if replayed else memory,
        )
        device.assign(context)
        return device

    yield host
    for device in made:
        device.close()


def only(device: SharedMemoryDevice) -> OfferedMemory:
    (offered,) = device.offered_memory()
    return offered


def test_two_devices_with_a_file_share_what_is_in_it(hosted: Hosting, tmp_path: Path) -> None:
    file = tmp_path / "shared"
    first, second = (only(hosted(file=file, size="8K")) for _ in range(2))
    with mmap.mmap(first.fd, first.size) as window:
        window[100:105] = b"hello"

    assert os.pread(second.fd, 5, second.offset + 100) == b"hello"
    assert file.read_bytes()[100:105] == b"hello"


def test_a_file_is_made_as_large_as_it_has_to_be_and_for_its_owner(
    hosted: Hosting, tmp_path: Path
) -> None:
    file = tmp_path / "shared"
    hosted(file=file, size="64K")

    assert file.stat().st_size == 0x1_0000
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_is_in_a_file_stays_and_a_larger_one_is_not_cut(
    hosted: Hosting, tmp_path: Path
) -> None:
    file = tmp_path / "shared"
    file.write_bytes(b"x" * 0x3000)
    hosted(file=file, size="8K").close()

    assert file.read_bytes() == b"x" * 0x3000


def test_without_a_file_there_is_memory_that_keeps_its_size(hosted: Hosting) -> None:
    offered = only(hosted(size="8K"))
    os.pwrite(offered.fd, b"a", 0x1FFF)

    assert os.fstat(offered.fd).st_size == 0x2000
    with pytest.raises(PermissionError):
        os.ftruncate(offered.fd, 0)


def test_what_is_readonly_cannot_be_written_by_who_has_the_descriptor(
    hosted: Hosting, tmp_path: Path
) -> None:
    file = tmp_path / "shared"
    file.write_bytes(bytes(0x1000))
    offered = only(hosted(file=file, size="4K", readonly="yes"))

    assert not offered.writable
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(offered.fd, b"a", 0)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"size": "5000"}, "'size': 0x1388 is not allowed; allowed: whole pages"),
        ({"size": "0"}, "'size'"),
        ({"readonly": "yes"}, "'readonly': nobody could write"),
        ({"file": "/nowhere/at/all"}, "/nowhere/at/all: No such file"),
        ({"file": "/dev/null"}, "/dev/null: it isn't a regular file"),
        ({"file": "/proc/self/status", "readonly": "yes"}, "it has 0x0 bytes, allowed: 0x100000"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    hosted: Hosting, config: dict[str, str], text: str
) -> None:
    with pytest.raises(BadConfig, match=text):
        hosted(**config)


def test_a_fifo_is_refused_at_once(hosted: Hosting, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(BadConfig, match="it isn't a regular file"):
        hosted(file=fifo, readonly="yes")


def test_a_refused_file_is_not_left_open(hosted: Hosting) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(BadConfig):
        hosted(file="/dev/null")

    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_in_a_replay_nothing_is_opened(hosted: Hosting, tmp_path: Path) -> None:
    device = hosted(replayed=True, file=tmp_path / "shared")

    assert device.offered_memory() == ()
    assert not (tmp_path / "shared").exists()


def test_after_the_end_it_offers_nothing(hosted: Hosting) -> None:
    device = hosted()
    device.close()
    device.close()

    assert device.offered_memory() == ()


def test_as_a_function_it_has_one_bar_of_memory(hosted: Hosting) -> None:
    device = hosted(size="12K")
    function = PciFunction("shm0", device.describe_function(), device.get_resource_constraints())

    (bar,) = function.bars
    assert (bar.kind, bar.size, bar.length) == (BarKind.MEMORY, 0x4000, 0x3000)
    assert function.identity.class_code == 0x050000
    assert device.view() == {"file": "memfd", "size": 0x3000}
