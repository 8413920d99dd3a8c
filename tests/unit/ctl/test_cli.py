"""What a run ends with, as far as it gets without a server."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from devicehost_client import AccessTimeout, ConnectionLost, RemoteError
from devicehost_client.ctl import cli, main
from devicehost_client.ctl.cli import exit_status
from devicehost_client.ctl.command import CommandFailed, Context, ExitStatus, Verb
from devicehost_client.ctl.commands import COMMANDS
from devicehost_client.ctl.parser import build


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The last line of stderr for arguments that are wrong."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == ExitStatus.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: devicehostctl ")
    return captured.err.splitlines()[-1]


@pytest.fixture(autouse=True)
def _no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEVICEHOST_ENDPOINT", raising=False)


def test_without_an_endpoint_it_says_how_to_give_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, "device", "list") == (
        "devicehostctl device list: error: no endpoint: give --endpoint, or set DEVICEHOST_ENDPOINT"
    )


@pytest.mark.parametrize("endpoint", ["devices.sock", "http:x", "unix:", "tcp:"])
def test_an_endpoint_that_is_none_is_wrong_usage(
    capsys: pytest.CaptureFixture[str], endpoint: str
) -> None:
    why = refusal(capsys, "--endpoint", endpoint, "health")
    assert f"endpoint {endpoint!r} is not allowed; allowed: unix:PATH, tcp:HOST:PORT" in why


def test_the_endpoint_of_the_environment_is_held_to_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVICEHOST_ENDPOINT", "nowhere")
    assert "endpoint 'nowhere' is not allowed" in refusal(capsys, "health")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("device plug scratch size=1 size=2", "argument key=value: 'size' is given twice"),
        ("io read pio 0x10000 1", "argument ADDRESS: 0x10000 is not a port; allowed: 0 to 0xffff"),
        ("io read pio 0x60 3", "argument SIZE: 3 is not allowed for pio; allowed: 1, 2, 4"),
        ("io write pio 0x60 8 0", "argument SIZE: 8 is not allowed for pio; allowed: 1, 2, 4"),
        (
            "io read pio 0x60 4 --count 0x40001",
            "argument --count: 262145 of 4 bytes are 0x100004 bytes; allowed: at most 0x100000",
        ),
        (
            "io read mmio 0xfffffffffffffffc 4 --count 2",
            (
                "argument ADDRESS: 0x8 bytes at 0xfffffffffffffffc run past the last address;"
                " allowed: up to 0xffffffffffffffff"
            ),
        ),
        (
            "io write mmio 0 1 256",
            "argument VALUE: 0x100 is too large for SIZE 1; allowed: up to 0xff",
        ),
    ],
)
def test_arguments_that_do_not_go_together_are_refused_before_a_server_is_asked(
    capsys: pytest.CaptureFixture[str], arguments: str, why: str
) -> None:
    assert refusal(capsys, *arguments.split()).endswith(f"error: {why}")


def test_an_argument_that_is_not_utf_8_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    why = refusal(capsys, "device", "show", b"\xff".decode(errors="surrogateescape"))
    assert why.endswith(r"argument '\udcff' is not allowed; allowed: UTF-8")


@pytest.mark.parametrize("output", ["table", "json"])
def test_a_server_that_is_not_there_is_unreachable(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, output: str
) -> None:
    endpoint = f"unix:{tmp_path / 'none.sock'}"
    assert main(["--endpoint", endpoint, "-o", output, "device", "list"]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    start = "devicehostctl: " if output == "table" else '{"error": {"message": "'
    assert captured.err.startswith(f"{start}can't reach {endpoint}: ")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConnectionLost("gone"), ExitStatus.UNREACHABLE),
        (AccessTimeout("no answer"), ExitStatus.UNREACHABLE),
        (
            RemoteError("slow", grpc.StatusCode.DEADLINE_EXCEEDED, "DEVICE_TIMEOUT"),
            ExitStatus.FAILED,
        ),
        (RemoteError("stops", grpc.StatusCode.UNAVAILABLE, "DRAINING"), ExitStatus.FAILED),
        (RemoteError("what?", grpc.StatusCode.UNIMPLEMENTED), ExitStatus.FAILED),
        (CommandFailed("no such type"), ExitStatus.FAILED),
    ],
)
def test_an_error_tells_whether_the_server_said_no_or_said_nothing(
    error: Exception, status: ExitStatus
) -> None:
    assert exit_status(error) is status


def test_a_verb_that_is_offline_needs_no_endpoint_and_has_no_connection(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(context: Context) -> ExitStatus:
        with pytest.raises(RuntimeError, match="offline"):
            _ = context.host
        context.output.show_text({}, "done")
        return ExitStatus.OK

    verb = Verb("offline", run, summary="do it", offline=True)
    monkeypatch.setattr(cli, "COMMANDS", (verb,))
    assert main(["offline"]) == ExitStatus.OK
    assert capsys.readouterr().out == "done"


def test_a_verb_may_have_an_option_o_of_its_own() -> None:
    options = build(COMMANDS).parse_args(["-o", "json", "record", "-o", "boot.rec"])
    assert (options.output, options.file) == ("json", Path("boot.rec"))
    options = build(COMMANDS).parse_args(["record", "-o", "boot.rec", "--output", "json"])
    assert (options.output, options.file) == ("json", Path("boot.rec"))
