"""Endpoints: what is one, what isn't, and what they say of TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from devicehost_client import Tls
from devicehost_client.endpoint import open_channel

NOWHERE = Path("/nowhere")
TLS = Tls(NOWHERE / "ca.pem", NOWHERE / "cert.pem", NOWHERE / "key.pem")


@pytest.mark.parametrize(
    "endpoint",
    [
        "unix:/run/vm1/devices.sock",
        "unix:relative.sock",
        "/run/vm1/devices.sock",
        "/run/a:b.sock",
        "tcp:localhost:7700",
        "tcp:[::1]:7700",
    ],
)
def test_an_endpoint_is_a_path_or_an_address(endpoint: str) -> None:
    open_channel(endpoint).close()  # it connects only when it is used


@pytest.mark.parametrize(
    "endpoint", ["", "unix:", "tcp:", "relative.sock", "http://x", "unix", "localhost:7700"]
)
def test_what_is_no_endpoint_is_refused_by_name(endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"is not allowed; allowed: unix:PATH, tcp:HOST:PORT"):
        open_channel(endpoint)


def test_a_unix_socket_has_no_tls() -> None:
    with pytest.raises(ValueError, match="a Unix socket has no TLS"):
        open_channel("unix:/run/x.sock", TLS)


def test_a_file_that_is_not_there_is_said_so_at_once() -> None:
    with pytest.raises(FileNotFoundError, match=r"ca\.pem"):
        open_channel("tcp:localhost:1", TLS)
