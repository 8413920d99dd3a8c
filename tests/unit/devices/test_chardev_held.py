"""Output that is held moves on when it is let go of, all of it."""

from __future__ import annotations

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


def test_what_is_written_while_held_moves_on_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "output"
    stream = open_stream(f"file:{path}")
    stream.start(lambda: None)
    try:
        stream.write(b"before ")
        wait_until(lambda: stream.counters().sent == 7)
        with stream.held():
            for _ in range(3):
                assert stream.write(b"held ") == 5
            assert stream.counters().sent == 7
        wait_until(lambda: path.read_bytes() == b"before held held held ")
    finally:
        stream.close()


def test_holding_takes_no_more_than_there_is_room_for(tmp_path: Path) -> None:
    stream = open_stream(f"file:{tmp_path / 'output'}", capacity=10)
    stream.start(lambda: None)
    try:
        with stream.held():
            assert stream.write(b"x" * 8) == 8
            assert stream.write(b"y" * 8) == 2
        wait_until(lambda: stream.counters().sent == 10)
        assert stream.write(b"y" * 6) == 6
    finally:
        stream.close()
