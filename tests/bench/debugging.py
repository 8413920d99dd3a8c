"""What it costs to be watched: a read by the ring, with a trace or a recording, and without.

The reader is a process of its own. A reader that never reads is measured as well. What it
costs that one could be watched shows beside a server that offers no debugging; of both,
nobody ever watches.

Run as a program, it is the reader: `debugging.py ENDPOINT trace|unread|record FILE`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import lab
from children import Child, child, say
from measure import Case, Effort, Result, measure

from devicehost.v1 import debug_service_pb2 as pb
from devicehost.v1.debug_service_pb2_grpc import DebugServiceStub
from devicehost_client import ClientError, connect

_WITHOUT = "ring.read4.undebugged"
_UNARMED = "ring.read4.unarmed"
_UNWATCHED = "ring.read4.unwatched"
_WATCHED = {
    "ring.read4.traced": ("trace", "while a trace of all is read"),
    "ring.read4.unread": ("unread", "while a trace of all isn't read"),
    "ring.read4.recorded": ("record", "while all is recorded"),
}
_PAIRS = 5


def results(effort: Effort) -> Iterator[Result]:
    """Measure a 4-byte read with each kind of reader, and with none."""
    # Two servers that are the same differ by a quarter now and then, by where they happen
    # to be. So it takes several pairs; the one in the middle counts.
    each = replace(effort, rounds=max(2, effort.rounds // _PAIRS))
    pairs = sorted((_unarmed(each) for _ in range(_PAIRS)), key=lambda pair: pair[1].ratio or 0)
    yield from pairs[_PAIRS // 2]
    yield from _watched(effort)


def _unarmed(effort: Effort) -> list[Result]:
    """Measure a server that could be watched, and one that couldn't."""
    with ExitStack() as closing:
        unarmed = closing.enter_context(lab.server())
        bare = closing.enter_context(lab.server(debug=False))
        without, plain = (
            closing.enter_context(server.client("ring")) for server in (bare, unarmed)
        )
        cases = [
            _read(_WITHOUT, "from a server without debugging", without),
            _read(_UNARMED, "with nothing armed", plain, beside=_WITHOUT),
        ]
        return list(measure(cases, effort).results())


def _watched(effort: Effort) -> Iterator[Result]:
    """Measure with readers, and with none."""
    with ExitStack() as closing:
        watched, other = (closing.enter_context(lab.server()) for _ in range(2))
        host, plain = (closing.enter_context(server.client("ring")) for server in (watched, other))
        cases = [_read(_UNWATCHED, "in the same rounds as the next ones", plain)]
        for name, (kind, note) in _WATCHED.items():
            file = watched.folder / "recording.dhrec"
            reader = closing.enter_context(child("debugging.py", watched.endpoint, kind, file))
            cases.append(_read(name, note, host, beside=_UNWATCHED, reader=reader))
        measured = measure(cases, effort)
        yield from measured.results()
        for name in _WATCHED:
            yield Result(
                f"{name}.added",
                f"how much longer it takes than {_UNWATCHED}",
                p50_ns=measured.difference(name, _UNWATCHED),
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
