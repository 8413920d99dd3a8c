"""A bench that records: real devices behind doors, a journal, and the bus under a tap."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from devicehost.access_status import AccessStatus
from devicehost.recording import DeviceRecord, Header, Recording, RecordingWriter
from devicehost.recording.events import (
    Access,
    Dma,
    Event,
    Interrupt,
    InterruptKind,
    Learned,
    Operation,
    Plugged,
    Space,
    Told,
    Unplugged,
    Woken,
)
from devicehost.registers import to_json
from devicehost_server.allocation import ResourceManager
from devicehost_server.device_manager import DeviceManager
from devicehost_server.devices.base import Hosted
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.model.clock import SystemClock
from devicehost_server.model.device_io import DeviceIoMut
from devicehost_server.model.errors import DeviceHostError
from devicehost_server.model.guest_memory import GuestMemory
from devicehost_server.model.interrupts import InterruptController, InterruptEvent
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.resources import MmioAddressRange, PioAddressRange
from devicehost_server.replay import Difference, Replayer, Spoiled
from devicehost_server.resource_json import resources_to_json
from testdevices import TEST_DEVICES

TYPES = DeviceTypes(TEST_DEVICES)


def record_of(device: Hosted[Any], type_name: str, state: dict[str, Any] | None) -> DeviceRecord:
    """What a recording says of a device."""
    resources = device.context.resources
    register_map = device.get_register_map()
    return DeviceRecord(
        device.name,
        type_name,
        {},
        tuple(resources_to_json(resources)),
        tuple(
            (Space.PIO if isinstance(each, PioAddressRange) else Space.MMIO, each.base, each.size)
            for each in resources
            if isinstance(each, PioAddressRange | MmioAddressRange)
        ),
        None if register_map is None else to_json(register_map),
        state,
    )


class Bench:
    """A server without its ways in. What happens after `begin` is in `events`."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.clock = SystemClock(self.errors.append)
        self.io = IoManager()
        self.interrupts = InterruptController()
        self.memory = GuestMemory()
        self.devices = DeviceManager(
            types=TYPES,
            io=self.io,
            resources=ResourceManager(),
            interrupts=self.interrupts,
            memory=self.memory,
            clock=self.clock,
            on_fault=lambda _, error: self.errors.append(error),
        )
        self.header = Header()
        self.events: list[Event] = []
        self._recorded: set[str] = set()

    def close(self) -> None:
        self.devices.close()
        self.clock.close()
        assert self.errors == []

    def plug(self, type_name: str, device_id: str, **config: str) -> Any:
        """Plug a device; return it."""
        self.devices.plug(type_name, config, device_id=device_id)
        return self.devices.device(device_id)

    # Recording.

    def begin(self, *left_out: str) -> None:
        """Record from here on all devices that are there but some."""
        self.interrupts.subscribe(self.interrupted)
        self.devices.doors.journal = self
        now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
        ids = [info.id for info in self.devices.devices()[1] if info.id not in left_out]
        records = tuple(self.save(device_id) for device_id in ids)
        self.header = Header(records, "0", "", wall_ns, now_ns)

    def save(self, device_id: str) -> DeviceRecord:
        """Begin to record a device."""
        info = self.devices.get(device_id)
        device = self.devices.device(device_id)
        hosted = cast("Hosted[Any]", device)
        assert isinstance(device, DeviceIoMut)
        with device.lock:
            self._recorded.add(device_id)
            state = self.devices.doors.save(hosted)
        record = record_of(hosted, info.type, state)
        return DeviceRecord(
            record.id,
            record.type,
            dict(info.config),
            record.resources,
            record.ranges,
            record.registers,
            record.state,
        )

    def plug_recorded(self, type_name: str, device_id: str, **config: str) -> Any:
        """Plug a device while others are recorded."""
        device = self.plug(type_name, device_id, **config)
        with device.lock:
            at = len(self.events)
            record = self.save(device_id)
            self.events.insert(at, Plugged(time.monotonic_ns(), record.to_json()))
        return device

    def unplug_recorded(self, device_id: str) -> None:
        self.devices.unplug(device_id)
        self.events.append(Unplugged(time.monotonic_ns(), device_id))

    @property
    def recording(self) -> Recording:
        """All of it, by way of a file."""
        return Recording.read(io.BytesIO(self.file))

    @property
    def file(self) -> bytes:
        content = io.BytesIO()
        writer = RecordingWriter(content, self.header)
        for event in self.events:
            writer.write(event)
        writer.close()
        return content.getvalue()

    def write(self, path: Path) -> Path:
        path.write_bytes(self.file)
        return path

    # What the doors and the interrupts tell.

    def learned(self, device: str, source: str, value: int | bytes) -> None:
        self._add(Learned(time.monotonic_ns(), device, source, value))

    def woken(self, device: str, source: str) -> None:
        self._add(Woken(time.monotonic_ns(), device, source))

    def told(self, device: str, data: bytes) -> None:
        self._add(Told(time.monotonic_ns(), device, data))

    def dma(self, device: str, operation: Operation, address: int, data: bytes) -> None:
        self._add(Dma(time.monotonic_ns(), device, operation, address, data))

    def interrupted(self, event: InterruptEvent) -> None:
        kind = InterruptKind(event.kind.value)
        self._add(Interrupt(time.monotonic_ns(), event.gsi, kind, event.device))

    def _add(self, event: Access | Learned | Woken | Told | Dma | Interrupt) -> None:
        whose = "" if isinstance(event, Access) else event.device
        if self._recorded and (not whose or whose in self._recorded):
            self.events.append(event)

    # Accesses.

    def pio_in(self, port: int, size: int = 1, count: int = 1) -> int:
        return self._access(Space.PIO, Operation.READ, port, bytearray(size * count), size)

    def pio_out(self, port: int, value: int, size: int = 1) -> None:
        self._access(
            Space.PIO, Operation.WRITE, port, bytearray(value.to_bytes(size, "little")), size
        )

    def mmio_in(self, address: int, size: int = 4) -> int:
        return self._access(Space.MMIO, Operation.READ, address, bytearray(size), size)

    def mmio_out(self, address: int, value: int, size: int = 4) -> None:
        data = bytearray(value.to_bytes(size, "little"))
        self._access(Space.MMIO, Operation.WRITE, address, data, size)

    def _access(
        self, space: Space, operation: Operation, address: int, data: bytearray, size: int
    ) -> int:
        method = getattr(self.io, f"{space.value}_{operation.value}")
        with self._device_at(space, address):
            started_ns = time.monotonic_ns()
            status = AccessStatus.OK
            try:
                method(address, data, *([size] if space is Space.PIO else []))
            except DeviceHostError as error:
                status = AccessStatus[error.reason]
            took_ns = time.monotonic_ns() - started_ns
            kept = b"" if status and operation is Operation.READ else bytes(data)
            self._add(Access(started_ns, took_ns, 0, space, operation, address, size, kept, status))
        return int.from_bytes(data, "little")

    @contextmanager
    def _device_at(self, space: Space, address: int) -> Iterator[None]:
        """Hold the lock of whatever device is there, as a tap does."""
        for each in self.io.ranges():
            if each.space.value == space.value and 0 <= address - each.base < each.size:
                device = self.devices.device(each.device)
                assert isinstance(device, DeviceIoMut)
                with device.lock:
                    yield
                return
        yield


def replayed(recording: Recording, *faults: Spoiled, leave_out: bool = False) -> list[Difference]:
    """All differences."""
    return list(Replayer(recording, TYPES, faults, leave_out=leave_out).run())
