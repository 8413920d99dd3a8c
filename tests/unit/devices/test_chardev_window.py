"""A device that follows the size of its terminal is told when that changes."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import termios
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from daemonlab import wait_until
from devicehost_server.devices.chardev import open_stream


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep the log quiet."""
    with capture_logs():
        yield


@pytest.fixture
def link(tmp_path: Path) -> Path:
    return tmp_path / "terminal"


def resize(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def test_a_terminals_size_is_told_and_each_change_of_it(link: Path) -> None:
    stream = open_stream(f"pty:{link}")
    stream.follow_window()
    sizes: list[os.terminal_size | None] = []
    stream.start(lambda: sizes.append(stream.window_size))
    terminal = os.open(link, os.O_RDWR | os.O_NOCTTY)
    try:
        resize(terminal, 120, 40)
        wait_until(lambda: (120, 40) in sizes)
        resize(terminal, 200, 50)
        wait_until(lambda: sizes[-1] == (200, 50))
        assert stream.window_size == (200, 50)
    finally:
        os.close(terminal)
        stream.close()


def test_a_size_is_seen_at_once_when_something_is_typed(link: Path) -> None:
    stream = open_stream(f"pty:{link}")
    stream.follow_window()
    heard = threading.Event()
    stream.start(heard.set)
    terminal = os.open(link, os.O_RDWR | os.O_NOCTTY)
    try:
        wait_until(lambda: stream.attached)
        resize(terminal, 99, 33)
        os.write(terminal, b"x")
        wait_until(lambda: stream.pending)
        assert stream.window_size == (99, 33)
    finally:
        os.close(terminal)
        stream.close()


def test_a_terminal_without_a_size_tells_none(link: Path) -> None:
    stream = open_stream(f"pty:{link}")
    stream.follow_window()
    stream.start(lambda: None)
    terminal = os.open(link, os.O_RDWR | os.O_NOCTTY)
    try:
        os.write(terminal, b"x")
        wait_until(lambda: stream.pending)
        assert stream.window_size is None
    finally:
        os.close(terminal)
        stream.close()


@pytest.mark.parametrize("follows", [True, False])
def test_only_who_follows_a_size_has_it_looked_at(link: Path, *, follows: bool) -> None:
    stream = open_stream(f"pty:{link}")
    if follows:
        stream.follow_window()
    stream.start(lambda: None)
    terminal = os.open(link, os.O_RDWR | os.O_NOCTTY)
    try:
        resize(terminal, 99, 33)
        wait_until(lambda: stream.attached)
        os.write(terminal, b"x")
        wait_until(lambda: stream.pending)
        wait_until(lambda: (stream.due is not None) == follows)
        assert (stream.window_size == (99, 33)) == follows
    finally:
        os.close(terminal)
        stream.close()


def test_the_size_of_the_standard_output_is_told_if_that_is_a_terminal() -> None:
    program = """
        import sys, threading
        from devicehost_server.devices.chardev import open_stream
        stream = open_stream("stdio")
        stream.follow_window()
        resized = threading.Event()
        def hear():
            if stream.window_size == (77, 22):
                resized.set()
        stream.start(hear)
        stream.write(b"ready\\r\\n")
        assert resized.wait(20)
        stream.close()
        """
    master, terminal = os.openpty()
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)],
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=subprocess.DEVNULL,
        )
        assert os.read(master, 1)
        resize(terminal, 77, 22)
        assert child.wait(30) == 0
    finally:
        os.close(terminal)
        os.close(master)
