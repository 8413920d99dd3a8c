"""A network card on a tap interface of this host, in a network of its own."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from devicehost_server.devices.virtio.net import VirtioNet, tap
from devicehost_server.model.errors import BadConfig
from netlab import ALL, BROADCAST, MRG_RXBUF, SIMPLE, frame_to, guest
from virtiolab import Way

CLONE_NEWNET = 0x4000_0000
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x8913, 0x8914, 0x8916, 0x891C
IFF_UP = 1
DATA_VALID = 2
ETH_P_ALL = 3
EXPERIMENTAL = 0x88B5
NAME = "dhtest0"
STRANGER = b"\x02\0\0\0\0\x77"


@contextmanager
def network() -> Iterator[None]:
    """Have this thread, and what it opens, in a network namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(CLONE_NEWNET):
            pytest.skip(f"can't make a network: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            assert libc.setns(before, CLONE_NEWNET) == 0
    finally:
        os.close(before)


@pytest.fixture(autouse=True)
def own_network() -> Iterator[None]:
    """Keep the log quiet, and this host as it is."""
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("no /dev/net/tun that can be opened")
    with capture_logs(), network():
        yield


def set_up(name: str, *, up: bool = True) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", name.encode(), 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
        flags = flags | IFF_UP if up else flags & ~IFF_UP
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", name.encode(), flags))


def set_address(name: str, address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for what, value in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, "255.255.255.0")):
            request = struct.pack(
                "16sHH4s8x", name.encode(), socket.AF_INET, 0, socket.inet_aton(value)
            )
            fcntl.ioctl(control, what, request)


def host_socket(name: str = NAME) -> socket.socket:
    """Somebody on the host's side of the interface."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EXPERIMENTAL))
    raw.bind((name, EXPERIMENTAL))
    raw.settimeout(20)
    return raw


@pytest.mark.parametrize("way", list(Way))
@pytest.mark.parametrize("features", [SIMPLE, SIMPLE | MRG_RXBUF, ALL])
def test_frames_go_between_guest_and_host(way: Way, features: int) -> None:
    with guest(f"tap:{NAME}", way, features=features) as card:
        set_up(NAME)
        with host_socket() as host:
            assert card.link_is_up()
            for size in (46, 1000, 1500):
                out = frame_to(BROADCAST, card.mac, os.urandom(size))
                card.send(out)
                assert host.recv(2000) == out
                back = frame_to(card.mac, STRANGER, os.urandom(size))
                host.send(back)
                while (got := card.receive(1)) != [back]:  # IPv6 says hello on its own
                    assert got[0][12:14] != back[12:14]
            assert all(header[10:] == b"\1\0" for header in card.headers)


def test_a_frame_takes_several_buffers_where_buffers_are_small() -> None:
    with guest(f"tap:{NAME}", buffer_size=100, buffers=128) as card:
        set_up(NAME)
        with host_socket() as host:
            frames = [frame_to(card.mac, STRANGER, os.urandom(1500)) for _ in range(30)]
            for frame in frames:
                host.send(frame)
            got: list[bytes] = []
            while len(got) < len(frames):
                got += [each for each in card.receive(1) if each[12:14] == b"\x88\xb5"]
            assert got == frames


def test_frames_wait_for_buffers() -> None:
    with guest(f"tap:{NAME}", buffer_size=100, buffers=0) as card:
        set_up(NAME)
        with host_socket() as host:
            frames = [frame_to(card.mac, STRANGER, os.urandom(1500)) for _ in range(30)]
            for frame in frames:
                host.send(frame)
            got: list[bytes] = []
            for buffers in (1, 3, 15, 16, 17, 40):  # 16 hold one frame
                card.buffers = buffers
                card.refill()
            while len(got) < len(frames):
                got += [each for each in card.receive(1) if each[12:14] == b"\x88\xb5"]
            assert got == frames
            assert card.dropped() == {}


def test_a_frame_too_long_for_a_guest_that_does_not_merge_is_counted() -> None:
    with guest(f"tap:{NAME}", features=SIMPLE, buffer_size=128) as card:
        set_up(NAME)
        with host_socket() as host:
            host.send(frame_to(card.mac, STRANGER, bytes(500)))
            good = frame_to(card.mac, STRANGER, b"short enough")
            host.send(good)
            while card.receive(1) != [good]:
                pass
            assert card.dropped()["too_long_for_buffers"] >= 1


def test_a_bulk_of_tcp_reaches_a_guest_uncut_if_it_accepts_that() -> None:
    """The host's own stack sends; the guest doesn't answer, so only its first packets come."""
    with guest(f"tap:{NAME}") as card:
        set_address(NAME, "192.0.2.1")
        set_up(NAME)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.setblocking(False)  # noqa: FBT003 # its only form
            with suppress(BlockingIOError):
                client.connect(("192.0.2.2", 80))
            arp = card.receive(1)[0]
            while arp[12:14] != b"\x08\x06":
                arp = card.receive(1)[0]
            answer = (
                arp[6:12]
                + card.mac
                + arp[12:20]
                + b"\0\2"
                + card.mac
                + arp[38:42]
                + arp[22:28]
                + arp[28:32]
            )
            card.send(answer)
            syn = card.receive(1)[0]
            while syn[12:14] != b"\x08\x00" or syn[23] != 6:
                syn = card.receive(1)[0]
            header = card.headers[-1]
            assert header[0] == 1, "its checksum is left to whoever needs it"
            assert struct.unpack("<HH", header[6:10]) == (34, 16)


@pytest.mark.parametrize("features", [SIMPLE, ALL])
def test_a_guest_that_completes_no_checksums_gets_none_to_complete(features: int) -> None:
    with guest(f"tap:{NAME}", features=features) as card:
        set_address(NAME, "192.0.2.1")
        set_up(NAME)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            client.sendto(b"x" * 100, ("192.0.2.255", 9))
        frame = card.receive(1)[0]
        while frame[12:14] != b"\x08\x00" or frame[23] != 17:
            frame = card.receive(1)[0]
        assert card.headers[-1][0] == (1 if features == ALL else 0)


def test_frames_for_an_interface_that_is_down_are_counted() -> None:
    with guest(f"tap:{NAME}") as card:
        set_up(NAME)
        set_up(NAME, up=False)
        card.send(frame_to(BROADCAST, card.mac, bytes(60))).wait()
        assert card.dropped() == {"interface_down": 1}


def test_an_interface_that_is_deleted_is_a_link_that_is_down() -> None:
    with guest(f"tap:{NAME}") as card:
        set_up(NAME)
        assert card.link_is_up()
        delete(NAME)
        card.driver.queues[0].wait(lambda: not card.link_is_up())
        card.send(frame_to(BROADCAST, card.mac, bytes(60))).wait()
        assert card.dropped() == {"interface_lost": 1}


def delete(name: str) -> None:
    """Delete an interface (rtnetlink, RTM_DELLINK)."""
    index = socket.if_nametoindex(name)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        header = struct.pack("=IHHII", 32, 17, 1, 1, 0)
        netlink.send(header + struct.pack("=BxHiII", 0, 0, index, 0, 0))


def test_an_interface_that_is_in_use_is_an_error_that_says_so() -> None:
    with (
        guest(f"tap:{NAME}"),
        pytest.raises(BadConfig, match="in use by another process or device"),
        guest(f"tap:{NAME}"),
    ):
        pass


def test_a_name_that_is_no_tap_is_an_error_that_says_so() -> None:
    with pytest.raises(BadConfig, match="it isn't a tap interface"), guest("tap:lo"):
        pass


def test_an_interface_that_one_may_not_have_is_an_error_that_says_who_may() -> None:
    failures: list[str] = []

    def try_as_nobody() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        header = struct.pack("=Ii", 0x2008_0522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
        assert libc.capset(header, bytes(24)) == 0
        try:
            with guest(f"tap:{NAME}"):
                pass
        except BadConfig as error:
            failures.append(str(error))

    thread = threading.Thread(target=try_as_nobody)
    thread.start()
    thread.join()
    assert len(failures) == 1
    assert "only root may make it" in failures[0]


def test_a_host_without_taps_is_an_error_that_names_the_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tap, "DEVICE", str(tmp_path / "tun"))
    expected = f"tap:{NAME}.*can't be opened: {tmp_path}/tun: No such file.*modprobe tun"
    with pytest.raises(BadConfig, match=expected), guest(f"tap:{NAME}"):
        pass


@pytest.mark.parametrize("buffer_size", [2048, 64])
@pytest.mark.parametrize(("features", "flags"), [(SIMPLE | MRG_RXBUF, 0), (ALL, DATA_VALID)])
def test_a_driver_that_knows_no_checksums_sees_no_flags(
    buffer_size: int, features: int, flags: int
) -> None:
    """The kernel tells them all the same of frames whose checksums it has seen to be right."""
    frame = frame_to(BROADCAST, STRANGER, bytes(100))

    def read(windows: list[memoryview]) -> int:
        whole = bytes((DATA_VALID,)) + bytes(11) + frame
        for window in windows:
            part = whole[: len(window)]
            window[: len(part)] = part
            whole = whole[len(part) :]
        return 12 + len(frame)

    with guest(f"tap:{NAME}", features=features, buffer_size=buffer_size) as card:
        assert isinstance(card.lab.device, VirtioNet)
        assert card.lab.device.receive_into(read)
        card.lab.device.received()
        assert card.receive(1) == [frame]
        assert card.headers[0][0] == flags


def test_an_interface_goes_with_the_device_that_made_it() -> None:
    with guest(f"tap:{NAME}"):
        assert socket.if_nametoindex(NAME)
    with pytest.raises(OSError, match=r"No such device|no interface"):
        socket.if_nametoindex(NAME)


def test_hostile_headers_are_refused_by_us_or_the_kernel() -> None:
    with guest(f"tap:{NAME}") as card:
        set_up(NAME)
        headers: list[Callable[[], bytes]] = [
            lambda: os.urandom(12),
            lambda: b"\1" + os.urandom(11),
            lambda: struct.pack("<BBHHHHH", 1, 1, 0xFFFF, 1, 34, 16, 0),
        ]
        for number in range(300):
            card.send(os.urandom(200), headers[number % 3]())
        with host_socket() as host:
            good = frame_to(BROADCAST, card.mac, b"after all that" * 4)
            card.send(good)
            assert host.recv(2000) == good
        assert card.dropped()["bad_header"] > 100
