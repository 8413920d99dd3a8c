"""DebugService.Trace: what happens, with names, never at the cost of a guest."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from daemonlab import Lab, refused, serving, wait_until
from debugwire import IER, LCR, LSR, RBR, SCR, UART, DebugWire
from devicehost.v1 import debug_service_pb2 as pb
from devicehost.v1 import interrupt_service_pb2 as interrupt_pb
from devicehost.v1 import io_service_pb2 as io_pb
from devicehost_client import DeviceHost
from testdevices import COPY_IN, COPY_OUT, FAULT, LEVEL, PULSE

BASE = 0xD000_0000
READ, WRITE = io_pb.OPERATION_READ, io_pb.OPERATION_WRITE


@pytest.fixture
def wire(lab: Lab, host: DeviceHost) -> DebugWire:
    """The service, where a UART and a device that can fail are plugged."""
    host.hotplug.plug("uart16550", device_id="uart0")
    host.hotplug.plug("register", {"base": str(BASE), "irq": "9"}, device_id="r")
    return DebugWire(lab.channel())


def names(access: pb.TracedAccess) -> list[str]:
    return [register.name for register in access.registers]


def test_an_access_comes_with_all_that_is_known_of_it(wire: DebugWire, host: DeviceHost) -> None:
    with wire.trace() as trace:
        before = time.monotonic_ns()
        host.vcpu(3).pio_write(UART + LCR, 1, 0x83)
        after = time.monotonic_ns()
        (event,) = trace.events(1)
    assert before <= event.time_ns <= after
    access = event.access
    assert (access.vcpu, access.space, access.operation) == (3, io_pb.SPACE_PIO, WRITE)
    assert (access.address, access.size, access.data) == (UART + LCR, 1, b"\x83")
    assert (access.device_id, access.offset, access.failure) == ("uart0", LCR, "")
    assert 0 < access.took_ns <= after - before
    (register,) = access.registers
    assert (register.name, register.value, register.reserved) == ("LCR", 0x83, 0)
    assert {field.name: field.value for field in register.fields}["DLAB"] == 1


def test_names_follow_the_state_of_the_device(wire: DebugWire, host: DeviceHost) -> None:
    vcpu = host.vcpu(0)
    with wire.trace() as trace:
        vcpu.pio_read(UART + RBR, 1)
        vcpu.pio_write(UART + LCR, 1, 0x80)
        vcpu.pio_read(UART + RBR, 1)
        found = [names(access) for access in trace.accesses(3)]
    assert found == [["RBR"], ["LCR"], ["DLL"]]
    with wire.trace() as trace:  # which learns that DLAB is set
        vcpu.pio_read(UART + IER, 1)
        assert names(trace.accesses(1)[0]) == ["DLM"]


def test_what_is_read_is_in_the_trace(wire: DebugWire, host: DeviceHost) -> None:
    with wire.trace(no_interrupts=True) as trace:
        host.vcpu(0).mmio_write(BASE, 4, 0x12345678)
        assert host.vcpu(1).mmio_read(BASE, 4) == 0x12345678
        written, read = trace.accesses(2)
    assert (written.vcpu, read.vcpu) == (0, 1)
    assert (read.operation, read.data, read.device_id) == (READ, b"\x78\x56\x34\x12", "r")
    assert not read.registers


def test_an_access_that_fails_says_why(wire: DebugWire, host: DeviceHost) -> None:
    with wire.trace() as trace:
        host.vcpu(0).mmio_read(BASE + FAULT, 4)
        host.vcpu(0).mmio_read(0xDEAD_0000, 4)
        host.vcpu(0).mmio_read(BASE + 0xFFF, 4)
        fault, nobody, across = trace.accesses(3)
    assert (fault.failure, fault.device_id, fault.data) == ("DEVICE_FAULT", "r", b"")
    assert (nobody.failure, nobody.device_id) == ("NO_DEVICE", "")
    assert (nobody.address, nobody.size) == (0xDEAD_0000, 4)
    assert across.failure == "ACCESS_OUT_OF_RANGE"


def test_interrupts_say_whose_they_are_and_come_in_order(wire: DebugWire, host: DeviceHost) -> None:
    with wire.trace() as trace:
        host.vcpu(0).mmio_write(BASE + LEVEL, 1, 1)
        host.vcpu(0).mmio_write(BASE + PULSE, 1, 0)
        host.vcpu(0).mmio_write(BASE + LEVEL, 1, 0)
        found = trace.events(6)
    interrupts = [event.interrupt for event in found if event.HasField("interrupt")]
    assert [(each.gsi, each.device_id) for each in interrupts] == [(9, "r")] * 3
    assert [each.kind for each in interrupts] == [
        interrupt_pb.INTERRUPT_KIND_ASSERTED,
        interrupt_pb.INTERRUPT_KIND_PULSED,
        interrupt_pb.INTERRUPT_KIND_DEASSERTED,
    ]


def test_devices_that_come_and_go_are_in_the_trace(wire: DebugWire, host: DeviceHost) -> None:
    with wire.trace() as trace:
        host.hotplug.plug("uart16550", {"base": "0x2f8", "irq": "3"}, device_id="uart1")
        host.vcpu(0).pio_write(0x2F8 + SCR, 1, 5)
        came, access = trace.events(2)  # of a device that is gone by now, names aren't known
        host.hotplug.unplug("uart1")
        (went,) = trace.events(1)
    assert came.hotplug == pb.TracedHotplug(device_id="uart1", type="uart16550")
    assert names(access.access) == ["SCR"]
    assert went.hotplug == pb.TracedHotplug(device_id="uart1")


def test_dma_is_in_the_trace(wire: DebugWire, host: DeviceHost) -> None:
    host.hotplug.plug("copier", {"base": "0xd2000000"}, device_id="c")
    content = bytearray(0x1000)
    content[0x10:0x18] = b"12345678"
    host.memory.add_buffer(0x4000, memoryview(content))
    with wire.trace(no_accesses=True) as trace:
        host.vcpu(0).mmio_write(0xD200_0000 + COPY_IN, 8, 0x4010)
        host.vcpu(0).mmio_write(0xD200_0000 + COPY_OUT, 8, 0x4800)
        read, written = (event.dma for event in trace.events(2))
    assert (read.device_id, read.operation, read.address) == ("c", READ, 0x4010)
    assert (read.size, read.data) == (8, b"12345678")
    assert (written.operation, written.address, written.data) == (WRITE, 0x4800, b"12345678")


# Filters.


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        (pb.AccessFilter(registers=["uart0.SCR"]), ["scr=5", "scr"]),
        (pb.AccessFilter(registers=["uart0.LSR", "uart0.LCR"]), ["lcr=3", "lsr"]),
        (pb.AccessFilter(device_ids=["r"]), ["r=7", "r"]),
        (pb.AccessFilter(space=io_pb.SPACE_MMIO), ["r=7", "r", "none"]),
        (pb.AccessFilter(base=UART + LSR, size=3), ["scr=5", "scr", "lsr"]),
        (pb.AccessFilter(operation=WRITE), ["scr=5", "lcr=3", "r=7"]),
        (pb.AccessFilter(value=0x01, mask=0x01, operation=WRITE), ["scr=5", "lcr=3", "r=7"]),
        (pb.AccessFilter(value=0x04, mask=0x06, operation=WRITE), ["scr=5"]),
        (pb.AccessFilter(vcpus=[1]), ["lsr", "none"]),
        (pb.AccessFilter(failed=True), ["none"]),
        (pb.AccessFilter(device_ids=["uart0"], operation=READ, vcpus=[0]), ["scr"]),
    ],
)
def test_only_what_the_filter_lets_through_is_sent(
    wire: DebugWire, host: DeviceHost, filter_: pb.AccessFilter, expected: list[str]
) -> None:
    zero, one = host.vcpu(0), host.vcpu(1)
    calls: dict[str, Any] = {
        "scr=5": lambda: zero.pio_write(UART + SCR, 1, 5),
        "scr": lambda: zero.pio_read(UART + SCR, 1),
        "lcr=3": lambda: zero.pio_write(UART + LCR, 1, 3),
        "lsr": lambda: one.pio_read(UART + LSR, 1),
        "r=7": lambda: zero.mmio_write(BASE, 4, 7),
        "r": lambda: zero.mmio_read(BASE, 4),
        "none": lambda: one.mmio_read(0xDEAD_0000, 4),
    }
    with wire.trace(filter=filter_, no_interrupts=True) as trace, wire.trace() as everything:
        for call in calls.values():
            call()
        of_all = [
            event.access for event in everything.events(len(calls)) if event.HasField("access")
        ]
        by_place = {
            (each.address, each.operation): name for each, name in zip(of_all, calls, strict=True)
        }
        found = [by_place[each.address, each.operation] for each in trace.accesses(len(expected))]
        assert found == expected
        zero.pio_read(0x80, 1)  # nothing else came meanwhile: this is the last of all
        assert everything.accesses(1)[0].address == 0x80


def test_a_kind_that_is_left_out_is_not_sent(wire: DebugWire, host: DeviceHost) -> None:
    with wire.trace(no_accesses=True) as trace:
        host.vcpu(0).mmio_write(BASE + LEVEL, 1, 1)
        assert trace.events(1)[0].HasField("interrupt")
    with wire.trace(no_interrupts=True) as trace:
        host.vcpu(0).mmio_write(BASE + LEVEL, 1, 0)
        host.vcpu(0).mmio_write(BASE + LEVEL, 1, 1)
        trace.accesses(2)


@pytest.mark.parametrize(
    ("filter_", "code", "reason"),
    [
        (pb.AccessFilter(registers=["uart0.NONE"]), grpc.StatusCode.NOT_FOUND, "NO_SUCH_REGISTER"),
        (pb.AccessFilter(registers=["none.LCR"]), grpc.StatusCode.NOT_FOUND, "NO_SUCH_DEVICE"),
        (pb.AccessFilter(registers=["r.A"]), grpc.StatusCode.NOT_FOUND, "NO_REGISTER_MAP"),
        (pb.AccessFilter(registers=["LCR"]), grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST"),
        (pb.AccessFilter(space=7), grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST"),  # type: ignore[arg-type] # from a newer client
        (pb.AccessFilter(value=2, mask=1), grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST"),
        (
            pb.AccessFilter(base=0xFFFF, size=2, space=io_pb.SPACE_PIO),
            grpc.StatusCode.INVALID_ARGUMENT,
            "BAD_REQUEST",
        ),
    ],
)
def test_a_filter_that_cannot_be_is_refused(
    wire: DebugWire, filter_: pb.AccessFilter, code: grpc.StatusCode, reason: str
) -> None:
    with refused(code, reason):
        wire.trace(filter=filter_)


# Readers.


def test_a_reader_that_is_too_slow_is_told_how_much_it_missed(
    wire: DebugWire, host: DeviceHost
) -> None:
    vcpu = host.vcpu(0)
    count = 5000
    data = bytes(3072)  # together more than what waits for a reader, here and on the way
    with wire.trace(no_interrupts=True) as trace:
        for _ in range(count):
            vcpu.mmio_write_from(BASE, data)
        vcpu.mmio_write(BASE + 8, 4, 0x600D)
        seen = 0
        for message in trace:
            seen += message.lost + len(message.events)
            trace.lost += message.lost
            if message.events and message.events[-1].access.address == BASE + 8:
                break
    assert seen == count + 1
    assert trace.lost > 0


def test_several_may_trace_at_once_each_its_own(wire: DebugWire, host: DeviceHost) -> None:
    only_scr = pb.AccessFilter(registers=["uart0.SCR"])
    with wire.trace() as one, wire.trace(filter=only_scr) as two:
        host.vcpu(0).pio_write(UART + LCR, 1, 3)
        host.vcpu(0).pio_write(UART + SCR, 1, 5)
        assert [names(each) for each in one.accesses(2)] == [["LCR"], ["SCR"]]
        assert [names(each) for each in two.accesses(1)] == [["SCR"]]


def test_a_trace_that_ended_leaves_nothing_armed(wire: DebugWire, host: DeviceHost) -> None:
    vcpu = host.vcpu(0)
    vcpu.pio_read(UART + SCR, 1)
    for _ in range(100):  # more than there are workers for streams
        with wire.trace() as trace:
            vcpu.pio_read(UART + SCR, 1)
            trace.accesses(1)
    wait_until(lambda: not wire.inspect("debug/feeds").nodes)


def test_a_trace_ends_when_the_server_stops(wire: DebugWire, lab: Lab, host: DeviceHost) -> None:
    with wire.trace() as trace:
        host.vcpu(0).pio_read(UART + SCR, 1)
        trace.accesses(1)
        lab.server.stop()
        with refused(grpc.StatusCode.UNAVAILABLE, "DRAINING"):
            list(trace)


def test_a_server_that_stops_begins_no_trace(tmp_path: Path) -> None:
    with serving(tmp_path) as lab:
        lab.server._gate.drain()
        with refused(grpc.StatusCode.UNAVAILABLE, "DRAINING"):
            DebugWire(lab.channel()).trace()
