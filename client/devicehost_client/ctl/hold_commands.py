"""What can be typed while an access is held, as text.

Commands can be shortened, as in gdb: to one letter where that is said below, and to any
beginning that only one of them has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HoldCommand:
    """A command.

    Attributes:
        name: in full.
        letter: a letter that stands for it; empty if none does.
        arguments: what it takes, as help shows it.
        least: how many arguments it needs.
        most: how many it takes.
        help: what it does, in a line.
        needs_hold: whether it is about an access that is held.
    """

    name: str
    letter: str
    arguments: str
    least: int
    most: int
    help: str
    needs_hold: bool = False


HOLD_COMMANDS = (
    HoldCommand("continue", "c", "", 0, 0, "let the access go on", needs_hold=True),
    HoldCommand("step", "s", "", 0, 0, "likewise, and hold the vCPU's next one", needs_hold=True),
    HoldCommand("set", "", "VALUE", 1, 1, "then write or return this instead", needs_hold=True),
    HoldCommand("where", "w", "", 0, 0, "show the access, and the time left", needs_hold=True),
    HoldCommand("peek", "p", "[DEV.REG or DEV]", 0, 1, "show a register, or all of a device"),
    HoldCommand("poke", "", "DEV.REG VALUE", 2, 2, "set a register, without a write's effects"),
    HoldCommand("inspect", "i", "[PATH]", 0, 1, "show the server's state below a path"),
    HoldCommand("state", "", "[DEVICE]", 0, 1, "show the saved form of a device's state"),
    HoldCommand("list", "l", "", 0, 0, "list the breakpoints"),
    HoldCommand("delete", "d", "N", 1, 1, "remove breakpoint N, and let go what it holds"),
    HoldCommand("quit", "q", "", 0, 0, "remove these breakpoints, let all go on, and end"),
    HoldCommand("help", "h", "", 0, 0, "show this"),
)


@dataclass(frozen=True, slots=True)
class Order:
    """A command as it was given: its name in full, and its arguments."""

    command: HoldCommand
    arguments: tuple[str, ...]


def parse_order(line: str) -> Order:
    """Read a line that isn't empty.

    Raises:
        ValueError: it is no command, may be several, or has too few or too many arguments.
    """
    word, *arguments = line.split()
    command = _find(word)
    if not command.least <= len(arguments) <= command.most:
        takes = f"allowed: {command.name} {command.arguments}".rstrip()
        raise ValueError(f"{command.name!r} with {_count(len(arguments))} is not allowed; {takes}")
    return Order(command, tuple(arguments))


def hold_help() -> str:
    """Return the commands with what they do, a line for each."""
    rows = [(_usage(each), each.help) for each in HOLD_COMMANDS]
    width = max(len(usage) for usage, _ in rows)
    return "\n".join(f"{usage.ljust(width)}  {text}" for usage, text in rows)


def _usage(command: HoldCommand) -> str:
    letter = f"{command.letter}, " if command.letter else "   "
    return f"{letter}{command.name} {command.arguments}".rstrip()


def _find(word: str) -> HoldCommand:
    for each in HOLD_COMMANDS:
        if word in (each.name, each.letter):
            return each
    found = [each for each in HOLD_COMMANDS if each.name.startswith(word)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{word!r} may be {_names(found)}")
    raise ValueError(f"{word!r} is not a command; allowed: {_names(HOLD_COMMANDS)}")


def _names(commands: Iterable[HoldCommand]) -> str:
    return ", ".join(each.name for each in commands)


def _count(number: int) -> str:
    return {0: "no argument", 1: "1 argument"}.get(number, f"{number} arguments")
