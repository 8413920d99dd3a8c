"""DebugService.Inspect: the server's live state, by path."""

from __future__ import annotations

import grpc
import pytest

from daemonlab import Lab, refused
from debugwire import LCR, SCR, UART, DebugWire, in_thread
from devicehost.v1 import debug_service_pb2 as pb
from devicehost_client import DeviceHost
from wire import CALL_S


@pytest.fixture
def wire(lab: Lab, host: DeviceHost) -> DebugWire:
    """The service, where a UART is plugged."""
    host.hotplug.plug("uart16550", device_id="uart0")
    return DebugWire(lab.channel())


def below(node: pb.Node) -> dict[str, pb.Node]:
    return {each.name: each for each in node.nodes}


def test_the_root_has_a_branch_for_each_part_of_the_server(wire: DebugWire) -> None:
    root = wire.inspect(depth=1)
    assert root.name == ""
    assert below(root).keys() >= {
        *("server", "devices", "ranges", "interrupts", "resources", "sessions"),
        *("memory", "debug", "threads"),
    }
    assert all(branch.cut for branch in root.nodes if branch.name in {"server", "devices"})
    assert not any(branch.nodes for branch in root.nodes)


def test_the_whole_tree_can_be_had_at_once(wire: DebugWire) -> None:
    root = wire.inspect()
    devices = below(below(root)["devices"])
    assert below(below(devices["uart0"])["registers"])["LCR"].value == "0x00"


def test_the_server_says_who_it_is(wire: DebugWire, host: DeviceHost) -> None:
    server = {name: node.value for name, node in below(wire.inspect("server")).items()}
    assert server["instance_id"] == host.server().instance_id
    assert server["version"] == host.server().version
    assert server["draining"] == "no"


def test_a_device_is_seen_as_it_is_now(wire: DebugWire, host: DeviceHost) -> None:
    vcpu = host.vcpu(0)
    vcpu.pio_write(UART + LCR, 1, 0x83)
    vcpu.pio_write(UART + SCR, 1, 0x55)
    lcr = wire.inspect("devices/uart0/registers/LCR")
    assert lcr.value == "0x83"
    assert below(lcr)["DLAB"].value == "0x1"
    assert below(lcr)["WLS"].value.startswith("0x3 ")
    assert wire.value("devices/uart0/counts/writes") == "2"
    assert wire.value("devices/uart0/saved/scratch") == str(0x55)
    assert wire.value("devices/uart0/type") == "uart16550"
    assert wire.value("ranges/pio/0x3f8-0x3ff") == "uart0"


def test_no_more_levels_than_asked_for_come(wire: DebugWire) -> None:
    node = wire.inspect("devices", 2)
    device = below(node)["uart0"]
    assert not device.cut
    assert below(device)["registers"].cut
    assert not below(device)["registers"].nodes


def test_what_is_held_armed_and_broken_is_seen(wire: DebugWire, host: DeviceHost) -> None:
    wire.break_at("uart0.SCR")
    wire.fault("uart0.LSR", stuck_at_zero=0x20)
    with wire.hits() as hits, wire.trace():
        writing = in_thread(lambda: host.vcpu(0).pio_write(UART + SCR, 1, 7))
        hit = hits.hit()
        debug = wire.inspect("debug")
        assert len(below(debug)["breakpoints"].nodes) == 1
        assert len(below(debug)["faults"].nodes) == 1
        assert below(debug)["held"].value == "1"
        assert [feed.value for feed in below(debug)["feeds"].nodes] == ["TraceFeed"]
        wire.resume(hit)
        writing.result(CALL_S)


def test_a_path_that_leads_nowhere_is_not_found(wire: DebugWire) -> None:
    with refused(grpc.StatusCode.NOT_FOUND, "NO_SUCH_PATH") as metadata:
        wire.inspect("devices/uart1")
    assert metadata == {"path": "devices/uart1", "known": "uart0"}


def test_what_is_on_the_way_but_cannot_be_seen_says_why(wire: DebugWire, host: DeviceHost) -> None:
    host.hotplug.plug("register", device_id="r")
    with refused(grpc.StatusCode.NOT_FOUND, "NO_REGISTER_MAP"):
        wire.inspect("devices/r/registers/A")
    assert "no register map" in below(wire.inspect("devices/r"))["registers"].value


def test_large_state_is_shown_in_part(wire: DebugWire, host: DeviceHost) -> None:
    host.hotplug.plug("scratch", {"size": "1M"}, device_id="large")
    value = wire.value("devices/large/saved/registers")
    assert value.endswith("… (2097152 characters)")
    assert wire.inspect("").ByteSize() < 4 << 20


def test_to_inspect_changes_nothing(wire: DebugWire, host: DeviceHost) -> None:
    before = wire.save()
    with wire.trace() as trace:
        wire.inspect()
        host.vcpu(0).pio_write(UART + SCR, 1, 0)
        assert trace.accesses(1)[0].address == UART + SCR
    assert wire.save() == before
