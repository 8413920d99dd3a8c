"""The resources of one VM: who asks gets, all or nothing, and gives back what it got.

    >>> manager = ResourceManager()
    >>> wanted = [PioAddressConstraint.exact(0x3F8, 8), LegacyIrqConstraint(irq=4)]
    >>> got = manager.allocate(wanted, "uart0")
    >>> got
    DeviceResources([PioAddressRange(base=1016, size=8), LegacyIrq(irq=4)])
    >>> manager.release(got, "uart0")

Constraints are met in their order, each by the first fit from the lowest number up: MMIO
below 4 GiB before MMIO above it. Numbers that are reserved (see `pool_config`) go to
exact requests only.

Legacy IRQs are of two kinds. An exclusive one has one owner. A shared one has any number
of owners, and each of its uses is released once. A request without a number gets an
exclusive one, and `NoIrq` when none is left: not every device can share, so whoever can
says so by naming a shared IRQ.

Invariants:
    Nothing is given twice, but shared IRQs.
    A call that fails has changed nothing; only `release` may have done a part, and says so.
    A resource is released by its owner, in the shape in which it was allocated.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence

from devicehost_server.allocation.pool_config import FOUR_GIB, PoolConfig
from devicehost_server.allocation.range_pool import PoolCapacity, RangePool, Reserved
from devicehost_server.allocation.space import Allocation, Pool, Space, Wish
from devicehost_server.model.errors import (
    BadConstraint,
    NoIrq,
    NoMsi,
    NoSlot,
    NoSpace,
    NotAllocated,
)
from devicehost_server.model.resources import (
    PIO_SPACE_SIZE,
    AddressConstraint,
    DeviceResources,
    KvmMemSlot,
    KvmMemSlotConstraint,
    LegacyIrq,
    LegacyIrqConstraint,
    MacAddress,
    MemAddressConstraint,
    MemAddressRange,
    MmioAddressConstraint,
    MmioAddressRange,
    MsiConstraint,
    MsiIrq,
    PioAddressConstraint,
    PioAddressRange,
    Resource,
    ResourceConstraint,
)


class ResourceManager:
    """One VM's pools. Safe to use from any thread.

    Args:
        config: how large the pools are.
    """

    def __init__(self, config: PoolConfig | None = None) -> None:
        config = config or PoolConfig()
        self._lock = threading.Lock()
        pio = _pool("pio", 0, PIO_SPACE_SIZE - 1, config.reserved_ports)
        irqs = _pool("legacy-irq", 0, config.irq_count - 1, config.irqs_kept)
        msis = _pool("msi", config.msi_base, config.msi_last)
        slots = _pool("kvm-slot", 0, config.kvm_slot_count - 1)
        self._pio = Space("pio", [pio], NoSpace)
        self._mmio = Space("mmio", _mmio_pools(config), NoSpace)
        self._memory = Space("memory", _memory_pools(config), NoSpace)
        self._irqs = Space("legacy IRQ", [irqs], NoIrq, decimal=True, field="irq")
        self._msis = Space("MSI", [msis], NoMsi, decimal=True)
        self._slots = Space("KVM slot", [slots], NoSlot, decimal=True, field="slot")
        self._sharers: dict[int, Counter[str]] = {irq: Counter() for irq in config.shared_irqs}

    def allocate(self, constraints: Sequence[ResourceConstraint], owner: str) -> DeviceResources:
        """Meet all constraints, or none.

        Args:
            constraints: what is wanted.
            owner: who wants it; any text, which `release` will ask for.

        Returns:
            One resource for each constraint, in the same order. A constraint of several
            KVM slots gives several: one `KvmMemSlot` for each slot.

        Raises:
            BadConstraint: an exact range isn't in a pool, or a window has no room for the
                size and alignment in any, even if nothing were allocated.
            RangeTaken: somebody has a part of an exact range. The error's `holder` is the
                first of them.
            NoSpace, NoIrq, NoMsi, NoSlot: nothing is left that would do.
        """
        given: list[Resource] = []
        with self._lock:
            try:
                for constraint in constraints:
                    for resource in self._find(constraint):
                        self._give(resource, owner)
                        given.append(resource)
            except BaseException:
                for resource in reversed(given):
                    self._take_back(resource, owner)
                raise
        return DeviceResources(given)

    def release(self, resources: Iterable[Resource], owner: str) -> None:
        """Free what `owner` was given: all that can be freed, whatever else is in the list.

        A MAC address comes from no pool; it is passed over.

        Args:
            resources: each as it was allocated.
            owner: as it was when they were allocated.

        Raises:
            NotAllocated: for at least one of them: it isn't allocated, is another
                owner's, or was allocated in another shape. The message and
                `metadata["failures"]` name each; all the others are free now.
        """
        resources = list(resources)
        failures = []
        with self._lock:
            for resource in resources:
                try:
                    self._take_back(resource, owner)
                except NotAllocated as error:
                    failures.append(str(error))
        if failures:
            reasons = "; ".join(failures)
            raise NotAllocated(
                f"{owner!r} can't release {len(failures)} of {len(resources)} resources: {reasons}",
                owner=owner,
                failed=len(failures),
                released=len(resources) - len(failures),
                failures=reasons,
            )

    def capacity(self) -> list[PoolCapacity]:
        """Say how much each pool has left. A shared IRQ is always free."""
        with self._lock:
            return [pool.capacity() for space in self._spaces() for pool in space.pools]

    def allocations(self) -> list[Allocation]:
        """List all that is allocated: PIO, MMIO, memory, IRQs, MSIs, slots; each ascending.

        A shared IRQ is there once for each of its uses.
        """
        with self._lock:
            listed = {space: list(space.allocations()) for space in self._spaces()}
            for irq, uses in self._sharers.items():
                listed[self._irqs] += [Allocation(LegacyIrq(irq), each) for each in uses.elements()]
        listed[self._irqs].sort(key=lambda each: (self._place(each.resource)[1], each.owner))
        return [allocation for of_space in listed.values() for allocation in of_space]

    def _spaces(self) -> tuple[Space, ...]:
        return self._pio, self._mmio, self._memory, self._irqs, self._msis, self._slots

    # The caller holds the lock.

    def _find(self, constraint: ResourceConstraint) -> list[Resource]:
        """Return what meets `constraint`: several resources only for several KVM slots."""
        found: list[Resource]
        match constraint:
            case PioAddressConstraint(size=size):
                found = [PioAddressRange(self._pio.find(_address_wish(constraint)), size)]
            case MmioAddressConstraint(size=size):
                found = [MmioAddressRange(self._mmio.find(_address_wish(constraint)), size)]
            case MemAddressConstraint(size=size):
                found = [MemAddressRange(self._memory.find(_address_wish(constraint)), size)]
            case LegacyIrqConstraint(irq=irq):
                found = [LegacyIrq(self._find_irq(irq))]
            case MsiConstraint(ty=ty, size=size, align=align, base=base):
                wish = Wish(size, align) if base is None else Wish.exact(base, size)
                found = [MsiIrq(ty, self._msis.find(wish), size)]
            case KvmMemSlotConstraint(slot=slot, size=size):
                first = self._slots.find(Wish(size) if slot is None else Wish.exact(slot, size))
                found = [KvmMemSlot(number) for number in range(first, first + size)]
            case _:
                raise BadConstraint(f"no pool has anything for {constraint!r}")
        return found

    def _find_irq(self, irq: int | None) -> int:
        if irq is None:
            return self._irqs.find(Wish(1))
        return irq if irq in self._sharers else self._irqs.find(Wish.exact(irq))

    def _give(self, resource: Resource, owner: str) -> None:
        """Record that what `_find` found is `owner`'s."""
        if isinstance(resource, LegacyIrq) and resource.irq in self._sharers:
            self._sharers[resource.irq][owner] += 1
        else:
            space, base, size = self._place(resource)
            space.claim(base, size, Allocation(resource, owner))

    def _take_back(self, resource: Resource, owner: str) -> None:
        """Free what `owner` has, or raise NotAllocated."""
        if isinstance(resource, LegacyIrq) and resource.irq in self._sharers:
            self._unshare(resource.irq, owner)
        elif not isinstance(resource, MacAddress):
            space, base, size = self._place(resource)
            space.release(base, size, Allocation(resource, owner))

    def _unshare(self, irq: int, owner: str) -> None:
        uses = self._sharers[irq]
        if uses[owner] == 0:
            what = self._irqs.describe(irq, 1)
            raise NotAllocated(f"{what} is shared, but {owner!r} isn't among those who have it")
        uses[owner] -= 1
        if uses[owner] == 0:
            del uses[owner]

    def _place(self, resource: Resource) -> tuple[Space, int, int]:
        """Return the space in which a resource is, its first number and how many it has.

        Raises:
            NotAllocated: it is of a kind that comes from no pool.
        """
        match resource:
            case PioAddressRange(base=base, size=size):
                return self._pio, base, size
            case MmioAddressRange(base=base, size=size):
                return self._mmio, base, size
            case MemAddressRange(base=base, size=size):
                return self._memory, base, size
            case LegacyIrq(irq=irq):
                return self._irqs, irq, 1
            case MsiIrq(base=base, size=size):
                return self._msis, base, size
            case KvmMemSlot(slot=slot):
                return self._slots, slot, 1
        raise NotAllocated(f"{resource!r} comes from no pool")


def _address_wish(constraint: AddressConstraint) -> Wish:
    return Wish(constraint.size, constraint.align, constraint.min, constraint.max)


def _pool(name: str, base: int, last: int, reserved: Iterable[Reserved] = ()) -> Pool:
    return RangePool(name, base, last - base + 1, reserved)


def _mmio_pools(config: PoolConfig) -> list[Pool]:
    """Make the pools below 4 GiB and, if there are addresses left for it, above."""
    pools = [_pool("mmio-below-4g", config.mmio_base, FOUR_GIB - 1, config.reserved_mmio)]
    if config.mmio_above_4g_base <= config.last_address:
        pools.append(_pool("mmio-above-4g", config.mmio_above_4g_base, config.last_address))
    return pools


def _memory_pools(config: PoolConfig) -> list[Pool]:
    last = config.last_memory_address
    pools = [_pool("memory-below-4g", 0, min(last, config.mmio_base - 1))]
    if last >= FOUR_GIB:
        pools.append(_pool("memory-above-4g", FOUR_GIB, last))
    return pools
