"""The sockets of functions: plugged and unplugged with their devices, and who may attach."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from errno import EBUSY, ESHUTDOWN, ETIMEDOUT
from pathlib import Path

import pytest

from buslab import client_threads, error_of
from daemonlab import WAIT_S, daemon, run_daemon, wait_until
from debuglab import debugging
from debugwire import DebugWire
from devicehost.recording import Recording
from devicehost.recording.events import Woken
from devicehost.v1 import io_service_pb2 as io_pb
from devicehost.vfio_user import DeviceReset, Failed, RegionRead, RegionWrite, Reply
from devicehost_server.device_info import DeviceState
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.endpoints.pci_sockets import PciSockets
from devicehost_server.model.errors import (
    BadConfig,
    BadConstraint,
    DeviceBusy,
    DeviceFault,
    DeviceHostError,
    NoSuchDevice,
    NoSuchPath,
)
from devicehost_server.replay import Replayer
from devicehost_server.unix_socket import UNIX_PATH_MAX, UnixListener
from pcilab import (
    BUS_MASTER,
    COMMAND,
    CONFIG,
    INTX,
    LEVEL,
    MMIO_BAR,
    REQ,
    Functions,
    Vmm,
    functions,
    open_fds,
)

CONNECTS = 1000
QEMU_WAITS_S = 5.0
DRAIN_S = 2.0


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Functions]:
    with functions(tmp_path, drain_timeout_s=DRAIN_S) as running:
        yield running


def lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


# Plugged.


def test_a_socket_is_there_as_long_as_the_device_is(there: Functions) -> None:
    there.plug("scratch")
    path = there.path()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert lock_of(path).exists()
    with there.vmm() as vmm:
        vmm.put(0, 0, 1)
    there.lab.server.devices.unplug("f")
    assert not path.exists()
    assert not lock_of(path).exists()
    there.plug("scratch")
    with there.vmm() as vmm:
        assert vmm.get(0, 0) == 0


def test_a_device_is_known_with_its_place_and_its_function_can_be_had(there: Functions) -> None:
    there.plug("scratch")
    devices = there.lab.server.devices
    assert devices.get("f").config == {"pci-socket": str(there.path())}
    function = devices.function("f")
    assert function is not None
    assert function.device_id == "f"
    devices.plug("scratch", device_id="on-the-bus")
    assert devices.function("on-the-bus") is None
    with pytest.raises(NoSuchDevice):
        devices.function("nobody")


def test_sockets_have_the_mode_of_the_local_one(tmp_path: Path) -> None:
    local = UnixListener(tmp_path / "local.sock", mode=0o660)
    with functions(tmp_path, local=local) as there:
        there.plug("scratch")
        assert stat.S_IMODE(there.path().stat().st_mode) == 0o660


def test_two_devices_do_not_share_a_socket(there: Functions) -> None:
    there.plug("scratch")
    before = there.lab.leftovers()
    place = {"pci-socket": str(there.path())}
    with pytest.raises(BadConfig, match="is that of device 'f'") as caught:
        there.lab.server.devices.plug("scratch", place, device_id="g")
    assert caught.value.metadata["step"] == "listen"
    assert caught.value.metadata["field"] == "pci-socket"
    assert there.lab.leftovers() == before
    there.vmm().close()


def test_one_socket_under_two_names_is_still_one(
    tmp_path: Path, there: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    there.plug("scratch")
    (tmp_path / "link").symlink_to(tmp_path)
    for path in ("f.sock", "./link/f.sock"):
        with pytest.raises(BadConfig, match="is that of device 'f'"):
            there.lab.server.devices.plug("scratch", {"pci-socket": path})
    with pytest.raises(BadConfig, match="is in use by this devicehostd"):
        there.lab.server.devices.plug("scratch", {"pci-socket": "host.sock"})


def test_a_relative_path_is_one_of_the_folder_that_the_server_was_in(
    tmp_path: Path, there: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    devices = there.lab.server.devices
    devices.plug("scratch", {"pci-socket": "f.sock"}, device_id="f")
    there.vmm().close()
    monkeypatch.chdir("/")
    devices.unplug("f")
    assert not there.path().exists()


def test_a_socket_that_another_server_has_is_not_taken(tmp_path: Path, there: Functions) -> None:
    there.plug("scratch")
    other = tmp_path / "other"
    other.mkdir()
    with functions(other) as second, pytest.raises(BadConfig, match="is in use by this"):
        second.lab.server.devices.plug("scratch", {"pci-socket": str(there.path())})
    there.vmm().close()


def test_a_device_is_not_opened_if_its_socket_can_not_be_had(there: Functions) -> None:
    """The file of the console would be another server's."""
    file = there.path("console")
    with pytest.raises(BadConfig, match="can't make"):
        there.lab.server.devices.plug(
            "uart16550", {"chardev": f"file:{file}", "pci-socket": "/nowhere/a.sock"}
        )
    assert not file.exists()


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/nowhere/a.sock", "can't make /nowhere/a.sock.lock: No such file or directory"),
        ("/run/" + "x" * UNIX_PATH_MAX, f"is longer than {UNIX_PATH_MAX} bytes"),
        (str(Path(__file__)), "exists and is not a socket"),
        ("/", "doesn't name a file"),
    ],
    ids=["missing folder", "too long", "a file", "no name"],
)
def test_a_bad_path_is_told_as_such_and_leaves_nothing(
    there: Functions, path: str, why: str
) -> None:
    before = there.lab.leftovers()
    with pytest.raises(BadConfig, match="device 'f': 'pci-socket'") as caught:
        there.lab.server.devices.plug("scratch", {"pci-socket": path}, device_id="f")
    assert why in str(caught.value)
    assert there.lab.leftovers() == before


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"pci-vendor-id": "0x1234"}, BadConfig),
        ({"pci-socket": "S", "pci-slot": "1"}, BadConfig),
        ({"pci-socket": "S", "pci-vendor-id": "0xffff"}, BadConfig),
        ({"pci-socket": "S", "bus": "pio", "size": "512"}, BadConstraint),
    ],
    ids=["no socket", "unknown key", "no vendor", "too many ports"],
)
def test_a_function_that_can_not_be_is_refused(
    there: Functions, config: dict[str, str], error: type[DeviceHostError]
) -> None:
    before = there.lab.leftovers()
    config = {key: str(there.path()) if text == "S" else text for key, text in config.items()}
    with pytest.raises(error):
        there.lab.server.devices.plug("scratch", config)
    assert there.lab.leftovers() == before
    assert not there.path().exists()


@pytest.mark.parametrize("step", ["constrain", "allocate", "assign", "start", "register"])
def test_a_step_that_fails_leaves_no_socket(there: Functions, step: str) -> None:
    before, fds = there.lab.leftovers(), open_fds()
    with pytest.raises((DeviceFault, BadConstraint, DeviceHostError)) as caught:
        there.plug("raiser", step=step)
    assert caught.value.metadata["step"] in (step, "constrain")
    assert there.lab.leftovers() == before
    assert not there.path().exists()
    assert open_fds() == fds
    there.plug("raiser")


def test_a_server_whose_device_manager_has_no_functions_refuses_one() -> None:
    with debugging() as bench, pytest.raises(BadConfig, match="no PCI functions here"):
        bench.devices.plug("teller", {"pci-socket": "/nowhere/f.sock"})


# Attached.


def test_a_second_client_is_told_that_the_function_is_busy(there: Functions) -> None:
    there.plug("scratch")
    with there.vmm() as vmm:
        vmm.put(0, 0, 7)
        assert os.strerror(EBUSY) in error_of(there.vmm())
        assert vmm.get(0, 0) == 7


def test_two_functions_are_two_devices(there: Functions) -> None:
    there.plug("scratch", "a", irq="5")
    there.plug("scratch", "b", irq="5")
    with there.vmm("a") as first, there.vmm("b") as second:
        [one], [other] = first.connect(INTX), second.connect(INTX)
        first.put(0, 0, 1)
        second.put(0, 0, 2)
        assert (first.get(0, 0), second.get(0, 0)) == (1, 2)
        first.put(0, 255, 1, 1)
        assert one.wait() == 1
        assert not other.is_signalled()


def test_a_thousand_clients_leave_nothing(there: Functions) -> None:
    there.messenger()
    before = open_fds()
    for _ in range(CONNECTS):
        with there.vmm() as vmm:
            vmm.connect(INTX)
            vmm.share(0x10_0000, 0x1000).close()
            assert vmm.get(CONFIG, 0, 2) == 0x1B36
    wait_until(lambda: not client_threads())
    wait_until(lambda: open_fds() == before)


KILLED = """
import sys
from devicehost.vfio_user import RegionRead
from pcilab import Vmm
vmm = Vmm(sys.argv[1])
vmm.connect(4)
vmm.share(0x10_0000, 0x1000)
vmm.send(RegionRead(0, 0, 4))
print("in it", flush=True)
sys.stdin.read()
"""


def test_a_client_that_is_killed_in_an_access_leaves_the_function_to_the_next(
    there: Functions,
) -> None:
    device = there.plug("blocker")
    before = open_fds()
    tests = str(Path(__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(there.path())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([tests, *sys.path])},
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"in it\n"
        assert device.entered.wait(WAIT_S)
        client.send_signal(signal.SIGKILL)
    function = there.lab.server.devices.function("f")
    assert function is not None
    wait_until(lambda: there.lab.server.debugger.inspect("sessions/functions/f", 0).value is None)
    device.release.set()
    wait_until(lambda: not client_threads())
    with there.vmm() as vmm:
        assert vmm.get(0, 0) == 0x5A5A_5A5A
    wait_until(lambda: open_fds() == before)


# Unplugged.


def test_a_client_is_asked_to_leave_before_its_function_is_unplugged(tmp_path: Path) -> None:
    with functions(tmp_path, drain_timeout_s=2 * WAIT_S) as there:
        there.messenger()
        devices = there.lab.server.devices
        with there.vmm() as vmm:
            [request] = vmm.connect(REQ)
            unplugging = threading.Thread(target=devices.unplug, args=("f",))
            unplugging.start()
            assert request.wait() == 1
            assert devices.get("f").state is DeviceState.PLUGGED
            vmm.put(MMIO_BAR, 0x40, 7)
            assert vmm.get(MMIO_BAR, 0x40) == 7, "the guest's driver says goodbye"
            assert os.strerror(ESHUTDOWN) in error_of(there.vmm())
        unplugging.join(WAIT_S)
        assert not unplugging.is_alive(), "it goes on as soon as the client has left"
        with pytest.raises(NoSuchDevice):
            devices.get("f")
        assert not there.path().exists()


def test_a_server_that_stops_waits_for_no_client_that_was_asked_to_leave(tmp_path: Path) -> None:
    with functions(tmp_path, drain_timeout_s=2 * WAIT_S) as there:
        there.messenger()
        vmm = there.vmm()
        [request] = vmm.connect(REQ)
        unplugging = threading.Thread(target=there.lab.server.devices.unplug, args=("f",))
        unplugging.start()
        assert request.wait() == 1
        started_s = time.monotonic()
    assert time.monotonic() - started_s < WAIT_S
    unplugging.join(WAIT_S)
    vmm.close()


def test_a_client_that_does_not_leave_is_cut_off_when_its_time_is_up(there: Functions) -> None:
    there.messenger()
    with there.vmm() as vmm:
        [request] = vmm.connect(REQ)
        there.lab.server.devices.unplug("f")
        assert request.wait() == 1
        assert vmm.socket.recv(1) == b""


def test_a_client_that_can_not_be_asked_is_cut_off_at_once(tmp_path: Path) -> None:
    with functions(tmp_path, drain_timeout_s=2 * WAIT_S) as there:
        there.messenger()
        with there.vmm() as vmm:
            vmm.socket.settimeout(WAIT_S)
            there.lab.server.devices.unplug("f")
            assert vmm.socket.recv(1) == b""


def test_a_device_that_unplugs_itself_in_an_access_goes_after_it(there: Functions) -> None:
    device = there.plug("caller")
    devices = there.lab.server.devices
    device.on_write = lambda: devices.unplug("f")
    with there.vmm() as vmm:
        vmm.connect(REQ)
        vmm.put(0, 0, 1)
        with suppress(OSError):
            assert isinstance(vmm.call(RegionRead(0, 0, 4)), Failed)
        assert device.closed.wait(WAIT_S)
    wait_until(lambda: not there.path().exists())


def test_an_access_in_flight_is_waited_for_and_then_answered(there: Functions) -> None:
    device = there.plug("blocker")
    with there.vmm() as vmm:
        vmm.send(RegionRead(0, 0, 4))
        assert device.entered.wait(WAIT_S)
        unplugging = threading.Thread(target=there.lab.server.devices.unplug, args=("f",))
        unplugging.start()
        wait_until(lambda: there.lab.server.devices.get("f").state is DeviceState.UNPLUGGING)
        device.release.set()
        [answer] = vmm.receive()
        assert answer.payload.data == b"\x5a" * 4
        unplugging.join(WAIT_S)
        assert vmm.socket.recv(1) == b""


# The server stops.


def test_a_reset_is_waited_for_and_then_answered(there: Functions) -> None:
    device = there.messenger()
    entered, release = threading.Event(), threading.Event()

    def reset() -> None:
        with device.lock:
            entered.set()
            release.wait(WAIT_S)

    device.reset = reset  # type: ignore[method-assign] # one that hangs
    devices = there.lab.server.devices
    with there.vmm() as vmm:
        vmm.send(DeviceReset())
        assert entered.wait(WAIT_S)
        with pytest.raises(DeviceBusy, match="'f' is off the bus, but somebody is still in it"):
            devices.unplug("f")
        assert devices.get("f").state is DeviceState.UNPLUGGING
        release.set()
        [done] = vmm.receive()
        assert isinstance(done, Reply)
        assert vmm.refused(DeviceReset()) == ESHUTDOWN, "it is on its way out"
        devices.unplug("f")
    assert not there.path().exists()


def test_a_client_is_let_go_when_the_server_stops(tmp_path: Path) -> None:
    fds = open_fds()
    with functions(tmp_path) as there:
        there.messenger()
        vmm = there.vmm()
        [request] = vmm.connect(REQ)
        vmm.put(MMIO_BAR, LEVEL, 1, 1)
    assert vmm.socket.recv(1) == b""
    assert not request.is_signalled(), "the server goes, not the device"
    vmm.close()
    assert not there.path().exists()
    wait_until(lambda: open_fds() == fds)


def test_a_client_is_told_that_the_server_stops_while_others_are_waited_for(
    tmp_path: Path,
) -> None:
    told: list[int] = []
    with functions(tmp_path) as there:
        there.messenger("m")
        blocker = there.plug("blocker", "b")
        first, second = there.vmm("b"), there.vmm("m")
        first.send(RegionRead(0, 0, 4))
        assert blocker.entered.wait(WAIT_S)

        def ask() -> None:
            read = RegionRead(MMIO_BAR, 0x10, 4)
            wait_until(lambda: isinstance(second.call(read), Failed))
            told.append(second.refused(read))
            blocker.release.set()

        asking = threading.Thread(target=ask)
        asking.start()
    asking.join(WAIT_S)
    assert told == [ESHUTDOWN]
    [answer] = first.receive()
    assert answer.payload.data == b"\x5a" * 4
    first.close()
    second.close()


def test_a_server_that_drains_makes_no_more_accesses(there: Functions) -> None:
    there.messenger()
    server = there.lab.server
    with there.vmm() as vmm:
        sockets: PciSockets = server._functions
        sockets.drain()
        assert vmm.refused(RegionRead(MMIO_BAR, 0, 4)) == ESHUTDOWN
        assert vmm.refused(RegionWrite(CONFIG, 4, b"\7\0")) == ESHUTDOWN
        assert vmm.refused(DeviceReset()) == ESHUTDOWN
        assert vmm.region(MMIO_BAR).size == 0x2000, "what changes nothing is still answered"
        there.plug("scratch", "late")
        assert os.strerror(ESHUTDOWN) in error_of(there.vmm("late"))


def test_a_function_is_there_from_the_start_of_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with (
        daemon(tmp_path, "--device", f"scratch,id=s,pci-socket={path}") as running,
        Vmm(path) as vmm,
    ):
        vmm.put(0, 4, 0xABCD)
        assert vmm.get(0, 4) == 0xABCD
        [found] = running.host().hotplug.devices()
        assert found.config["pci-socket"] == str(path)
    assert not path.exists()
    assert not lock_of(path).exists()


def test_a_function_is_plugged_and_unplugged_over_the_api(there: Functions) -> None:
    host = there.lab.host()
    host.hotplug.plug("scratch", {"pci-socket": str(there.path())}, device_id="f")
    there.vmm().close()
    host.hotplug.unplug("f")
    assert not there.path().exists()


def test_the_configuration_is_checked_without_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    flags = ("--check-config", "--socket-path", tmp_path / "host.sock")
    good = ("--device", f"scratch,id=a,pci-socket={path}")
    assert run_daemon(*flags, *good).returncode == 0
    assert not path.exists()
    ended = run_daemon(*flags, *good, "--device", f"scratch,id=b,pci-socket={path}")
    assert ended.returncode == 1
    assert f"socket {path} is that of device 'a'" in ended.stderr
    ended = run_daemon(*flags, "--device", f"scratch,pci-socket={path},pci-vendor-id=x")
    assert "'pci-vendor-id'" in ended.stderr


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/run/" + "x" * UNIX_PATH_MAX, f"is longer than {UNIX_PATH_MAX} bytes"),
        ("/nowhere/a.sock", "socket /nowhere/a.sock: can't write to folder /nowhere"),
        ("/", "doesn't name a file"),
        ("host.sock", "is one of the server's own"),
        ("host.sock.vfio-user", "is one of the server's own"),
    ],
    ids=["too long", "missing folder", "no name", "API", "local"],
)
def test_where_a_function_can_not_listen_is_found_by_a_check(
    tmp_path: Path, path: str, why: str
) -> None:
    device = f"scratch,pci-socket={tmp_path / path}"
    ended = run_daemon(
        "--check-config", "--socket-path", tmp_path / "host.sock", "--device", device
    )
    assert ended.returncode == 1
    assert f"--device '{device}': 'pci-socket': socket" in ended.stderr
    assert why in ended.stderr


# What is to be seen.


def test_an_access_to_a_function_is_traced_by_the_names_of_its_registers(there: Functions) -> None:
    there.plug("uart16550")
    wire = DebugWire(there.lab.channel())
    with there.vmm() as vmm, wire.trace() as trace:
        vmm.put(0, 3, 0x83, 1)
        vmm.get(0, 5, 1)
        written, read = trace.accesses(2)
    assert [register.name for register in written.registers] == ["LCR"]
    assert [register.name for register in read.registers] == ["LSR"]
    assert (written.device_id, written.space, written.offset) == ("f", io_pb.SPACE_PIO, 3)


def test_the_clients_of_functions_are_among_the_sessions(there: Functions) -> None:
    there.plug("scratch", "a")
    there.plug("scratch", "b")
    look = there.lab.server.debugger.inspect
    with there.vmm("a"):
        assert look("sessions/functions/a/pid", 0).value == str(os.getpid())
        assert [each.name for each in look("sessions/functions/b", 1).nodes] == []


def test_a_device_is_shown_as_a_function_with_its_client(there: Functions) -> None:
    there.messenger()
    look = there.lab.server.debugger.inspect
    assert look("devices/f/pci/client", 0).value is None
    with there.vmm() as vmm:
        vmm.connect(INTX)
        vmm.set_command(BUS_MASTER)
        vmm.share(0x10_0000, 0x1000).close()
        assert look("devices/f/pci/memory/0x100000-0x100fff/size", 0).value == str(0x1000)
        assert look("devices/f/pci/client/pid", 0).value == str(os.getpid())
        assert look("devices/f/pci/intx/connected", 0).value == "yes"
        assert look("devices/f/pci/bars/0/size", 0).value == "0x2000"
    there.lab.server.devices.plug("scratch", device_id="on-the-bus")
    with pytest.raises(NoSuchPath):
        look("devices/on-the-bus/pci", 0)


def test_a_recording_of_a_function_replays_with_its_resets(
    there: Functions, tmp_path: Path
) -> None:
    there.plug("uart16550")
    file = tmp_path / "card.rec"
    scratch, ier, thre = 7, 1, 0x02
    with there.vmm() as vmm:
        vmm.put(0, scratch, 0x55, 1)
        with there.lab.host().debug.record_to(file):
            vmm.put(0, ier, thre, 1)
            assert vmm.get(0, scratch, 1) == 0x55
            vmm.reset()
            assert vmm.get(0, ier, 1) == 0
    with file.open("rb") as opened:
        recording = Recording.read(opened)
        events = list(recording)
        replayer = Replayer(recording, DeviceTypes())
        assert list(replayer.run()) == []
    assert [event.source for event in events if isinstance(event, Woken)].count("reset") == 1
    assert replayer.summary.accesses == 3


def test_a_reset_waits_no_longer_for_a_device_than_an_access_does(there: Functions) -> None:
    device = there.messenger()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with device.lock:
            held.set()
            done.wait(WAIT_S)

    holding = threading.Thread(target=hold)
    holding.start()
    assert held.wait(WAIT_S)
    with there.vmm() as vmm:
        vmm.set_command(BUS_MASTER)
        started_s = time.monotonic()
        assert vmm.refused(DeviceReset()) == ETIMEDOUT
        assert time.monotonic() - started_s < QEMU_WAITS_S
        assert vmm.get(CONFIG, COMMAND, 2) == BUS_MASTER, "neither is reset"
        done.set()
        holding.join(WAIT_S)
        vmm.reset()
