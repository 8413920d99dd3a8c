"""A network card on a Unix socket, with a peer that speaks QEMU's framing."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from devicehost_server.devices.virtio.net.framing import BUFFER_SIZE
from devicehost_server.model.errors import BadConfig
from netlab import (
    ALL,
    CSUM,
    HOST_TSO4,
    MRG_RXBUF,
    SIMPLE,
    Guest,
    Peer,
    frame_to,
    guest,
)
from virtiolab import Way

STRANGER = b"\x02\0\0\0\0\x77"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep the log quiet, and see that the loop's thread ends."""
    with capture_logs():
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lan.sock"


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(bytes(path))
        listener.listen()
        listener.settimeout(20)
        yield listener
    path.unlink()


def accept(listener: socket.socket) -> Peer:
    return Peer(listener.accept()[0])


def connect(path: Path) -> Peer:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(bytes(path))
    return Peer(connection)


def wait_for_link(card: Guest, *, up: bool) -> None:
    """Wait for the interrupt that tells of it."""
    card.driver.queues[0].wait(lambda: card.link_is_up() == up)


@pytest.mark.parametrize("way", list(Way))
def test_frames_go_both_ways_and_the_link_follows_the_peer(path: Path, way: Way) -> None:
    with guest(f"unix:{path}", way) as card:
        assert not card.link_is_up()
        generation = card.driver.registers.generation()
        with listening(path) as listener:
            peer = accept(listener)
            wait_for_link(card, up=True)
            assert card.driver.registers.generation() != generation
            out = frame_to(STRANGER, card.mac, b"out")
            card.send(out)
            assert peer.receive(1) == [out]
            back = frame_to(card.mac, STRANGER, b"back")
            peer.send(back)
            assert card.receive(1) == [back]
            assert card.headers == [bytes(10) + b"\1\0"]
            peer.close()
            wait_for_link(card, up=False)


def test_it_connects_again_as_often_as_the_peer_comes_back(path: Path) -> None:
    with guest(f"unix:{path}") as card:
        for _ in range(3):
            with listening(path) as listener:
                peer = accept(listener)
                wait_for_link(card, up=True)
                peer.send(frame_to(card.mac, STRANGER, b"again"))
                card.receive(1)
                peer.close()
                wait_for_link(card, up=False)


def test_a_card_that_listens_has_one_peer_at_a_time_and_then_another(path: Path) -> None:
    with guest(f"unix-listen:{path}") as card:
        assert path.stat().st_mode & 0o777 == 0o600
        for _ in range(3):
            peer = connect(path)
            wait_for_link(card, up=True)
            second = connect(path)
            assert second.has_been_left()
            second.close()
            out = frame_to(STRANGER, card.mac, b"out")
            card.send(out)
            assert peer.receive(1) == [out]
            peer.close()
            wait_for_link(card, up=False)
    assert not path.exists()


def test_a_socket_that_somebody_has_is_an_error_that_names_it(path: Path) -> None:
    with (
        guest(f"unix-listen:{path}"),
        pytest.raises(BadConfig, match=r"netdev 'unix-listen:.*can't be opened: somebody listens"),
        guest(f"unix-listen:{path}"),
    ):
        pass


def test_two_cards_meet_at_a_socket(path: Path) -> None:
    with guest(f"unix-listen:{path}") as alice, guest(f"unix:{path}") as bob:
        wait_for_link(alice, up=True)
        wait_for_link(bob, up=True)
        frames = [frame_to(bob.mac, alice.mac, n.to_bytes(4, "big") * 99) for n in range(2000)]
        sender = threading.Thread(target=lambda: [alice.send(frame) for frame in frames])
        sender.start()
        assert bob.receive(2000) == frames
        sender.join()
        assert alice.dropped() == bob.dropped() == {}


def test_frames_come_whole_from_single_bytes(path: Path) -> None:
    with guest(f"unix-listen:{path}") as card:
        peer = connect(path)
        frames = [frame_to(card.mac, STRANGER, bytes((n,)) * n) for n in range(20)]
        for byte in b"".join(struct.pack(">I", len(frame)) + frame for frame in frames):
            peer.connection.send(bytes((byte,)))
        assert card.receive(20) == frames
        peer.close()


def test_many_frames_in_one_piece_come_in_order(path: Path) -> None:
    chance = random.Random(3)
    with guest(f"unix-listen:{path}") as card:
        peer = connect(path)
        frames = [
            frame_to(card.mac, STRANGER, n.to_bytes(4, "big") + chance.randbytes(n % 1400))
            for n in range(5000)
        ]
        sender = threading.Thread(target=peer.send, args=frames)
        sender.start()
        assert card.receive(5000) == frames
        sender.join()
        assert card.dropped() == {}
        peer.close()


@pytest.mark.parametrize("size", [0xFFFF_FFFF, 0x8000_0000, 100_000])
def test_an_absurd_length_ends_that_connection_and_no_other(path: Path, size: int) -> None:
    with guest(f"unix-listen:{path}") as card:
        peer = connect(path)
        good = frame_to(card.mac, STRANGER, b"good")
        peer.send(good)
        peer.connection.sendall(struct.pack(">I", size) + bytes(100))
        assert card.receive(1) == [good]
        with suppress(ConnectionResetError):
            assert peer.has_been_left()
        again = connect(path)
        again.send(good)
        assert card.receive(1) == [good]
        peer.close()
        again.close()


def test_frames_that_are_none_are_counted_and_passed_over(path: Path) -> None:
    with guest(f"unix-listen:{path}") as card:
        peer = connect(path)
        good = frame_to(card.mac, STRANGER, b"good")
        peer.send(b"", bytes(13), bytes(65_554), bytes(68 << 10), good)
        assert card.receive(1) == [good]
        assert card.dropped() == {"short": 2, "long": 2}
        peer.close()


def test_a_guest_without_buffers_makes_the_peer_wait_and_loses_nothing(path: Path) -> None:
    with guest(f"unix-listen:{path}", buffers=0) as card:
        peer = connect(path)
        count = 3000
        frames = [frame_to(card.mac, STRANGER, n.to_bytes(4, "big") * 300) for n in range(count)]
        sender = threading.Thread(target=peer.send, args=frames)
        sender.start()
        card.lab.wait_until(lambda: card.lab.device.view()["link"] == "up")
        sender.join(0.3)
        assert sender.is_alive(), "the peer could send more than anybody keeps"
        card.buffers = 32
        card.refill()
        assert card.receive(count) == frames
        sender.join()
        assert card.dropped() == {}
        peer.close()


def test_a_peer_that_does_not_read_makes_the_guest_wait_and_loses_nothing(path: Path) -> None:
    with guest(f"unix-listen:{path}") as card:
        peer = connect(path)
        wait_for_link(card, up=True)
        count = 3000
        frames = [frame_to(STRANGER, card.mac, n.to_bytes(4, "big") * 300) for n in range(count)]
        sender = threading.Thread(target=lambda: [card.send(frame) for frame in frames])
        sender.start()
        sender.join(0.3)
        assert sender.is_alive(), "the guest could send more than anybody keeps"
        assert peer.receive(count) == frames
        sender.join()
        assert card.dropped() == {}
        peer.close()


def test_a_peer_that_leaves_with_a_guest_waiting_lets_it_go_on(path: Path) -> None:
    with guest(f"unix-listen:{path}") as card:
        peer = connect(path)
        wait_for_link(card, up=True)

        def send_many() -> None:
            for _ in range(3000):
                card.send(frame_to(STRANGER, card.mac, bytes(1400)))

        sender = threading.Thread(target=send_many)
        sender.start()
        sender.join(0.3)
        assert sender.is_alive()
        peer.close()
        sender.join(20)
        assert not sender.is_alive()
        card.lab.wait_until(lambda: card.dropped().get("no_peer", 0) > 0)


def test_a_guest_without_a_peer_sends_into_the_void(path: Path) -> None:
    with guest(f"unix:{path}") as card:
        card.send(frame_to(STRANGER, card.mac, b"x")).wait()
        assert card.dropped() == {"no_peer": 1}
        assert "connecting" in card.lab.device.view()["peer"]


def test_a_peer_that_leaves_in_the_middle_of_a_frame_leaves_nothing_behind(path: Path) -> None:
    with guest(f"unix-listen:{path}") as card:
        peer = connect(path)
        peer.connection.sendall(struct.pack(">I", 500) + bytes(100))
        peer.close()
        peer = connect(path)
        good = frame_to(card.mac, STRANGER, b"good")
        peer.send(good)
        assert card.receive(1) == [good]
        peer.close()


def test_what_a_guest_left_undone_is_done_before_it_goes_to_a_peer(path: Path) -> None:
    with guest(f"unix-listen:{path}", features=SIMPLE | CSUM | HOST_TSO4) as card:
        assert not card.driver.offered() & 0b11_0000_0010 & ~CSUM  # nothing undone comes from it
        peer = connect(path)
        wait_for_link(card, up=True)
        ip = struct.pack(">BBHHHBBH8s", 0x45, 0, 5040, 1, 0, 64, 6, 0, bytes(8))
        tcp = struct.pack(">HHIIBBHHH", 1, 2, 100, 200, 0x50, 0x18, 1000, 5026, 0)
        payload = random.Random(4).randbytes(5000)
        frame = STRANGER + card.mac + b"\x08\x00" + ip + tcp + payload
        card.send(frame, struct.pack("<BBHHHHH", 1, 1, 54, 1000, 34, 16, 0))
        frames = peer.receive(5)
        assert b"".join(each[54:] for each in frames) == payload
        peer.close()


def test_a_reset_in_the_middle_of_traffic_makes_the_peer_wait(path: Path) -> None:
    with guest(f"unix-listen:{path}", features=SIMPLE | MRG_RXBUF) as card:
        peer = connect(path)
        count = 2000
        frames = [frame_to(card.mac, STRANGER, n.to_bytes(4, "big") * 100) for n in range(count)]
        sender = threading.Thread(target=peer.send, args=frames)
        sender.start()
        first = card.receive(100)
        assert first == frames[:100]
        card.driver.reset()
        before = card.lab.ram.view.tobytes()
        sender.join(0.2)
        assert card.lab.ram.view.tobytes() == before
        card.start(ALL)
        rest = [int.from_bytes(frame[14:18], "big") for frame in card.receive(1)]
        while rest[-1] != count - 1:
            rest += [int.from_bytes(frame[14:18], "big") for frame in card.receive(1)]
        assert rest == list(range(rest[0], count)), "none is lost but what the old driver had"
        assert rest[0] <= 100 + 64 + 1
        sender.join()
        peer.close()


def test_a_save_in_the_middle_of_traffic_loses_nothing(path: Path) -> None:
    with guest(f"unix-listen:{path}") as card:
        peer = connect(path)
        wait_for_link(card, up=True)
        count = 3000
        frames = [frame_to(card.mac, STRANGER, n.to_bytes(4, "big") * 50) for n in range(count)]
        sender = threading.Thread(target=peer.send, args=frames)
        sender.start()
        for first in range(0, count, 20):
            assert card.receive(20) == frames[first : first + 20]
            card.lab.device.save()
        sender.join()
        peer.close()


def test_a_driver_is_told_that_the_peer_is_gone_since_the_save(path: Path) -> None:
    with guest(f"unix-listen:{path}") as card:
        peer = connect(path)
        wait_for_link(card, up=True)
        state = card.lab.device.save()
        peer.close()
        wait_for_link(card, up=False)
        pulses = sum(card.lab.pulses.values())
        card.lab.device.restore(state)
        card.lab.wait_until(lambda: sum(card.lab.pulses.values()) > pulses)
        assert not card.link_is_up()


def test_memory_that_goes_away_and_comes_back_stops_nothing_for_good(path: Path) -> None:
    with guest(f"unix-listen:{path}") as card:
        peer = connect(path)
        peer.send(frame_to(card.mac, STRANGER, b"before"))
        card.receive(1)
        mac = card.mac
        card.lab.unshare()
        peer.send(frame_to(mac, STRANGER, b"meanwhile"))
        card.lab.wait_until(lambda: not select_readable(peer))
        card.lab.share()
        peer.send(frame_to(mac, STRANGER, b"after"))
        assert [frame[14:] for frame in card.receive(2)] == [b"meanwhile", b"after"]
        peer.close()


def select_readable(peer: Peer) -> bool:
    """Whether something came that nobody expects."""
    peer.connection.setblocking(False)  # noqa: FBT003 # its only form
    try:
        return bool(peer.connection.recv(1))
    except BlockingIOError:
        return False
    finally:
        peer.connection.settimeout(20)


def test_a_guest_that_never_comes_costs_a_bounded_buffer(path: Path) -> None:
    with guest(f"unix-listen:{path}", buffers=0) as card:
        peer = connect(path)
        peer.connection.settimeout(0.3)
        sent = 0
        with suppress(TimeoutError):
            while sent < 64 << 20:
                sent += peer.connection.send((struct.pack(">I", 60) + bytes(60)) * 1000)
        assert BUFFER_SIZE <= sent < 4 << 20
        peer.close()
        card.lab.wait_until(lambda: True)
