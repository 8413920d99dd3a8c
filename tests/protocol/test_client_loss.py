"""A client whose server hangs, dies, and comes back."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from daemonlab import WAIT_S, Clients, Daemon, Lab, daemon, serving, wait_until
from devicehost.v1 import io_service_pb2 as pb
from devicehost_client import (
    AccessTimeout,
    Answer,
    ConnectionLost,
    Policy,
    RemoteError,
    connect,
)
from devicehost_client.transports.local import LocalTransport

BASE = 0xD000_0000
LAST = BASE + 0xFF
"""The byte of a `scratch` whose bit 0 is the level of its interrupt."""
SLOW = BASE + 4
SCRATCH = f"scratch,id=s,base={BASE:#x},irq=9,delay_offset=4,delay_ms=60000"


@pytest.fixture(autouse=True, params=["ring", "socket", "grpc-stream"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way that accesses take."""
    name: str = request.param
    monkeypatch.setattr(Clients, "way", name)
    return name


def policy(no_server: Answer) -> Policy:
    return Policy(no_server=no_server)


class Levels:
    """The interrupt lines of a VMM."""

    def __init__(self) -> None:
        self.up: set[int] = set()
        self.changes: list[tuple[int, bool]] = []

    def __call__(self, gsi: int, /, *, asserted: bool) -> None:
        self.changes.append((gsi, asserted))
        (self.up.add if asserted else self.up.discard)(gsi)


# The policy.


@pytest.mark.parametrize(
    ("answer", "read"), [(Answer.ONES, 0xFFFF_FFFF), (Answer.ZEROS, 0)], ids=["ones", "zeros"]
)
def test_an_access_to_a_server_that_is_gone_is_answered_by_the_policy(
    tmp_path: Path, answer: Answer, read: int
) -> None:
    with daemon(tmp_path, "--device", SCRATCH, status=None) as running:
        vcpu = running.host(policy=policy(answer)).vcpu(0)
        vcpu.mmio_write(BASE, 4, 0x1234)
        assert vcpu.mmio_read(BASE, 4) == 0x1234
        running.kill()
        for _ in range(3):
            assert vcpu.mmio_read(BASE, 4) == read
            assert vcpu.pio_read(0x3F8, 1) == read & 0xFF
            vcpu.mmio_write(BASE, 4, 0)
        assert vcpu.failures == 9
        assert isinstance(vcpu.last_failure, ConnectionLost)


def test_an_access_to_a_server_that_is_gone_raises_if_the_vmm_wants_that(tmp_path: Path) -> None:
    with daemon(tmp_path, "--device", SCRATCH, status=None) as running:
        vcpu = running.host(policy=policy(Answer.RAISE)).vcpu(0)
        vcpu.mmio_read(BASE, 4)
        running.kill()
        for access in (lambda: vcpu.mmio_read(BASE, 4), lambda: vcpu.mmio_write(BASE, 4, 0)):
            with pytest.raises(ConnectionLost):
                access()


def test_a_port_that_reads_into_a_buffer_fills_all_of_it(lab: Lab) -> None:
    vcpu = lab.host().vcpu(0)
    data = memoryview(bytearray(b"\x55" * 12))
    vcpu.pio_read_into(0x3F8, data, 4)
    assert data == b"\xff" * 12


# A server that hangs.


def freeze(running: Daemon) -> None:
    """Stop the server in its tracks, all of its threads, until SIGCONT."""
    running.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, running.process.pid, os.WSTOPPED)


@pytest.mark.parametrize("timeout_s", [0.05, 0.5])
def test_a_device_that_hangs_is_answered_within_the_deadline(
    tmp_path: Path, timeout_s: float
) -> None:
    with daemon(tmp_path, "--device", SCRATCH, status=None) as running:
        vcpu = running.host(access_timeout_s=timeout_s).vcpu(0)
        assert vcpu.mmio_read(BASE, 4) == 0
        started = time.monotonic()
        assert vcpu.mmio_read(SLOW, 4) == 0xFFFF_FFFF
        took = time.monotonic() - started
        assert timeout_s * 0.99 <= took < timeout_s + 5
        assert isinstance(vcpu.last_failure, AccessTimeout)
        assert f"within {timeout_s:g} s" in str(vcpu.last_failure)
        running.kill()


def test_a_server_that_is_stopped_in_its_tracks_is_answered_within_the_deadline(
    tmp_path: Path,
) -> None:
    with daemon(tmp_path, "--device", SCRATCH) as running:
        host = running.host(access_timeout_s=0.2)
        vcpu, late = host.vcpu(0), host.vcpu(1)
        assert vcpu.mmio_read(BASE, 4) == 0
        freeze(running)
        for port in (vcpu, late):  # one has a queue already, the other would open one
            started = time.monotonic()
            assert port.mmio_read(BASE, 4) == 0xFFFF_FFFF
            assert time.monotonic() - started < 5
            assert isinstance(port.last_failure, AccessTimeout | ConnectionLost)
        assert isinstance(vcpu.last_failure, AccessTimeout)
        running.process.send_signal(signal.SIGCONT)
        wait_until(lambda: vcpu.mmio_read(BASE, 4) == 0, "it to be found again")
        wait_until(lambda: late.mmio_read(BASE, 4) == 0, "it to be found again")


def test_a_client_of_a_server_that_hangs_can_be_closed(tmp_path: Path) -> None:
    with daemon(tmp_path, "--device", SCRATCH, status=None) as running:
        host = running.host(access_timeout_s=0.2)
        host.interrupts.start(on_level=Levels())
        host.vcpu(0).post_writes(pb.SPACE_MMIO, BASE, 256)
        host.vcpu(0).mmio_read(BASE, 4)
        freeze(running)
        host.vcpu(0).mmio_write(BASE, 4, 1)
        started = time.monotonic()
        host.close()
        assert time.monotonic() - started < 5
        running.kill()


# A server that dies, and comes back.


def test_a_kill_in_the_middle_of_an_access_is_answered_at_once(tmp_path: Path) -> None:
    with daemon(tmp_path, "--device", SCRATCH, status=None) as running:
        host = running.host(access_timeout_s=WAIT_S)
        answers: list[int] = []
        vcpu = host.vcpu(0)
        reading = threading.Thread(target=lambda: answers.append(vcpu.mmio_read(SLOW, 4)))
        reading.start()
        wait_until(lambda: host.hotplug.get("s").accesses.reads == 1, "the access to be made")
        running.kill()
        reading.join(WAIT_S / 2)  # long before the deadline
        assert answers == [0xFFFF_FFFF]
        assert isinstance(vcpu.last_failure, ConnectionLost)


def test_vcpus_that_wait_for_each_other_all_learn_that_the_server_is_lost(tmp_path: Path) -> None:
    with daemon(tmp_path, "--device", SCRATCH, status=None) as running:
        host = running.host(access_timeout_s=WAIT_S, policy=policy(Answer.ZEROS))
        vcpus = [host.vcpu(index) for index in range(4)]
        threads = [
            threading.Thread(target=vcpu.mmio_read, args=(SLOW, 4), daemon=True) for vcpu in vcpus
        ]
        for thread in threads:
            thread.start()
            wait_until(partial(is_asleep, thread), "the access to be waited for")
        running.kill()
        for thread in threads:
            thread.join(WAIT_S / 2)
        assert [type(vcpu.last_failure) for vcpu in vcpus] == [ConnectionLost] * 4


def is_asleep(thread: threading.Thread) -> bool:
    """Whether a thread of this process waits in the kernel."""
    status = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
    return status.rpartition(")")[2].split()[0] == "S"


@pytest.mark.parametrize("way", ["ring", "socket"])  # gRPC looks for it by itself
def test_a_server_is_found_although_there_was_no_descriptor_to_look_for_it(
    tmp_path: Path, way: str
) -> None:
    with ExitStack() as closing:
        with daemon(tmp_path, "--device", SCRATCH, status=None) as died:
            host = closing.enter_context(connect(died.endpoint, transport=way))
            vcpu, local = host.vcpu(0), host._transport
            assert isinstance(local, LocalTransport)
            vcpu.mmio_read(BASE, 4)
            with no_descriptors():
                died.kill()
                tried = local._tried_at
                wait_until(lambda: local._tried_at > tried, "it to be looked for")
                tried = local._tried_at
                wait_until(lambda: local._tried_at > tried, "it to be looked for again")
        with daemon(tmp_path, "--device", SCRATCH):
            wait_until(lambda: vcpu.mmio_read(BASE, 4) == 0, "it to be found")
            closing.close()


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Leave this process no descriptor to open anything."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        with suppress(OSError):
            while True:
                held.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in held:
            os.close(fd)


def test_a_server_that_came_back_is_found_and_the_vmm_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    with daemon(tmp_path, "--device", SCRATCH, status=None) as died:
        host = died.host(on_new_server=lambda: told.append("new"))
        vcpu, other = host.vcpu(0), host.vcpu(1)
        for port in (vcpu, other):
            port.mmio_write(BASE, 1, 0x77)
        first = host.server().instance_id
        died.kill()
        assert vcpu.mmio_read(BASE, 1) == 0xFF
        assert told == []
        with daemon(tmp_path, "--device", SCRATCH):
            wait_until(lambda: vcpu.mmio_read(BASE, 1) == 0, "the new server to be found")
            assert len(told) == 1
            wait_until(lambda: other.mmio_read(BASE, 1) == 0, "the new server to be found")
            assert len(told) == 1  # once for each new server, not for each vCPU
            assert host.server().instance_id != first
            vcpu.mmio_write(BASE, 1, 0x42)
            assert other.mmio_read(BASE, 1) == 0x42
            host.close()


def test_the_vmm_can_plug_its_devices_again_when_it_is_told(tmp_path: Path) -> None:
    def plug() -> None:
        host.hotplug.plug("scratch", {"base": hex(BASE)}, device_id="mine")
        host.vcpu(1).mmio_write(BASE, 4, 0xC0FFEE)

    with daemon(tmp_path, status=None) as died:
        host = died.host(on_new_server=plug)
        plug()
        vcpu = host.vcpu(0)
        assert vcpu.mmio_read(BASE, 4) == 0xC0FFEE
        died.kill()
        with daemon(tmp_path):
            # The first access that finds the new server finds the device as well.
            wait_until(lambda: vcpu.mmio_read(BASE, 4) != 0xFFFF_FFFF)
            assert vcpu.mmio_read(BASE, 4) == 0xC0FFEE
            assert [each.id for each in host.hotplug.devices()] == ["mine"]
            host.close()


def test_the_callback_may_make_accesses_of_the_host_itself(tmp_path: Path) -> None:
    def on_new_server() -> None:
        host.mmio_write(BASE, 4, 0xC0FFEE)

    with daemon(tmp_path, "--device", SCRATCH, status=None) as died:
        host = died.host(on_new_server=on_new_server)
        assert host.mmio_read(BASE, 4) == 0
        died.kill()
        with daemon(tmp_path, "--device", SCRATCH):
            wait_until(lambda: host.mmio_read(BASE, 4) == 0xC0FFEE)
            host.close()


def test_a_server_that_is_started_again_in_between_is_noticed(tmp_path: Path, way: str) -> None:
    told: list[str] = []
    with ExitStack() as closing:
        with daemon(tmp_path, "--device", SCRATCH) as first:
            told_by = connect(
                first.endpoint, transport=way, on_new_server=lambda: told.append("new")
            )
            vcpu = closing.enter_context(told_by).vcpu(0)
            vcpu.mmio_write(BASE, 1, 1)
        with daemon(tmp_path, "--device", SCRATCH):
            # Nothing was accessed while it was away, and nothing is lost.
            assert vcpu.mmio_read(BASE, 1) == 0
            assert (told, vcpu.failures) == (["new"], 0)
            closing.close()


def test_levels_fall_when_the_server_is_lost_and_rise_again_when_it_is_back(
    tmp_path: Path,
) -> None:
    levels = Levels()
    with daemon(tmp_path, "--device", SCRATCH, status=None) as died:
        host = died.host()
        host.interrupts.start(on_level=levels)
        vcpu = host.vcpu(0)
        vcpu.mmio_write(LAST, 1, 1)
        assert levels.up == {9}
        died.kill()
        wait_until(lambda: levels.up == set(), "the level to fall")
        with daemon(tmp_path, "--device", SCRATCH) as running:
            running.host(transport="grpc-stream").mmio_write(LAST, 1, 1)  # by somebody else
            wait_until(lambda: levels.up == {9}, "the level to be brought up to date")
            wait_until(lambda: vcpu.mmio_read(LAST, 1) == 1)
            vcpu.mmio_write(LAST, 1, 0)  # and at once again, as before
            assert levels.changes == [(9, True), (9, False), (9, True), (9, False)]
            host.close()


def test_accesses_while_the_server_is_away_fail_at_once(tmp_path: Path) -> None:
    with daemon(tmp_path, "--device", SCRATCH, status=None) as running:
        vcpu = running.host().vcpu(0)
        vcpu.mmio_read(BASE, 4)
        running.kill()
        started = time.monotonic()
        for _ in range(2000):
            assert vcpu.mmio_read(BASE, 4) == 0xFFFF_FFFF
        assert time.monotonic() - started < 5  # a guest that polls doesn't crawl


def test_a_client_needs_a_server_to_begin_with(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ConnectionLost):
        connect(f"unix:{tmp_path / 'nobody.sock'}")
    assert time.monotonic() - started < 5


def test_a_server_that_stops_is_a_server_that_is_gone(tmp_path: Path) -> None:
    with serving(tmp_path) as lab:
        lab.server.devices.plug("register", {"base": str(BASE)})
        levels = Levels()
        host = lab.host(policy=policy(Answer.ZEROS))
        host.interrupts.start(on_level=levels)
        vcpu = host.vcpu(0)
        vcpu.mmio_write(BASE, 4, 5)
        lab.server.interrupts.line(7, "x").set_level(asserted=True)
        wait_until(lambda: levels.up == {7})
        lab.server.stop()
        assert vcpu.mmio_read(BASE, 4) == 0
        wait_until(lambda: levels.up == set())
        with pytest.raises((ConnectionLost, RemoteError)):
            host.hotplug.devices()
