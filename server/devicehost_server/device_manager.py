"""The life of the devices of one VM: plugged and unplugged, whole or not at all.

To plug is a row of steps. Each has an undo; if one fails, those before it are undone in
reverse, and the error says which step it was:

    create      the type's class, with its configuration checked
    constrain   the device says what it needs
    allocate    the resource manager finds it
    listen      the socket is taken, of a device that is a PCI function
    assign      the device gets it, and opens what it works with
    start       its timers and its input begin
    restore     it gets its state, if it goes on from a snapshot
    register    its ranges are on the bus, all at once, and its socket is served

Unplugging asks the client of a function to leave, takes the device off the bus, waits until
nobody is in it any more, closes it and frees its resources. Start-up configuration,
HotplugService and tests all come this way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, TypeAlias

from devicehost_server.allocation import ResourceManager, pinned
from devicehost_server.device_info import DeviceInfo, DeviceState, SavedDevice
from devicehost_server.devices.base import Hosted
from devicehost_server.devices.doors import Doors
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.functions import Functions
from devicehost_server.model.clock import Clock
from devicehost_server.model.device_io import DEVICE_EXCEPTIONS, DeviceIoMut
from devicehost_server.model.errors import (
    DeviceBusy,
    DeviceExists,
    DeviceFault,
    DeviceHostError,
    Draining,
    NoSuchDevice,
)
from devicehost_server.model.guest_memory import GuestMemory
from devicehost_server.model.interrupts import InterruptController
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.names import check_name
from devicehost_server.model.resources import Resource
from devicehost_server.new_device import NewDevice, step
from devicehost_server.plugged import PluggedDevices, Record

FaultReporter: TypeAlias = Callable[[str, BaseException], None]
"""Told of a device (by id) that raised while it was being closed."""


class DeviceManager(PluggedDevices):
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
        functions: lets clients at PCI functions; there can be none if it isn't given.

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
        functions: Functions | None = None,
    ) -> None:
        super().__init__()
        self.types = types
        self.doors = doors or Doors()
        self.foretell: Callable[[DeviceInfo], None] = lambda _: None
        self._io = io
        self._resources = resources
        self._interrupts = interrupts
        self._memory = memory
        self._clock = clock
        self._on_fault = on_fault
        self._functions = functions
        self._closed = False

    # Changes.

    def plug(
        self,
        type_name: str,
        config: Mapping[str, str] | None = None,
        *,
        device_id: str = "",
        expected_generation: int | None = None,
        saved: SavedDevice | None = None,
    ) -> DeviceInfo:
        """Make a device and put it on the bus.

        Args:
            type_name: what to make.
            config: text by key.
            device_id: its name; empty to have one made: the type's name and a number.
            expected_generation: refuse if the generation isn't this.
            saved: let it go on as this one: at the same places, with the same state.

        Raises:
            DeviceHostError: any of the tree's but a request's; `metadata["step"]` is the
                step that failed. Nothing has changed.
        """
        config = dict(config or {})
        device_id = self._reserve(type_name, device_id, expected_generation)
        owner = f"device/{device_id}"
        with ExitStack() as undo:
            undo.callback(self._unreserve, device_id)
            with step("create", device_id):
                new = NewDevice.make(self.types, device_id, type_name, config)
            with step("constrain", device_id):
                constraints = new.constraints()
            with step("allocate", device_id):
                if saved is not None:
                    constraints = pinned(constraints, saved.resources)
                allocated = self._resources.allocate(constraints, owner)
            undo.callback(self._resources.release, allocated, owner)
            resources = new.resources(allocated)
            with step("listen", device_id):
                new.listen(self._functions)
            if new.socket is not None:
                undo.callback(new.socket.close)
            undo.callback(self._close_device, device_id, new.hosted)
            with step("assign", device_id):
                context = new.context(resources, self._clock, self._interrupts, self._memory)
                new.hosted.assign(self.doors.context(new.hosted, context))
            with step("start", device_id):
                new.hosted.start()
            if saved is not None:
                with step("restore", device_id):
                    new.restore(saved)
            with step("register", device_id):
                # Asked once, and not under the lock: a device may do there what it likes.
                trapped = tuple(new.device.get_trapped_io_resources())
            with step("register", device_id), self._lock:
                self._require_open()
                self._require(expected_generation)
                plugged, generation = DeviceState.PLUGGED, self._generation + 1
                info = DeviceInfo(device_id, type_name, plugged, config, resources, generation)
                self.foretell(info)
                self._register(new, trapped)
                self._records[device_id] = Record(info, new, owner, allocated, trapped)
                self._announce(info)
            undo.pop_all()
        return info

    def unplug(self, device_id: str, *, expected_generation: int | None = None) -> int:
        """Take a device off the bus, and end it once nobody is in it: no access, no reset.

        If it is a PCI function, its client is asked to leave before that, and has as long as
        accesses in flight have. One that is still attached then is cut off, and so is one
        that can't be asked, at once: QEMU is one, where `device_del` comes first.

        Called from inside an access of that very device, it returns at once, and the
        device ends after the access; its client isn't asked.

        Returns:
            The generation after it.

        Raises:
            NoSuchDevice: there is none of this id.
            GenerationMismatch: the generation isn't the expected one.
            DeviceBusy: somebody is in the device, and doesn't leave. It is off the bus;
                calling again waits again.
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
        return self._unplug(record, retire=True)

    def close(self, keep: Callable[[SavedDevice], None] | None = None) -> list[str]:
        """Unplug everything, the last plugged first, and plug nothing more.

        All are off the bus at once, and together they have the time of one for accesses
        in flight. No client is asked to leave: it is the server that goes, not the device.

        Args:
            keep: given each device as it was at its end, to go on elsewhere.

        Returns:
            The devices that didn't end, or couldn't be saved, by id.
        """
        with self._lock:
            self._closed = True
            records = [record for record in self._records.values() if record is not None]
        records.sort(key=lambda record: record.info.generation, reverse=True)
        for record in records:
            self._take_off_bus(record)
        deadline = time.monotonic() + self._io.drain_timeout_s
        failed = []
        for record in records:
            try:
                self._unplug(record, deadline=deadline, keep=keep)
            except NoSuchDevice:
                pass  # somebody was faster
            except DeviceHostError as error:
                self._on_fault(record.id, error)
                failed.append(record.id)
        return failed

    # Steps, forwards and backwards.

    def _register(self, new: NewDevice, trapped: Sequence[Resource]) -> None:
        """Let accesses come: from the bus, and from a client of the function."""
        self._io.register_device_io(new.device, trapped)
        if new.socket is not None:
            try:
                new.socket.start()
            except BaseException:
                self._io.unregister_device_io(trapped)
                raise

    def _unplug(
        self,
        record: Record,
        *,
        deadline: float | None = None,
        retire: bool = False,
        keep: Callable[[SavedDevice], None] | None = None,
    ) -> int:
        """Unplug, from outside of the device; return the generation after it."""
        with record.unplugging:
            with self._lock:
                self._find(record.id)  # whoever was first may have ended it
            if record.socket is not None and retire:
                record.socket.retire(self._io.drain_timeout_s)
            self._take_off_bus(record)
            self._wait_until_nobody_is_in(record, deadline)
            if keep is None:
                return self._end(record)
            try:
                keep(self._save(record))
            finally:
                generation = self._end(record)
            return generation

    def _save(self, record: Record) -> SavedDevice:
        """Save a device that nobody accesses any more."""
        info, new = record.info, record.new
        try:
            new.hosted.freeze()
            state, function = new.save()
        except DEVICE_EXCEPTIONS as error:
            raise DeviceFault(info.id, "while its state was saved", error) from error
        return SavedDevice(info.id, info.type, info.config, info.resources, state, function)

    def _reserve(self, type_name: str, device_id: str, expected_generation: int | None) -> str:
        """Take an id for a device that is to be plugged."""
        with self._lock, step("create", device_id or type_name):
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

    def _take_off_bus(self, record: Record) -> None:
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

    def _wait_until_nobody_is_in(self, record: Record, deadline: float | None = None) -> None:
        """Wait for all that is made in a device that is off the bus: accesses, a reset, a look.

        Raises:
            DeviceBusy: it takes longer than accesses in flight have, or than `deadline`.
        """
        if record.socket is not None:
            record.socket.drain()
        if deadline is None:
            deadline = time.monotonic() + self._io.drain_timeout_s
        self._io.wait_until_idle(record.removed, timeout_s=_left_s(deadline))
        # A reset, a timer or somebody who debugs has the device's lock, and no trap.
        if isinstance(device := record.device, DeviceIoMut):
            if not device.lock.acquire(timeout=_left_s(deadline)):
                raise DeviceBusy(
                    f"device {record.id!r} is off the bus, but somebody is still in it:"
                    " a reset, or one who debugs",
                    device=record.id,
                )
            device.lock.release()

    def _finish_elsewhere(self, record: Record) -> None:
        """End the device when the access that this thread is in has ended."""

        def finish() -> None:
            with record.unplugging:
                try:
                    self._wait_until_nobody_is_in(record)
                    self._end(record)
                except NoSuchDevice:
                    pass  # somebody was faster
                except DeviceHostError as error:
                    self._on_fault(record.id, error)

        threading.Thread(target=finish, name=f"unplug {record.id}").start()

    def _end(self, record: Record) -> int:
        """Close a device that nobody uses any more, and free what it had."""
        with self._lock:
            self._find(record.id)
        if record.socket is not None:
            record.socket.close()
        self._close_device(record.id, record.hosted)
        self._resources.release(record.allocated, record.owner)
        with self._lock:
            del self._records[record.id]
            self._io.forget_counts(record.id)
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

    def _require_open(self) -> None:
        if self._closed:
            raise Draining("the server is stopping and takes no new devices")


def _left_s(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
