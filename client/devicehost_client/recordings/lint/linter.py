"""All rules, over a recording."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from devicehost.recording import Access, Annotated, Operation, Plugged, Unplugged
from devicehost_client.recordings.lint.bus import FailedAccess, NoDevice
from devicehost_client.recordings.lint.cost import POLLS_MIN, PollingLoop, RedundantWrite
from devicehost_client.recordings.lint.rule import Finding, Rule, Severity
from devicehost_client.recordings.lint.sheet import (
    AccessSize,
    ReadOfWriteOnly,
    ReservedBits,
    UndeclaredOffset,
    UnusedValue,
    WriteToReadOnly,
)
from devicehost_client.transports import TOOL_VCPU

RULES: tuple[type[Rule], ...] = (
    FailedAccess,
    ReservedBits,
    UnusedValue,
    WriteToReadOnly,
    ReadOfWriteOnly,
    AccessSize,
    UndeclaredOffset,
    NoDevice,
    PollingLoop,
    RedundantWrite,
)
"""All rules there are."""

_ORDER = list(Severity)


def make_rules(
    *, only: Collection[str] = (), disabled: Collection[str] = (), polls_min: int = POLLS_MIN
) -> list[Rule]:
    """Return rules, each for one recording.

    Args:
        only: the names of those that are wanted; none for all.
        disabled: the names of those that aren't.
        polls_min: how many equal reads in a row are a polling loop.

    Raises:
        ValueError: there is no rule of a name.
    """
    names = {rule.name for rule in RULES}
    for name in (*only, *disabled):
        if name not in names:
            raise ValueError(f"rule {name!r} is not one; allowed: {', '.join(sorted(names))}")
    wanted = [
        rule for rule in RULES if rule.name not in disabled and (not only or rule.name in only)
    ]
    return [PollingLoop(polls_min) if rule is PollingLoop else rule() for rule in wanted]


class Linter:
    """Looks through one recording.

    Args:
        rules: each for this recording only.
        on_first: called with the number of the first event of each finding, when it is found.
    """

    def __init__(
        self, rules: Iterable[Rule], *, on_first: Callable[[int], None] | None = None
    ) -> None:
        self._rules = tuple(rules)
        if on_first is not None:
            for rule in self._rules:
                rule.on_first = on_first
        self._sees = tuple(rule.see for rule in self._rules)

    def see(self, number: int, seen: Annotated) -> None:
        """Look at the next event."""
        event = seen.event
        if isinstance(event, Access):
            if event.vcpu == TOOL_VCPU:
                self._tool_access(seen, event)
                return
            for see in self._sees:
                see(number, seen, event)
        elif isinstance(event, Plugged | Unplugged):
            for rule in self._rules:
                rule.forget(seen.device)

    def _tool_access(self, seen: Annotated, access: Access) -> None:
        """Somebody accessed a device by hand: no driver did that, but the device may differ."""
        if access.operation is Operation.WRITE:
            for rule in self._rules:
                rule.forget(seen.device)

    def findings(self) -> list[Finding]:
        """End the recording; return what was found, the worst and the most frequent first."""
        for rule in self._rules:
            rule.finish()
        found = [finding for rule in self._rules for finding in rule.findings()]
        return sorted(found, key=lambda each: (_ORDER.index(each.severity), -each.count))
