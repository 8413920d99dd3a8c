"""Events to what they mean: which device, where in it, which registers.

    annotator = Annotator(recording.header.devices)
    for event in recording:
        print(*annotator.annotate(event).registers)

It follows the events: devices that come and go, and what was written to the registers that
others depend on. So it has to see all of them, in their order.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from devicehost import registers as register_maps
from devicehost.access_status import AccessStatus
from devicehost.recording.events import (
    Access,
    Dma,
    Event,
    Interrupt,
    Learned,
    Operation,
    Plugged,
    Space,
    Told,
    Unplugged,
    Woken,
)
from devicehost.recording.header import DeviceRecord
from devicehost.recording.layout import BadRecording

OPERANDS_MAX: Final = 16
"""How many operands of a string access are decoded."""

OPERAND_MAX: Final = 64
"""How many bytes of an operand are decoded."""

NO_RANGE: Final = -1


@dataclass(frozen=True, slots=True)
class Annotated:
    """An event, and what it means.

    Attributes:
        event: the event.
        device: whose it is; empty if nobody's.
        range: which of the device's trapped ranges an access is in, by their order; -1 if
            it is in none, or the event is no access.
        offset: of an access, in bytes: from the base of that range.
        registers: what an access did to registers, in the order of their addresses, in the
            first 64 bytes; of a string access for each of the first 16 operands in turn.
            Empty if the access failed, or the device has no register map.
    """

    event: Event
    device: str = ""
    range: int = NO_RANGE
    offset: int = 0
    registers: tuple[register_maps.Decoded, ...] = ()


@dataclass(frozen=True, slots=True)
class _Mapped:
    """A trapped range of a device."""

    base: int
    size: int
    device: str
    range: int
    decoder: register_maps.Decoder | None


class Annotator:
    """Tells what events mean, one after the other.

    Args:
        devices: those that are there when the first event comes.

    Raises:
        BadRecording: a register map isn't one; names the device.
    """

    def __init__(self, devices: Iterable[DeviceRecord]) -> None:
        self._mapped: dict[Space, list[_Mapped]] = {space: [] for space in Space}
        self._bases: dict[Space, list[int]] = {space: [] for space in Space}
        for device in devices:
            self._plug(device)

    def annotate(self, event: Event) -> Annotated:
        """Tell what the next event means.

        Raises:
            BadRecording: a device was plugged, and what is said of it makes no sense.
        """
        match event:
            case Access():
                return self._annotate_access(event)
            case Plugged():
                device = DeviceRecord.from_json(event.device)
                self._plug(device)
                return Annotated(event, device.id)
            case Unplugged():
                self._unplug(event.device)
                return Annotated(event, event.device)
            case Interrupt() | Dma() | Learned() | Woken() | Told():
                return Annotated(event, event.device)
            case _:
                return Annotated(event)

    def _annotate_access(self, access: Access) -> Annotated:
        number = bisect_right(self._bases[access.space], access.address) - 1
        if number < 0:
            return Annotated(access)
        mapped = self._mapped[access.space][number]
        offset = access.address - mapped.base
        if offset >= mapped.size:
            return Annotated(access)
        decoded: tuple[register_maps.Decoded, ...] = ()
        if mapped.decoder and access.data and access.status is AccessStatus.OK:
            decoded = tuple(_decoded(mapped.decoder, mapped.range, offset, access))
        return Annotated(access, mapped.device, mapped.range, offset, decoded)

    def _plug(self, device: DeviceRecord) -> None:
        decoder = _decoder(device)
        self._unplug(device.id)
        for number, (space, base, size) in enumerate(device.ranges):
            self._mapped[space].append(_Mapped(base, size, device.id, number, decoder))
        self._sort()

    def _unplug(self, device: str) -> None:
        for mapped in self._mapped.values():
            mapped[:] = [each for each in mapped if each.device != device]
        self._sort()

    def _sort(self) -> None:
        for space, mapped in self._mapped.items():
            mapped.sort(key=lambda each: each.base)
            self._bases[space] = [each.base for each in mapped]


def _decoder(device: DeviceRecord) -> register_maps.Decoder | None:
    """Return a decoder that begins with what is known of a device."""
    if device.registers is None:
        return None
    try:
        decoder = register_maps.Decoder(register_maps.from_json(device.registers))
    except register_maps.BadRegisterMap as error:
        raise BadRecording(f"the registers of the device {device.id!r}: {error}") from error
    for name, value in device.values.items():
        decoder.learn(name, value)
    return decoder


def _decoded(
    decoder: register_maps.Decoder, number: int, offset: int, access: Access
) -> Iterator[register_maps.Decoded]:
    """Decode the operands of an access, as far as they are told."""
    data = access.data
    size = access.size or len(data)
    operands = range(0, len(data), size)
    for at in operands[:OPERANDS_MAX]:
        operand = data[at : at + min(size, OPERAND_MAX)]
        yield from decoder.decode(number, offset, access.operation, operand)
    if len(operands) > OPERANDS_MAX and access.operation is Operation.WRITE:
        operand = data[operands[-1] :][:OPERAND_MAX]  # what it leaves behind
        decoder.decode(number, offset, access.operation, operand)
