"""The virtio console, with a driver and real terminals, sockets and files."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import struct
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from devicehost_server.devices.chardev import BACKLOG_SIZE
from devicehost_server.devices.virtio.console import EMERGENCY_WRITE, SIZE, Config, VirtioConsole
from devicehost_server.model.errors import BadConfig, BadState
from virtiolab import EVERYTHING, GuestRam, Request, VirtioLab, Way

INPUT, OUTPUT = 0, 1
WAYS = pytest.mark.parametrize("way", list(Way))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep the log quiet."""
    with capture_logs():
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "console"


@contextmanager
def console(
    chardev: str, way: Way = Way.MMIO, ram: GuestRam | None = None, **config: int
) -> Iterator[VirtioLab]:
    """A console whose driver is ready."""
    with VirtioLab(VirtioConsole(Config(chardev=chardev, **config)), way, ram=ram) as lab:
        lab.driver.start(EVERYTHING | SIZE | EMERGENCY_WRITE)
        yield lab


def connect(path: Path) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.settimeout(20)
    peer.connect(bytes(path))
    return peer


def attach(lab: VirtioLab, path: Path) -> socket.socket:
    peer = connect(path)
    lab.wait_until(lambda: lab.device.view()["attached"])
    return peer


def recv_exactly(peer: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = peer.recv(size - len(data))
        assert piece, f"only {len(data)} of {size} bytes came"
        data += piece
    return bytes(data)


def put(lab: VirtioLab, *buffers: bytes, indirect: bool = False) -> Request:
    queue = lab.driver.queues[OUTPUT]
    request = queue.add(readable=buffers, indirect=indirect)
    queue.kick()
    return request


def offer(lab: VirtioLab, *sizes: int) -> Request:
    queue = lab.driver.queues[INPUT]
    request = queue.add(writable=sizes)
    queue.kick()
    return request


def read_all(lab: VirtioLab, size: int, buffer_size: int = 100) -> bytes:
    """Read so many bytes of input, with one buffer at a time."""
    data = b""
    while len(data) < size:
        data += offer(lab, buffer_size).wait()
    return data


@WAYS
@pytest.mark.parametrize("indirect", [False, True])
def test_a_dialogue(path: Path, way: Way, *, indirect: bool) -> None:
    with console(f"unix:{path}", way) as lab:
        peer = attach(lab, path)
        answer = offer(lab, 3, 100)
        request = put(lab, b"lo", b"gin: ", indirect=indirect)
        assert request.wait() == b""
        assert recv_exactly(peer, 7) == b"login: "
        peer.send(b"root\r")
        assert answer.wait() == b"root\r"
        view = lab.device.view()
        assert (view["sent"], view["received"], view["attached"]) == (7, 5, True)
        peer.close()


def test_input_that_comes_before_there_is_a_driver_waits_for_it(path: Path) -> None:
    with VirtioLab(VirtioConsole(Config(chardev=f"unix:{path}"))) as lab:
        peer = connect(path)
        peer.send(b"early")
        lab.wait_until(lambda: lab.device.view()["received"] == 5)
        lab.driver.start()
        assert offer(lab, 100).wait() == b"early"
        peer.close()


def test_much_input_comes_whole_as_the_driver_has_buffers_for_it(path: Path) -> None:
    data = random.Random(1).randbytes(300_000)
    with console(f"unix:{path}") as lab:
        peer = attach(lab, path)
        sender = threading.Thread(target=peer.sendall, args=(data,))
        sender.start()
        sender.join(0.2)
        assert sender.is_alive(), "somebody keeps all of it"
        assert lab.device.view()["received"] < 10_000
        assert read_all(lab, len(data), 4000) == data
        sender.join()
        peer.close()


def test_a_peer_that_does_not_read_makes_the_guest_wait_and_loses_nothing(path: Path) -> None:
    data = random.Random(2).randbytes(2 << 20)
    with console(f"unix:{path}", buffer=10_000) as lab:
        peer = attach(lab, path)
        requests = [put(lab, data[at : at + (64 << 10)]) for at in range(0, len(data), 64 << 10)]
        lab.wait_until(lambda: requests[0].queue.used[1] > 0)
        lab.wait_until(lambda: lab.device.view()["sent"] > 0)
        assert requests[-1].queue.used[1] < len(requests)
        assert recv_exactly(peer, len(data)) == data
        requests[-1].wait()
        assert lab.device.view()["dropped"] == 0
        peer.close()


def test_a_peer_that_leaves_lets_a_waiting_guest_go_on(path: Path) -> None:
    with console(f"unix:{path}", buffer=10_000) as lab:
        peer = attach(lab, path)
        request = put(lab, bytes(1 << 20), bytes(1 << 20))
        lab.wait_until(lambda: lab.device.view()["sent"] > 0)
        peer.close()
        request.wait()
        assert lab.device.view()["attached"] is False


def test_without_a_peer_the_newest_output_is_kept(path: Path) -> None:
    with console(f"unix:{path}") as lab:
        put(lab, b"old" * 100_000, b"the end").wait()
        peer = connect(path)
        kept = recv_exactly(peer, BACKLOG_SIZE)
        assert kept.endswith(b"oldthe end")
        assert lab.device.view()["dropped"] == 300_007 - BACKLOG_SIZE
        peer.close()


def test_output_reaches_a_file(path: Path) -> None:
    with console(f"file:{path}") as lab:
        for number in range(100):
            put(lab, b"line %d\n" % number).wait()
    assert path.read_bytes() == b"".join(b"line %d\n" % number for number in range(100))


def resize(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def size_of(lab: VirtioLab) -> tuple[int, int]:
    columns, rows = struct.unpack("<HH", lab.driver.config(0, 4))
    return columns, rows


@WAYS
def test_a_terminal_that_is_resized_tells_the_guest_by_an_interrupt(path: Path, way: Way) -> None:
    with console(f"pty:{path}", way, cols=90, rows=30) as lab:
        assert lab.driver.features & SIZE
        assert size_of(lab) == (90, 30)
        terminal = os.open(path, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(terminal)
        answer = offer(lab, 10)
        for size in ((120, 40), (65_535, 1), (121, 41)):
            generation = lab.driver.registers.generation()
            resize(terminal, *size)
            lab.driver.queues[INPUT].wait(lambda size=size: size_of(lab) == size)  # type: ignore[misc] # bound now
            assert lab.driver.registers.generation() != generation
        os.write(terminal, b"ls\r")
        assert answer.wait() == b"ls\r"
        put(lab, b"a  b\r\n").wait()
        assert os.read(terminal, 100) == b"a  b\r\n"
        os.close(terminal)


def test_a_driver_that_resets_finds_the_size_that_is(path: Path) -> None:
    with console(f"pty:{path}") as lab:
        terminal = os.open(path, os.O_RDWR | os.O_NOCTTY)
        resize(terminal, 100, 50)
        lab.wait_until(lambda: size_of(lab) == (100, 50))
        lab.driver.start()
        assert size_of(lab) == (100, 50)
        os.close(terminal)


def test_a_character_can_be_written_in_an_emergency_without_queues(path: Path) -> None:
    with VirtioLab(VirtioConsole(Config(chardev=f"file:{path}"))) as lab:
        assert lab.driver.offered() & EMERGENCY_WRITE
        for character in b"panic":
            lab.write(lab.driver.registers.config + 8, character)
        lab.write(lab.driver.registers.config + 0, 0x1234, 2)  # not to be written
        assert size_of(lab) == (80, 25)
    assert path.read_bytes() == b"panic"


def test_a_reset_in_the_middle_of_a_buffer_forgets_it(path: Path) -> None:
    with console(f"unix:{path}", buffer=1000) as lab:
        peer = attach(lab, path)
        put(lab, b"x" * (1 << 20))
        lab.wait_until(lambda: lab.device.view()["sent"] > 0)
        lab.driver.start()
        request = put(lab, b"after the reset")
        data = b""
        while not data.endswith(b"after the reset"):
            data += peer.recv(1 << 16)
        assert data.strip(b"x") == b"after the reset"
        request.wait()
        peer.close()


def test_a_queue_reset_in_the_middle_of_a_buffer_forgets_it(path: Path) -> None:
    with console(f"unix:{path}", buffer=1000) as lab:
        peer = attach(lab, path)
        put(lab, b"x" * (1 << 20))
        lab.wait_until(lambda: lab.device.view()["sent"] > 0)
        driver = lab.driver
        driver.registers.select(OUTPUT)
        driver.registers.reset_queue()
        driver.queues[OUTPUT] = driver.set_up_queue(OUTPUT)
        request = put(lab, b"after the reset")
        data = b""
        while not data.endswith(b"after the reset"):
            data += peer.recv(1 << 16)
        assert data.strip(b"x") == b"after the reset"
        request.wait()
        peer.close()


def test_a_guest_that_goes_on_at_another_terminal_learns_its_size(tmp_path: Path) -> None:
    """Although it had come, and was of that size, before the state did."""
    with console("null", cols=70, rows=20) as lab:
        state = lab.device.save()
        ram = lab.ram
        device = VirtioConsole(Config(chardev=f"pty:{tmp_path / 'tty'}", cols=90))
        with VirtioLab(device, ram=ram) as fresh:
            terminal = os.open(tmp_path / "tty", os.O_RDWR | os.O_NOCTTY)
            resize(terminal, 132, 43)
            fresh.wait_until(lambda: device.view()["size"] == "132x43")
            fresh.device.restore(state)
            assert size_of(fresh) == (70, 20), "what the guest knows"
            fresh.wait_until(lambda: size_of(fresh) == (132, 43))
            os.close(terminal)


def test_saves_in_the_middle_of_buffers_lose_and_repeat_nothing(path: Path) -> None:
    data = random.Random(3).randbytes(1 << 18)
    with console(f"unix:{path}", buffer=5000) as lab:
        peer = attach(lab, path)
        requests = [put(lab, data[at : at + 30_000]) for at in range(0, len(data), 30_000)]
        done = threading.Event()

        def save_on() -> None:
            while not done.is_set():
                lab.device.save()

        saver = threading.Thread(target=save_on)
        saver.start()
        assert recv_exactly(peer, len(data)) == data
        done.set()
        saver.join()
        requests[-1].wait()
        peer.close()


@WAYS
def test_another_server_goes_on_in_the_middle_of_a_buffer(tmp_path: Path, way: Way) -> None:
    data = random.Random(4).randbytes(1 << 20)
    ram = GuestRam()
    with console(f"unix:{tmp_path / 'one'}", way, ram, buffer=5000) as lab:
        peer = attach(lab, tmp_path / "one")
        request = put(lab, data)
        first = recv_exactly(peer, 50_000)
        state = lab.device.save()
        lab.unshare()  # the guest stands still for this server
        while piece := _recv_rest(peer):
            first += piece
        peer.close()
    assert 0 < state["device"]["sent"] < len(data)
    assert data.startswith(first[: state["device"]["sent"]])
    path = tmp_path / "two"
    with VirtioLab(VirtioConsole(Config(chardev=f"unix:{path}")), way, ram=ram) as fresh:
        peer = attach(fresh, path)
        fresh.device.restore(state)
        rest = recv_exactly(peer, len(data) - state["device"]["sent"])
        assert rest == data[state["device"]["sent"] :]
        fresh.wait_until(lambda: request.queue.used[1] == 1)
        peer.close()


def _recv_rest(peer: socket.socket) -> bytes:
    peer.settimeout(0.1)
    try:
        return peer.recv(1 << 16)
    except TimeoutError:
        return b""


@pytest.mark.parametrize(
    "change", [{"sent": -1}, {"sent": 1 << 33}, {"size": 1 << 32}, {"more": 1}, {"size": None}]
)
def test_a_state_that_does_not_fit_is_refused(change: dict[str, int]) -> None:
    with console("null") as lab:
        state = lab.device.save()
        state["device"] = {**state["device"], **change}
        with pytest.raises(BadState):
            lab.device.restore(state)
        put(lab, b"it goes on").wait()


def test_chains_that_make_no_sense_are_given_back(path: Path) -> None:
    with console(f"file:{path}") as lab:
        output, source = lab.driver.queues[OUTPUT], lab.driver.queues[INPUT]
        wrong = output.add(writable=[16])
        output.kick()
        assert wrong.wait() == b""
        put(lab, b"fine").wait()
        assert not lab.driver.needs_reset()
        source.add(readable=[b"nothing to write to"])
        source.kick()
    assert path.read_bytes() == b"fine"


def test_input_passes_over_a_buffer_that_cannot_take_any(path: Path) -> None:
    with console(f"unix:{path}") as lab:
        peer = attach(lab, path)
        useless = lab.driver.queues[INPUT].add(readable=[b"no room"])
        answer = offer(lab, 10)
        peer.send(b"hello")
        assert answer.wait() == b"hello"
        assert useless.written == 0
        peer.close()


@pytest.mark.parametrize(
    ("config", "why"), [({"chardev": "telnet"}, "allowed: null"), ({"queue_size": 48}, "power")]
)
def test_a_configuration_that_cannot_be_is_refused(config: dict[str, object], why: str) -> None:
    with pytest.raises(BadConfig, match=why):
        VirtioConsole(Config(**config))  # type: ignore[arg-type] # that is what is tried
