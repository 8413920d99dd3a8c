"""The arguments, and the help of each level."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from devicehost.v1 import resource_pb2
from devicehost_client.ctl.command import Context, ExitStatus, Noun, Verb, argument
from devicehost_client.ctl.commands import COMMANDS
from devicehost_client.ctl.parser import build


def parse(*arguments: str) -> argparse.Namespace:
    return build(COMMANDS).parse_args(arguments)


def paths() -> Iterator[tuple[str, ...]]:
    """Every level that has help."""
    yield ()
    for command in COMMANDS:
        yield (command.name,)
        if isinstance(command, Noun):
            for verb in command.verbs:
                yield command.name, verb.name


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The last line of stderr for arguments that are wrong."""
    with pytest.raises(SystemExit) as caught:
        parse(*arguments)
    assert caught.value.code == ExitStatus.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()[-1]


def test_the_options_of_the_program_stand_before_a_command_or_behind_it() -> None:
    before = parse("--endpoint", "unix:/s", "-o", "json", "device", "list")
    behind = parse("device", "list", "-o", "json", "--endpoint", "unix:/s")
    between = parse("device", "-o", "json", "--endpoint", "unix:/s", "list")
    for options in (before, behind, between):
        assert (options.endpoint, options.output) == ("unix:/s", "json")


def test_what_is_not_given_has_a_default() -> None:
    options = parse("health")
    assert (options.endpoint, options.output) == (None, "table")
    assert (options.tls_ca, options.tls_cert, options.tls_key) == (None, None, None)
    options = parse("device", "plug", "scratch")
    assert (options.config, options.id, options.if_generation) == ([], "", None)


@pytest.mark.parametrize(
    "arguments",
    [
        ("scratch", "size=8", "bus=pio", "--id", "a", "--if-generation", "0x7"),
        ("--if-generation", "7", "--id", "a", "scratch", "size=8", "bus=pio"),
        ("scratch", "--id", "a", "size=8", "--if-generation=7", "bus=pio"),
    ],
)
def test_options_of_a_verb_stand_anywhere(arguments: tuple[str, ...]) -> None:
    options = parse("device", "plug", *arguments)
    assert (options.type, options.id, options.if_generation) == ("scratch", "a", 7)
    assert options.config == [("size", "8"), ("bus", "pio")]


def test_a_value_of_a_configuration_may_hold_anything() -> None:
    options = parse("device", "plug", "uart16550", "chardev=pty:/tmp/a=b,c d", "empty=")
    assert options.config == [("chardev", "pty:/tmp/a=b,c d"), ("empty", "")]


def test_constraints_and_resources_are_read() -> None:
    options = parse("resource", "allocate", "irq:4", "--owner", "me", "slot")
    assert options.constraints == [
        resource_pb2.ResourceConstraint(legacy_irq=resource_pb2.LegacyIrqConstraint(irq=4)),
        resource_pb2.ResourceConstraint(kvm_mem_slot=resource_pb2.KvmMemSlotConstraint(size=1)),
    ]
    options = parse("resource", "release", "--owner", "me", "irq:4")
    assert options.resources == [resource_pb2.Resource(legacy_irq=4)]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("device",), "the following arguments are required: VERB"),
        (("divice",), "argument COMMAND: invalid choice: 'divice' (choose from "),
        (("device", "lst"), "argument VERB: invalid choice: 'lst' (choose from "),
        (("device", "list", "all"), "devicehostctl device list: error: unrecognized arg"),
        (("device", "show"), "the following arguments are required: ID"),
        (("device", "plug"), "the following arguments are required: TYPE"),
        (("device", "plug", "t", "a"), "argument key=value: 'a' is not allowed; allowed: key=v"),
        (("device", "plug", "t", "=a"), "'=a' is not allowed"),
        (
            ("device", "unplug", "a", "--if-generation", "-1"),
            "argument --if-generation: '-1' is not allowed; allowed: 0 to 0xffffffffffffffff",
        ),
        (("device", "list", "-o", "xml"), "argument -o/--output: invalid choice: 'xml'"),
        (("device", "list", "--out", "json"), "unrecognized arguments: --out json"),
        (("resource", "allocate", "irq"), "the following arguments are required: --owner"),
        (
            ("resource", "allocate", "--owner", "me", "irq", "pio:8"),
            "argument CONSTRAINT: constraint 'pio:8': '8' is not a range; allowed: BASE+SIZE",
        ),
        (
            ("resource", "release", "--owner", "me", "irq"),
            "argument RESOURCE: resource 'irq': it has no number; allowed: irq:N",
        ),
        (("io", "read", "mem", "0", "1"), "argument SPACE: invalid choice: 'mem'"),
        (("io", "read", "pio", "x", "1"), "argument ADDRESS: 'x' is not allowed"),
        (
            ("io", "read", "mmio", "0", "0"),
            "argument SIZE: '0' is not allowed; allowed: 1 to 0x100000",
        ),
        (("io", "read", "pio", "0", "1", "--count", "0"), "argument --count: '0' is not allowed"),
        (("io", "write", "pio", "0", "1"), "the following arguments are required: VALUE"),
    ],
)
def test_wrong_usage_names_the_argument_the_value_and_what_is_allowed(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], why: str
) -> None:
    assert why in refusal(capsys, *arguments)


@pytest.mark.parametrize("path", list(paths()), ids=" ".join)
def test_every_level_has_help_with_exit_statuses_and_examples(
    capsys: pytest.CaptureFixture[str], path: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*path, "--help")
    assert caught.value.code == ExitStatus.OK
    text = capsys.readouterr().out
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 100
    assert f"usage: {' '.join(('devicehostctl', *path))} " in text
    assert "\nexit status:\n  0   " in text
    assert f"\nexamples:\n  {'export ' if not path else 'devicehostctl ' + path[0]}" in text


@pytest.mark.parametrize(("command", "is_told"), [("lint", False), ("trace", True)])
def test_only_commands_that_need_a_server_say_how_they_end_without_one(
    capsys: pytest.CaptureFixture[str], command: str, *, is_told: bool
) -> None:
    with pytest.raises(SystemExit):
        parse(command, "--help")
    assert ("the server isn't there" in capsys.readouterr().out) is is_told


@pytest.mark.parametrize(
    "verb",
    [verb for c in COMMANDS for verb in (c.verbs if isinstance(c, Noun) else (c,))],
    ids=lambda verb: verb.name,
)
def test_the_examples_of_each_verb_are_right_usage(verb: Verb) -> None:
    assert verb.json
    shown = set()
    for example in verb.examples:
        command = example.removeprefix("until ").partition(" |")[0].partition(" >")[0]
        name, *arguments = command.split()
        assert name == "devicehostctl"
        options = parse(*arguments)
        options.verb.check(options)
        shown.add(options.verb.name)
    assert verb.name in shown  # others may come before it


def test_a_new_verb_is_one_function_and_one_entry(capsys: pytest.CaptureFixture[str]) -> None:
    def greet(context: Context) -> ExitStatus:
        return ExitStatus(len(context.options.name))

    verb = Verb(
        "greet",
        greet,
        summary="say hello",
        arguments=(argument("name", metavar="NAME", help="to whom"),),
        json='{"hello"}',
        statuses={ExitStatus.OK: "nobody is there"},
        examples=("devicehostctl friend greet me",),
    )
    parser = build([Noun("friend", "friends", (verb,))])
    options = parser.parse_args(["friend", "greet", "me"])
    assert (options.verb, options.name) == (verb, "me")
    with pytest.raises(SystemExit):
        parser.parse_args(["friend", "greet", "--help"])
    text = capsys.readouterr().out
    assert "Say hello." in text
    assert "  0   nobody is there\n  1   the server said no" in text
    assert 'json:\n  {"hello"}\n' in text
