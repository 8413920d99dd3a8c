"""`make bench`: measure everything once, print a table, write build/bench.json and a picture.

Figures are worth something only beside others of the same run: machines differ, and so do
their moods. What has a floor is shown as a ratio to it, both measured in turns. The
processes are where the scheduler puts them. A figure that misses its limit is marked; it
doesn't fail the run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import allocation
import debugging
import dispatch
import grpc_ways
import idle
import inprocess
import picture
import polling
import report
import ring_way
import socket_ways
from measure import FULL, QUICK, TINY, Effort, Result

OUTPUT = Path("build/bench.json")
PICTURE = Path(__file__).with_name("latency.svg")

PARTS: tuple[Callable[[Effort], Iterable[Result]], ...] = (
    dispatch.results,
    allocation.results,
    inprocess.results,
    ring_way.results,
    debugging.results,
    socket_ways.results,
    grpc_ways.results,
    polling.results,
    idle.results,
)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    how_long = parser.add_mutually_exclusive_group()
    how_long.add_argument(
        "--quick", dest="effort", action="store_const", const=QUICK, help="fewer rounds; no picture"
    )
    how_long.add_argument(
        "--tiny", dest="effort", action="store_const", const=TINY, help="only to see that it works"
    )
    effort: Effort = parser.parse_args().effort or FULL
    machine = report.machine()
    others = report.Others()
    found: list[Result] = []
    for part in PARTS:
        started = time.monotonic()
        found += part(effort)
        sys.stderr.write(f"{part.__module__}: {time.monotonic() - started:.0f} s\n")
    others_percent = others.percent()
    document = report.as_json({**machine, "others_percent": others_percent}, found)
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(document, indent=2) + "\n")
    for line in report.table(found, others_percent):
        sys.stdout.write(f"{line}\n")
    if effort is FULL:
        PICTURE.write_text(picture.drawn(document))


if __name__ == "__main__":
    main()
