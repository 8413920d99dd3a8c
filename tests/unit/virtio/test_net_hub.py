"""Guests on one hub, with real drivers and queues."""

from __future__ import annotations

import random
import struct
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from devicehost_server.devices.virtio.net import VirtioNet
from devicehost_server.devices.virtio.net import hub as hub_module
from devicehost_server.devices.virtio.net.hub import HUBS, HubPort
from netlab import (
    ALL,
    BROADCAST,
    CSUM,
    GUEST_CSUM,
    MRG_RXBUF,
    OFFLOADS,
    SIMPLE,
    Guest,
    frame_to,
    guest,
)
from virtiolab import GuestRam, Way

WAYS = pytest.mark.parametrize("way", list(Way))


@pytest.fixture(autouse=True)
def no_hub_is_left_over() -> Iterator[None]:
    """Each hub goes with its last port."""
    yield
    assert HUBS._hubs == {}


@WAYS
@pytest.mark.parametrize("indirect", [False, True])
def test_a_frame_reaches_the_other_guest(way: Way, *, indirect: bool) -> None:
    with (
        guest("hub:lan", way, indirect=indirect) as alice,
        guest("hub:lan", way, indirect=indirect) as bob,
    ):
        assert alice.mac != bob.mac
        assert alice.link_is_up()
        frame = frame_to(bob.mac, alice.mac, b"hello")
        sent = alice.send(frame)
        assert bob.receive(1) == [frame]
        assert bob.headers == [bytes(10) + b"\1\0"]
        alice.driver.queues[1].wait(lambda: sent.written is not None)
        assert sent.written == 0


@pytest.mark.parametrize("features", [SIMPLE, SIMPLE | MRG_RXBUF, ALL])
def test_ten_thousand_random_frames_come_in_order_and_none_is_lost(features: int) -> None:
    count = 10_000
    chance = random.Random(1)
    with guest("hub:lan", features=features) as alice, guest("hub:lan", features=features) as bob:
        frames = [
            frame_to(bob.mac, alice.mac, number.to_bytes(4, "big") + chance.randbytes(size))
            for number, size in enumerate(chance.choices(range(46, 1496), k=count))
        ]

        def send_all() -> None:
            for frame in frames:
                alice.send(frame, cut=chance.randrange(13, 40))

        sender = threading.Thread(target=send_all)
        sender.start()
        for first in range(0, count, 100):
            assert bob.receive(100, 60) == frames[first : first + 100]
        sender.join()
        assert bob.dropped() == {}
        assert alice.dropped() == {}


def test_both_can_send_at_the_same_time() -> None:
    count = 3000
    with guest("hub:lan") as alice, guest("hub:lan") as bob:
        failures: list[BaseException] = []

        def talk(me: Guest, other: bytes) -> None:
            try:
                got = 0
                for number in range(count):
                    me.send(frame_to(other, me.mac, bytes(200) + number.to_bytes(4, "big")))
                    if number % 20 == 19:
                        frames = me.receive(20)
                        assert [int.from_bytes(f[-4:], "big") for f in frames] == list(
                            range(got, got + 20)
                        )
                        got += 20
            except BaseException as error:  # noqa: BLE001 # told below
                failures.append(error)

        threads = [
            threading.Thread(target=talk, args=pair)
            for pair in ((alice, bob.mac), (bob, alice.mac))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []


def test_a_switch_learns_who_is_where() -> None:
    with guest("hub:lan") as alice, guest("hub:lan") as bob, guest("hub:lan") as carol:
        flooded = frame_to(bob.mac, alice.mac, b"who are you?")
        alice.send(flooded)
        assert bob.receive(1) == carol.receive(1) == [flooded]
        bob.send(frame_to(alice.mac, bob.mac, b"me"))
        alice.receive(1)
        alice.send(frame_to(bob.mac, alice.mac, b"to you alone"))
        alice.send(frame_to(BROADCAST, alice.mac, b"to all"))
        assert [frame[14:] for frame in bob.receive(2)] == [b"to you alone", b"to all"]
        assert [frame[14:] for frame in carol.receive(1)] == [b"to all"]
        assert carol.waiting() == 0


def test_who_moves_is_found_at_the_new_place() -> None:
    with guest("hub:lan") as alice, guest("hub:lan") as bob, guest("hub:lan") as carol:
        traveller = b"\x02\0\0\0\0\x09"
        bob.send(frame_to(BROADCAST, traveller, b"here"))
        alice.receive(1)
        carol.receive(1)
        carol.send(frame_to(BROADCAST, traveller, b"here now"))
        alice.receive(1)
        bob.receive(1)
        alice.send(frame_to(traveller, alice.mac, b"hello"))
        assert carol.receive(1)[0][14:] == b"hello"
        assert bob.waiting() == 0


def test_who_has_left_is_forgotten() -> None:
    with guest("hub:lan") as alice, guest("hub:lan") as carol:
        with guest("hub:lan") as bob:
            mac = bob.mac
            bob.send(frame_to(BROADCAST, mac, b"here"))
            alice.receive(1)
            carol.receive(1)
        alice.send(frame_to(mac, alice.mac, b"where?"))
        assert carol.receive(1)[0][14:] == b"where?"


def test_the_table_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "ADDRESSES_MAX", 10)
    with guest("hub:lan") as alice, guest("hub:lan", buffers=128) as bob:
        for number in range(100):
            alice.send(frame_to(BROADCAST, b"\x02\0\0\0\0" + bytes((number,)), b"x"))
        bob.receive(100)
        assert bob.lab.device.view()["netdev"]["addresses"] == 10


def test_two_hubs_do_not_know_each_other() -> None:
    with guest("hub:one") as alice, guest("hub:two") as bob:
        alice.driver.queues[1].wait(lambda: alice.send(bytes(60)).wait() is not None)
        assert bob.waiting() == 0


@pytest.mark.parametrize(
    ("size", "reason"), [(0, "short"), (13, "short"), (65_554, "long"), (1 << 20, "long")]
)
def test_a_frame_of_no_possible_size_is_dropped_and_counted(size: int, reason: str) -> None:
    with guest("hub:lan") as alice, guest("hub:lan") as bob:
        alice.send(bytes(size), cut=12 if size else 5).wait()
        good = frame_to(bob.mac, alice.mac, b"after it")
        alice.send(good)
        assert bob.receive(1) == [good]
        assert alice.dropped() == {reason: 1}


def test_a_chain_with_nothing_to_read_is_a_short_frame() -> None:
    with guest("hub:lan") as alice, guest("hub:lan"):
        request = alice.driver.queues[1].add(writable=[100])
        alice.driver.queues[1].kick()
        request.wait()
        assert request.written == 0
        assert alice.dropped() == {"short": 1}


def test_frames_wait_for_a_guest_without_buffers_and_come_in_order() -> None:
    with guest("hub:lan") as alice, guest("hub:lan", buffers=0) as bob:
        frames = [frame_to(bob.mac, alice.mac, bytes((number,)) * 100) for number in range(200)]
        for frame in frames:
            alice.send(frame).wait()
        assert bob.lab.device.view()["netdev"]["backlog"] == 200
        bob.buffers = 16
        bob.refill()
        assert bob.receive(200) == frames
        assert bob.dropped() == {}


def test_a_sender_waits_for_a_slow_guest_that_has_enough() -> None:
    with guest("hub:lan") as alice, guest("hub:lan", buffers=0) as bob:
        bob.send(frame_to(BROADCAST, bob.mac, b"here"))
        alice.receive(1)
        frames = [
            frame_to(bob.mac, alice.mac, struct.pack(">I", n) + bytes(1400)) for n in range(2000)
        ]

        def send_all() -> None:
            for frame in frames:
                alice.send(frame)

        sender = threading.Thread(target=send_all)
        sender.start()
        alice.lab.wait_until(lambda: bob.lab.device.view()["netdev"]["backlog"] >= 700)
        bob.buffers = 8
        bob.refill()
        assert bob.receive(2000) == frames
        sender.join()
        assert bob.dropped() == {}


def port_of(card: Guest) -> HubPort:
    assert isinstance(card.lab.device, VirtioNet)
    port = card.lab.device._backend
    assert isinstance(port, HubPort)
    return port


def test_a_sender_that_tries_again_and_again_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "PATIENCE_S", 3600.0)
    with guest("hub:lan") as alice, guest("hub:lan", buffers=0) as bob:
        bob.send(frame_to(BROADCAST, bob.mac, b"here"))
        alice.receive(1)
        for number in range(hub_module.BACKLOG_FRAMES):
            alice.send(frame_to(bob.mac, alice.mac, number.to_bytes(4, "big") + bytes(60))).wait()
        alice.send(frame_to(bob.mac, alice.mac, b"refused"))
        port, sender = port_of(bob), port_of(alice)
        alice.lab.wait_until(lambda: sender in port._waiting)
        for _ in range(100):
            assert port.makes_wait(sender)
        assert len(port._waiting) == 1
        bob.buffers = 64
        bob.refill()
        assert bob.receive(hub_module.BACKLOG_FRAMES + 1)[-1][14:] == b"refused"


def test_a_guest_that_takes_nothing_stops_nobody_for_long() -> None:
    with (
        guest("hub:lan") as alice,
        guest("hub:lan", buffers=0) as bob,
        guest("hub:lan", buffers=128) as carol,
    ):
        bob.send(frame_to(BROADCAST, bob.mac, b"here"))
        alice.receive(1)
        carol.receive(1)
        for number in range(2000):
            alice.send(frame_to(bob.mac, alice.mac, number.to_bytes(4, "big") + bytes(1400)))
        last = frame_to(BROADCAST, alice.mac, b"and all of you")
        alice.send(last)
        assert carol.receive(1) == [last]
        view = bob.lab.device.view()
        kept = view["netdev"]["backlog"]
        assert kept <= hub_module.BACKLOG_FRAMES
        assert view["dropped"] == {"backlog_full": 2001 - kept}
        bob.buffers = 64
        bob.refill()
        got = bob.receive(kept)
        assert [int.from_bytes(f[14:18], "big") for f in got] == list(range(kept))
        alice.send(frame_to(bob.mac, alice.mac, b"are you back?"))
        assert bob.receive(1)[0][14:] == b"are you back?"


def test_a_guest_without_a_driver_gets_nothing() -> None:
    with guest("hub:lan") as alice, guest("hub:lan") as bob:
        bob.driver.reset()
        alice.send(frame_to(bob.mac, alice.mac, b"x")).wait()
        assert bob.dropped() == {"no_driver": 1}
        bob.start(ALL)
        alice.send(frame_to(bob.mac, alice.mac, b"y"))
        assert bob.receive(1)[0][14:] == b"y"


def test_a_frame_too_long_for_a_buffer_is_dropped_and_the_buffer_used_for_the_next() -> None:
    with (
        guest("hub:lan") as alice,
        guest("hub:lan", features=SIMPLE, buffers=1, buffer_size=128) as bob,
    ):
        alice.send(frame_to(bob.mac, alice.mac, bytes(200)))
        exact = frame_to(bob.mac, alice.mac, bytes(128 - 12 - 14))
        alice.send(exact)
        assert bob.receive(1) == [exact]
        assert bob.dropped() == {"too_long_for_buffers": 1}


@pytest.mark.parametrize("buffer_size", [16, 100, 1526, 4096])
def test_a_long_frame_takes_as_many_buffers_as_it_needs(buffer_size: int) -> None:
    chance = random.Random(buffer_size)
    with (
        guest("hub:lan") as alice,
        guest("hub:lan", buffers=256, buffer_size=buffer_size) as bob,
    ):
        most = min(65_553, 256 * buffer_size - 12)
        for size in (14, buffer_size - 12, buffer_size - 11, 2000, most):
            frame = frame_to(bob.mac, alice.mac, chance.randbytes(max(0, size - 14)))
            alice.send(frame)
            assert bob.receive(1) == [frame]
            count = -(-(len(frame) + 12) // buffer_size)
            assert bob.headers[-1] == bytes(10) + count.to_bytes(2, "little")


def test_a_frame_longer_than_all_buffers_together_is_dropped() -> None:
    with (
        guest("hub:lan") as alice,
        guest("hub:lan", buffers=16, buffer_size=64, queue_size=16) as bob,
    ):
        alice.send(frame_to(bob.mac, alice.mac, bytes(1100)))
        good = frame_to(bob.mac, alice.mac, bytes(900))
        alice.send(good)
        assert bob.receive(1) == [good]
        assert bob.dropped() == {"too_long_for_buffers": 1}


def tcp4(target: bytes, source: bytes, payload: bytes) -> tuple[bytes, bytes]:
    """A frame to be cut and summed, and the header that says so."""
    addresses = bytes((192, 0, 2, 1, 192, 0, 2, 2))
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 40 + len(payload), 1, 0, 64, 6, 0) + addresses
    pseudo = sum(struct.unpack(">4H", addresses)) + 6 + 20 + len(payload)
    pseudo = (pseudo & 0xFFFF) + (pseudo >> 16)
    tcp = struct.pack(">HHIIBBHHH", 1, 2, 100, 200, 0x50, 0x18, 1000, pseudo, 0)
    header = struct.pack("<BBHHHHH", 1, 1, 54, 1000, 34, 16, 0)
    return target + source + b"\x08\x00" + ip + tcp + payload, header


def test_what_is_left_undone_stays_so_for_a_guest_that_accepts_it() -> None:
    with guest("hub:lan") as alice, guest("hub:lan") as bob:
        frame, header = tcp4(bob.mac, alice.mac, bytes(30_000))
        alice.send(frame, header)
        assert bob.receive(1) == [frame]
        assert bob.headers[-1][:10] == header[:10]


@pytest.mark.parametrize("features", [SIMPLE, SIMPLE | GUEST_CSUM])
def test_what_is_left_undone_is_done_for_a_guest_that_does_not(features: int) -> None:
    with guest("hub:lan") as alice, guest("hub:lan", features=features) as bob:
        payload = random.Random(2).randbytes(30_000)
        frame, header = tcp4(bob.mac, alice.mac, payload)
        alice.send(frame, header)
        frames = bob.receive(30)
        assert b"".join(each[54:] for each in frames) == payload
        assert all(header == bytes(10) + b"\1\0" for header in bob.headers)


def test_offloads_that_were_not_negotiated_are_refused() -> None:
    with guest("hub:lan", features=ALL & ~OFFLOADS | CSUM) as alice, guest("hub:lan") as bob:
        frame, header = tcp4(bob.mac, alice.mac, bytes(3000))
        alice.send(frame, header).wait()
        assert alice.dropped() == {"bad_header": 1}
        assert bob.waiting() == 0


def has_dropped(card: Guest, count: int) -> bool:
    return card.dropped().get("no_driver", 0) >= count


@WAYS
def test_a_reset_in_the_middle_of_traffic_stops_it_and_it_begins_anew(way: Way) -> None:
    with guest("hub:lan") as alice, guest("hub:lan", way) as bob:
        stop = threading.Event()

        def send_on() -> None:
            while not stop.is_set():
                alice.send(frame_to(BROADCAST, alice.mac, bytes(300)))

        sender = threading.Thread(target=send_on)
        sender.start()
        try:
            for _ in range(20):
                bob.receive(50)
                bob.driver.reset()
                before = bob.lab.ram.view.tobytes()
                enough = bob.dropped().get("no_driver", 0) + 20
                alice.lab.wait_until(partial(has_dropped, bob, enough))
                assert bob.lab.ram.view.tobytes() == before, "written to after a reset"
                bob.lab.ram._free.clear()
                bob.lab.ram._next = bob.lab.ram.base
                bob.start(ALL)
        finally:
            stop.set()
            sender.join()


def test_a_save_in_the_middle_of_traffic_loses_nothing() -> None:
    with guest("hub:lan") as alice, guest("hub:lan") as bob:
        count = 3000
        frames = [frame_to(bob.mac, alice.mac, n.to_bytes(4, "big") * 50) for n in range(count)]
        done = threading.Event()

        def save_on() -> None:
            while not done.is_set():
                bob.lab.device.save()
                alice.lab.device.save()

        saver = threading.Thread(target=save_on)
        saver.start()
        try:
            for first in range(0, count, 50):
                for frame in frames[first : first + 50]:
                    alice.send(frame)
                assert bob.receive(50) == frames[first : first + 50]
        finally:
            done.set()
            saver.join()


@WAYS
def test_a_guest_goes_on_in_another_process_of_the_server(way: Way) -> None:
    ram = GuestRam()
    with guest("hub:lan") as alice:
        with guest("hub:lan", way, ram=ram) as bob:
            mac = bob.mac
            alice.send(frame_to(mac, alice.mac, b"before"))
            bob.receive(1)
            state = bob.lab.device.save()
        with guest("hub:lan", way, ram=ram, mac=mac.hex(":"), features=ALL) as fresh:
            fresh.lab.device.restore(state)
            bob.lab.device, bob.lab.io, bob.lab.base = (
                fresh.lab.device,
                fresh.lab.io,
                fresh.lab.base,
            )
            bob.lab.interrupted = fresh.lab.interrupted
            alice.send(frame_to(mac, alice.mac, b"after"))
            assert bob.receive(1)[0][14:] == b"after"


def test_memory_that_is_not_mapped_here_is_copied() -> None:
    with guest("hub:lan", mapped=False) as alice, guest("hub:lan", mapped=False) as bob:
        frame = frame_to(bob.mac, alice.mac, bytes(range(256)) * 20)
        alice.send(frame)
        assert bob.receive(1) == [frame]
