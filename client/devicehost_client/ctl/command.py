"""What a command is: a verb, by itself or of a noun.

A new one is a function and the `Verb` that describes it:

    def rename(context: Context) -> ExitStatus:
        ...
        return ExitStatus.OK

    RENAME = Verb(
        "rename",
        rename,
        summary="give a device another name",
        arguments=(argument("id", metavar="ID", help="the device"),),
        examples=("devicehostctl device rename com1 console",),
    )
"""

from __future__ import annotations

import argparse
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from devicehost_client import DeviceHost
from devicehost_client.ctl.output import Output

_T = TypeVar("_T")


class ExitStatus(enum.IntEnum):
    """How a command ends."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3


class UsageError(Exception):
    """The arguments can't be what was meant; the message says why, and what is allowed."""


class CommandFailed(Exception):
    """A command can't do what it was asked to, for a reason that isn't the server's."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a command works with.

    Attributes:
        connection: to the server; None for a verb that is offline.
        options: the arguments.
        output: where the answer goes.
    """

    connection: DeviceHost | None
    options: argparse.Namespace
    output: Output

    @property
    def host(self) -> DeviceHost:
        """The connection; accesses that fail raise.

        Raises:
            RuntimeError: the verb is offline, and yet wants one.
        """
        if self.connection is None:
            raise RuntimeError("a verb that is offline has no connection")
        return self.connection


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument, as `ArgumentParser.add_argument` takes it.

    Attributes:
        flags: the option's names, or the positional's.
        keywords: all else.
    """

    flags: tuple[str, ...]
    keywords: Mapping[str, Any]


def argument(*flags: str, **keywords: Any) -> Argument:
    """Describe an argument, as `ArgumentParser.add_argument` takes it."""
    return Argument(flags, keywords)


def checked(read: Callable[[str], _T]) -> Callable[[str], _T]:
    """Return `read` for use as an argument's `type`: its errors keep their messages."""

    def read_argument(text: str) -> _T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read_argument


def _nothing_to_check(_options: argparse.Namespace) -> None:
    """Stands for the check of a verb whose arguments need none."""


Run: TypeAlias = Callable[[Context], ExitStatus]


@dataclass(frozen=True, slots=True)
class Verb:
    """Something that can be done.

    Attributes:
        name: as it is typed.
        run: does it. Raises ClientError, CommandFailed.
        summary: what it does, in a line.
        description: more about it, if there is more.
        arguments: what it takes.
        check: looks at all arguments together, before there is a connection. Raises
            UsageError.
        offline: whether it does without a server; no endpoint is needed then.
        json: what it gives with `-o json`.
        statuses: what its exit statuses mean, where that isn't the usual.
        examples: command lines.
    """

    name: str
    run: Run
    summary: str
    description: str = ""
    arguments: tuple[Argument, ...] = ()
    check: Callable[[argparse.Namespace], None] = _nothing_to_check
    offline: bool = False
    json: str = ""
    statuses: Mapping[int, str] = field(default_factory=dict)
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Noun:
    """What verbs are about.

    Attributes:
        name: as it is typed.
        summary: what it is, in a line.
        verbs: what can be done with it.
    """

    name: str
    summary: str
    verbs: tuple[Verb, ...]
