"""Servers to test against: `devicehostd` as a process, or a server in this process.

    with daemon(tmp_path, "--device", "scratch,id=s") as running:
        running.host().hotplug.devices()

    with serving(tmp_path) as lab:
        lab.host().hotplug.plug("register")

Both end with the block, and everything that was connected to them does as well.
"""

from __future__ import annotations

import itertools
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from devicehost_client import DeviceHost, RemoteError, connect
from devicehost_client.errors import from_rpc_error
from devicehost_server.config import LOCAL_SUFFIX
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.listeners import UnixListener
from devicehost_server.server import DeviceServer, ServerConfig
from testdevices import TEST_DEVICES

DEVICEHOSTD = Path(sys.executable).with_name("devicehostd")

_numbers = itertools.count()

WAIT_S = 30.0
"""How long a test waits for what should happen at once. The machine may be busy."""


def wait_until(condition: Callable[[], object], what: str = "") -> None:
    """Return when `condition` holds; fail the test if that takes too long."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"still not after {WAIT_S:g} s: {what or condition}"
        time.sleep(0.002)


@contextmanager
def refused(code: grpc.StatusCode, reason: str) -> Iterator[dict[str, str]]:
    """Expect that the block is refused with `code` and `reason`.

    Yields:
        The metadata, once the block has ended. Calls may be made by a client's methods, or
        by a bare stub.
    """
    metadata: dict[str, str] = {}
    with pytest.raises((RemoteError, grpc.RpcError)) as caught:
        yield metadata
    error = caught.value
    if isinstance(error, grpc.RpcError):
        translated = from_rpc_error(error)
        assert isinstance(translated, RemoteError), translated
        error = translated
    assert isinstance(error, RemoteError)
    assert (error.code, error.reason) == (code, reason), error
    assert str(error)
    metadata.update(error.metadata)


class Clients:
    """Connections to one endpoint, which are closed together.

    Attributes:
        way: which transport they use, unless told otherwise.
    """

    way = "auto"

    def __init__(self, socket_path: Path, closing: ExitStack) -> None:
        self.socket = socket_path
        self.endpoint = f"unix:{socket_path}"
        self._closing = closing

    def host(self, **options: Any) -> DeviceHost:
        """Return a new client."""
        options.setdefault("transport", self.way)
        return self._closing.enter_context(connect(self.endpoint, **options))

    def channel(self) -> grpc.Channel:
        """Return a new bare channel, for stubs."""
        channel = grpc.insecure_channel(self.endpoint)
        self._closing.callback(channel.close)
        return channel


class Lab(Clients):
    """A server in this process.

    Attributes:
        server: the server.
    """

    def __init__(self, server: DeviceServer, socket_path: Path, closing: ExitStack) -> None:
        super().__init__(socket_path, closing)
        self.server = server

    def leftovers(self) -> tuple[object, ...]:
        """All that a device leaves traces in: equal before and after a life without a trace."""
        server = self.server
        return (
            server.devices.devices()[1],
            server.resources.allocations(),
            server.io.ranges(),
            server.interrupts.asserted(),
        )


@contextmanager
def serving(directory: Path, **config: Any) -> Iterator[Lab]:
    """Serve in this process, on a socket in `directory`, with the devices for tests.

    Args:
        directory: an empty one.
        config: fields of `ServerConfig` that are to be other than by default.
    """
    path = directory / "host.sock"
    local = UnixListener(path.with_name(path.name + LOCAL_SUFFIX))
    settings = replace(ServerConfig(unix=UnixListener(path), local=local), **config)
    server = DeviceServer(settings, DeviceTypes(TEST_DEVICES))
    server.start()
    try:
        with ExitStack() as closing:
            yield Lab(server, path, closing)
    finally:
        server.stop()


class Daemon(Clients):
    """A running `devicehostd`.

    Attributes:
        process: the process.
        log: the file that its stderr goes to.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        socket_path: Path,
        log: Path,
        notifications: socket.socket,
        closing: ExitStack,
    ) -> None:
        super().__init__(socket_path, closing)
        self.process = process
        self.log = log
        self._notifications = notifications

    def notification(self) -> str:
        """Return the next message to the service manager.

        Raises:
            AssertionError: the process ended without one, or none came in time.
        """
        with selectors.DefaultSelector() as selector:
            ended = os.pidfd_open(self.process.pid)
            try:
                selector.register(self._notifications, selectors.EVENT_READ)
                selector.register(ended, selectors.EVENT_READ)
                ready = {key.fileobj for key, _ in selector.select(WAIT_S)}
            finally:
                os.close(ended)
        assert ready, f"no notification within {WAIT_S:g} s"
        assert self._notifications in ready, f"it ended: {self.log.read_text()}"
        return self._notifications.recv(4096).decode()

    def event(self, name: str) -> dict[str, Any]:
        """Return the last event of this name that it has logged."""
        return [event for event in self.events() if event["event"] == name][-1]

    def events(self) -> list[dict[str, Any]]:
        """Return what it has logged, one JSON object for each line."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def terminate(self) -> int:
        """Send SIGTERM; return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)

    def kill(self) -> None:
        """End it at once, by SIGKILL."""
        self.process.kill()
        self.process.wait(WAIT_S)


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without settings of the daemon, and with `variables`."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("DEVICEHOST_")}
    return {**inherited, **variables}


@contextmanager
def daemon(
    directory: Path,
    *arguments: str,
    socket_path: Path | None = None,
    variables: Mapping[str, str] | None = None,
    status: int | None = 0,
    umask: int = 0o022,
) -> Iterator[Daemon]:
    """Run `devicehostd` on a socket in `directory`; it is ready when the block begins.

    Args:
        directory: where its socket and its log are.
        arguments: flags in addition to `--socket-path`.
        socket_path: if it isn't to be `host.sock` in `directory`.
        variables: environment variables in addition.
        status: what it exits with after SIGTERM at the end of the block; None if the block
            ends it by itself.
        umask: the process's.
    """
    path = socket_path or directory / "host.sock"
    log = directory / "devicehostd.log"
    manager = directory / f"notify-{next(_numbers)}"
    with ExitStack() as closing:
        closing.callback(manager.unlink, missing_ok=True)
        notifications = closing.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notifications.bind(str(manager))
        stderr = closing.enter_context(log.open("ab"))
        process = closing.enter_context(
            subprocess.Popen(
                [DEVICEHOSTD, "--socket-path", path, *arguments],
                env=environment(NOTIFY_SOCKET=str(manager), **(variables or {})),
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                umask=umask,
            )
        )
        closing.callback(process.kill)  # if it is still there; it is not, by then
        clients = closing.enter_context(ExitStack())
        running = Daemon(process, path, log, notifications, clients)
        assert running.notification() == "READY=1"
        yield running
        clients.close()
        if status is not None:
            assert running.terminate() == status, log.read_text()


def run_daemon(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `devicehostd` to its end, which is expected to come by itself."""
    return subprocess.run(
        [DEVICEHOSTD, *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
