"""The local socket of a server: where it is, who may connect, and one client at a time."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from errno import EACCES, EBUSY
from pathlib import Path

import pytest

from buslab import (
    Client,
    client_threads,
    error_of,
    local_socket,
    plug,
)
from daemonlab import WAIT_S, Lab, daemon, run_daemon, serving, wait_until
from devicehost.bus_regions import (
    INSTANCE_ID,
    LIMITS,
    REGION_MMIO,
    REGION_STATUS,
)
from devicehost.vfio_user import (
    ClientSession,
    RegionWrite,
)
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.endpoints.turned_away import AT_ONCE, TIME_S
from devicehost_server.server import DeviceServer, ServerConfig
from devicehost_server.unix_socket import UnixListener
from testdevices import TEST_DEVICES

BASE = 0xD000_0000
SCRATCH = ("--device", f"scratch,id=s,base={BASE:#x}")
NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")


# Where it is.


def test_it_is_beside_the_socket_of_the_api(tmp_path: Path) -> None:
    with daemon(tmp_path, *SCRATCH) as running:
        path = local_socket(running.socket)
        server = running.host(transport="grpc-stream").server()
        assert server.local_socket == str(path)
        assert "local-socket" in server.features
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        lock = path.with_name(f"{path.name}.lock")
        assert lock.read_text() == f"{running.process.pid}\n"
        with Client(path) as client:
            found = client.read(INSTANCE_ID, 16, REGION_STATUS)
            assert str(uuid.UUID(bytes=found)) == server.instance_id
            client.write(BASE, b"abcd")
            assert client.read(BASE) == b"abcd"
        assert running.event("ready")["local_socket"] == str(path)
    assert not path.exists()
    assert not lock.exists()


def test_it_is_where_it_was_asked_for_and_belongs_to_whom_it_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "else.sock"
    flags = ("--local-socket", str(path), "--socket-mode", "0660")
    with daemon(tmp_path, *flags, *SCRATCH) as running:
        assert running.host(transport="grpc-stream").server().local_socket == str(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert not local_socket(running.socket).exists()


def test_there_is_none_if_nobody_wants_it(tmp_path: Path) -> None:
    with daemon(tmp_path, "--local-socket", "none") as running:
        assert running.host(transport="grpc-stream").server().local_socket == ""
        assert not local_socket(running.socket).exists()


def test_a_relative_path_is_told_as_an_absolute_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with serving(tmp_path, local=UnixListener(Path("local.sock"))) as local_lab:
        assert local_lab.host(transport="grpc-stream").server().local_socket == str(
            tmp_path / "local.sock"
        )


def test_two_servers_do_not_share_one(tmp_path: Path) -> None:
    path = tmp_path / "local.sock"
    with daemon(tmp_path, "--local-socket", str(path)):
        other = tmp_path / "other"
        other.mkdir()
        ended = run_daemon("--socket-path", other / "a", "--local-socket", path)
        assert ended.returncode == 1
        assert f"socket {path} is in use by another devicehostd" in ended.stderr
        assert list(other.iterdir()) == []
        Client(path).close()


def test_a_client_that_comes_before_the_server_starts_waits(tmp_path: Path) -> None:
    config = ServerConfig(local=UnixListener(tmp_path / "local.sock"))
    server = DeviceServer(config, DeviceTypes(TEST_DEVICES))
    server.listen()
    early = socket.socket(socket.AF_UNIX)
    early.settimeout(WAIT_S)
    early.connect(str(tmp_path / "local.sock"))
    session = ClientSession(LIMITS)
    early.sendall(session.propose().data)
    assert not select.select([early], [], [], 0.05)[0]
    server.start()
    assert session.receive_data(early.recv(4096))[0].agreement.minor == 9  # type: ignore[union-attr] # Negotiated
    early.close()
    server.stop()
    assert list(tmp_path.iterdir()) == []


# Who may connect.

AS_SOMEBODY = """
import json, os, sys
from buslab import Client
path, uid, gid, *groups = sys.argv[1:]
os.setgroups([int(group) for group in groups])
os.setgid(int(gid))
os.setuid(int(uid))
client = Client(path)
print(json.dumps(str(getattr(client.opened, "fault", ""))))
"""


def told_to(uid: int, gid: int, path: Path, *groups: int) -> str:
    """What somebody else is told who connects; empty for a welcome."""
    # It becomes somebody else by itself: the interpreter may be out of that one's reach.
    who = [str(number) for number in (uid, gid, *groups)]
    command = [sys.executable, "-c", AS_SOMEBODY, str(path), *who]
    tests = str(Path(__file__).parents[1])
    ran = subprocess.run(
        command,
        capture_output=True,
        check=True,
        timeout=WAIT_S,
        env={**os.environ, "PYTHONPATH": tests},
    )
    return str(json.loads(ran.stdout))


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that everybody can reach."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@as_root
def test_a_peer_that_is_not_allowed_is_refused_whatever_the_mode(open_directory: Path) -> None:
    with daemon(open_directory, "--socket-mode", "0666") as running:
        path = local_socket(running.socket)
        assert f"error {EACCES}" in told_to(NOBODY, NOBODY, path)
        assert told_to(0, 0, path) == ""
        assert told_to(0, NOBODY, path) == ""
        wait_until(lambda: "client_refused" in running.log.read_text())
        refused = running.event("client_refused")
        assert (refused["reason"], refused["uid"], refused["gid"]) == (
            "PEER_DENIED",
            NOBODY,
            NOBODY,
        )
        assert refused["pid"] > 0
        assert refused["level"] == "warning"


@as_root
def test_the_group_of_the_socket_may_connect_first_or_further_group(open_directory: Path) -> None:
    group = Path("/etc/group").read_text().splitlines()[5].split(":")
    name, gid = group[0], int(group[2])
    flags = ("--socket-mode", "0660", "--socket-group", name)
    with daemon(open_directory, *flags) as running:
        path = local_socket(running.socket)
        assert told_to(NOBODY, gid, path) == ""
        assert told_to(NOBODY, NOBODY, path, 12345, gid) == ""
        path.chmod(0o666)
        assert f"error {EACCES}" in told_to(NOBODY, NOBODY, path, 12345)


# One client at a time.


def test_a_second_client_is_told_that_there_is_one(local_lab: Lab, local: Path) -> None:
    base, _ = plug(local_lab, "register")
    with Client(local) as first:
        assert f"error {EBUSY}" in error_of(Client(local))
        assert first.read(base) == bytes(4)
    with Client(local) as next_one:
        assert next_one.read(base) == bytes(4)


@pytest.mark.parametrize("words", [b"", b"\0", b"GET / HTTP/1.1\r\n\r\n" * 99], ids=len)
def test_a_client_that_is_turned_away_costs_no_thread_for_long(
    local_lab: Lab, local: Path, words: bytes
) -> None:
    base, _ = plug(local_lab, "register")
    with Client(local) as first:
        others = []
        for _ in range(3 * AT_ONCE):
            other = socket.socket(socket.AF_UNIX)
            other.settimeout(WAIT_S)
            other.connect(str(local))
            with suppress(BrokenPipeError):  # there were too many already
                other.sendall(words)
            others.append(other)
            assert client_threads().count("turned away") <= AT_ONCE
        assert first.read(base) == bytes(4)
        began = time.monotonic()
        for other in others:
            with suppress(ConnectionResetError):
                while other.recv(4096):
                    pass
            other.close()
        assert time.monotonic() - began < WAIT_S
        wait_until(lambda: "turned away" not in client_threads())
        assert time.monotonic() - began < 3 * TIME_S + 5
        assert first.read(base) == bytes(4)


def test_the_next_client_is_never_refused_for_the_last_ones_sake(
    local_lab: Lab, local: Path
) -> None:
    base, _ = plug(local_lab, "register")
    for number in range(50):
        with Client(local) as client:
            client.write(base, bytes([number]))
            assert client.read(base, 1) == bytes([number])


def test_posted_writes_of_a_client_that_went_are_made(local_lab: Lab, local: Path) -> None:
    base, device = plug(local_lab, "register")
    with Client(local) as client:
        for number in range(100):
            client.send(RegionWrite(REGION_MMIO, base, bytes([number])), posted=True)
    with Client(local):
        assert device.written == [bytes([number]) for number in range(100)]
