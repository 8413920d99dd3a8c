"""The Unix socket: whose it is, who may connect, and one server at a time."""

from __future__ import annotations

import grp
import os
import socket
import stat
import subprocess
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from daemonlab import (
    DEVICEHOSTD,
    WAIT_S,
    daemon,
    environment,
    run_daemon,
    wait_until,
)
from devicehost_client import ConnectionLost, connect
from devicehost_server.unix_socket import UNIX_PATH_MAX


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Who may connect.


def test_nobody_else_may_connect_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "host.sock"
    modes: set[int] = set()
    started = threading.Event()

    def look() -> None:
        while not started.is_set():
            with suppress(FileNotFoundError):
                modes.add(mode_of(path))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        with daemon(tmp_path, umask=0):
            started.set()
            looking.join()
            modes.add(mode_of(path))
    finally:
        started.set()
    assert modes == {0o600}


def test_the_mode_and_the_group_are_those_that_were_asked_for(tmp_path: Path) -> None:
    others = [group for group in grp.getgrall() if group.gr_gid != os.getgid()]
    group = others[0] if os.geteuid() == 0 else grp.getgrgid(os.getgroups()[-1])
    with daemon(tmp_path, "--socket-mode", "0660", "--socket-group", group.gr_name) as running:
        assert mode_of(running.socket) == 0o660
        assert running.socket.stat().st_gid == group.gr_gid
        running.host()


def test_a_group_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "host.sock"
    ended = run_daemon("--socket-path", path, "--socket-group", "no-such-group")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "devicehostd: there is no group 'no-such-group'" in ended.stderr
    assert list(tmp_path.iterdir()) == []


# One server at a time.


def test_the_lock_file_names_the_process(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        lock = running.socket.with_name("host.sock.lock")
        assert lock.read_text() == f"{running.process.pid}\n"
        assert mode_of(lock) == 0o600
    assert not lock.exists()
    assert not running.socket.exists()


def test_a_second_server_on_the_same_path_is_refused(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        ended = run_daemon("--socket-path", running.socket)
        assert ended.returncode == 1
        path, pid = running.socket, running.process.pid
        message = f"devicehostd: socket {path} is in use by another devicehostd (pid {pid})"
        assert message in ended.stderr
        # The first one doesn't notice.
        assert running.host().server().pid == pid
        assert running.socket.exists()
        assert running.socket.with_name("host.sock.lock").exists()


def test_a_socket_left_over_from_a_server_that_died_is_replaced(tmp_path: Path) -> None:
    with daemon(tmp_path, status=None) as died:
        died.kill()
        assert died.socket.exists()
        with pytest.raises(ConnectionLost):
            connect(died.endpoint)
        with daemon(tmp_path) as running:
            assert running.host().server().pid == running.process.pid


def test_a_socket_that_somebody_else_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "host.sock"))
    with daemon(tmp_path) as running:
        running.host()


def test_of_many_that_start_at_once_one_serves(tmp_path: Path) -> None:
    path = tmp_path / "host.sock"
    command = [str(DEVICEHOSTD), "--socket-path", str(path)]
    with ExitStack() as closing:
        processes = []
        for _ in range(4):
            process = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)
            processes.append(closing.enter_context(process))
            closing.callback(process.kill)
        wait_until(lambda: sum(each.poll() is not None for each in processes) == 3)
        (winner,) = (each for each in processes if each.poll() is None)
        assert [each.returncode for each in processes if each is not winner] == [1] * 3
        wait_until(path.exists)
        with connect(f"unix:{path}") as host:
            assert host.server().pid == winner.pid
        winner.terminate()
        assert winner.wait(WAIT_S) == 0


# What is no socket.


def test_a_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious.txt"
    path.write_text("mine")
    ended = run_daemon("--socket-path", path)
    assert ended.returncode == 1
    assert f"devicehostd: {path} exists and is not a socket" in ended.stderr
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_to_a_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    target, path = tmp_path / "precious.txt", tmp_path / "host.sock"
    target.write_text("mine")
    path.symlink_to(target)
    ended = run_daemon("--socket-path", path)
    assert ended.returncode == 1
    assert "is not a socket" in ended.stderr
    assert path.is_symlink()
    assert target.read_text() == "mine"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nowhere/at/all/host.sock", "can't make /nowhere/at/all/host.sock.lock"),
        ("/", "doesn't name a file"),
        ("", "doesn't name a file"),
        (f"/tmp/{'x' * 103}", f"is longer than {UNIX_PATH_MAX} bytes"),  # noqa: S108 # not made
        (f"/tmp/{'x' * 93}", "give --local-socket PATH, or none"),  # noqa: S108 # likewise
        (f"/tmp/{'ä' * 52}", f"is longer than {UNIX_PATH_MAX} bytes"),  # noqa: S108 # likewise
    ],
)
def test_a_path_that_can_not_be_is_refused(path: str, message: str) -> None:
    ended = run_daemon("--socket-path", path)
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("devicehostd: ")
    assert message in last


def test_the_longest_path_works(tmp_path: Path) -> None:
    name = "x" * (UNIX_PATH_MAX - len(os.fsencode(tmp_path)) - 1)
    with daemon(tmp_path, "--local-socket", "none", socket_path=tmp_path / name) as running:
        assert len(str(running.socket)) == UNIX_PATH_MAX
        running.host()


@pytest.mark.parametrize("name", ["100%25.sock", "a b.sock", "a#b?c.sock", "ä.sock"])
def test_a_name_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    with daemon(tmp_path, socket_path=tmp_path / name) as running:
        assert stat.S_ISSOCK((tmp_path / name).stat().st_mode)
        assert running.host().server().pid == running.process.pid
