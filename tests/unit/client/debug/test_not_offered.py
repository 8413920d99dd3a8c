"""A server without remote debugging."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from devicehost_client import ConnectionLost, RemoteError
from devicehost_client.debug import Debug


@pytest.fixture
def debug(tmp_path: Path) -> Iterator[Debug]:
    """Of a gRPC server that has no services at all."""
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_insecure_port(f"unix:{tmp_path / 's'}")
    server.start()
    with grpc.insecure_channel(f"unix:{tmp_path / 's'}") as channel:
        yield Debug(channel)
    server.stop(None).wait()


CALLS: dict[str, Callable[[Debug], object]] = {
    "call": lambda debug: debug.breakpoints(),
    "trace": lambda debug: debug.trace(),
    "record": lambda debug: debug.record(),
    "hits": lambda debug: debug.hits(),
    "flight": lambda debug: debug.flight_recording(),
    "activity": lambda debug: next(debug.activity()),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_server_that_offers_no_debugging_is_told_in_words(debug: Debug, name: str) -> None:
    with pytest.raises(RemoteError, match="the server offers no remote debugging") as caught:
        CALLS[name](debug)
    assert caught.value.reason == "NOT_OFFERED"
    assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("name", CALLS)
def test_a_server_that_is_not_there_is_a_lost_connection(tmp_path: Path, name: str) -> None:
    nowhere = f"unix:{tmp_path / 'none'}"
    with grpc.insecure_channel(nowhere) as channel, pytest.raises(ConnectionLost):
        CALLS[name](Debug(channel))


def test_a_recording_that_is_refused_leaves_no_file(debug: Debug, tmp_path: Path) -> None:
    with pytest.raises(RemoteError):
        debug.record_to(tmp_path / "a.rec")
    assert not (tmp_path / "a.rec").exists()
