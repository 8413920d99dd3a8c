"""SeaBIOS's boot on a device server of another process, to be looked at from yet another one.

    with booting(tmp_path) as boot:
        with boot.host.debug.trace() as trace:
            boot.start()
            boot.finish()

The devices are plugged and the VM is made when the block begins, but the guest runs only from
`start` on: what is armed before sees its first access. As in `make demo`, accesses go through
the ring. Nothing is answered in the server's place: should it be lost, or an access fail other
than for want of a device, the boot ends with that error.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import pytest

from ctllab import Ctl
from daemonlab import WAIT_S, Daemon, daemon
from devicehost.recording import BadRecording, Recording
from devicehost.recording.events import Access, Operation, Space
from devicehost_client import Answer, DeviceHost, Policy
from devicehost_client.debug import TracedAccess
from devicehost_client.demo.guests import Guest, NoGuest, find_seabios, seabios_on_kvm
from devicehost_client.port import AccessPort, ReadableBuffer, WritableBuffer

T = TypeVar("T")

LONG_S = 100.0
"""How long a boot may take, or a command that goes through one, on a machine that is busy."""

_DEVICEHOSTCTL = Path(sys.executable).with_name("devicehostctl")
_CACHE = Path(__file__).parents[2] / "build"


class Note(NamedTuple):
    """An access as the guest made it, and what came of it; an operand of a string access."""

    space: Space
    operation: Operation
    address: int
    size: int
    data: bytes


class NotingPort:
    """Hands accesses on, and notes each that has come back.

    Attributes:
        notes: those that have come back, in order.
        is_waiting: whether one hasn't.
    """

    def __init__(self, port: AccessPort) -> None:
        self.notes: list[Note] = []
        self.is_waiting = False
        self._port = port

    def mmio_read_into(self, address: int, data: WritableBuffer) -> None:
        self.is_waiting = True
        self._port.mmio_read_into(address, data)
        self._note(Space.MMIO, Operation.READ, address, len(data), data)

    def mmio_write_from(self, address: int, data: ReadableBuffer) -> None:
        self.is_waiting = True
        self._port.mmio_write_from(address, data)
        self._note(Space.MMIO, Operation.WRITE, address, len(data), data)

    def pio_read_into(self, port: int, data: WritableBuffer, size: int) -> None:
        self.is_waiting = True
        self._port.pio_read_into(port, data, size)
        self._note(Space.PIO, Operation.READ, port, size, data)

    def pio_write_from(self, port: int, data: ReadableBuffer, size: int) -> None:
        self.is_waiting = True
        self._port.pio_write_from(port, data, size)
        self._note(Space.PIO, Operation.WRITE, port, size, data)

    def _note(
        self, space: Space, operation: Operation, address: int, size: int, data: ReadableBuffer
    ) -> None:
        operands = (bytes(data[at : at + size]) for at in range(0, len(data), size))
        self.notes += (Note(space, operation, address, size, operand) for operand in operands)
        self.is_waiting = False


class Gathering(Generic[T]):
    """Takes all that comes, on a thread of its own.

    Attributes:
        items: what has come so far.
    """

    def __init__(self, source: Iterable[T]) -> None:
        self.items: list[T] = []
        self._thread = threading.Thread(target=self._gather, args=(source,))
        self._thread.start()

    def join(self) -> list[T]:
        """Return everything, when the source has ended."""
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        return self.items

    def _gather(self, source: Iterable[T]) -> None:
        for item in source:
            self.items.append(item)


class Boot:
    """A guest that is ready to boot.

    Attributes:
        ctl: `devicehostctl`, for the server of its devices.
        host: the VMM's connection to that server.
        port: what the guest's vCPU makes its accesses through.
        folder: where the files of the consoles are.
    """

    def __init__(self, server: Daemon, host: DeviceHost, guest: Guest, folder: Path) -> None:
        self.ctl = Ctl(server)
        self.host = host
        self.port = NotingPort(host.vcpu(0))
        self.folder = folder
        self._guest = guest
        self._running: Future[None] = Future()
        self._running.set_result(None)

    @property
    def has_ended(self) -> bool:
        """Whether the guest has said its last words."""
        return self._guest.last_words.encode() in self.console(self._guest.console)

    def console(self, device: str) -> bytes:
        """What the guest has written to a console."""
        return (self.folder / device).read_bytes()

    def start(self) -> None:
        """Let the guest run."""
        running: Future[None] = Future()

        def run() -> None:
            try:
                self._guest.run(self.port)
            except BaseException as error:  # noqa: BLE001 # raised again by `stop`
                running.set_exception(error)
            else:
                running.set_result(None)

        self._running = running
        threading.Thread(target=run, name="vcpu 0").start()

    def finish(self) -> None:
        """Wait until the boot has come to its end, as it does on healthy devices."""
        until = time.monotonic() + LONG_S
        while not (self.has_ended or self._running.done()) and time.monotonic() < until:
            time.sleep(0.01)
        self.stop()
        debug = self.console("debug")
        assert self.has_ended, f"{len(self.port.notes)} accesses, then: {debug[-200:]!r}"
        assert b"Found 1 serial ports" in debug
        assert b"PS2 keyboard initialized" in debug
        assert b"imeout" not in debug
        assert b"Booting from Hard Disk..." in self.console("com1")

    def stop(self) -> None:
        """End the guest, wherever it is."""
        self._guest.stop()
        self._running.result(WAIT_S)


@contextmanager
def booting(folder: Path, **options: Any) -> Iterator[Boot]:
    """Make a server with the devices of a PC, and a guest beside it; or skip the test.

    Args:
        folder: an empty one.
        options: how the VMM connects, see `connect`.
    """
    firmware = _firmware()
    policy = Policy(failed=Answer.RAISE, no_server=Answer.RAISE)
    with daemon(folder) as server:
        host = server.host(transport="ring", policy=policy, **options)
        guest = seabios_on_kvm(host, firmware)
        boot = Boot(server, host, guest, folder)
        try:
            for device, (type_, config) in guest.devices.items():
                placed = {key: value.format(folder=folder) for key, value in config.items()}
                host.hotplug.plug(type_, placed, device_id=device)
            yield boot
        finally:
            boot.stop()
            guest.close()


def _firmware() -> Path:
    """SeaBIOS, if it can run here."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/kvm")
    try:
        return find_seabios(_CACHE)
    except NoGuest as why:
        pytest.skip(f"needs SeaBIOS: {why}")


def interrupted(process: subprocess.Popen[str]) -> tuple[str, str]:
    """End a command as Ctrl-C does; return what it says on stdout and stderr."""
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, output
    return output


def ctl(*arguments: str | Path, status: int = 0) -> str:
    """Run a command that needs no server; return what it says."""
    done = subprocess.run(
        [_DEVICEHOSTCTL, *arguments], capture_output=True, text=True, timeout=LONG_S, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def noted(events: Iterable[Access] | Iterable[TracedAccess]) -> list[Note]:
    """Accesses as the guest saw them: where nobody answers, it reads all ones."""
    return [
        Note(
            each.space,
            each.operation,
            each.address,
            each.size,
            each.data or b"\xff" * each.size,
        )
        for each in events
    ]


def recorded(path: Path) -> list[Note]:
    """The accesses of a recording, as far as there is one."""
    try:
        return noted(event for event in Recording.open(path) if isinstance(event, Access))
    except (BadRecording, FileNotFoundError):
        return []


def pytest_says(test: Path) -> str:
    """Run a test in a process of its own; return what it says, up to the time it took."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", test],
        cwd=test.parent,
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
    )
    said, _, _ = done.stdout.rpartition(" in ")
    return said


def tell(shell: subprocess.Popen[str], command: str) -> None:
    """Type a line."""
    assert shell.stdin is not None
    shell.stdin.write(f"{command}\n")
    shell.stdin.flush()
