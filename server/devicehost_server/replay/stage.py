"""The bus of a replay, and the devices on it: does what events say, and compares.

What was recorded of a device is kept until the access, or the waking, that it belongs to.
Then the device is called in its world, and everything that came of it is compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from devicehost.access_status import AccessStatus
from devicehost.recording import Annotated, Annotator, DeviceRecord, Header
from devicehost.recording.events import (
    Access,
    Dma,
    Event,
    Interrupt,
    Learned,
    Lost,
    Operation,
    Plugged,
    Space,
    Told,
    Unplugged,
    Woken,
)
from devicehost_server.devices.doors import SAVE, TIMER
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.model.device_io import DEVICE_EXCEPTIONS
from devicehost_server.model.errors import DeviceHostError
from devicehost_server.model.interrupts import InterruptController, InterruptEvent
from devicehost_server.model.io_manager import IoManager
from devicehost_server.replay.difference import Difference, What
from devicehost_server.replay.player import CannotReplay, NotPlayed, Player
from devicehost_server.replay.spoiled import Spoiled
from devicehost_server.replay.world import Effects, Outcome, World

_SIZE_MAX = 1 << 20
"""The most that an access moves, in bytes; a recorded one of more was refused."""

_NOT_ASKED = frozenset(
    {AccessStatus.BAD_ACCESS_SIZE, AccessStatus.DEVICE_TIMEOUT, AccessStatus.DRAINING}
)
"""Ends of an access that never got to its device. How long one was that had a size which can't
be isn't recorded, so it can't be made again."""


@dataclass(slots=True)
class Summary:
    """What a replay came to.

    Attributes:
        events: how many events there were.
        accesses: how many of them were accesses that could be compared.
        differences: how many differences.
        devices: the devices that were replayed, in the order of their first activation.
        left_out: devices that can't be replayed, and why.
        lost: how many events the recording lacks.
    """

    events: int
    accesses: int
    differences: int
    devices: list[str]
    left_out: dict[str, str]
    lost: int


class Stage:
    """The bus of a replay, and the devices on it.

    Args:
        header: what the recording begins with.
        types: the types of devices that can be made.
        faults: what is to be wrong with them.
        summary: filled in.
        leave_out: go on without devices that can't be made.
    """

    def __init__(
        self,
        header: Header,
        types: DeviceTypes,
        faults: tuple[Spoiled, ...],
        summary: Summary,
        *,
        leave_out: bool,
    ) -> None:
        self._header = header
        self._types = types
        self._faults = faults
        self._summary = summary
        self._leave_out = leave_out
        self._io = IoManager()
        self._interrupts = InterruptController()
        self._interrupts.subscribe(self._interrupted)
        self._annotator = Annotator(header.devices)
        self._waiting: dict[str, tuple[DeviceRecord, int]] = {}  # and when they were saved
        self._players: dict[str, Player] = {}
        self._feeds: defaultdict[str, list[Event]] = defaultdict(list)
        self._foreign: set[int] = set()  # GSIs that others have a hand in
        self._active: Player | None = None
        self._unsure: set[str] = set()

    def enter(self, device: DeviceRecord, now_ns: int, why_not: str) -> None:
        """Let a device come; if it can't be replayed, only its place is taken."""
        self._feeds.pop(device.id, None)
        self._summary.left_out.pop(device.id, None)
        if why_not:
            self._go_without(device, why_not)
        else:
            self._waiting[device.id] = device, now_ns

    def leave(self, device: str) -> None:
        """Let a device go, if it is there."""
        self._feeds.pop(device, None)
        self._waiting.pop(device, None)
        if player := self._players.pop(device, None):
            player.close()

    def clear(self) -> None:
        """Let all devices go."""
        for device in list(self._players):
            self.leave(device)

    def play(self, number: int, event: Event) -> Iterator[Difference]:
        """Do what the event says, and compare."""
        match event:
            case Access():
                annotated = self._annotator.annotate(event)
                yield from self._access(number, annotated, event)
            case Woken():
                yield from self._wake(number, event)
            case Learned() | Told() | Dma() | Interrupt():
                self._keep(event)
            case _:
                self._go_on(event)

    def _keep(self, event: Learned | Told | Dma | Interrupt) -> None:
        """Keep what belongs to the next activation of a device."""
        if event.device in self._players or event.device in self._waiting:
            self._feeds[event.device].append(event)
        elif isinstance(event, Interrupt):
            self._foreign.add(event.gsi)

    def _go_on(self, event: Plugged | Unplugged | Lost) -> None:
        match event:
            case Lost(count=count):
                self._summary.lost += count
                self._unsure.update(self._players, self._waiting, {""})
            case Unplugged(device=device):
                self._annotator.annotate(event)
                self.leave(device)
                self._summary.left_out.pop(device, None)
            case Plugged():
                self._annotator.annotate(event)

    def _access(self, number: int, annotated: Annotated, access: Access) -> Iterator[Difference]:
        player = self._player(annotated.device)
        if access.status in _NOT_ASKED or annotated.device in self._summary.left_out:
            return
        self._summary.accesses += 1
        if player is not None:
            player.world.begin(self._feeds.pop(annotated.device, ()))
        self._active = player
        status, data, cause = self._make(access)
        self._active = outcome = None
        if player is not None:
            outcome = player.world.end()
            operand = access.size or len(data) or 1
            data = player.spoil(annotated.range, annotated.offset, access.operation, data, operand)
        is_other = access.operation is Operation.READ and data != access.data
        if status is access.status and not is_other and outcome is None:
            return
        difference = Difference(
            0,
            number,
            access.time_ns,
            annotated.device,
            What.STATUS,
            access.status.name,
            status.name,
            access,
            annotated.range,
            annotated.offset,
            annotated.registers,
            cause=cause,
            is_unsure=annotated.device in self._unsure,
        )
        yield from _asked(difference, outcome)
        if status is not access.status:
            yield difference
        elif is_other:
            got = self._annotator.annotate(replace(access, data=data)).registers
            self._annotator.annotate(access)  # what was recorded is what counts
            yield replace(
                difference,
                what=What.READ,
                expected=access.data.hex(),
                got=data.hex(),
                registers_got=got,
            )
        yield from self._effects(difference, outcome)

    def _make(self, access: Access) -> tuple[AccessStatus, bytes, str]:
        """Make an access; return how it ended, what it carried, and what a device raised."""
        data = bytearray(access.data or min(access.size, _SIZE_MAX))
        reading = access.operation is Operation.READ
        try:
            if access.space is Space.PIO:
                call = self._io.pio_read if reading else self._io.pio_write
                call(access.address, data, access.size)
            elif reading:
                self._io.mmio_read(access.address, data)
            else:
                self._io.mmio_write(access.address, data)
        except DeviceHostError as error:
            known = error.reason in AccessStatus.__members__
            status = AccessStatus[error.reason] if known else AccessStatus.DEVICE_FAULT
            return status, b"", str(error)
        return AccessStatus.OK, bytes(data), ""

    def _wake(self, number: int, woken: Woken) -> Iterator[Difference]:
        if woken.source == SAVE and woken.device in self._waiting:
            self._set_up(woken.device, woken.time_ns, self._feeds.pop(woken.device, []))
            return
        player = self._player(woken.device)
        if player is None:
            return
        player.world.begin(self._feeds.pop(woken.device, ()))
        difference = Difference(
            0,
            number,
            woken.time_ns,
            woken.device,
            What.STATUS,
            "OK",
            "",
            cause=f"when woken by {woken.source}",
            is_unsure=woken.device in self._unsure,
        )
        self._active = player
        why_not = failure = ""
        try:
            player.wake(woken.source)
        except NotPlayed as error:
            why_not = str(error)
        except DEVICE_EXCEPTIONS as error:
            failure = f"{type(error).__name__}: {error}"
        self._active = None
        outcome = player.world.end()
        if why_not:
            if not woken.source.startswith(TIMER):
                self._unsure.add(woken.device)
            # A timer that did nothing may be one that a restored device no longer needs.
            if outcome is not None:
                yield replace(difference, what=What.TIMER, expected=woken.source, got=why_not)
            return
        yield from _asked(difference, outcome)
        if failure:
            yield replace(difference, got=failure)
        yield from self._effects(difference, outcome)

    def _effects(self, difference: Difference, outcome: Outcome | None) -> Iterator[Difference]:
        """Compare what a device did to the world."""
        if outcome is None:
            return
        expected, got = outcome.expected, outcome.got
        for what, then, now in (
            (What.INTERRUPT, self._changes(expected), self._changes(got)),
            (What.DMA, _writes(expected), _writes(got)),
            (What.OUTPUT, expected.output.hex(), got.output.hex()),
        ):
            if then != now:
                yield replace(difference, what=what, expected=then, got=now)

    def _changes(self, effects: Effects) -> str:
        known = (each for each in effects.interrupts if each[0] not in self._foreign)
        return ", ".join(f"GSI {gsi} {kind}" for gsi, kind in known)

    def _player(self, device: str) -> Player | None:
        """Return a device, set up by now; None if there is none of this id."""
        if device in self._waiting:
            _, now_ns = self._waiting[device]
            self._set_up(device, now_ns, ())
        return self._players.get(device)

    def _set_up(self, device: str, now_ns: int, known: Iterable[Event]) -> None:
        """Make a device.

        Args:
            device: its id.
            now_ns: when it was saved.
            known: what it learned then.
        """
        record, _ = self._waiting.pop(device)
        world = World(now_ns, self._header.wall_ns + now_ns - self._header.now_ns)
        world.introduce(known)
        faults = [fault for fault in self._faults if fault.device == device]
        try:
            self._players[device] = Player(
                record, self._types, self._io, self._interrupts, world=world, faults=faults
            )
        except CannotReplay as error:
            if not self._leave_out:
                raise
            self._go_without(record, str(error))
        else:
            self._summary.devices.append(device)

    def _go_without(self, device: DeviceRecord, why: str) -> None:
        self._summary.left_out[device.id] = why
        for resource in device.resources:
            if isinstance(gsi := resource.get("irq"), int):
                self._foreign.add(gsi)

    def _interrupted(self, event: InterruptEvent) -> None:
        if self._active is not None:
            self._active.world.interrupted(event.gsi, event.kind.value)


def _asked(difference: Difference, outcome: Outcome | None) -> Iterator[Difference]:
    for asked in outcome.asked if outcome else ():
        yield replace(difference, what=What.ASKED, expected="nothing asked", got=asked)


def _writes(effects: Effects) -> str:
    return ", ".join(f"{address:#x}: {data.hex()}" for address, data in effects.dma)
