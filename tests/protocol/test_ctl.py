"""`devicehostctl` and `devicehostd`, as processes that talk to each other."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

BIN = Path(sys.executable).parent
PATIENCE_S = 30.0

ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("DEVICEHOST_")}

RAM = "scratch,id=ram,base=0xd0000000,size=0x1000,irq=5"
PORTS = "scratch,id=ports,bus=pio,base=0x300,size=8"


class Server:
    """A running `devicehostd`."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self.endpoint = f"unix:{directory / 's.sock'}"
        self._log_path = directory / "log"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(directory / "notify"))
            ready.settimeout(PATIENCE_S)
            self._log = self._log_path.open("wb")
            self.process = subprocess.Popen(
                [BIN / "devicehostd", "--socket-path", directory / "s.sock", *flags],
                stderr=self._log,
                env={**ENVIRONMENT, "NOTIFY_SOCKET": str(directory / "notify")},
            )
            assert ready.recv(64) == b"READY=1"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE_S)
        self._log.close()

    def logged(self, event: str) -> dict[str, Any]:
        """The first line of the log with this event."""
        lines: list[dict[str, Any]] = list(map(json.loads, self._log_path.read_text().splitlines()))
        return next(each for each in lines if each["event"] == event)

    def ctl(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return ctl("--endpoint", self.endpoint, *arguments, **options)

    def json(self, *arguments: str) -> Any:
        done = self.ctl("-o", "json", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    def ok(self, *arguments: str) -> list[str]:
        """The lines of stdout."""
        done = self.ctl(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    def refused(self, *arguments: str) -> list[str]:
        """The lines of stderr."""
        done = self.ctl(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr.splitlines()


def ctl(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [str(BIN / "devicehostctl"), *arguments]
    return subprocess.run(command, text=True, timeout=PATIENCE_S, check=False, **streams)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server with flags."""
    servers: list[Server] = []

    def start_server(*flags: str) -> Server:
        servers.append(Server(tmp_path, *flags))
        return servers[-1]

    yield start_server
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Like `server`, for tests that leave it as it is."""
    server = Server(tmp_path_factory.mktemp("shared"), "--device", RAM, "--device", PORTS)
    yield server
    server.stop()


@pytest.fixture
def server(start: Callable[..., Server]) -> Server:
    """A server with 4 KiB of registers in memory, with an interrupt, and 8 ports."""
    return start("--device", RAM, "--device", PORTS)


@contextmanager
def running(server: Server, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A `devicehostctl` that goes on."""
    with subprocess.Popen(
        [BIN / "devicehostctl", "--endpoint", server.endpoint, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    """The next line of stdout; it comes without delay, or the test times out."""
    assert process.stdout is not None
    return process.stdout.readline()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline


# device


def test_device_list_is_a_table_of_all_devices(shared: Server) -> None:
    assert shared.ok("device", "list") == [
        "ID     TYPE     STATE    RESOURCES",
        "ports  scratch  plugged  pio:0x300+0x8",
        "ram    scratch  plugged  mmio:0xd0000000+0x1000 irq:5",
    ]


def test_device_list_has_the_same_in_json(server: Server) -> None:
    ports, ram = server.json("device", "list")["devices"]
    assert (ports["id"], ram["id"]) == ("ports", "ram")
    assert ram == server.json("device", "show", "ram")
    assert ram == {
        "id": "ram",
        "type": "scratch",
        "state": "plugged",
        "generation": 1,
        "config": {"base": "0xd0000000", "size": "0x1000", "irq": "5"},
        "resources": [
            {"text": "mmio:0xd0000000+0x1000", "kind": "mmio"}
            | {"base": "0xd0000000", "size": "0x1000"},
            {"text": "irq:5", "kind": "irq", "irq": 5},
        ],
        "accesses": {"reads": 0, "writes": 0, "faults": 0},
    }


def test_device_show_lists_the_fields_of_one_device(server: Server) -> None:
    server.ok("io", "read", "pio", "0x300", "1")
    assert [row.split() for row in server.ok("device", "show", "ports")] == [
        ["FIELD", "VALUE"],
        ["id", "ports"],
        ["type", "scratch"],
        ["state", "plugged"],
        ["generation", "2"],
        ["config", "base=0x300"],
        ["config", "bus=pio"],
        ["config", "size=8"],
        ["resource", "pio:0x300+0x8"],
        ["reads", "1"],
        ["writes", "0"],
        ["faults", "0"],
    ]


def test_device_show_of_no_device_fails_with_reason_and_facts(shared: Server) -> None:
    assert shared.refused("device", "show", "com1") == [
        "devicehostctl: there is no device 'com1'",
        "  code: NOT_FOUND",
        "  reason: NO_SUCH_DEVICE",
        "  device: com1",
    ]


def test_a_failure_is_json_when_the_output_is(shared: Server) -> None:
    (failure,) = shared.refused("device", "show", "com1", "-o", "json")
    assert json.loads(failure)["error"] == {
        "message": "there is no device 'com1'",
        "code": "NOT_FOUND",
        "reason": "NO_SUCH_DEVICE",
        "metadata": {"device": "com1"},
    }


def test_device_plug_plugs_with_configuration_and_name_and_shows_the_device(
    server: Server,
) -> None:
    plugged = server.json("device", "plug", "scratch", "bus=pio", "--id", "new", "size=0x10")
    assert (plugged["id"], plugged["type"], plugged["state"]) == ("new", "scratch", "plugged")
    assert plugged["config"] == {"bus": "pio", "size": "0x10"}
    assert plugged == server.json("device", "show", "new")
    assert ["id", "scratch-0"] in [row.split() for row in server.ok("device", "plug", "scratch")]


def test_device_plug_with_a_bad_configuration_names_the_field(shared: Server) -> None:
    message, *facts = shared.refused("device", "plug", "scratch", "size=huge")
    assert "field 'size': 'huge' is not allowed; allowed: a number" in message
    assert {"  reason: BAD_CONFIG", "  field: size", "  step: create"} <= set(facts)


def test_device_plug_if_generation_is_refused_once_the_devices_have_changed(
    server: Server,
) -> None:
    generation = server.json("device", "unplug", "ports")["generation"]
    wanted = ("device", "plug", "scratch", "--if-generation", str(generation))
    server.ok(*wanted)
    assert "  reason: GENERATION_MISMATCH" in server.refused(*wanted)
    assert "  reason: GENERATION_MISMATCH" in server.refused(
        "device", "unplug", "ram", "--if-generation", hex(generation)
    )


def test_device_unplug_frees_the_device_and_tells_the_generation(server: Server) -> None:
    header, row = server.ok("device", "unplug", "ram")
    assert header.split() == ["ID", "STATE", "GENERATION"]
    assert row.split() == ["ram", "unplugged", "4"]
    assert [d["id"] for d in server.json("device", "list")["devices"]] == ["ports"]
    assert server.ok("resource", "list") == [
        "RESOURCE       OWNER",
        "pio:0x300+0x8  device/ports",
    ]


def test_device_types_lists_types_and_the_options_of_one(shared: Server) -> None:
    types = {each["name"]: each for each in shared.json("device", "types")["types"]}
    assert types["scratch"] == shared.json("device", "types", "scratch")
    names = {row.split()[0] for row in shared.ok("device", "types")[1:]}
    assert names == types.keys()
    header, *rows = shared.ok("device", "types", "scratch")
    assert header.split() == ["OPTION", "DEFAULT", "ALLOWED", "HELP"]
    assert [row.split()[:2] for row in rows] == [
        [option["name"], option["default"]] for option in types["scratch"]["options"]
    ]


def test_device_types_of_an_unknown_type_names_those_that_are_known(shared: Server) -> None:
    (message,) = shared.refused("device", "types", "scratsh")
    assert message.startswith("devicehostctl: no device type 'scratsh'; known: ")
    assert "scratch" in message


def test_device_watch_shows_what_is_there_and_then_each_change(server: Server) -> None:
    with running(server, "device", "watch") as watch:
        assert line(watch).split() == ["GENERATION", "EVENT", "ID", "TYPE", "RESOURCES"]
        assert line(watch).split() == ["2", "present", "ports", "scratch", "pio:0x300+0x8"]
        assert line(watch).split()[:3] == ["2", "present", "ram"]
        server.ok("device", "plug", "scratch", "--id", "new")
        assert line(watch).split()[:3] == ["3", "plugged", "new"]
        server.ok("device", "unplug", "new")
        assert line(watch).split()[:3] == ["4", "unplugging", "new"]
        assert line(watch).split()[:3] == ["5", "unplugged", "new"]


def test_device_watch_in_json_is_an_object_on_each_line(server: Server) -> None:
    with running(server, "-o", "json", "device", "watch") as watch:
        present = json.loads(line(watch))
        assert (present["event"], present["generation"]) == ("present", 2)
        assert present["devices"] == server.json("device", "list")["devices"]
        plugged = server.json("device", "plug", "scratch")
        assert json.loads(line(watch)) == {
            "event": "plugged",
            "generation": 3,
            "device": plugged,
        }


WATCHES = pytest.mark.parametrize("noun", ["device", "interrupt"])


@WATCHES
def test_a_watch_ends_on_sigint_with_0(shared: Server, noun: str) -> None:
    with running(shared, noun, "watch") as watch:
        line(watch)  # the header
        line(watch)
        watch.send_signal(signal.SIGINT)
        _, errors = watch.communicate(timeout=PATIENCE_S)
        assert (watch.returncode, errors) == (0, "")


def test_a_watch_that_is_to_ignore_sigint_does(server: Server) -> None:
    command = f"trap '' INT; exec {BIN / 'devicehostctl'} -o json device watch"
    with subprocess.Popen(
        ["/bin/sh", "-c", command],  # as a script's job in the background is started
        stdout=subprocess.PIPE,
        env={**ENVIRONMENT, "DEVICEHOST_ENDPOINT": server.endpoint},
        text=True,
    ) as watch:
        line(watch)
        watch.send_signal(signal.SIGINT)
        server.ok("device", "unplug", "ram")
        assert [json.loads(line(watch))["event"] for _ in range(2)] == ["unplugging", "unplugged"]
        watch.kill()


def test_any_other_command_is_killed_by_sigint(start: Callable[..., Server]) -> None:
    server = start("--device", f"{PORTS},delay_offset=0,delay_ms=4500")
    with running(server, "io", "read", "pio", "0x300", "1") as read:
        wait_until(lambda: server.json("device", "show", "ports")["accesses"]["reads"] == 1)
        read.send_signal(signal.SIGINT)
        output = read.communicate(timeout=PATIENCE_S)
        assert (read.returncode, *output) == (-signal.SIGINT, "", "")
    server.process.kill()  # rather than wait for the device


@WATCHES
def test_a_watch_ends_silently_when_nobody_reads_it_and_nothing_happens(
    shared: Server, noun: str
) -> None:
    with running(shared, noun, "watch") as watch:
        line(watch)
        assert watch.stdout is not None
        assert watch.stderr is not None
        watch.stdout.close()
        assert watch.wait(PATIENCE_S) == 0
        assert watch.stderr.read() == ""


@WATCHES
def test_a_watch_of_a_server_that_dies_ends_with_3(server: Server, noun: str) -> None:
    with running(server, noun, "watch") as watch:
        line(watch)
        line(watch)
        server.process.kill()
        assert watch.wait(PATIENCE_S) == 3
        assert watch.stderr is not None
        assert watch.stderr.read().startswith("devicehostctl: ")


# resource


def test_what_resource_list_shows_can_be_released(server: Server) -> None:
    constraints = (
        *("pio:0x400+8", "pio:size=4,min=0x500", "mem:size=0x100000"),
        "mmio:size=0x1000,align=0x1000,max=0xffffffff",
        *("irq:4", "irq", "msi:size=4,type=pci-msix", "slot:3+2", "slot"),
    )
    allocated = server.json("resource", "allocate", "--owner", "vmm", *constraints)["allocations"]
    rows = [row.split() for row in server.ok("resource", "list")[1:]]
    mine = [resource for resource, owner in rows if owner == "vmm"]
    assert sorted(mine) == sorted(each["resource"]["text"] for each in allocated)
    assert {"pio:0x400+0x8", "irq:4", "slot:3", "slot:4", "msi:24+4,type=pci-msix"} < set(mine)
    assert server.ok("resource", "release", "--owner", "vmm", *mine) == []
    assert {owner for _, owner in rows} == {"vmm", "device/ports", "device/ram"}
    after = server.json("resource", "list")["allocations"]
    assert {each["owner"] for each in after} == {"device/ports", "device/ram"}


def test_resource_allocate_shows_what_was_given_in_the_order_asked(server: Server) -> None:
    rows = server.ok("resource", "allocate", "--owner", "vmm", "slot", "irq:4", "pio:0x400+8")
    assert [row.split() for row in rows] == [
        ["RESOURCE", "OWNER"],
        ["slot:0", "vmm"],
        ["irq:4", "vmm"],
        ["pio:0x400+0x8", "vmm"],
    ]


def test_resource_allocate_is_all_or_nothing_and_says_who_has_it(shared: Server) -> None:
    before = shared.ok("resource", "list")
    facts = shared.refused("resource", "allocate", "--owner", "vmm", "irq", "pio:0x304+8")
    assert "  reason: RANGE_TAKEN" in facts
    assert "  holder: device/ports" in facts
    assert shared.ok("resource", "list") == before


def test_resource_release_of_what_one_does_not_have_fails(shared: Server) -> None:
    facts = shared.refused("resource", "release", "--owner", "vmm", "irq:9")
    assert "  reason: NOT_ALLOCATED" in facts


def test_resource_release_tells_in_json_what_it_released(server: Server) -> None:
    server.ok("resource", "allocate", "--owner", "vmm", "irq:4")
    assert server.json("resource", "release", "--owner", "vmm", "irq:4") == {
        "owner": "vmm",
        "released": [{"text": "irq:4", "kind": "irq", "irq": 4}],
    }


def test_resource_capacity_shows_what_each_pool_has_left(shared: Server) -> None:
    header, *rows = shared.ok("resource", "capacity")
    assert header.split() == ["POOL", "TOTAL", "FREE", "LARGEST"]
    by_name = {row.split()[0]: row.split()[1:3] for row in rows}
    assert by_name["pio"] == ["64K", str(0x10000 - 8)]
    pools = {pool["name"]: pool for pool in shared.json("resource", "capacity")["pools"]}
    assert pools.keys() == by_name.keys()
    assert (pools["pio"]["total"], pools["pio"]["free"]) == ("0x10000", "0xfff8")


# io


def test_what_io_write_writes_io_read_reads(shared: Server) -> None:
    assert shared.ok("io", "write", "mmio", "0xd0000010", "4", "0x12345678") == []
    assert shared.ok("io", "read", "mmio", "3489660944", "4") == ["0x12345678"]
    assert shared.ok("io", "read", "mmio", "0xd0000010", "1") == ["0x78"]
    assert shared.ok("io", "write", "pio", "0x304", "2", "258") == []
    assert shared.ok("io", "read", "pio", "0x304", "2") == ["0x0102"]


def test_io_read_of_several_goes_up_in_memory_and_stays_at_a_port(server: Server) -> None:
    for offset, value in enumerate((0x11, 0x22, 0x33)):
        server.ok("io", "write", "mmio", hex(0xD000_0000 + offset), "1", hex(value))
        server.ok("io", "write", "pio", hex(0x300 + offset), "1", hex(value))
    several = ("1", "--count", "3")
    assert server.ok("io", "read", "mmio", "0xd0000000", *several) == ["0x11", "0x22", "0x33"]
    assert server.ok("io", "read", "pio", "0x301", *several) == ["0x22", "0x22", "0x22"]
    assert server.json("device", "show", "ports")["accesses"]["reads"] == 3


def test_io_in_json_says_what_was_accessed(shared: Server) -> None:
    where = ("mmio", "0xd0000000", "8")
    access = {"space": "mmio", "address": "0xd0000000", "size": "0x8"}
    written = shared.json("io", "write", *where, "0xffffffffffffffff")
    assert written == {**access, "value": "0xffffffffffffffff"}
    read = shared.json("io", "read", *where, "--count", "2")
    assert read == {**access, "values": ["0xffffffffffffffff", "0x0000000000000000"]}


@pytest.mark.parametrize("verb", [("read",), ("write", "0")])
def test_an_access_without_a_device_is_an_error_and_not_all_ones(
    shared: Server, verb: tuple[str, ...]
) -> None:
    name, *value = verb
    facts = shared.refused("io", name, "mmio", "0x10", "4", *value)
    assert {"  code: NOT_FOUND", "  reason: NO_DEVICE", "  address: 0x10"} <= set(facts)


def test_an_access_past_the_end_of_a_device_is_an_error(shared: Server) -> None:
    assert "  reason: ACCESS_OUT_OF_RANGE" in shared.refused("io", "read", "pio", "0x306", "4")


def test_an_access_that_the_device_fails_is_an_error(start: Callable[..., Server]) -> None:
    server = start("--device", f"{PORTS},fault_offset=4")
    assert "  reason: DEVICE_FAULT" in server.refused("io", "read", "pio", "0x304", "1")
    assert server.ok("io", "read", "pio", "0x303", "1") == ["0x00"]


def test_an_access_that_takes_too_long_on_the_server_is_an_error(
    start: Callable[..., Server],
) -> None:
    slow = f"{PORTS},delay_offset=4,delay_ms=60"
    server = start("--device", slow, "--access-timeout", "0.01")
    assert "  reason: DEVICE_TIMEOUT" in server.refused("io", "read", "pio", "0x304", "1")


# interrupt


def test_interrupt_watch_shows_the_state_and_then_each_change(server: Server) -> None:
    def set_level(value: str) -> None:
        server.ok("io", "write", "mmio", "0xd0000fff", "1", value)

    with running(server, "interrupt", "watch") as watch:
        assert line(watch).split() == ["EVENT", "GSI"]
        assert line(watch).split() == ["state", "-"]
        set_level("1")
        assert line(watch).split() == ["asserted", "5"]
        with running(server, "-o", "json", "interrupt", "watch") as second:
            assert json.loads(line(second)) == {"event": "state", "asserted": [5]}
            set_level("0")
            assert json.loads(line(second)) == {"event": "deasserted", "gsi": 5}
        assert line(watch).split() == ["deasserted", "5"]


# map


def test_map_shows_both_spaces_with_first_and_last_addresses(shared: Server) -> None:
    assert shared.ok("map") == [
        "SPACE  RANGE                                  DEVICE  TYPE",
        "pio    0x0300-0x0307                          ports   scratch",
        "mmio   0x00000000d0000000-0x00000000d0000fff  ram     scratch",
    ]


def test_map_in_json_has_base_size_and_last(shared: Server) -> None:
    ports, ram = shared.json("map")["ranges"]
    assert ports == {"space": "pio", "base": "0x300", "size": "0x8", "last": "0x307"} | {
        "device": "ports",
        "type": "scratch",
    }
    assert (ram["space"], ram["last"]) == ("mmio", "0xd0000fff")


def test_map_of_no_devices_is_a_header(start: Callable[..., Server]) -> None:
    assert start().ok("map") == ["SPACE  RANGE  DEVICE  TYPE"]


# health


def test_health_of_a_server_that_serves_is_0(server: Server) -> None:
    fields = dict(row.split(None, 1) for row in server.ok("health"))
    assert fields["state"] == "serving"
    assert fields["pid"] == str(server.process.pid)
    told = server.json("health")
    assert (told["state"], told["pid"]) == ("serving", server.process.pid)
    assert (told["version"], told["instance_id"]) == (fields["version"], fields["instance"])
    assert 0 <= told["uptime_s"] < PATIENCE_S


def test_a_server_that_drains_says_so_to_health_to_watches_and_to_new_work(
    start: Callable[..., Server],
) -> None:
    slow = "scratch,id=slow,base=0xd0000000,delay_offset=0,delay_ms=4500"
    server = start("--device", slow, "--access-timeout", "10", "--drain-timeout", "10")
    with (
        running(server, "device", "watch") as watch,
        running(server, "io", "read", "mmio", "0xd0000000", "1") as read,
    ):
        line(watch)  # the header
        line(watch)
        wait_until(lambda: server.json("device", "show", "slow")["accesses"]["reads"] == 1)
        server.process.terminate()  # it waits for the read
        while (done := server.ctl("-o", "json", "health")).returncode == 0:
            assert json.loads(done.stdout)["state"] == "serving"
        assert (done.returncode, done.stderr) == (1, "")
        assert json.loads(done.stdout)["state"] == "draining"
        assert "  reason: DRAINING" in server.refused("device", "plug", "scratch")
        _, errors = watch.communicate(timeout=PATIENCE_S)
        assert (watch.returncode, "  reason: DRAINING\n" in errors) == (1, True)
        assert line(read) == "0x00\n"


def test_health_of_a_server_that_is_gone_is_3(server: Server) -> None:
    server.process.terminate()
    server.process.wait(PATIENCE_S)
    done = server.ctl("health")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"devicehostctl: can't reach {server.endpoint}: ")


# the connection, and stdout


def test_the_endpoint_comes_from_the_environment_unless_it_is_given(shared: Server) -> None:
    right, wrong = ({**ENVIRONMENT, "DEVICEHOST_ENDPOINT": e} for e in (shared.endpoint, "tcp:x:1"))
    assert ctl("health", env=right).returncode == 0
    assert shared.ctl("health", env=wrong).returncode == 0


def test_over_tcp_it_proves_who_it_is(start: Callable[..., Server], tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name, host in (("server", "127.0.0.1"), ("client", "vmm1")):
        issued = ca.issue_cert(host)
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
    files = {name: str(tmp_path / name) for name in ("ca.pem", "server.pem", "server.key")}
    server = start(
        *("--device", PORTS, "--tcp", "127.0.0.1:0", "--tls-client-ca", files["ca.pem"]),
        *("--tls-cert", files["server.pem"], "--tls-key", files["server.key"]),
    )
    endpoint = f"tcp:127.0.0.1:{server.logged('ready')['tcp_port']}"
    who = (
        *("--tls-ca", files["ca.pem"], "--tls-cert", str(tmp_path / "client.pem")),
        *("--tls-key", str(tmp_path / "client.key")),
    )
    known = ctl("--endpoint", endpoint, *who, "device", "list", "-o", "json")
    assert [device["id"] for device in json.loads(known.stdout)["devices"]] == ["ports"]
    unknown = ctl("--endpoint", endpoint, "device", "list")
    assert (unknown.returncode, unknown.stdout) == (3, "")


def test_an_answer_that_nobody_reads_is_no_error(shared: Server) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = shared.ctl("map", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_answer_that_can_not_be_written_is_an_error(shared: Server) -> None:
    with Path("/dev/full").open("w") as full:
        done = shared.ctl("map", stdout=full)
    assert done.returncode == 1
    assert done.stderr == "devicehostctl: can't write the answer: No space left on device\n"
