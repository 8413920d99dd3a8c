"""Whether an access meets the conditions of a filter: the one place where that is decided.

An `AccessMatcher` looks at accesses that have ended, as a trace has them. A `Matcher` looks
at accesses that pass, which is harder: before the device is asked, nobody knows yet what a
read will return, and which register is at a place depends on the accesses before.

    matcher = Matcher(AccessFilter(registers=("uart0.DLL",)), registers)
    # from here on, while each access of the device is shown to `follow`
    matcher.learn()

What a filter names is looked up when the matcher is made. `devices` may name a device that
comes later. `registers` can't: only a device that is there says where its registers are.

Several vCPUs may be at one device at once. Then what a matcher has seen can be an access
behind what the device has: which register an access touches is told exactly as long as
those who change it, and those who use it, take turns, as any driver has to see to.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from devicehost.access_status import AccessStatus
from devicehost.recording import Access, Annotated, Operation
from devicehost_server.debug.filters import AccessFilter, check_filter
from devicehost_server.debug.pending import PendingAccess
from devicehost_server.debug.places import (
    Follower,
    Registers,
    Target,
    find_target,
    operands,
    split_name,
)
from devicehost_server.model.errors import BadRequest, DebugError, DeviceError, NoSuchDevice

_NOT_THERE = (NoSuchDevice, DebugError, DeviceError)

_T = TypeVar("_T")


class ByDevice(Generic[_T]):
    """What concerns accesses, by the device that they are to. It doesn't change.

    So accesses to other devices than those that somebody looks at go by quickly.

    Args:
        items: with the devices that each concerns; none for all.
    """

    def __init__(self, items: Iterable[tuple[frozenset[str], _T]] = ()) -> None:
        items = list(items)
        self._of_others = tuple(item for devices, item in items if not devices)
        self._of = {
            device: tuple(item for devices, item in items if not devices or device in devices)
            for device in frozenset[str]().union(*(devices for devices, _ in items))
        }

    def of(self, device: str) -> tuple[_T, ...]:
        """Return what concerns a device, in order."""
        return self._of.get(device, self._of_others)


class AccessMatcher:
    """Matches events that have ended.

    Args:
        wanted: the conditions.
        registers: where the named registers are.

    Attributes:
        filter: the conditions.
        targets: the registers that they name.
        devices: those that can meet the conditions; empty for any.

    Raises:
        BadRequest: a condition can't be, or contradicts another one.
        NoSuchDevice, NoRegisterMap, NoSuchRegister: a register isn't there.
    """

    def __init__(self, wanted: AccessFilter, registers: Registers) -> None:
        check_filter(wanted)
        self.filter = wanted
        self.targets = tuple(find_target(name, registers) for name in wanted.registers)
        self.devices = _devices(wanted, self.targets)
        self._names = frozenset((each.device, each.place.name) for each in self.targets)
        self._last = wanted.base + wanted.size - 1

    def matches(self, annotated: Annotated) -> bool:
        """Whether an access meets all conditions; of another event, whether its device does.

        Which of the registers at one place a failed access was to touch isn't known any
        more: it is taken for one to each.
        """
        event, device = annotated.event, annotated.device
        if not isinstance(event, Access):
            return not self.filter.devices or device in self.filter.devices
        return (
            self._fits(event, device)
            and self._has_ended_so(event)
            and (
                not self.filter.registers
                or self._touches(
                    device,
                    (annotated.range, annotated.offset, event.size),
                    lambda: [each.register for each in annotated.registers],
                    or_any=event.status is not AccessStatus.OK,
                )
            )
        )

    def _fits(self, access: PendingAccess | Access, device: str) -> bool:
        """Whether it meets what can be told of each access at any time."""
        wanted = self.filter
        if self.devices and device not in self.devices:
            return False
        if wanted.operation is not None and access.operation is not wanted.operation:
            return False
        if wanted.size and not (
            access.address <= self._last and access.address + access.size > wanted.base
        ):
            return False
        if wanted.space is not None and access.space is not wanted.space:
            return False
        return not wanted.vcpus or access.vcpu in wanted.vcpus

    def _has_ended_so(self, access: PendingAccess | Access) -> bool:
        if self.filter.failed and access.status is AccessStatus.OK:
            return False
        return self._carries(access)

    def _carries(self, access: PendingAccess | Access) -> bool:
        mask, value = self.filter.mask, self.filter.value
        if not mask:
            return True
        if not access.data:
            return False  # a read that failed
        return any(
            int.from_bytes(operand, "little") & mask == value
            for operand in operands(access.data, access.size)
        )

    def _touches(
        self,
        device: str,
        where: tuple[int, int, int],
        names: Callable[[], Iterable[str]],
        *,
        or_any: bool = False,
    ) -> bool:
        """Whether an access touches a register that is wanted.

        Args:
            device: whose the access is.
            where: its range, offset and size.
            names: tells what it touches. It is asked only if several are at one place.
            or_any: don't ask, but take any of them.
        """
        shared = False
        for each in self.targets:
            if each.device == device and each.is_at(*where):
                if each.alone or or_any:
                    return True
                shared = True
        return shared and any(
            (device, name) in self._names or (device, name.partition("[")[0]) in self._names
            for name in names()
        )


class Matcher(AccessMatcher):
    """Matches accesses that pass. Safe to use from any thread.

    It takes the same arguments, and raises the same errors. Registers that share their place
    with others aren't found before `learn` was called.
    """

    def __init__(self, wanted: AccessFilter, registers: Registers) -> None:
        super().__init__(wanted, registers)
        self._registers = registers
        self._learning = threading.Lock()
        self._followers = {each.device: Follower() for each in self.targets}

    def learn(self) -> None:
        """Look into the devices that it follows. Call it once accesses are shown to it.

        Raises:
            NoSuchDevice, DeviceError: one can't be looked into.
        """
        for device in self._followers:
            self._learn(device)

    def learn_again(self, device: str) -> None:
        """Look into a device that changed by other than an access, or that came again.

        What it hasn't got any more isn't found until it has.
        """
        if device not in self._followers:
            return
        with self._learning:
            found = [each for each in self.targets if each.device != device]
            for name in self.filter.registers:
                if split_name(name)[0] == device:
                    with contextlib.suppress(*_NOT_THERE):
                        found.append(find_target(name, self._registers))
            self.targets = tuple(found)
        with contextlib.suppress(*_NOT_THERE):
            self._learn(device)

    def _learn(self, device: str) -> None:
        with self._learning:
            if any(not each.alone for each in self.targets if each.device == device):
                self._followers[device].learn(lambda: self._registers.decoder(device))

    def before(self, access: PendingAccess) -> bool:
        """Whether an access can meet the conditions, whatever the device will do."""
        return (
            self._fits(access, access.device)
            and (access.operation is Operation.READ or self._carries(access))
            and self._is_wanted(access)
        )

    def after(self, access: PendingAccess) -> bool:
        """Whether an access that has ended meets the conditions. Ask before it is followed."""
        return (
            self._fits(access, access.device)
            and self._has_ended_so(access)
            and self._is_wanted(access)
        )

    def follow(self, access: PendingAccess) -> None:
        """Take note of an access that has ended."""
        follower = self._followers.get(access.device)
        if follower is not None:
            follower.follow(access)

    def _is_wanted(self, access: PendingAccess) -> bool:
        if not self.filter.registers:
            return True
        device = access.device
        return self._touches(
            device,
            (access.range, access.offset, access.size),
            lambda: self._followers[device].names(access),
        )


def _devices(wanted: AccessFilter, targets: tuple[Target, ...]) -> frozenset[str]:
    """Return the devices that can meet the conditions; empty for any."""
    of_registers = frozenset(each.device for each in targets)
    strangers = of_registers - wanted.devices if wanted.devices else frozenset()
    if strangers:
        raise BadRequest(
            f"filter.registers names devices that filter.device_ids doesn't: "
            f"{', '.join(sorted(strangers))}; allowed: {', '.join(sorted(wanted.devices))}",
            field="filter.registers",
        )
    return of_registers or wanted.devices
