"""The commands as an argparse parser, with the help of each level.

The options of the program can stand before a command or behind it:

    devicehostctl -o json device list
    devicehostctl device list -o json
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from devicehost_client.ctl.command import ExitStatus, Noun, Verb
from devicehost_client.ctl.output import FORMATS

PROGRAM = "devicehostctl"
ENDPOINT_VARIABLE = "DEVICEHOST_ENDPOINT"

_DESCRIPTION = """\
Look at a device server, and work it, by hand.

Each command connects, does one thing, and exits. Answers are on stdout, and nothing else
is; errors are on stderr.
"""

_CONVENTIONS = f"""\
environment:
  {ENDPOINT_VARIABLE}   the endpoint, if --endpoint isn't given

numbers:
  Addresses, sizes and values are decimal or 0x.

json:
  With -o json a command prints one JSON document, a watch one on each line. The shapes
  are stable, and each command's --help describes its own. Addresses, sizes in bytes and
  values are strings in 0x form, as JSON's numbers are exact up to 2^53 only; counts,
  interrupts and generations are numbers. An error is {{"error": {{"message", "code",
  "reason", "metadata"}}}} on stderr; only the message is there if it isn't the server's.
"""

_OPTIONS_NOTE = """\
The options of devicehostctl itself, such as -o and --endpoint, can stand here as well;
devicehostctl --help lists them.
"""

_OUTPUT_NOTE = """\
Here -o is another option; where that of devicehostctl is meant, write --output, or let it
stand before the command.
"""

_STATUSES: Mapping[int, str] = {
    ExitStatus.OK: "done",
    ExitStatus.FAILED: "the server said no: the message, the reason and the facts are on stderr",
    ExitStatus.USAGE: "wrong usage; nothing was sent",
    ExitStatus.UNREACHABLE: "the server isn't there, went away, or didn't answer in time",
}
_OFFLINE = {status: _STATUSES[status] for status in _STATUSES if status != ExitStatus.UNREACHABLE}
"""Those of a verb that does without a server."""
_INTERRUPTED = {130: "killed by SIGINT (as a shell tells it); a watch ends with 0"}

_EXAMPLES = (
    f"export {ENDPOINT_VARIABLE}=unix:/run/vm1/devices.sock",
    "devicehostctl device plug uart16550 chardev=stdio --id com1",
    "devicehostctl map",
    "devicehostctl io read pio 0x3fd 1",
    "devicehostctl health --endpoint tcp:h1:7700 --tls-ca ca.pem --tls-cert me.pem --tls-key k.pem",
)


def build(commands: Iterable[Noun | Verb]) -> argparse.ArgumentParser:
    """Return the parser of all commands.

    What it parses has `verb`, the `Verb`, and `verb_parser`, which reports its errors.
    """
    commands = list(commands)
    parser = _Parser(
        prog=PROGRAM,
        description=_DESCRIPTION,
        epilog=_sections(
            _CONVENTIONS,
            _statuses({**_STATUSES, **_INTERRUPTED}),
            _examples(_EXAMPLES),
        ),
    )
    version_text = f"{PROGRAM} {version('devicehost')}"
    parser.add_argument("--version", action="version", version=version_text)
    _add_options(parser, at_top=True)
    _add_commands(parser, "command", commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser of ours.

    Options can stand between a verb's positionals: `plug TYPE --id ID key=value`. argparse
    has that as `parse_known_intermixed_args`, for parsers without commands below them, but
    doesn't use it for a parser that it comes to by way of a command.
    """

    _is_mixing = False

    def __init__(self, **keywords: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **keywords
        )

    def parse_known_args(  # type: ignore[override] # the stubs have overloads that nobody uses
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse; what a verb doesn't know is an error of the verb, not of the program."""
        if self._is_mixing or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._is_mixing = True  # it calls us
        try:
            parsed, unknown = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_mixing = False
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown


def _add_commands(
    parser: argparse.ArgumentParser, what: str, commands: Iterable[Noun | Verb]
) -> None:
    """Let `parser` go on with one of `commands`."""
    choice = parser.add_subparsers(title=f"{what}s", metavar=what.upper(), required=True)
    for command in commands:
        if isinstance(command, Noun):
            _add_noun(choice, command)
        else:
            _add_verb(choice, command)


def _add_noun(choice: Any, noun: Noun) -> None:
    verbs = ", ".join(verb.name for verb in noun.verbs)
    parser = choice.add_parser(
        noun.name,
        help=f"{noun.summary} ({verbs})",
        description=f"{noun.summary[0].upper()}{noun.summary[1:]}.",
        epilog=_sections(
            _OPTIONS_NOTE, _statuses(_STATUSES), _examples(verb.examples[0] for verb in noun.verbs)
        ),
    )
    _add_options(parser)
    _add_commands(parser, "verb", noun.verbs)


def _add_verb(choice: Any, verb: Verb) -> None:
    summary = f"{verb.summary[0].upper()}{verb.summary[1:]}."
    taken = [flag for each in verb.arguments for flag in each.flags]
    parser = choice.add_parser(
        verb.name,
        help=verb.summary,
        description=_sections(summary, verb.description),
        epilog=_sections(
            _OPTIONS_NOTE,
            _OUTPUT_NOTE if "-o" in taken else "",
            f"json:\n{_indented(verb.json)}",
            _statuses({**(_OFFLINE if verb.offline else _STATUSES), **verb.statuses}),
            _examples(verb.examples),
        ),
    )
    for each in verb.arguments:
        parser.add_argument(*each.flags, **each.keywords)
    _add_options(parser, taken=taken)
    parser.set_defaults(verb=verb, verb_parser=parser)


def _add_options(
    parser: argparse.ArgumentParser, *, at_top: bool = False, taken: Sequence[str] = ()
) -> None:
    """Add the options of the program.

    Below the top they are taken as well, but help doesn't repeat them; and they have no
    defaults there, so that they leave alone what was given before the command. A verb may
    have options of its own by these names: `taken`.
    """

    def text(of_top: str) -> str:
        return of_top if at_top else argparse.SUPPRESS

    def default(of_top: str | None) -> str | None:
        return of_top if at_top else argparse.SUPPRESS

    group = parser.add_argument_group("connection and output")
    group.add_argument(
        "--endpoint",
        metavar="ENDPOINT",
        default=default(None),
        help=text(f"unix:PATH or tcp:HOST:PORT [${ENDPOINT_VARIABLE}]"),
    )
    for flag, what in (
        ("--tls-ca", "who vouches for the server (PEM); tcp only"),
        ("--tls-cert", "our certificate chain (PEM)"),
        ("--tls-key", "its key (PEM)"),
    ):
        group.add_argument(flag, metavar="FILE", type=Path, default=default(None), help=text(what))
    group.add_argument(
        *(flag for flag in ("-o", "--output") if flag not in taken),
        choices=FORMATS,
        default=default(FORMATS[0]),
        metavar="FORMAT",
        help=text(f"{' or '.join(FORMATS)} [{FORMATS[0]}]"),
    )


def _statuses(meanings: Mapping[int, str]) -> str:
    lines = [f"  {status:<3d} {meaning}" for status, meaning in meanings.items()]
    return "\n".join(["exit status:", *lines])


def _examples(lines: Iterable[str]) -> str:
    return "\n".join(["examples:", *(f"  {line}" for line in lines)])


def _sections(*sections: str) -> str:
    return "\n\n".join(section.strip("\n") for section in sections if section)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.strip().splitlines())
