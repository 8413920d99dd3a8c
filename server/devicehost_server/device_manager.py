"""The life of the devices of one VM: plugged and unplugged, whole or not at all.

To plug is a row of steps. Each has an undo; if one fails, those before it are undone in
reverse, and the error says which step it was:

    create      the type's class, with its configuration checked
    constrain   the device says what it needs
    allocate    the resource manager finds it
    assign      the device gets it, and opens what it works with
    start       its timers and its input begin
    register    its ranges are on the bus, all at once

Unplugging takes it off the bus, waits for the accesses in flight, closes the device and
frees its resources. Start-up configuration, HotplugService and tests all come this way.

Each change gets the next generation number, and watchers hear of it in that order. A
caller that read generation G may ask for a change "if it still is G".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, TypeAlias, cast

from devicehost_server.allocation import ResourceManager
from devicehost_server.device_info import DeviceEvent, DeviceInfo, DeviceListener, DeviceState
from devicehost_server.devices.base import DeviceContext, Hosted
from devicehost_server.devices.doors import Doors
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.model.address_map import Trap
from devicehost_server.model.clock import Clock
from devicehost_server.model.device_io import DEVICE_EXCEPTIONS, DeviceIo
from devicehost_server.model.errors import (
    DeviceExists,
    DeviceFault,
    DeviceHostError,
    Draining,
    GenerationMismatch,
    NoSuchDevice,
)
from devicehost_server.model.guest_memory import GuestMemory
from devicehost_server.model.interrupts import InterruptController
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.names import check_name
from devicehost_server.model.resources import Resource

FaultReporter: TypeAlias = Callable[[str, BaseException], None]
"""Told of a device (by id) that raised while it was being closed."""


class _Record:
    """A device with what it takes to unplug it."""

    def __init__(
        self, info: DeviceInfo, device: DeviceIo, owner: str, trapped: Sequence[Resource]
    ) -> None:
        self.info = info
        self.device = device
        self.owner = owner
        self.trapped = trapped
        self.removed: list[Trap] = []  # set when it is off the bus
        self.unplugging = threading.Lock()

    @property
    def hosted(self) -> Hosted[Any]:
        return cast("Hosted[Any]", self.device)


class DeviceManager:
    """The devices of one VM. Safe to use from any thread, a device's own included.

    Args:
        types: what it can make.
        io: the bus.
        resources: the pools.
        interrupts: where the devices' lines end.
        memory: the guest's, for the devices.
        clock: what the devices live by.
        on_fault: told of devices that raise while they are closed.
        doors: what the devices see the world through; their own if none are given.

    Attributes:
        foretell: told, as listeners are, what is about to come onto the bus or to leave it. No
            event follows if a range isn't free.
    """

    def __init__(
        self,
        *,
        types: DeviceTypes,
        io: IoManager,
        resources: ResourceManager,
        interrupts: InterruptController,
        memory: GuestMemory,
        clock: Clock,
        on_fault: FaultReporter,
        doors: Doors | None = None,
    ) -> None:
        self.types = types
        self.doors = doors or Doors()
        self.foretell: Callable[[DeviceInfo], None] = lambda _: None
        self._io = io
        self._resources = resources
        self._interrupts = interrupts
        self._memory = memory
        self._clock = clock
        self._on_fault = on_fault
        self._lock = threading.Lock()
        self._generation = 0
        self._records: dict[str, _Record | None] = {}  # None: the id is being plugged
        self._listeners: list[DeviceListener] = []
        self._closed = False

    # What there is.

    @property
    def generation(self) -> int:
        """The number of the last change; 0 before the first."""
        return self._generation

    def devices(self) -> tuple[int, list[DeviceInfo]]:
        """Return the generation, and all devices of that moment by id."""
        with self._lock:
            return self._generation, self._infos()

    def get(self, device_id: str) -> DeviceInfo:
        """Return one device.

        Raises:
            NoSuchDevice: there is none of this id.
        """
        with self._lock:
            return self._find(device_id).info

    def device(self, device_id: str) -> DeviceIo:
        """Return the device itself, for code that lives in the same process.

        Raises:
            NoSuchDevice: there is none of this id.
        """
        with self._lock:
            return self._find(device_id).device

    def subscribe(self, listener: DeviceListener) -> tuple[int, list[DeviceInfo]]:
        """Tell `listener` each change from now on.

        Returns:
            The generation, and all devices of this moment by id; the first event follows.
        """
        with self._lock:
            self._listeners.append(listener)
            return self._generation, self._infos()

    def unsubscribe(self, listener: DeviceListener) -> None:
        """Tell `listener` nothing more."""
        with self._lock:
            self._listeners.remove(listener)

    # Changes.

    def plug(
        self,
        type_name: str,
        config: Mapping[str, str] | None = None,
        *,
        device_id: str = "",
        expected_generation: int | None = None,
    ) -> DeviceInfo:
        """Make a device and put it on the bus.

        Args:
            type_name: what to make.
            config: text by key.
            device_id: its name; empty to have one made: the type's name and a number.
            expected_generation: refuse if the generation isn't this.

        Raises:
            DeviceHostError: any of the tree's but a request's; `metadata["step"]` is the
                step that failed. Nothing has changed.
        """
        config = dict(config or {})
        device_id = self._reserve(type_name, device_id, expected_generation)
        owner = f"device/{device_id}"
        with ExitStack() as undo:
            undo.callback(self._unreserve, device_id)
            with _step("create", device_id):
                device = self.types.make(type_name, config)
            hosted = cast("Hosted[Any]", device)
            with _step("constrain", device_id):
                constraints = list(hosted.get_resource_constraints())
            with _step("allocate", device_id):
                resources = self._resources.allocate(constraints, owner)
            undo.callback(self._resources.release, resources, owner)
            undo.callback(self._close_device, device_id, hosted)
            context = DeviceContext(
                device_id,
                resources,
                self._clock,
                self._interrupts,
                self._memory,
                dma=self._memory,
            )
            with _step("assign", device_id):
                hosted.assign(self.doors.context(hosted, context))
            with _step("start", device_id):
                hosted.start()
            with _step("register", device_id):
                # Asked once, and not under the lock: a device may do there what it likes.
                trapped = tuple(device.get_trapped_io_resources())
            with _step("register", device_id), self._lock:
                self._require_open()
                self._require(expected_generation)
                plugged, generation = DeviceState.PLUGGED, self._generation + 1
                info = DeviceInfo(device_id, type_name, plugged, config, resources, generation)
                self.foretell(info)
                self._io.register_device_io(device, trapped)
                self._records[device_id] = _Record(info, device, owner, trapped)
                self._announce(info)
            undo.pop_all()
        return info

    def unplug(self, device_id: str, *, expected_generation: int | None = None) -> int:
        """Take a device off the bus, and end it once no access is in flight on it.

        Called from inside an access of that very device, it returns at once, and the
        device ends after the access.

        Returns:
            The generation after it.

        Raises:
            NoSuchDevice: there is none of this id.
            GenerationMismatch: the generation isn't the expected one.
            DeviceBusy: an access in flight doesn't end. The device is off the bus; calling
                again waits again.
        """
        with self._lock:
            self._require(expected_generation)
            record = self._find(device_id)
            inside = self._io.is_inside(record.device)
        if inside:
            # Somebody else's unplugging may be waiting for this very access to end.
            if record.unplugging.acquire(blocking=False):
                try:
                    self._take_off_bus(record)
                finally:
                    record.unplugging.release()
                self._finish_elsewhere(record)
            return self._generation
        return self._unplug(record)

    def close(self) -> None:
        """Unplug everything, the last plugged first, and plug nothing more.

        All are off the bus at once, and together they have the time of one for accesses
        in flight.
        """
        with self._lock:
            self._closed = True
            records = [record for record in self._records.values() if record is not None]
        records.sort(key=lambda record: record.info.generation, reverse=True)
        for record in records:
            self._take_off_bus(record)
        deadline = time.monotonic() + self._io.drain_timeout_s
        for record in records:
            try:
                self._unplug(record, timeout_s=max(0.0, deadline - time.monotonic()))
            except NoSuchDevice:
                pass  # somebody was faster
            except DeviceHostError as error:
                self._on_fault(record.info.id, error)

    # Steps, forwards and backwards.

    def _unplug(self, record: _Record, *, timeout_s: float | None = None) -> int:
        """Unplug, from outside of the device; return the generation after it."""
        with record.unplugging:
            with self._lock:
                self._find(record.info.id)  # whoever was first may have ended it
            self._take_off_bus(record)
            self._io.wait_until_idle(record.removed, timeout_s=timeout_s)
            return self._end(record)

    def _reserve(self, type_name: str, device_id: str, expected_generation: int | None) -> str:
        """Take an id for a device that is to be plugged."""
        with self._lock, _step("create", device_id or type_name):
            self._require_open()
            self._require(expected_generation)
            if device_id:
                check_name("device id", device_id)
            else:
                device_id = self._free_id(type_name)
            if device_id in self._records:
                raise DeviceExists(f"there is a device {device_id!r} already", device=device_id)
            self._records[device_id] = None
            return device_id

    def _free_id(self, type_name: str) -> str:
        numbers = range(len(self._records) + 1)
        return next(name for n in numbers if (name := f"{type_name}-{n}") not in self._records)

    def _unreserve(self, device_id: str) -> None:
        with self._lock:
            del self._records[device_id]

    def _take_off_bus(self, record: _Record) -> None:
        """Unregister its ranges, unless that was done; wait for nobody."""
        with self._lock:
            if record.info.state is not DeviceState.PLUGGED:
                return
            tx = self._io.begin_tx()
            try:
                tx.unregister_device_io(record.trapped)
            except BaseException:
                self._io.cancel_tx(tx)
                raise
            record.info = replace(record.info, state=DeviceState.UNPLUGGING)
            self.foretell(record.info)
            self._io.commit_tx(tx, wait=False)
            record.removed = tx.removed
            self._announce(record.info)

    def _finish_elsewhere(self, record: _Record) -> None:
        """End the device when the access that this thread is in has ended."""

        def finish() -> None:
            with record.unplugging:
                try:
                    self._io.wait_until_idle(record.removed)
                    self._end(record)
                except NoSuchDevice:
                    pass  # somebody was faster
                except DeviceHostError as error:
                    self._on_fault(record.info.id, error)

        threading.Thread(target=finish, name=f"unplug {record.info.id}").start()

    def _end(self, record: _Record) -> int:
        """Close a device that nobody uses any more, and free what it had."""
        with self._lock:
            self._find(record.info.id)
        self._close_device(record.info.id, record.hosted)
        self._resources.release(record.info.resources, record.owner)
        with self._lock:
            del self._records[record.info.id]
            self._io.forget_counts(record.info.id)
            record.info = replace(record.info, state=DeviceState.UNPLUGGED)
            self._announce(record.info)
            return self._generation

    def _close_device(self, device_id: str, hosted: Hosted[Any]) -> None:
        """Close; a device that raises here is gone all the same."""
        try:
            hosted.close()
        except DEVICE_EXCEPTIONS as error:  # reported; unplugging must go on
            self._on_fault(device_id, error)
        self._interrupts.lower_all(device_id)

    # Under the lock.

    def _infos(self) -> list[DeviceInfo]:
        records = (self._records[device_id] for device_id in sorted(self._records))
        return [record.info for record in records if record is not None]

    def _find(self, device_id: str) -> _Record:
        record = self._records.get(device_id)
        if record is None:
            raise NoSuchDevice(f"there is no device {device_id!r}", device=device_id)
        return record

    def _require_open(self) -> None:
        if self._closed:
            raise Draining("the server is stopping and takes no new devices")

    def _require(self, generation: int | None) -> None:
        if generation is not None and generation != self._generation:
            raise GenerationMismatch(
                f"the devices are at generation {self._generation}, not {generation}",
                generation=self._generation,
                expected=generation,
            )

    def _announce(self, info: DeviceInfo) -> None:
        self._generation += 1
        event = DeviceEvent(self._generation, info)
        for listener in self._listeners:
            listener(event)


@contextmanager
def _step(name: str, device_id: str) -> Iterator[None]:
    """Let an error that leaves the block say in which step of plugging it happened."""
    try:
        yield
    except DeviceHostError as error:
        error.in_step(name)
        raise
    except DEVICE_EXCEPTIONS as error:
        raise DeviceFault(device_id, f"in step {name!r}", error, step=name) from error
