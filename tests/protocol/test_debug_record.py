"""DebugService.Record: everything, in a file that tells of itself; or an end with a reason."""

from __future__ import annotations

import io
import os
from pathlib import Path

import grpc
import pytest

from daemonlab import Lab, daemon, refused, wait_until
from debugwire import LCR, SCR, UART, DebugWire, Streaming
from devicehost.access_status import AccessStatus
from devicehost.recording import Recording
from devicehost.recording.events import Access, Event, Interrupt, Plugged, Unplugged
from devicehost_client import DeviceHost, connect
from devicehost_server.debug.taps import BACKLOG_MAX
from devicehost_server.services.debug_streams import CHUNK_MAX
from testdevices import FAULT, LEVEL
from wire import CALL_S

BASE = 0xD000_0000
UNDERWAY_MAX = 16 << 20
"""More than gRPC takes from the server before the client reads, in bytes."""


@pytest.fixture
def wire(lab: Lab, host: DeviceHost) -> DebugWire:
    """The service, where a UART and a device that can fail are plugged."""
    host.hotplug.plug("uart16550", device_id="uart0")
    host.hotplug.plug("register", {"base": str(BASE), "irq": "9"}, device_id="r")
    return DebugWire(lab.channel())


class Recorder:
    """What came of a recording so far."""

    def __init__(self, stream: Streaming) -> None:
        self._stream = stream
        self.data = stream.next().data

    def until(self, address: int) -> None:
        """Take chunks until an access at an address is in them."""
        while not any(isinstance(e, Access) and e.address == address for e in self.events()):
            chunk = self._stream.next().data
            assert 0 < len(chunk) <= CHUNK_MAX
            self.data += chunk

    def recording(self) -> Recording:
        return Recording.read(io.BytesIO(self.data))

    def events(self) -> list[Event]:
        return list(self.recording())


def test_a_recording_begins_with_the_state_of_all_devices(
    wire: DebugWire, host: DeviceHost
) -> None:
    host.vcpu(0).pio_write(UART + SCR, 1, 0x42)
    with wire.record() as stream:
        recorder = Recorder(stream)
        host.vcpu(0).pio_write(UART + LCR, 1, 3)
        recorder.until(UART + LCR)
    header = recorder.recording().header
    devices = {device.id: device for device in header.devices}
    assert devices.keys() == {"uart0", "r"}
    assert devices["uart0"].type == "uart16550"
    state = devices["uart0"].state
    assert state is not None
    assert state["scratch"] == 0x42


def test_a_recording_that_is_finished_has_all_that_was_done_before_and_an_end(
    wire: DebugWire, host: DeviceHost
) -> None:
    vcpu = host.vcpu(0)
    for count in (0, 1, 3000):
        with wire.record() as stream:
            data = stream.next().data
            for number in range(count):
                vcpu.pio_write(UART + SCR, 1, number & 0xFF)
            stream.finish()
            data += b"".join(message.data for message in stream)
        recording = Recording.read(io.BytesIO(data))
        written = [event.data[0] for event in recording if isinstance(event, Access)]
        assert written == [number & 0xFF for number in range(count)]
        assert (recording.is_complete, recording.damage) == (True, None)


def test_a_long_recording_takes_few_bytes_each_and_no_more_memory(tmp_path: Path) -> None:
    """So many that a leak shows; ten million by DEVICEHOST_RECORDED_ACCESSES."""
    count = int(os.environ.get("DEVICEHOST_RECORDED_ACCESSES", "60000"))
    path = tmp_path / "long.dhrec"
    with daemon(tmp_path, "--device", "scratch,id=s,base=0xd0000000,size=64") as running:
        vcpu = running.host(transport="ring").vcpu(0)
        data = memoryview(bytearray(4))
        sizes_kib: list[int] = []
        with (
            connect(running.endpoint, transport="grpc-stream") as host,
            host.debug.record_to(path),
        ):
            for _ in range(4):
                for _ in range(count // 4):
                    vcpu.mmio_read_into(BASE, data)
                sizes_kib.append(resident_kib(running.process.pid))
        assert vcpu.failures == 0
    recording = Recording.open(path)
    assert sum(isinstance(event, Access) for event in recording) == count // 4 * 4
    assert recording.is_complete
    assert path.stat().st_size / count <= 24
    # The first quarter fills the buffers.
    assert sizes_kib[-1] - sizes_kib[0] < 16 << 10, sizes_kib


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1])


def test_a_recording_without_a_request_is_refused(wire: DebugWire) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST"):
        next(wire.call.Record(iter(()), timeout=CALL_S))


def test_all_that_happens_is_in_it_in_order(wire: DebugWire, host: DeviceHost) -> None:
    with wire.record() as stream:
        recorder = Recorder(stream)
        vcpu = host.vcpu(1)
        vcpu.mmio_write(BASE + LEVEL, 1, 1)
        vcpu.mmio_read(BASE + FAULT, 4)
        host.hotplug.plug("uart16550", {"base": "0x2f8", "irq": "3"}, device_id="uart1")
        vcpu.pio_write(UART + LCR, 1, 3)
        recorder.until(UART + LCR)  # a device that goes at once is not in it
        host.hotplug.unplug("uart1")
        vcpu.pio_write(UART + SCR, 1, 7)
        recorder.until(UART + SCR)
    events = recorder.events()
    accesses = [event for event in events if isinstance(event, Access)]
    assert [(each.vcpu, each.address, each.status) for each in accesses] == [
        (1, BASE + LEVEL, AccessStatus.OK),
        (1, BASE + FAULT, AccessStatus.DEVICE_FAULT),
        (1, UART + LCR, AccessStatus.OK),
        (1, UART + SCR, AccessStatus.OK),
    ]
    assert [event.gsi for event in events if isinstance(event, Interrupt)] == [9]
    assert [event.device["id"] for event in events if isinstance(event, Plugged)] == ["uart1"]
    assert [event.device for event in events if isinstance(event, Unplugged)] == ["uart1"]


def test_what_other_devices_do_is_not_in_a_recording_of_some(
    wire: DebugWire, host: DeviceHost
) -> None:
    with wire.record("uart0") as stream:
        recorder = Recorder(stream)
        host.vcpu(0).mmio_write(BASE, 4, 1)
        host.vcpu(0).pio_write(UART + SCR, 1, 7)
        recorder.until(UART + SCR)
    assert [device.id for device in recorder.recording().header.devices] == ["uart0"]
    assert {event.address for event in recorder.events() if isinstance(event, Access)} == {
        UART + SCR
    }


def test_a_device_that_is_not_there_cannot_be_recorded(wire: DebugWire) -> None:
    with refused(grpc.StatusCode.NOT_FOUND, "NO_SUCH_DEVICE"), wire.record("none") as stream:
        stream.next()


def test_who_does_not_keep_up_gets_a_recording_that_was_cut(
    wire: DebugWire, host: DeviceHost
) -> None:
    with wire.record() as stream:
        first = stream.next().data
        data = bytes(3072)
        for _ in range((BACKLOG_MAX + UNDERWAY_MAX) // len(data)):
            host.vcpu(0).mmio_write_from(BASE + 0x100, data)
        rest = [first]
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "RECORDING_TOO_SLOW"):
            for message in stream:
                rest.append(message.data)  # noqa: PERF401 # what came before the end counts
    recording = Recording.read(io.BytesIO(b"".join(rest)))
    events = list(recording)
    assert events
    assert not recording.is_complete


def test_a_recording_that_ends_leaves_nothing_armed(wire: DebugWire, host: DeviceHost) -> None:
    for _ in range(70):  # more than there are workers for streams
        with wire.record() as stream:
            stream.next()
    wait_until(lambda: not wire.inspect("debug/feeds").nodes)
    host.vcpu(0).pio_write(UART + SCR, 1, 7)


def test_a_recording_ends_when_the_server_stops(
    lab: Lab, wire: DebugWire, host: DeviceHost
) -> None:
    with wire.record() as stream:
        recorder = Recorder(stream)
        host.vcpu(0).pio_write(UART + SCR, 1, 7)
        recorder.until(UART + SCR)
        lab.server.stop()
        with refused(grpc.StatusCode.UNAVAILABLE, "DRAINING"):
            list(stream)
