"""Events of a trace as lines for people."""

from __future__ import annotations

from devicehost_client.ctl.output import Style
from devicehost_client.debug import (
    Hotplugged,
    Interrupt,
    Lost,
    Operation,
    RegisterValue,
    TracedAccess,
    TracedDma,
    TraceEvent,
)

COLUMNS = {
    "TIME/s": 11,
    "DELTA": 9,
    "VCPU": 4,
    "WHERE": 16,
    "OP": 2,
    "VALUE": 10,
    "TOOK": 8,
    "DETAILS": 0,
}
"""The headers of a trace, and the widths of its columns."""

TOOL_VCPU = 0xFFFF_FFFF

_SHOWN_MAX = 8
_OPERATIONS = {Operation.READ: "R", Operation.WRITE: "W"}


def duration(nanoseconds: int) -> str:
    """Return a duration with three digits or more and its unit: `1.23 us`, `450 ms`."""
    for size, unit in ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")):
        if nanoseconds >= size:
            count = nanoseconds / size
            digits = 2 if count < 10 else 1 if count < 100 else 0  # noqa: PLR2004 # of a number
            return f"{count:.{digits}f} {unit}"
    return f"{nanoseconds} ns"


def value_text(access: TracedAccess) -> str:
    """Return what an access carried, with all digits; of a long string access, the beginning."""
    width = 2 + 2 * access.size
    shown = [f"{value:#0{width}x}" for value in access.values[:_SHOWN_MAX]]
    if len(access.values) > _SHOWN_MAX:
        shown.append(f"and {len(access.values) - _SHOWN_MAX} more")
    return " ".join(shown)


def registers_text(registers: tuple[RegisterValue, ...]) -> str:
    """Return what an access did to registers; of a single one only its fields."""
    if len(registers) == 1:
        return registers[0].details
    return "; ".join(map(str, registers))


def vcpu_text(vcpu: int | None) -> str:
    """Return the number of a vCPU; `tool` for accesses that no vCPU makes."""
    return "" if vcpu is None else "tool" if vcpu == TOOL_VCPU else str(vcpu)


class TraceText:
    """Turns events into the cells of a table, with the time from one to the next."""

    def __init__(self) -> None:
        self._first_ns: int | None = None
        self._last_ns = 0

    def cells(self, event: TraceEvent | Lost) -> tuple[tuple[str, ...], Style]:
        """Return a cell for each of `COLUMNS`, and how the line looks."""
        match event:
            case Lost(count):
                return (
                    "",
                    "",
                    "",
                    f"{count} lost",
                    "",
                    "",
                    "",
                    "read faster, or filter",
                ), Style.ODD
            case TracedAccess():
                details = [registers_text(event.registers), event.failure]
                return (
                    *self._when(event.time_ns),
                    vcpu_text(event.vcpu),
                    event.place,
                    _OPERATIONS[event.operation],
                    value_text(event),
                    duration(event.took_ns).rjust(COLUMNS["TOOK"]),
                    "; ".join(filter(None, details)),
                ), Style.BAD if event.failure else Style.PLAIN
            case Interrupt(time_ns, gsi, kind, device):
                what = f"irq {gsi}"
                cells = (*self._when(time_ns), "", what, "", kind.value, "", device)
                return cells, Style.STRONG
            case TracedDma():
                where = f"dma {event.address:#x}"
                details_text = f"{event.device}: {event.data[:16].hex(' ')}"
                operation = _OPERATIONS[event.operation]
                size = f"{event.size} bytes"
                when = self._when(event.time_ns)
                return (*when, "", where, operation, size, "", details_text), Style.PLAIN
            case Hotplugged(time_ns, device, device_type):
                what = "plugged" if device_type else "unplugged"
                return (*self._when(time_ns), "", device, "", what, "", device_type), Style.STRONG

    def _when(self, time_ns: int) -> tuple[str, str]:
        """The time since the first event, and since the one before."""
        if self._first_ns is None:
            self._first_ns = self._last_ns = time_ns
        # Two vCPUs may begin in the one order, and end in the other.
        ahead = time_ns - self._last_ns
        self._last_ns = time_ns
        sign = "+" if ahead >= 0 else "-"
        since = (time_ns - self._first_ns) / 1e9
        return (
            f"{since:.6f}".rjust(COLUMNS["TIME/s"]),
            f"{sign}{duration(abs(ahead))}".rjust(COLUMNS["DELTA"]),
        )
