"""The resource manager against a model too simple to be wrong: lists and linear search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from devicehost_server.allocation import Allocation, PoolConfig, Reserved, ResourceManager
from devicehost_server.model.errors import (
    AllocationError,
    BadConstraint,
    NoIrq,
    NoMsi,
    NoSlot,
    NoSpace,
    NotAllocated,
    RangeTaken,
)
from devicehost_server.model.resources import (
    AddressConstraint,
    AddressRange,
    GenericIrqConstraint,
    KvmMemSlot,
    KvmMemSlotConstraint,
    LegacyIrq,
    LegacyIrqConstraint,
    MemAddressConstraint,
    MemAddressRange,
    MmioAddressConstraint,
    MmioAddressRange,
    MsiConstraint,
    MsiIrq,
    MsiType,
    PciMsiIrqConstraint,
    PioAddressConstraint,
    PioAddressRange,
    Resource,
    ResourceConstraint,
)


def rounded_up(number: int, align: int) -> int:
    return (number + align - 1) // align * align


@dataclass
class PlainPool:
    """Some numbers, and all that is known of them: what is reserved."""

    base: int
    last: int
    reserved: Sequence[Reserved] = ()


@dataclass
class PlainSpace:
    """Pools of one kind, and who has what in them: (base, size, resource, owner)."""

    pools: list[PlainPool]
    exhausted: type[AllocationError]
    taken: list[tuple[int, int, Resource, str]] = field(default_factory=list)

    def find(self, size: int, align: int, low: int | None, high: int | None) -> int:
        """Find by looking at every place where a free piece can begin."""
        bounded = low is not None or high is not None
        exact = low is not None and high is not None and high - low + 1 == size
        low = 0 if low is None else low
        high = 1 << 64 if high is None else high
        if bounded and not any(
            rounded_up(max(pool.base, low), align) + size - 1 <= min(pool.last, high)
            for pool in self.pools
        ):
            raise BadConstraint("")
        if exact:
            for base, taken_size, _, owner in sorted(self.taken, key=lambda each: each[0]):
                if base < low + size and low < base + taken_size:
                    raise RangeTaken("", holder=owner)
            return low
        for pool in self.pools:
            busy = self.busy(pool)
            for begin in [max(pool.base, low), *(base + length for base, length in busy)]:
                start = rounded_up(max(begin, pool.base, low), align)
                if start + size - 1 <= min(pool.last, high) and not any(
                    base < start + size and start < base + length for base, length in busy
                ):
                    return start
        largest = max(self.largest_free(pool) for pool in self.pools)
        raise self.exhausted("", largest_free=largest)

    def busy(self, pool: PlainPool) -> list[tuple[int, int]]:
        """What of a pool a search must avoid, ascending."""
        inside = [(b, s) for b, s, _, _ in self.taken if pool.base <= b <= pool.last]
        return sorted(inside + [(piece.base, piece.size) for piece in pool.reserved])

    def largest_free(self, pool: PlainPool) -> int:
        largest, begin = 0, pool.base
        for base, size in [*self.busy(pool), (pool.last + 1, 0)]:
            largest = max(largest, base - begin)
            begin = max(begin, base + size)
        return largest


CONFIG = PoolConfig(
    physical_address_bits=33,
    memory_last=(6 << 30) - 1,
    msi_last=55,
    kvm_slot_count=12,
    reserved_ports=(
        Reserved("low", 0, 0x1000),
        Reserved("a", 0x4000, 0x1000),
        Reserved("b", 0x5000, 0x800),
        Reserved("high", 0xF800, 0x800),
    ),
)


def plain_spaces() -> dict[str, PlainSpace]:
    irqs = [*CONFIG.reserved_irqs, Reserved("shared", 5, 1)]
    mmio = [
        PlainPool(0xC000_0000, 0xFFFF_FFFF, CONFIG.reserved_mmio),
        PlainPool(6 << 30, (8 << 30) - 1),
    ]
    memory = [PlainPool(0, 0xBFFF_FFFF), PlainPool(4 << 30, (6 << 30) - 1)]
    return {
        "pio": PlainSpace([PlainPool(0, 0xFFFF, CONFIG.reserved_ports)], NoSpace),
        "mmio": PlainSpace(mmio, NoSpace),
        "mem": PlainSpace(memory, NoSpace),
        "irq": PlainSpace([PlainPool(0, 15, irqs)], NoIrq),
        "msi": PlainSpace([PlainPool(24, 55)], NoMsi),
        "slot": PlainSpace([PlainPool(0, 11)], NoSlot),
    }


class PlainManager:
    """What a resource manager is to do, without regard to cost."""

    def __init__(self) -> None:
        self.spaces = plain_spaces()
        self.shared: list[str] = []

    def copy(self) -> PlainManager:
        copy = PlainManager()
        copy.shared = list(self.shared)
        for kind, space in self.spaces.items():
            copy.spaces[kind].taken = list(space.taken)
        return copy

    def give(self, constraint: ResourceConstraint, owner: str) -> list[Resource]:
        if isinstance(constraint, AddressConstraint):
            return [self.give_address(constraint, owner)]
        if isinstance(constraint, LegacyIrqConstraint):
            irq = constraint.irq
            if irq == 5:
                self.shared.append(owner)
                return [LegacyIrq(5)]
            return [self.take("irq", (1, 1, irq, irq), LegacyIrq, owner)]
        if isinstance(constraint, MsiConstraint):
            ty, size = constraint.ty, constraint.size
            numbers = (size, constraint.align, None, None)
            return [self.take("msi", numbers, lambda base: MsiIrq(ty, base, size), owner)]
        assert isinstance(constraint, KvmMemSlotConstraint)
        slot, size = constraint.slot, constraint.size
        last = None if slot is None else slot + size - 1
        first = self.spaces["slot"].find(size, 1, slot, last)
        numbers_of = [(1, 1, slot, slot) for slot in range(first, first + size)]
        return [self.take("slot", numbers, KvmMemSlot, owner) for numbers in numbers_of]

    def give_address(self, constraint: AddressConstraint, owner: str) -> Resource:
        size = constraint.size
        kinds: dict[type[AddressConstraint], tuple[str, type[AddressRange]]] = {
            PioAddressConstraint: ("pio", PioAddressRange),
            MmioAddressConstraint: ("mmio", MmioAddressRange),
            MemAddressConstraint: ("mem", MemAddressRange),
        }
        kind, range_type = kinds[type(constraint)]
        numbers = (size, constraint.align, constraint.min, constraint.max)
        return self.take(kind, numbers, lambda base: range_type(base, size), owner)

    def take(
        self,
        kind: str,
        numbers: tuple[int, int, int | None, int | None],
        make: Callable[[int], Resource],
        owner: str,
    ) -> Resource:
        space = self.spaces[kind]
        base = space.find(*numbers)
        resource = make(base)
        space.taken.append((base, numbers[0], resource, owner))
        return resource

    def release(self, resource: Resource, owner: str) -> bool:
        """Whether `owner` had it; nobody has it after that."""
        if resource == LegacyIrq(5):
            if owner in self.shared:
                self.shared.remove(owner)
                return True
            return False
        for space in self.spaces.values():
            for entry in space.taken:
                if entry[2] == resource and entry[3] == owner:
                    space.taken.remove(entry)
                    return True
        return False

    def allocations(self) -> Iterator[Allocation]:
        for kind, space in self.spaces.items():
            listed = [(base, owner, resource) for base, _, resource, owner in space.taken]
            if kind == "irq":
                listed += [(5, owner, LegacyIrq(5)) for owner in self.shared]
            for _, owner, resource in sorted(listed, key=lambda each: each[:2]):
                yield Allocation(resource, owner)


OWNERS = st.sampled_from(["a", "b", "c"])


@st.composite
def addresses(
    draw: st.DrawFn, kind: type[AddressConstraint], unit: int, spots: list[int]
) -> AddressConstraint:
    """A constraint near the interesting addresses of a space, about `unit` large."""
    size = draw(st.integers(1, 12)) * unit + draw(st.sampled_from([0, 0, 1, -1]))
    base = draw(st.sampled_from(spots)) + draw(st.integers(-4, 40)) * unit
    base = max(0, min(base, kind.space_size - size))
    form = draw(st.sampled_from(["any", "aligned", "exact", "from", "up to", "window"]))
    if form == "any":
        return kind(size=size, align=1)
    if form == "exact":
        return kind.exact(base, size)
    align = unit * draw(st.sampled_from([1, 2, 4]))
    if form == "aligned":
        return kind(size=size, align=align)
    if form == "up to":
        return kind(size=size, max=base + size - 1, align=align)
    assume(base + -base % align + size <= kind.space_size)
    if form == "from":
        return kind(size=size, min=base, align=align)
    high = base + -base % align + size - 1 + draw(st.integers(0, 8)) * unit
    return kind(size=size, min=base, max=min(high, kind.space_size - 1), align=align)


CONSTRAINTS: st.SearchStrategy[ResourceConstraint] = st.one_of(
    addresses(PioAddressConstraint, 0x400, [0, 0x4000, 0xF800]),
    addresses(MmioAddressConstraint, 16 << 20, [0xC000_0000, 0xFC00_0000, 6 << 30, 1 << 33]),
    addresses(MemAddressConstraint, 128 << 20, [0, 3 << 30, 4 << 30, 6 << 30]),
    st.builds(LegacyIrqConstraint, st.one_of(st.none(), st.integers(0, 17))),
    st.builds(PciMsiIrqConstraint, st.integers(1, 9), st.sampled_from([1, 4, 8])),
    st.builds(GenericIrqConstraint, st.integers(1, 40)),
    st.builds(KvmMemSlotConstraint, st.one_of(st.none(), st.integers(0, 13)), st.integers(1, 3)),
)


class Allocating(RuleBasedStateMachine):
    """Ask and give back, rightly and wrongly; the model says what must come of it."""

    def __init__(self) -> None:
        super().__init__()
        self.manager = ResourceManager(CONFIG)
        self.model = PlainManager()

    @rule(constraints=st.lists(CONSTRAINTS, min_size=1, max_size=4), owner=OWNERS)
    def allocate(self, constraints: list[ResourceConstraint], owner: str) -> None:
        after = self.model.copy()
        refused: AllocationError | None = None
        expected: list[Resource] = []
        try:
            expected = [got for each in constraints for got in after.give(each, owner)]
        except AllocationError as error:
            refused = error
        if refused is None:
            assert list(self.manager.allocate(constraints, owner)) == expected
            self.model = after
            return
        with pytest.raises(type(refused)) as caught:
            self.manager.allocate(constraints, owner)
        for fact, value in refused.metadata.items():
            found = caught.value.metadata[fact]
            assert (found if fact == "holder" else str(int(found, 0))) == value

    @precondition(lambda self: any(self.model.allocations()))
    @rule(data=st.data(), stranger=OWNERS)
    def release(self, data: st.DataObject, stranger: str) -> None:
        """Release some of what there is: by its owner, by a stranger, twice, in parts."""
        listed = list(self.model.allocations())
        some = data.draw(st.lists(st.sampled_from(listed), min_size=1, max_size=4))
        owner = data.draw(st.sampled_from([some[0].owner, some[0].owner, stranger]))
        resources = [each.resource for each in some if owner in (each.owner, stranger)]
        if data.draw(st.booleans()):
            resources.append(data.draw(st.sampled_from(wrong_shapes(some[0].resource))))
        released = [self.model.release(each, owner) for each in resources]
        if all(released):
            self.manager.release(resources, owner)
        else:
            with pytest.raises(NotAllocated) as caught:
                self.manager.release(resources, owner)
            assert caught.value.metadata["failed"] == str(released.count(False))
            assert caught.value.metadata["released"] == str(released.count(True))

    @invariant()
    def the_same_is_allocated(self) -> None:
        assert self.manager.allocations() == list(self.model.allocations())

    @invariant()
    def the_same_is_free(self) -> None:
        capacities = iter(self.manager.capacity())
        for space in self.model.spaces.values():
            for pool in space.pools:
                capacity = next(capacities)
                taken = [e for e in space.taken if pool.base <= e[0] <= pool.last]
                assert capacity.total == pool.last - pool.base + 1
                assert capacity.free == capacity.total - sum(size for _, size, _, _ in taken)
                assert capacity.largest_free == space.largest_free(pool)
        assert next(capacities, None) is None


def wrong_shapes(resource: Resource) -> list[Resource]:
    """What isn't `resource`, but near it."""
    if isinstance(resource, AddressRange):
        kind, base, size = type(resource), resource.base, resource.size
        shapes = [kind(base, size - 1)] if size > 1 else []
        if base + size < kind.space_size:
            shapes += [kind(base, size + 1), kind(base + 1, size)]
        return [*shapes, MemAddressRange(0x1234, 1)]
    if isinstance(resource, MsiIrq):
        other = MsiType.PCI_MSIX
        return [MsiIrq(other, resource.base, resource.size), MsiIrq(resource.ty, resource.base, 50)]
    return [LegacyIrq(99), KvmMemSlot(99)]


TestAllocating = Allocating.TestCase
TestAllocating.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
