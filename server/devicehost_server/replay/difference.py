"""What a device did otherwise than when it was recorded."""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from devicehost.recording.annotator import NO_RANGE
from devicehost.recording.events import Access
from devicehost.registers import Decoded


class What(enum.Enum):
    """In what it differed."""

    READ = "read"
    """A read returned other bytes."""
    STATUS = "status"
    """An access, or a waking, ended otherwise."""
    INTERRUPT = "interrupt"
    """Other interrupts changed, or in another order."""
    DMA = "dma"
    """It wrote something else to guest memory."""
    OUTPUT = "output"
    """It gave something else to its streams."""
    TIMER = "timer"
    """It can't be woken as it was then: it hasn't set that timer now."""
    ASKED = "asked"
    """It asked for something that it didn't ask for then."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference.

    Attributes:
        index: which one it is, from 0.
        event: at which event of the recording, from 0.
        time_ns: when that was, on the clock of the recording.
        device: the device's id; empty if no device was accessed.
        what: in what it differed.
        expected: what was recorded, in words, or the bytes in hexadecimal digits.
        got: what came of it now, likewise.
        access: the access, if it was one.
        range: which of the device's trapped ranges that was in.
        offset: from the base of that range, in bytes.
        registers_expected: what a read said of registers when it was recorded; what a
            write wrote to them.
        registers_got: what a read says of them now.
        cause: more about it; empty if there isn't.
        is_unsure: it may come from something before it that the recording lacks.
    """

    index: int
    event: int
    time_ns: int
    device: str
    what: What
    expected: str
    got: str
    access: Access | None = None
    range: int = NO_RANGE
    offset: int = 0
    registers_expected: tuple[Decoded, ...] = ()
    registers_got: tuple[Decoded, ...] = ()
    cause: str = ""
    is_unsure: bool = False

    @property
    def signature(self) -> Hashable:
        """Two that have the same are the same difference, wherever they are."""
        operation = self.access and self.access.operation
        return self.device, self.what, self.range, self.offset, operation, self.expected, self.got

    @property
    def place(self) -> str:
        """Where it was, in words."""
        device = self.device or "no device"
        access = self.access
        if access is None:
            return device
        names = ", ".join(each.register or "?" for each in self.registers_expected)
        place = f"{access.space.value} {access.address:#x}"
        what = (
            f"{access.operation.value} of {names} at {place}"
            if names
            else (f"{access.operation.value} of {len(access.data) or access.size} bytes at {place}")
        )
        return f"{device}: {what}"

    def __str__(self) -> str:
        return "\n".join(self._lines())

    @property
    def text(self) -> str:
        """All of it in one line."""
        first, *rest = self._lines()
        return f"{first} {', '.join(line.strip() for line in rest)}"

    def _lines(self) -> Iterator[str]:
        yield f"event {self.event}: {self.place}: {self.what.value}:"
        if self.what is What.READ and self.registers_expected:
            pairs = zip(self.registers_expected, self.registers_got, strict=False)
            for expected, got in pairs:
                if expected != got:
                    yield f"    expected {expected}"
                    yield f"    got {got}"
        else:
            yield f"    expected {self.expected}"
            yield f"    got {self.got}"
        if self.cause:
            yield f"    ({self.cause})"
        if self.is_unsure:
            yield "    (unsure: the recording lacks something before it)"

    def to_json(self) -> dict[str, object]:
        """Return it as a JSON object; the shape is in `devicehost_server.replay.__main__`."""
        access = self.access
        return {
            "index": self.index,
            "event": self.event,
            "time_ns": self.time_ns,
            "device": self.device,
            "what": self.what.value,
            "expected": self.expected,
            "got": self.got,
            "access": access
            and {
                "space": access.space.value,
                "operation": access.operation.value,
                "address": access.address,
                "size": access.size,
                "vcpu": access.vcpu,
                "range": self.range,
                "offset": self.offset,
            },
            "registers_expected": [_register(each) for each in self.registers_expected],
            "registers_got": [_register(each) for each in self.registers_got],
            "cause": self.cause,
            "unsure": self.is_unsure,
            "text": self.text,
        }


def _register(decoded: Decoded) -> dict[str, object]:
    return {
        "register": decoded.register,
        "value": decoded.value,
        "text": str(decoded),
        "fields": [
            {"name": each.name, "value": each.value, "meaning": each.meaning}
            for each in decoded.fields
        ],
    }
