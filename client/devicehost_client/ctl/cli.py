"""One run of `devicehostctl`: arguments in, exit status out."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from devicehost_client import (
    AccessTimeout,
    Answer,
    ClientError,
    ConnectionLost,
    DeviceHost,
    Policy,
    connect,
)
from devicehost_client.ctl.command import CommandFailed, Context, ExitStatus, UsageError
from devicehost_client.ctl.commands import COMMANDS
from devicehost_client.ctl.credentials import credentials
from devicehost_client.ctl.output import Output, format_error
from devicehost_client.ctl.parser import ENDPOINT_VARIABLE, build

_POLICY = Policy(no_device=Answer.RAISE, failed=Answer.RAISE, no_server=Answer.RAISE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status.

    Args:
        arguments: those of the command line; None for the process's.

    Raises:
        SystemExit: wrong usage, or help was asked for.
    """
    if arguments is None:
        arguments = sys.argv[1:]
        _die_of_sigint()
    parser = build(COMMANDS)
    for each in arguments:
        if not _is_utf8(each):
            parser.error(f"argument {each!r} is not allowed; allowed: UTF-8")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except UsageError as error:
        verb_parser: argparse.ArgumentParser = options.verb_parser
        verb_parser.error(str(error))
    except (ClientError, CommandFailed) as error:
        sys.stderr.write(format_error(error, options.output))
        return exit_status(error)
    except OSError as error:
        return _without_stdout(error, options.output)


def exit_status(error: Exception) -> ExitStatus:
    """The status of a command that failed with `error`."""
    match error:
        case ConnectionLost() | AccessTimeout():
            return ExitStatus.UNREACHABLE
        case _:
            return ExitStatus.FAILED


def _run(options: argparse.Namespace) -> ExitStatus:
    options.verb.check(options)
    output = Output(sys.stdout, options.output)
    status: ExitStatus
    if options.verb.offline:
        status = options.verb.run(Context(None, options, output))
        return status
    with _connect(options) as host:
        status = options.verb.run(Context(host, options, output))
    return status


def _connect(options: argparse.Namespace) -> DeviceHost:
    """Connect to the server that the arguments, or the environment, name.

    Raises:
        UsageError: they name none, or one that can't be.
        ClientError: it can't be reached, or doesn't want us.
    """
    endpoint = options.endpoint or os.environ.get(ENDPOINT_VARIABLE)
    if not endpoint:
        raise UsageError(f"no endpoint: give --endpoint, or set {ENDPOINT_VARIABLE}")
    try:
        # The local socket is for one client, the VMM: a tool must never take its place.
        return connect(endpoint, policy=_POLICY, tls=credentials(options), transport="grpc-stream")
    except ClientError as error:
        if exit_status(error) is not ExitStatus.UNREACHABLE:
            raise
        raise ConnectionLost(f"can't reach {endpoint}: {error}") from error
    except ValueError as error:
        raise UsageError(str(error)) from error


def _die_of_sigint() -> None:
    """Let SIGINT kill the process, unless it is ignored.

    Python would raise KeyboardInterrupt; see `watching` for why that is unsafe here.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _is_utf8(text: str) -> bool:
    """Whether an argument can be sent."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _without_stdout(error: OSError, output_format: str) -> ExitStatus:
    """End a command that can't write its answer."""
    # What is still in stdout's buffer has to go somewhere when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return ExitStatus.OK  # its reader has had enough
    failure = CommandFailed(f"can't write the answer: {error.strerror}")
    sys.stderr.write(format_error(failure, output_format))
    return ExitStatus.FAILED
