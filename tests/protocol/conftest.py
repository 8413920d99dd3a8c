"""A server for tests of its local socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemonlab import Lab, serving
from devicehost_server.unix_socket import UnixListener


@pytest.fixture(params=[0, 0.01], ids=["sleeps", "spins"])
def local_lab(local: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A server with a local socket, which looks for the next message, or doesn't."""
    with serving(local.parent, local=UnixListener(local), spin_s=request.param) as running:
        yield running


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """Where that socket is."""
    return tmp_path / "local.sock"
