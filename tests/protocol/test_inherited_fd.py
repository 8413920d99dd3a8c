"""`--fd N`: the socket was opened by whoever started the daemon."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from daemonlab import DEVICEHOSTD, environment, run_daemon
from devicehost_client import DeviceHost, connect


def start(inherited: socket.socket, directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [DEVICEHOSTD, "--fd", str(inherited.fileno()), "--device", "scratch,base=0xd0000000"],
        pass_fds=[inherited.fileno()],
        stderr=subprocess.DEVNULL,
        env=environment(TMPDIR=str(directory)),
    )


def use(host: DeviceHost) -> None:
    host.mmio_write(0xD000_0000, 4, 0x1234)
    assert host.mmio_read(0xD000_0000, 4) == 0x1234


def test_clients_of_a_listening_socket_that_was_handed_over_are_served(tmp_path: Path) -> None:
    path = tmp_path / "activated.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        process = start(listener, tmp_path)
    # A client may connect before the server runs: it waits in the socket's backlog.
    with connect(f"unix:{path}") as first, connect(f"unix:{path}") as second:
        use(first)
        use(second)
    process.terminate()
    assert process.wait() == 0
    assert path.exists(), "the path belongs to whoever opened the socket"
    assert list(tmp_path.iterdir()) == [path], "the private socket is gone"


def test_a_connected_socket_that_was_handed_over_is_served(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        with theirs:
            process = start(theirs, tmp_path)
        # HTTP/2's preface (RFC 9113, 3.4), which a server answers with its settings.
        empty_settings = bytes.fromhex("000000 04 00 00000000")
        ours.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + empty_settings)
        ours.settimeout(30)
        header = ours.recv(9, socket.MSG_WAITALL)
        assert header[3] == 0x04, "a SETTINGS frame"
        process.terminate()
        assert process.wait() == 0


def test_what_is_not_a_unix_stream_socket_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        number = file.fileno()
        result = subprocess.run(
            [DEVICEHOSTD, "--fd", str(file.fileno())],
            pass_fds=[file.fileno()],
            capture_output=True,
            text=True,
            check=False,
        )
    assert result.returncode == 1
    assert f"--fd {number} is not a socket" in result.stderr


def test_a_path_and_a_descriptor_exclude_each_other(tmp_path: Path) -> None:
    result = run_daemon("--fd", "3", "--socket-path", tmp_path / "host.sock")
    assert result.returncode == 1
    assert "--socket-path and --fd exclude each other" in result.stderr
