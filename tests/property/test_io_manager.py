"""The IoManager against a model too simple to be wrong: a dictionary with an owner per byte."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from devicehost_server.model.address_map import AddressMap, Space, Trap
from devicehost_server.model.device_io import (
    DeviceIo,
    DeviceIoMut,
    ReadableBuffer,
    WritableBuffer,
)
from devicehost_server.model.errors import (
    AccessOutOfRange,
    BadAccessSize,
    BusError,
    DeviceOverlap,
    NoDevice,
)
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.io_transaction import IoManagerContext
from devicehost_server.model.resources import MmioAddressRange, PioAddressRange

Held: TypeAlias = PioAddressRange | MmioAddressRange

KINDS: dict[Space, type[Held]] = {Space.PIO: PioAddressRange, Space.MMIO: MmioAddressRange}
EDGE = 24
"""So many bytes at the bottom, and at the top, of each space are in play."""


class Answering(DeviceIo):
    """Remembers the last access, and answers a read with its number and the offsets."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.seen: list[tuple[int, int, bytes]] = []

    @property
    def name(self) -> str:
        return f"device{self.number}"

    def answer(self, offset: int, size: int) -> bytes:
        return bytes((self.number * 50 + offset + at) % 256 for at in range(size))

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:
        self.seen.append((base, offset, bytes(data)))
        data[:] = self.answer(offset, len(data))

    def write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        self.seen.append((base, offset, bytes(data)))

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:
        self.read(base, offset, data)

    def pio_write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        self.write(base, offset, data)


class AnsweringMut(Answering, DeviceIoMut):
    """Likewise, one thread at a time."""


@dataclass
class Plain:
    """Who owns each byte: (space, address) -> (range, device)."""

    owners: dict[tuple[Space, int], tuple[Held, Answering]] = field(default_factory=dict)

    def copy(self) -> Plain:
        return Plain(dict(self.owners))

    def owner(self, space: Space, address: int) -> tuple[Held, Answering] | None:
        return self.owners.get((space, address))

    def register(self, device: Answering, ranges: Iterable[Held]) -> None:
        owners = dict(self.owners)
        for held in ranges:
            for place in bytes_of(held):
                if place in owners:
                    raise DeviceOverlap("")
                owners[place] = held, device
        self.owners = owners

    def unregister(self, ranges: Iterable[Held]) -> None:
        owners = dict(self.owners)
        for held in ranges:
            if owners.get(next(bytes_of(held)), (None,))[0] != held:
                raise NoDevice("")
            for place in bytes_of(held):
                del owners[place]
        self.owners = owners

    def listing(self) -> list[tuple[str, int, int, str]]:
        held = {(space.value, h.base, h.size, d.name) for (space, _), (h, d) in self.owners.items()}
        return sorted(held, key=lambda line: (line[0] != "pio", line[1]))


def space_of(held: Held) -> Space:
    return Space.PIO if isinstance(held, PioAddressRange) else Space.MMIO


def bytes_of(held: Held) -> Iterator[tuple[Space, int]]:
    return ((space_of(held), address) for address in range(held.base, held.base + held.size))


# What can happen.

spaces = st.sampled_from(Space)


@st.composite
def addresses(draw: st.DrawFn, space: Space) -> int:
    low = draw(st.integers(0, EDGE - 1))
    return low if draw(st.booleans()) else KINDS[space].space_size - 1 - low


@st.composite
def held_ranges(draw: st.DrawFn) -> Held:
    space = draw(spaces)
    base = draw(addresses(space))
    room = KINDS[space].space_size - base
    return KINDS[space](base, draw(st.integers(1, min(room, 10))))


lists_of_ranges = st.lists(held_ranges(), max_size=3)
numbers = st.integers(0, 2)
changes = st.lists(
    st.tuples(st.sampled_from(["register", "unregister"]), numbers, lists_of_ranges), max_size=6
)
sizes = st.sampled_from([0, 1, 1, 2, 2, 3, 4, 4, 5, 8, 12])


class IoManagerMachine(RuleBasedStateMachine):
    """Whatever is done to a manager and to the model, they agree."""

    def __init__(self) -> None:
        super().__init__()
        self.manager = IoManager()
        self.plain = Plain()
        self.devices = [Answering(0), AnsweringMut(1), Answering(2)]
        self.clones: list[tuple[IoManager, Plain]] = []

    @rule(number=numbers, ranges=lists_of_ranges)
    def register(self, number: int, ranges: list[Held]) -> None:
        device = self.devices[number]
        with agreeing(lambda: self.plain.register(device, ranges)):
            self.manager.register_device_io(device, ranges)

    @rule(ranges=lists_of_ranges)
    def unregister_something(self, ranges: list[Held]) -> None:
        with agreeing(lambda: self.plain.unregister(ranges)):
            self.manager.unregister_device_io(ranges)

    @rule(data=st.data())
    def unregister_what_is_there(self, data: st.DataObject) -> None:
        ranges = data.draw(registered(self.plain))
        with agreeing(lambda: self.plain.unregister(ranges)):
            self.manager.unregister_device_io(ranges)

    @rule(data=st.data(), wanted=changes, end=st.sampled_from(["commit", "cancel", "raise"]))
    def change_in_one_transaction(
        self, data: st.DataObject, wanted: list[tuple[str, int, list[Held]]], end: str
    ) -> None:
        after = self.plain.copy()
        with contextlib.suppress(ZeroDivisionError), self.manager.begin_tx() as tx:
            for what, number, ranges in wanted:
                self._change(tx, after, what, number, ranges or data.draw(registered(after)))
            self.manager_and_model_list_the_same()  # nothing is to be seen of it yet
            if end == "cancel":
                self.manager.cancel_tx(tx)
            elif end == "raise":
                raise ZeroDivisionError
        if end == "commit":
            self.plain = after

    def _change(
        self, tx: IoManagerContext, after: Plain, what: str, number: int, ranges: list[Held]
    ) -> None:
        device = self.devices[number]
        if what == "register":
            with agreeing(lambda: after.register(device, ranges)):
                tx.register_device_io(device, ranges)
        else:
            with agreeing(lambda: after.unregister(ranges)):
                tx.unregister_device_io(ranges)

    @rule(data=st.data(), space=spaces, size=sizes, is_read=st.booleans())
    def access(self, data: st.DataObject, space: Space, size: int, is_read: bool) -> None:  # noqa: FBT001 # hypothesis passes it by name
        address = data.draw(addresses(space))
        check_access(self.manager, self.plain, space, address, size, is_read=is_read)

    @rule(address=addresses(Space.PIO), size=st.integers(0, 5), count=st.integers(1, 4))
    def string_access(self, address: int, size: int, count: int) -> None:
        owner = self.plain.owner(Space.PIO, address)
        data = bytearray(b"\xff" * size * count)
        expected = expected_error(Space.PIO, owner, address, size)
        if expected is not None:
            with pytest.raises(expected):
                self.manager.pio_read(address, data, size)
            assert data == b"\xff" * size * count
            return
        assert owner is not None
        held, device = owner
        self.manager.pio_read(address, data, size)
        assert data == device.answer(address - held.base, size) * count
        assert device.seen == [(held.base, address - held.base, bytes(size))] * count
        device.seen.clear()

    @rule()
    def clone(self) -> None:
        self.clones = [*self.clones[-2:], (self.manager.clone(), self.plain.copy())]

    @rule(data=st.data())
    def go_on_with_a_clone(self, data: st.DataObject) -> None:
        if self.clones:
            at = data.draw(st.integers(0, len(self.clones) - 1))
            self.clones[at], (self.manager, self.plain) = (
                (self.manager, self.plain),
                self.clones[at],
            )

    @invariant()
    def manager_and_model_list_the_same(self) -> None:
        for manager, plain in [(self.manager, self.plain), *self.clones]:
            listing = [(r.space.value, r.base, r.size, r.device) for r in manager.ranges()]
            assert listing == plain.listing()


IoManagerMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None
)
TestIoManagerAgainstAnOwnerPerByte = IoManagerMachine.TestCase


def registered(plain: Plain) -> st.SearchStrategy[list[Held]]:
    """Some of the ranges that are there."""
    there = list(dict.fromkeys(held for held, _ in plain.owners.values()))
    return st.lists(st.sampled_from(there), max_size=3) if there else st.just([])


@contextlib.contextmanager
def agreeing(model: Callable[[], None]) -> Iterator[None]:
    """Expect of the block what `model` does: to work, or to raise the same error."""
    try:
        model()
    except BusError as error:
        with pytest.raises(type(error)):
            yield
    else:
        yield


def expected_error(
    space: Space, owner: tuple[Held, Answering] | None, address: int, size: int
) -> type[BusError] | None:
    if size == 0 or (space is Space.PIO and size not in (1, 2, 4)):
        return BadAccessSize
    if owner is None:
        return NoDevice
    return AccessOutOfRange if address + size - 1 > owner[0].last else None


def check_access(
    manager: IoManager, plain: Plain, space: Space, address: int, size: int, *, is_read: bool
) -> None:
    """Make an access and compare who was called, with what, and what came back."""
    name = f"{space.value}_{'read' if is_read else 'write'}"
    operation: Callable[[int, bytearray], None] = getattr(manager, name)
    owner = plain.owner(space, address)
    before = bytes(range(0xE0, 0xE0 + size))
    data = bytearray(before)
    error = expected_error(space, owner, address, size)
    if error is not None:
        with pytest.raises(error):
            operation(address, data)
        assert data == before
        return
    assert owner is not None
    held, device = owner
    offset = address - held.base
    operation(address, data)
    assert data == (device.answer(offset, size) if is_read else before)
    assert device.seen == [(held.base, offset, bytes(size) if is_read else before)]
    device.seen.clear()


# One address map.

everywhere = st.one_of(st.integers(0, 64), st.integers((1 << 64) - 64, (1 << 64) - 1))


@st.composite
def traps(draw: st.DrawFn) -> Trap:
    device = Answering(0)
    base = draw(everywhere)
    last = min(base + draw(st.integers(0, 15)), (1 << 64) - 1)
    return Trap(base, last, device, device.read, device.write)


def naive_find(traps: Iterable[Trap], address: int) -> Trap | None:
    return next((trap for trap in traps if trap.base <= address <= trap.last), None)


@given(wanted=st.lists(traps(), max_size=20), looked_up=st.lists(everywhere, min_size=1))
def test_an_address_map_finds_what_a_naive_search_finds(
    wanted: list[Trap], looked_up: list[int]
) -> None:
    bus, kept = AddressMap(Space.MMIO), list[Trap]()
    for new in wanted:
        if any(new.base <= there.last and there.base <= new.last for there in kept):
            with pytest.raises(DeviceOverlap):
                bus.with_trap(new)
        else:
            bus = bus.with_trap(new)
            kept.append(new)
    assert list(bus) == sorted(kept, key=lambda trap: trap.base)
    edges = [at for trap in kept for at in (trap.base - 1, trap.base, trap.last, trap.last + 1)]
    for address in [*looked_up, *edges]:
        assert bus.find(address) is naive_find(kept, address)


@given(wanted=st.lists(traps(), min_size=1, max_size=20), data=st.data())
def test_an_address_map_without_a_trap_is_the_others_and_the_map_before_is_unchanged(
    wanted: list[Trap], data: st.DataObject
) -> None:
    bus = AddressMap(Space.MMIO)
    for new in wanted:
        with contextlib.suppress(DeviceOverlap):
            bus = bus.with_trap(new)
    before = list(bus)
    gone = data.draw(st.sampled_from(before))
    smaller, removed = bus.without(gone.base, gone.size)
    assert removed is gone
    assert list(smaller) == [trap for trap in before if trap is not gone]
    assert list(bus) == before
    assert list(smaller.with_trap(gone)) == before
    with pytest.raises(NoDevice):
        smaller.without(gone.base, gone.size)


@st.composite
def page_ranges(draw: st.DrawFn) -> MmioAddressRange:
    """A range that fills pages, shares one, or is too long for the page table."""
    base = draw(st.integers(0, 40)) * 0x1000 + draw(st.sampled_from([0, 0, 0x10, 0xFF0]))
    return MmioAddressRange(base, draw(st.sampled_from([1, 0x10, 0xFF0, 0x1000, 0x4000, 0x18000])))


@given(wanted=st.lists(page_ranges(), max_size=12))
def test_an_access_finds_its_device_whatever_pages_the_ranges_fill_or_share(
    wanted: list[MmioAddressRange],
) -> None:
    manager, registered = IoManager(), list[tuple[MmioAddressRange, Answering]]()
    for held in wanted:
        with contextlib.suppress(DeviceOverlap):
            device = Answering(len(registered))
            manager.register_device_io(device, [held])
            registered.append((held, device))
    ends = {at for held, _ in registered for at in (held.base, held.last)}
    for address in {*ends, *(at - 1 for at in ends if at), *(at + 1 for at in ends)}:
        owner = [each for each in registered if each[0].base <= address <= each[0].last]
        if owner:
            [(held, device)] = owner
            manager.mmio_read(address, bytearray(1))
            assert device.seen[-1][:2] == (held.base, address - held.base)
        else:
            with pytest.raises(NoDevice):
                manager.mmio_read(address, bytearray(1))
