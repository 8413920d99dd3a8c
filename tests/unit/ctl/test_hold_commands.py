"""What can be typed while an access is held."""

from __future__ import annotations

import pytest

from devicehost_client.ctl.hold_commands import HOLD_COMMANDS, hold_help, parse_order


@pytest.mark.parametrize(
    ("line", "name", "arguments"),
    [
        ("continue", "continue", ()),
        ("c", "continue", ()),
        ("cont", "continue", ()),
        ("s", "step", ()),
        ("st", None, ()),
        ("p com1.LSR", "peek", ("com1.LSR",)),
        ("po com1.SCR 5", "poke", ("com1.SCR", "5")),
        ("  set   0x03 ", "set", ("0x03",)),
        ("q", "quit", ()),
        ("h", "help", ()),
        ("l", "list", ()),
        ("d 1", "delete", ("1",)),
        ("i devices/com1", "inspect", ("devices/com1",)),
        ("w", "where", ()),
        ("state", "state", ()),
    ],
)
def test_a_command_can_be_shortened_to_its_letter_or_a_beginning_of_its_own(
    line: str, name: str | None, arguments: tuple[str, ...]
) -> None:
    if name is None:
        with pytest.raises(ValueError, match="may be step, state"):
            parse_order(line)
        return
    order = parse_order(line)
    assert (order.command.name, order.arguments) == (name, arguments)


def test_what_is_no_command_is_refused_with_all_that_are() -> None:
    with pytest.raises(ValueError, match="'jump' is not a command; allowed: continue, step, set"):
        parse_order("jump")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("set", "'set' with no argument is not allowed; allowed: set VALUE"),
        ("c 1", "'continue' with 1 argument is not allowed; allowed: continue"),
        ("poke a.B", "'poke' with 1 argument is not allowed; allowed: poke DEV.REG VALUE"),
        ("d 1 2", "'delete' with 2 arguments is not allowed; allowed: delete N"),
    ],
)
def test_a_command_with_too_few_or_too_many_arguments_says_what_it_takes(
    line: str, why: str
) -> None:
    with pytest.raises(ValueError, match=f"^{why}$"):
        parse_order(line)


def test_no_letter_stands_for_two_commands() -> None:
    letters = [each.letter for each in HOLD_COMMANDS if each.letter]
    assert len(letters) == len(set(letters))


def test_help_has_a_line_for_each_command() -> None:
    lines = hold_help().splitlines()
    assert len(lines) == len(HOLD_COMMANDS)
    assert lines[0].startswith("c, continue ")
    assert all(each.help in line for each, line in zip(HOLD_COMMANDS, lines, strict=True))
