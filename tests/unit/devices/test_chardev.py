"""Byte streams: whatever the other end does, a device never waits and nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import select
import socket
import stat
import struct
import subprocess
import sys
import termios
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from devicehost_server.devices.chardev import BACKLOG_SIZE, Stream, open_stream, parse_spec
from devicehost_server.devices.chardev.loop import LOOP
from devicehost_server.devices.chardev.sockets import REFUSAL
from devicehost_server.devices.chardev.stream import INBOX_SIZE
from devicehost_server.model.errors import BadConfig

DEADLINE_S = 20.0
CAPACITY = 8 << 10


def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait until `condition` holds; fail after the deadline."""
    give_up_at = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < give_up_at, f"{what} did not come to hold"
        time.sleep(0.002)


def until_still(value: Callable[[], object]) -> None:
    """Wait until `value` hasn't changed for 100 looks, a fifth of a second and more."""
    seen: list[object] = []

    def is_still() -> bool:
        seen.append(value())
        return len(seen) > 100 and all(before == seen[-1] for before in seen[-100:])

    until(is_still, "stillness")


def pattern(size: int) -> bytes:
    """Bytes among which a lost, doubled or swapped one shows."""
    return b"".join(b"%08x\n" % number for number in range(size // 9 + 1))[:size]


class Device:
    """What a device does with a stream, and no more."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.attached: list[bool] = []  # as of each piece of news
        self._news = threading.Event()
        stream.start(self._listen)

    def _listen(self) -> None:
        self.attached.append(self.stream.attached)
        self._news.set()

    def write_all(self, data: bytes) -> None:
        """Write as a device does whose guest can wait."""
        view = memoryview(data)
        while view:
            self._news.clear()
            view = view[self.stream.write(view) :]
            if view:
                assert self._news.wait(DEADLINE_S), "there was never room again"

    def read_exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._news.clear()
            data += (piece := self.stream.read(size - len(data)))
            if not piece:
                assert self._news.wait(DEADLINE_S), f"only {len(data)} of {size} bytes came"
        return bytes(data)

    def in_background(self, data: bytes) -> threading.Thread:
        thread = threading.Thread(target=self.write_all, args=(data,))
        thread.start()
        return thread


Opener = Callable[..., Device]


def loop_runs() -> bool:
    return any(thread.name == "chardev" for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def clean_fixture() -> Iterator[None]:
    """Keep the log quiet, and the tests apart."""
    with capture_logs():
        yield
        until(lambda: not loop_runs(), "the end of the loop's thread")


@pytest.fixture(name="opened")
def opened_fixture() -> Iterator[Opener]:
    with contextlib.ExitStack() as stack:

        def open_device(spec: str, capacity: int = CAPACITY) -> Device:
            stream = open_stream(spec, owner="dut", capacity=capacity)
            stack.callback(stream.close)
            return Device(stream)

        yield open_device


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(DEADLINE_S)
    client.connect(str(path))
    return client


def receive_exactly(client: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = client.recv(size - len(data))
        assert piece, f"the stream ended after {len(data)} of {size} bytes"
        data += piece
    return bytes(data)


def open_terminal(path: Path | str) -> int:
    return os.open(path, os.O_RDWR | os.O_NOCTTY)


def read_exactly(fd: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        assert select.select([fd], [], [], DEADLINE_S)[0], f"only {len(data)} of {size} bytes came"
        piece = os.read(fd, size - len(data))
        assert piece, f"hung up after {len(data)} of {size} bytes"
        data += piece
    return bytes(data)


def open_descriptors() -> set[int]:
    return {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}


# The text form.


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nul",
        "null:",
        "file",
        "file:",
        "pty:",
        "unix:",
        "unix",
        "tcp:",
        "tcp:4555",
        "tcp:127.0.0.1",
        "tcp:127.0.0.1:",
        "tcp:127.0.0.1:65536",
        "tcp:127.0.0.1:-1",
        "tcp:127.0.0.1:²",
        "stdio:1",
        "unix:/" + "x" * 107,
    ],
)
def test_a_text_of_another_form_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadConfig, match="allowed") as caught:
        parse_spec(text)
    assert caught.value.metadata == {"field": "chardev", "value": text}


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.168.1.7", "example.org", ""])  # noqa: S104 # refused
def test_a_socket_that_others_could_reach_is_refused(host: str) -> None:
    with pytest.raises(BadConfig, match="loopback"):
        parse_spec(f"tcp:{host}:4555")


def test_what_cannot_be_opened_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="No such file or directory") as caught:
        open_stream(f"file:{tmp_path}/missing/log")
    assert caught.value.metadata["field"] == "chardev"


# Nowhere.


def test_null_takes_everything_and_is_always_attached(opened: Opener) -> None:
    stream = opened("null", capacity=1).stream
    assert stream.write(bytes(1 << 20)) == 1 << 20
    assert stream.attached
    assert stream.pending == 0
    assert stream.counters().dropped == 0


# Files.


def test_a_file_gets_everything_in_order_however_small_the_buffer(
    opened: Opener, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    device = opened(f"file:{path}", capacity=1000)
    device.write_all(pattern(200_000))
    device.stream.close()
    assert path.read_bytes() == pattern(200_000)
    assert device.stream.counters().sent == 200_000


def test_a_file_is_appended_to(opened: Opener, tmp_path: Path) -> None:
    path = tmp_path / "log"
    for boot in (b"first boot\n", b"second boot\n"):
        device = opened(f"file:{path}")
        device.write_all(boot)
        device.stream.close()
    assert path.read_bytes() == b"first boot\nsecond boot\n"


def test_a_new_file_is_for_its_owner_only(opened: Opener, tmp_path: Path) -> None:
    opened(f"file:{tmp_path}/log")
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


def test_close_writes_what_was_taken_just_before(opened: Opener, tmp_path: Path) -> None:
    device = opened(f"file:{tmp_path}/log", capacity=1 << 20)
    assert device.stream.write(pattern(1 << 20)) == 1 << 20
    device.stream.close()
    assert (tmp_path / "log").read_bytes() == pattern(1 << 20)


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(BadConfig, match="neither a regular file nor a character device"):
            open_stream(f"file:{tmp_path}/pipe")
    finally:
        os.close(reader)


@contextlib.contextmanager
def disk_full_at(size: int) -> Iterator[None]:
    """Let files of this process grow to `size` bytes only."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_cannot_grow_loses_nothing_and_says_so_once(
    opened: Opener, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    data = pattern(50_000)
    with capture_logs() as events:
        with disk_full_at(30_000):
            device = opened(f"file:{path}")
            writer = device.in_background(data)
            until(lambda: device.stream.counters().sent == 30_000)
            until(lambda: any(event["event"] == "chardev_sink_failing" for event in events))
            until(lambda: len(device.stream._outbox) == CAPACITY)
            failures = device.stream._retry_s  # grows with each
            until(lambda: device.stream._retry_s > failures)
            assert writer.is_alive()  # it waits: memory is bounded
        writer.join(DEADLINE_S)
        device.stream.close()
    assert path.read_bytes() == data
    said = [event["event"] for event in events if "sink" in event["event"]]
    assert said == ["chardev_sink_failing", "chardev_sink_recovered"]
    failing = next(event for event in events if event["event"] == "chardev_sink_failing")
    assert failing["error"] == os.strerror(errno.EFBIG)
    assert failing["device"] == "dut"


def test_close_tries_a_file_that_could_not_grow_once_more(opened: Opener, tmp_path: Path) -> None:
    with disk_full_at(0):
        device = opened(f"file:{tmp_path}/log")
        device.stream.write(b"last words")
        until(lambda: device.stream._retry_s)
        device.stream._retry_at += 3600  # it would wait for long
    device.stream.close()
    assert (tmp_path / "log").read_bytes() == b"last words"


def test_a_file_gets_more_than_one_turns_worth(opened: Opener, tmp_path: Path) -> None:
    device = opened(f"file:{tmp_path}/log", capacity=8 << 20)
    assert device.stream.write(bytes(5 << 20)) == 5 << 20
    until(lambda: device.stream.counters().sent == 5 << 20)


def test_close_gives_up_on_a_full_disk_in_bounded_time_and_counts_the_loss(opened: Opener) -> None:
    device = opened("file:/dev/full")
    assert device.stream.write(bytes(2 * CAPACITY)) == CAPACITY
    device.stream.close(timeout_s=0.1)
    assert device.stream.counters().dropped == CAPACITY


# Pseudo-terminals.


def test_what_was_written_before_anybody_came_is_the_first_that_they_read(
    opened: Opener, tmp_path: Path
) -> None:
    device = opened(f"pty:{tmp_path}/console")
    device.write_all(b"early output\n")
    terminal = open_terminal(tmp_path / "console")
    try:
        assert read_exactly(terminal, 13) == b"early output\n"
        assert device.stream.attached
    finally:
        os.close(terminal)


def test_a_terminal_can_be_left_and_opened_again(opened: Opener, tmp_path: Path) -> None:
    device = opened(f"pty:{tmp_path}/console")
    for turn in (b"one", b"two"):
        terminal = open_terminal(tmp_path / "console")
        until(lambda: device.stream.attached)
        device.write_all(turn)
        assert read_exactly(terminal, 3) == turn
        os.write(terminal, turn)
        assert device.read_exactly(3) == turn
        os.close(terminal)
        until(lambda: not device.stream.attached)
    assert device.attached[-1] is False


def test_a_terminal_is_raw_and_has_no_echo_also_for_the_second_who_comes(
    opened: Opener, tmp_path: Path
) -> None:
    device = opened(f"pty:{tmp_path}/console")
    first = open_terminal(tmp_path / "console")
    until(lambda: device.stream.attached)
    mode = termios.tcgetattr(first)
    mode[3] |= termios.ECHO | termios.ICANON
    termios.tcsetattr(first, termios.TCSANOW, mode)
    os.close(first)
    until(lambda: not device.stream.attached)
    second = open_terminal(tmp_path / "console")
    try:
        until(lambda: device.stream.attached)
        device.write_all(b"\x03a\r\nb\n\x11\x00")
        assert read_exactly(second, 8) == b"\x03a\r\nb\n\x11\x00"
        os.write(second, b"\r\x03\xff")
        assert device.read_exactly(3) == b"\r\x03\xff"
        assert device.stream.pending == 0
    finally:
        os.close(second)


def test_input_of_somebody_who_came_and_left_at_once_arrives(
    opened: Opener, tmp_path: Path
) -> None:
    device = opened(f"pty:{tmp_path}/console")
    terminal = open_terminal(tmp_path / "console")
    os.write(terminal, b"reboot\r")
    os.close(terminal)
    assert device.read_exactly(7) == b"reboot\r"


def test_a_slow_reader_of_a_terminal_gets_everything_in_order(
    opened: Opener, tmp_path: Path
) -> None:
    device = opened(f"pty:{tmp_path}/console")
    terminal = open_terminal(tmp_path / "console")
    try:
        until(lambda: device.stream.attached)
        writer = device.in_background(pattern(300_000))
        until_still(device.stream.counters)
        # Memory is bounded. The kernel makes some room late, but not enough to go on.
        assert CAPACITY // 2 < len(device.stream._outbox) <= CAPACITY
        assert read_exactly(terminal, 300_000) == pattern(300_000)
        writer.join(DEADLINE_S)
    finally:
        os.close(terminal)


def test_close_waits_until_the_last_words_were_read(opened: Opener, tmp_path: Path) -> None:
    device = opened(f"pty:{tmp_path}/console")
    terminal = open_terminal(tmp_path / "console")
    try:
        until(lambda: device.stream.attached)
        device.write_all(b"last words")
        closer = threading.Thread(target=device.stream.close, kwargs={"timeout_s": DEADLINE_S})
        closer.start()
        until(lambda: not device.stream._outbox)
        assert closer.is_alive()
        assert read_exactly(terminal, 10) == b"last words"
        closer.join(DEADLINE_S)
        assert not closer.is_alive()
    finally:
        os.close(terminal)


def test_close_does_not_wait_for_a_reader_that_never_reads(opened: Opener, tmp_path: Path) -> None:
    device = opened(f"pty:{tmp_path}/console")
    terminal = open_terminal(tmp_path / "console")
    try:
        until(lambda: device.stream.attached)
        device.write_all(b"unread")
        device.stream.close(timeout_s=0.1)
        assert device.stream._closed.is_set()
    finally:
        os.close(terminal)


def test_the_link_leads_to_the_terminal_and_goes_with_it(opened: Opener, tmp_path: Path) -> None:
    link = tmp_path / "console"
    link.symlink_to("/dev/pts/999999")  # as an earlier daemon left it
    device = opened(f"pty:{link}")
    assert link.readlink().is_char_device()
    assert device.stream.address == str(link)
    device.stream.close()
    assert not os.path.lexists(link)
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_another_made_since_then_stays(opened: Opener, tmp_path: Path) -> None:
    link = tmp_path / "console"
    first = opened(f"pty:{link}")
    second = opened(f"pty:{link}")
    first.stream.close()
    assert link.readlink().is_char_device()
    second.stream.close()
    assert not os.path.lexists(link)


def test_a_file_in_the_place_of_the_link_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "console").write_text("precious")
    with pytest.raises(BadConfig, match="is no symbolic link"):
        open_stream(f"pty:{tmp_path}/console")
    assert (tmp_path / "console").read_text() == "precious"


def test_a_terminal_without_a_link_says_where_it_is(opened: Opener) -> None:
    with capture_logs() as events:
        device = opened("pty")
    assert events[0]["event"] == "chardev_opened"
    terminal = open_terminal(events[0]["address"])
    try:
        until(lambda: device.stream.attached)
    finally:
        os.close(terminal)


# Sockets.


def test_a_unix_socket_is_for_its_owner_only(opened: Opener, tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        opened(f"unix:{tmp_path}/s")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600


def test_a_client_talks_both_ways(opened: Opener, tmp_path: Path) -> None:
    device = opened(f"unix:{tmp_path}/s")
    with connect(tmp_path / "s") as client:
        device.write_all(b"login: ")
        assert receive_exactly(client, 7) == b"login: "
        client.sendall(b"root\r")
        assert device.read_exactly(5) == b"root\r"
        assert device.stream.counters().received == 5


def test_a_slow_client_gets_everything_in_order(opened: Opener, tmp_path: Path) -> None:
    device = opened(f"unix:{tmp_path}/s")
    with connect(tmp_path / "s") as client:
        until(lambda: device.stream.attached)
        writer = device.in_background(pattern(1 << 20))
        until_still(device.stream.counters)
        assert len(device.stream._outbox) == CAPACITY  # memory is bounded
        assert writer.is_alive()  # it waits for room
        assert receive_exactly(client, 1 << 20) == pattern(1 << 20)
        writer.join(DEADLINE_S)
    assert device.stream.counters().dropped == 0


def test_the_newest_64_kib_wait_for_the_next_client_and_the_rest_is_counted(
    opened: Opener, tmp_path: Path
) -> None:
    device = opened(f"unix:{tmp_path}/s", capacity=1 << 20)
    data = pattern(3 * BACKLOG_SIZE + 7)
    for at in range(0, len(data), 100):
        piece = data[at : at + 100]
        assert device.stream.write(piece) == len(piece)  # nobody makes the guest wait
    assert device.stream.counters().dropped == len(data) - BACKLOG_SIZE
    with connect(tmp_path / "s") as client:
        assert receive_exactly(client, BACKLOG_SIZE) == data[-BACKLOG_SIZE:]


def test_a_backlog_larger_than_the_buffer_goes_out_before_what_follows(
    opened: Opener, tmp_path: Path
) -> None:
    device = opened(f"unix:{tmp_path}/s", capacity=100)
    data = pattern(2 * BACKLOG_SIZE)
    device.write_all(data[:BACKLOG_SIZE])
    loop_is_busy = threading.Event()
    device.stream._on_news = loop_is_busy.wait  # type: ignore[assignment] # at the attachment
    with connect(tmp_path / "s") as client:
        until(lambda: device.stream.attached)
        assert device.stream.write(data[BACKLOG_SIZE:]) == 0
        device.stream._on_news = device._listen
        loop_is_busy.set()
        writer = device.in_background(data[BACKLOG_SIZE:])
        assert receive_exactly(client, len(data)) == data
        writer.join(DEADLINE_S)


def test_a_client_that_leaves_frees_a_device_that_waits_for_it(
    opened: Opener, tmp_path: Path
) -> None:
    device = opened(f"unix:{tmp_path}/s")
    client = connect(tmp_path / "s")
    until(lambda: device.stream.attached)
    writer = device.in_background(bytes(1 << 20))
    until_still(device.stream.counters)
    assert writer.is_alive()
    client.close()
    writer.join(DEADLINE_S)
    assert not writer.is_alive()
    assert not device.stream.attached


def test_a_second_client_is_told_that_there_is_one(opened: Opener, tmp_path: Path) -> None:
    device = opened(f"unix:{tmp_path}/s")
    with connect(tmp_path / "s") as first, connect(tmp_path / "s") as second:
        assert receive_exactly(second, len(REFUSAL)) == REFUSAL
        assert second.recv(1) == b""
        device.write_all(b"still here")
        assert receive_exactly(first, 10) == b"still here"


def test_the_next_client_is_let_in_when_the_first_has_left(opened: Opener, tmp_path: Path) -> None:
    device = opened(f"unix:{tmp_path}/s")
    for turn in (b"one", b"two", b"three"):
        with connect(tmp_path / "s") as client:  # right after the one before was closed
            client.sendall(turn)
            assert device.read_exactly(len(turn)) == turn
            device.write_all(turn)
            assert receive_exactly(client, len(turn)) == turn
    until(lambda: not device.stream.attached)
    assert [now for now, before in zip(device.attached, [False, *device.attached], strict=False)
            if now is not before] == [True, False] * 3  # fmt: skip


def test_input_is_read_only_as_the_device_takes_it(opened: Opener, tmp_path: Path) -> None:
    device = opened(f"unix:{tmp_path}/s")
    data = pattern(1 << 20)
    with connect(tmp_path / "s") as client:
        sender = threading.Thread(target=client.sendall, args=(data,))
        sender.start()
        until(lambda: device.stream.pending == INBOX_SIZE)
        got = bytearray()
        while len(got) < len(data):
            got += device.read_exactly(min(16, len(data) - len(got)))
            assert device.stream.pending <= INBOX_SIZE
        sender.join(DEADLINE_S)
    assert got == data


def test_what_a_client_wrote_before_it_left_still_arrives(opened: Opener, tmp_path: Path) -> None:
    device = opened(f"unix:{tmp_path}/s")
    data = pattern(5 * INBOX_SIZE)
    with connect(tmp_path / "s") as client:
        until(lambda: device.stream.attached)
        client.sendall(data)
    device.write_all(b"?")  # which can't be sent any more
    until(lambda: not device.stream.attached)
    assert device.read_exactly(len(data)) == data


def test_a_client_that_left_unread_input_does_not_keep_the_next_one_out(
    opened: Opener, tmp_path: Path
) -> None:
    device = opened(f"unix:{tmp_path}/s")
    with connect(tmp_path / "s") as client:
        client.sendall(bytes(5 * INBOX_SIZE))
        until(lambda: device.stream.pending == INBOX_SIZE)
    with connect(tmp_path / "s") as client:
        device.write_all(b"welcome")
        assert receive_exactly(client, 7) == b"welcome"


def test_a_socket_that_a_dead_daemon_left_is_replaced(opened: Opener, tmp_path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "s"))
    dead.close()
    device = opened(f"unix:{tmp_path}/s")
    with connect(tmp_path / "s"):
        until(lambda: device.stream.attached)


def test_a_socket_that_somebody_listens_at_is_left_alone_and_nobody_notices(
    opened: Opener, tmp_path: Path
) -> None:
    device = opened(f"unix:{tmp_path}/s")
    device.write_all(b"for the client that comes")
    with pytest.raises(BadConfig, match="somebody listens there already"):
        open_stream(f"unix:{tmp_path}/s")
    with connect(tmp_path / "s") as client:
        assert receive_exactly(client, 25) == b"for the client that comes"
        assert device.attached == [True]


def test_a_file_in_the_place_of_the_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(BadConfig, match="a file is there that is no socket"):
        open_stream(f"unix:{tmp_path}/s")
    assert (tmp_path / "s").read_text() == "precious"


def test_close_removes_its_socket_and_no_other(opened: Opener, tmp_path: Path) -> None:
    opened(f"unix:{tmp_path}/mine").stream.close()
    assert not (tmp_path / "mine").exists()
    device = opened(f"unix:{tmp_path}/s")
    (tmp_path / "s").unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "s"))
        device.stream.close()
        assert (tmp_path / "s").is_socket()


def test_close_sends_what_a_client_still_takes(opened: Opener, tmp_path: Path) -> None:
    device = opened(f"unix:{tmp_path}/s", capacity=1 << 20)
    with connect(tmp_path / "s") as client:
        until(lambda: device.stream.attached)
        assert device.stream.write(pattern(1 << 20)) == 1 << 20
        closer = threading.Thread(target=device.stream.close, kwargs={"timeout_s": DEADLINE_S})
        closer.start()
        assert receive_exactly(client, 1 << 20) == pattern(1 << 20)
        assert client.recv(1) == b""
        closer.join(DEADLINE_S)
    assert device.stream.counters().dropped == 0


def test_no_accept_is_tried_again_and_again_while_descriptors_are_short(
    opened: Opener, tmp_path: Path
) -> None:
    device = opened(f"unix:{tmp_path}/s")
    client = socket.socket(socket.AF_UNIX)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with capture_logs() as events, client:
        highest = max(open_descriptors())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
        spare = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    spare.append(os.dup(0))
            client.connect(str(tmp_path / "s"))
            until(lambda: any(event["event"] == "chardev_accept_failed" for event in events))
        finally:
            for fd in spare:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        until(lambda: device.stream.attached)
    assert sum(event["event"] == "chardev_accept_failed" for event in events) == 1


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_a_tcp_client_talks_both_ways(opened: Opener, host: str) -> None:
    try:
        device = opened(f"tcp:{host}:0")
    except BadConfig as error:
        pytest.skip(f"this machine has no such address: {error}")
    port = int(device.stream.address.rpartition(":")[2])
    with socket.create_connection((host.strip("[]"), port), timeout=DEADLINE_S) as client:
        client.sendall(b"ping")
        assert device.read_exactly(4) == b"ping"
        device.write_all(b"pong")
        assert receive_exactly(client, 4) == b"pong"
    until(lambda: not device.stream.attached)


# Standard streams, in a process of their own.

STDIO_PROGRAM = """
import sys, threading
from devicehost_server.devices.chardev import open_stream
streams = [open_stream("stdio", capacity=4096) for _ in range(int(sys.argv[1]))]
sys.stderr.write(" ".join(stream.address for stream in streams) + "\\n")
sys.stderr.flush()
first = streams[0]
news = threading.Event()
for stream in streams:
    stream.start(news.set)
wanted = int(sys.argv[2])
got = 0
while got < wanted:
    news.clear()
    data = first.read(wanted - got)
    got += len(data)
    while data:
        news.clear()
        data = data[first.write(data):]
        if data:
            news.wait()
    if got < wanted and not first.pending:
        news.wait()
for stream in streams[1:]:
    stream.write(b"+")
for stream in reversed(streams):
    stream.close(timeout_s=10)
"""


@pytest.fixture(name="stdio_program")
def stdio_program_fixture(tmp_path: Path) -> list[str]:
    """A program that echoes argv[2] bytes by the first of argv[1] streams on stdio."""
    (tmp_path / "program.py").write_text(
        "import structlog, sys\n"
        "structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))\n"
        + STDIO_PROGRAM
    )
    return [sys.executable, str(tmp_path / "program.py")]


def test_stdio_on_pipes_carries_everything_at_the_readers_pace(stdio_program: list[str]) -> None:
    data = pattern(500_000)
    with subprocess.Popen(
        [*stdio_program, "1", str(len(data))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as program:
        assert program.communicate(data, timeout=DEADLINE_S)[0] == data
    assert program.returncode == 0


def test_stdio_on_files_carries_everything(stdio_program: list[str], tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(pattern(100_000))
    with (tmp_path / "in").open() as source, (tmp_path / "out").open("w") as sink:
        subprocess.run(
            [*stdio_program, "1", "100000"],
            stdin=source,
            stdout=sink,
            stderr=subprocess.DEVNULL,
            timeout=DEADLINE_S,
            check=True,
        )
    assert (tmp_path / "out").read_bytes() == pattern(100_000)


def run_program(directory: Path, code: str, **streams: Any) -> subprocess.CompletedProcess[bytes]:
    """Run `code`, which finds a stream on stdio with a buffer of 4 KiB opened and started."""
    program = directory / "program.py"
    program.write_text(
        "import resource, sys, threading, time, structlog\n"
        "structlog.configure(logger_factory=structlog.ReturnLoggerFactory())\n"
        "from devicehost_server.devices.chardev import open_stream\n"
        "stream = open_stream('stdio', capacity=4096)\n"
        "news = threading.Event()\n"
        "stream.start(news.set)\n" + textwrap.dedent(code)
    )
    streams = {"stdin": subprocess.DEVNULL, **streams}
    return subprocess.run([sys.executable, str(program)], **streams, timeout=DEADLINE_S, check=True)


def test_the_input_is_free_again_when_its_stream_is_closed(tmp_path: Path) -> None:
    code = """
        second = open_stream("stdio")
        stream.close()
        third = open_stream("stdio")
        print(second.address, third.address)
    """
    reader, writer = os.pipe()
    try:
        program = run_program(tmp_path, code, stdin=reader, stdout=subprocess.PIPE)
        assert program.stdout == b"stdout stdio\n"
    finally:
        os.close(reader)
        os.close(writer)


def test_standard_output_to_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    code = """
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4, before[1]))
        stream.write(b"nothing is lost")
        while not stream._failing:
            time.sleep(0.001)
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        stream.close()
    """
    with (tmp_path / "out").open("w") as sink:
        run_program(tmp_path, code, stdout=sink)
    assert (tmp_path / "out").read_bytes() == b"nothing is lost"


WRITE_MUCH_SLOWLY_READ = """
    data = bytes(range(256)) * 2000
    while data:
        news.clear()
        data = data[stream.write(data):]
        if data:
            news.wait()
    stream.close(timeout_s=10)
"""


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_slow_reader_of_standard_output_gets_everything(tmp_path: Path, kind: str) -> None:
    ours, theirs = os.pipe() if kind == "pipe" else map(socket.socket.detach, socket.socketpair())
    got = bytearray()

    def unread_size() -> int:
        return int(struct.unpack("i", fcntl.ioctl(ours, termios.FIONREAD, bytes(4)))[0])

    def read_slowly() -> None:
        until(unread_size)
        until_still(unread_size)  # the writer waits
        while piece := os.read(ours, 1000):
            got.extend(piece)

    reader = threading.Thread(target=read_slowly)
    reader.start()
    run_program(tmp_path, WRITE_MUCH_SLOWLY_READ, stdout=theirs)
    os.close(theirs)
    reader.join(DEADLINE_S)
    os.close(ours)
    assert got == bytes(range(256)) * 2000


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_reader_of_standard_output_that_never_reads_blocks_nothing(
    tmp_path: Path, kind: str
) -> None:
    ours, theirs = os.pipe() if kind == "pipe" else map(socket.socket.detach, socket.socketpair())
    code = """
        sent = -1
        while stream.counters().sent != sent:
            sent = stream.counters().sent
            stream.write(bytes(4096))
            time.sleep(0.05)
        stream.close(timeout_s=0.1)
        sys.exit(not stream._closed.is_set())
    """
    try:
        run_program(tmp_path, code, stdout=theirs)
    finally:
        os.close(ours)
        os.close(theirs)


def test_standard_input_that_the_device_does_not_take_costs_no_time(tmp_path: Path) -> None:
    code = """
        while stream.pending < 4096:
            time.sleep(0.001)
        clock = time.pthread_getcpuclockid(
            next(t.ident for t in threading.enumerate() if t.name == "chardev")
        )
        while True:
            before = time.clock_gettime_ns(clock)
            time.sleep(0.2)
            if time.clock_gettime_ns(clock) == before:
                break
        stream.close()
    """
    reader, writer = os.pipe()
    try:
        os.write(writer, bytes(60_000))
        run_program(tmp_path, code, stdin=reader, stdout=subprocess.DEVNULL)
    finally:
        os.close(reader)
        os.close(writer)


def test_streams_share_standard_output_and_the_first_has_the_input(
    stdio_program: list[str],
) -> None:
    program = subprocess.run(
        [*stdio_program, "3", "5"],
        input=b"hello",
        capture_output=True,
        timeout=DEADLINE_S,
        check=True,
    )
    assert sorted(program.stdout) == sorted(b"hello++")
    assert program.stderr.splitlines()[0] == b"stdio stdout stdout"


def test_standard_streams_stay_blocking_for_those_who_share_them(
    stdio_program: list[str],
) -> None:
    reader, writer = os.pipe()
    try:
        subprocess.run(
            [*stdio_program, "1", "0"],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=subprocess.DEVNULL,
            timeout=DEADLINE_S,
            check=True,
        )
        assert os.get_blocking(writer)
    finally:
        os.close(reader)
        os.close(writer)


def test_stdio_on_a_terminal_passes_single_characters_and_restores_the_mode(
    stdio_program: list[str],
) -> None:
    master, terminal = os.openpty()
    try:
        before = termios.tcgetattr(terminal)
        with subprocess.Popen(
            [*stdio_program, "1", "3"],
            stdin=terminal,
            stdout=terminal,
            stderr=subprocess.PIPE,
        ) as program:
            assert program.stderr is not None
            assert program.stderr.readline() == b"stdio\n"  # the mode is set
            assert not termios.tcgetattr(terminal)[3] & (termios.ICANON | termios.ECHO)
            os.write(master, b"a")
            assert read_exactly(master, 1) == b"a"  # without waiting for the end of a line
            os.write(master, b"\rb")
            assert read_exactly(master, 2) == b"\rb"
            assert program.wait(DEADLINE_S) == 0
        assert termios.tcgetattr(terminal) == before
    finally:
        os.close(master)
        os.close(terminal)


def test_a_lost_reader_of_standard_output_does_not_stop_anything(
    stdio_program: list[str],
) -> None:
    with subprocess.Popen(
        [*stdio_program, "1", "100000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as program:
        assert program.stdout is not None
        program.stdout.close()
        _, errors = program.communicate(bytes(100_000), timeout=DEADLINE_S)
    assert program.returncode == 0
    assert errors.count(b"chardev_sink_lost") == 1


# The life of a stream.


@pytest.mark.parametrize("kind", ["null", "file:{}/f", "pty:{}/p", "unix:{}/u", "tcp:[::1]:0"])
@pytest.mark.parametrize("started", [False, True])
def test_a_closed_stream_leaves_no_descriptor_and_no_thread(
    tmp_path: Path, kind: str, *, started: bool
) -> None:
    before = open_descriptors()
    stream = open_stream(kind.format(tmp_path))
    if started:
        stream.start(lambda: None)
        stream.write(b"x")
    stream.close()
    stream.close()  # a second time is no harm
    until(lambda: open_descriptors() == before, "all descriptors being closed")
    until(lambda: not loop_runs())


def test_no_descriptor_is_inherited_by_programs_that_are_started(
    opened: Opener, tmp_path: Path
) -> None:
    before = open_descriptors()
    opened(f"pty:{tmp_path}/p")
    opened(f"file:{tmp_path}/f")
    device = opened(f"unix:{tmp_path}/u")
    with connect(tmp_path / "u") as client:
        until(lambda: device.stream.attached)
        for fd in open_descriptors() - before - {client.fileno()}:
            with contextlib.suppress(OSError):  # that of the listing
                assert not os.get_inheritable(fd)


def test_a_failed_open_leaves_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    before = open_descriptors()
    for spec in ("file:{}", "pty:{}/there", "unix:{}/there", "unix:{}/missing/s"):
        with pytest.raises(BadConfig):
            open_stream(spec.format(tmp_path))
    assert open_descriptors() == before


def test_a_listener_that_raises_does_not_stop_its_stream_nor_another(
    opened: Opener, tmp_path: Path
) -> None:
    def broken() -> None:
        raise RuntimeError("a bug of the device")

    stream = open_stream(f"unix:{tmp_path}/broken")
    try:
        with capture_logs() as events:
            stream.start(broken)
            other = opened(f"unix:{tmp_path}/fine")
            with connect(tmp_path / "broken") as client, connect(tmp_path / "fine") as peer:
                stream.write(b"on")
                assert receive_exactly(client, 2) == b"on"
                other.write_all(b"and on")
                assert receive_exactly(peer, 6) == b"and on"
        assert any(event["event"] == "chardev_listener_failed" for event in events)
    finally:
        stream.close()


class Broken:
    """A member of the loop with a bug."""

    due: float | None = None

    def __init__(self, *, finishes: bool) -> None:
        self.finishes = finishes
        self.finished = threading.Event()

    def pump(self) -> None:
        raise RuntimeError("a bug of the stream")

    def finish(self) -> None:
        self.finished.set()
        if not self.finishes:
            raise RuntimeError("another one")
        LOOP.remove(self)


@pytest.mark.parametrize("finishes", [True, False])
def test_a_stream_with_a_bug_is_ended_and_another_goes_on(
    opened: Opener, tmp_path: Path, *, finishes: bool
) -> None:
    device = opened(f"file:{tmp_path}/log")
    broken = Broken(finishes=finishes)
    LOOP.add(broken)
    assert broken.finished.wait(DEADLINE_S)
    device.write_all(b"and on")
    until(lambda: (tmp_path / "log").read_bytes() == b"and on")


def test_a_write_after_close_is_no_error(opened: Opener, tmp_path: Path) -> None:
    device = opened(f"file:{tmp_path}/log")
    device.stream.close()
    device.stream.write(b"too late")
    assert (tmp_path / "log").read_bytes() == b""


def loop_effort() -> list[str]:
    """How often the loop's thread went to sleep, and how much time it has used."""
    loop = next(thread for thread in threading.enumerate() if thread.name == "chardev")
    task = Path(f"/proc/self/task/{loop.native_id}")
    lines = (task / "status").read_text().splitlines()
    sleeps = next(line for line in lines if line.startswith("voluntary"))
    return [sleeps, *(task / "stat").read_text().rpartition(")")[2].split()[11:13]]


def test_a_client_that_says_nothing_costs_no_time(opened: Opener, tmp_path: Path) -> None:
    device = opened(f"unix:{tmp_path}/s")
    with connect(tmp_path / "s") as client:
        device.write_all(b"x")
        assert receive_exactly(client, 1) == b"x"
        until_still(loop_effort)


def test_input_that_the_device_does_not_take_costs_no_time(opened: Opener, tmp_path: Path) -> None:
    device = opened(f"unix:{tmp_path}/s")
    with connect(tmp_path / "s") as client:
        client.sendall(bytes(5 * INBOX_SIZE))
        until(lambda: device.stream.pending == INBOX_SIZE)
        until_still(loop_effort)


def test_keystrokes_that_the_device_does_not_take_cost_no_time(
    opened: Opener, tmp_path: Path
) -> None:
    device = opened(f"pty:{tmp_path}/console")
    terminal = open_terminal(tmp_path / "console")
    os.set_blocking(terminal, False)
    try:
        until(lambda: device.stream.attached)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(terminal, bytes(1000))
        until(lambda: device.stream.pending == INBOX_SIZE)
        until_still(loop_effort)
    finally:
        os.close(terminal)
