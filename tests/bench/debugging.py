"""What it costs to be watched: a read by the ring, with a trace or a recording, and without.

The reader is a process of its own. One server offers no debugging at all: what nothing armed
costs is compared with that. A reader that never reads is measured as well.

Run as a program, it is the reader: `debugging.py ENDPOINT trace|unread|record FILE`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import lab
from children import Child, child, say
from measure import Case, Effort, Result, measure

from devicehost.v1 import debug_service_pb2 as pb
from devicehost.v1.debug_service_pb2_grpc import DebugServiceStub
from devicehost_client import ClientError, connect

_PLAIN = "ring.read4.unarmed"
_WITHOUT = "ring.read4.undebugged"
_WATCHED = {
    "ring.read4.traced": ("trace", "while a trace of all is read"),
    "ring.read4.unread": ("unread", "while a trace of all isn't read"),
    "ring.read4.recorded": ("record", "while all is recorded"),
}


def results(effort: Effort) -> Iterator[Result]:
    """Measure a 4-byte read with each kind of reader, and with none."""
    with ExitStack() as closing:
        watched = closing.enter_context(lab.server())
        host = closing.enter_context(watched.client("ring"))
        bare = closing.enter_context(lab.server(debug=False))
        other = closing.enter_context(bare.client("ring"))
        cases = [
            _read(_WITHOUT, "from a server without debugging", other),
            _read(_PLAIN, "with nothing armed", host, beside=_WITHOUT),
        ]
        for name, (kind, note) in _WATCHED.items():
            file = watched.folder / "recording.dhrec"
            reader = closing.enter_context(child("debugging.py", watched.endpoint, kind, file))
            cases.append(_read(name, note, host, beside=_PLAIN, reader=reader))
        measured = measure(cases, effort)
        found = {result.name: result for result in measured.results()}
        yield from found.values()
        for name in _WATCHED:
            yield Result(
                f"{name}.added",
                f"how much longer it takes than {_PLAIN}",
                p50_ns=measured.difference(name, _PLAIN),
            )


def _read(
    name: str, note: str, host: lab.DeviceHost, *, beside: str = "", reader: Child | None = None
) -> Case:
    (case,) = (
        each
        for each in lab.accesses("ring", host.vcpu(0), "by the ring", beside=beside)
        if each.name == "ring.read4"
    )

    def tell(line: str) -> None:
        if reader is not None:
            reader.tell(line)
            reader.hear()

    return Case(
        name,
        f"4-byte read by the ring, {note}",
        case.run,
        beside,
        begin=lambda: tell("begin"),
        end=lambda: tell("end"),
    )


def watch(endpoint: str, kind: str, file: Path) -> None:
    """Read from one line to the next; say how many there were."""
    with connect(endpoint, transport="grpc-stream") as host:
        stub = DebugServiceStub(host._channel)
        say("ready")
        while sys.stdin.readline():
            if kind == "record":
                with host.debug.record_to(file) as recorder:
                    say("reading")
                    sys.stdin.readline()
                say(recorder.events)
                continue
            call = stub.Trace(pb.TraceRequest())
            next(call)  # it is armed
            read = [0]
            if kind == "trace":
                reading = threading.Thread(target=_read_all, args=(call, read))
                reading.start()
            say("reading")
            sys.stdin.readline()
            call.cancel()
            say(read[0])


def _read_all(call: Iterator[pb.TraceResponse], read: list[int]) -> None:
    with suppress(Exception):  # it is cancelled
        for response in call:
            read[0] += len(response.events)


if __name__ == "__main__":
    with suppress(ClientError):  # the server was first to end
        watch(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
