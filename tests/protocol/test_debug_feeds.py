"""Feeds of the client's: how they end, whoever ends them, and what they leave behind."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctllab import COM1, SCR
from daemonlab import daemon, wait_until
from devicehost.recording import Recording
from devicehost_client import DeviceHost


@pytest.fixture
def host(tmp_path: Path) -> Iterator[DeviceHost]:
    """A client of a server in another process: all threads here are the client's."""
    with daemon(tmp_path, "--device", COM1) as running:
        yield running.host()


def are_none(host: DeviceHost) -> bool:
    """Whether the server feeds nobody."""
    return not host.debug.inspect("debug/feeds").nodes


def open_trace(host: DeviceHost) -> Any:
    return host.debug.trace()


def open_recording(host: DeviceHost) -> Any:
    return host.debug.record()


FEEDS = pytest.mark.parametrize("begin", [open_trace, open_recording])


@FEEDS
def test_a_feed_that_is_closed_has_no_next_even_if_something_came_before(
    host: DeviceHost, begin: Callable[[DeviceHost], Any]
) -> None:
    feed = begin(host)
    for value in range(100):
        host.vcpu(0).pio_write(SCR, 1, value)
    next(feed)
    feed.close()
    assert list(feed) == []
    wait_until(lambda: are_none(host))


@FEEDS
def test_a_feed_that_is_dropped_ends_on_the_server_and_leaves_no_thread(
    host: DeviceHost, begin: Callable[[DeviceHost], Any]
) -> None:
    begin(host).close()  # what the channel needs for good is there now
    wait_until(lambda: are_none(host))
    threads = threading.active_count()
    feed = begin(host)
    assert not are_none(host)
    del feed
    gc.collect()
    wait_until(lambda: are_none(host))
    wait_until(lambda: threading.active_count() <= threads)


def test_a_recording_can_be_written_into_a_pipe(host: DeviceHost, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    with host.debug.record_to(pipe):
        host.vcpu(0).pio_write(SCR, 1, 7)
    reader.join()
    copy = tmp_path / "copy.rec"
    copy.write_bytes(read[0])
    recording = Recording.open(copy)
    assert list(recording)
    assert recording.is_complete, recording.damage
