"""`make bench`: measure everything once, print a table, and write build/bench.json.

Figures are worth something only beside others of the same run: machines differ, and so
do their moods. What has a floor is shown as a ratio to it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path

import allocation
import dispatch
import grpc_ways
from measure import Result

OUTPUT = Path("build/bench.json")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under 30 seconds")
    quick = parser.parse_args().quick
    found: list[Result] = []
    for module in (dispatch, allocation, grpc_ways):
        found += module.results(quick=quick)
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(
        json.dumps({"machine": machine(), "results": [asdict(each) for each in found]}, indent=2)
        + "\n"
    )
    for line in table(found):
        sys.stdout.write(line + "\n")


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    cpus = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": cpus[0] if cpus else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def table(found: list[Result]) -> list[str]:
    """The results for people."""
    lines = [f"{'name':<20}{'median':>10}{'p99':>10}{'per second':>12}{'ratio':>7}  what"]
    for each in found:
        ratio = f"{each.ratio:.2f}" if each.ratio is not None else ""
        note = f"{each.note} (floor: {each.floor})" if each.floor else each.note
        lines.append(
            f"{each.name:<20}{_time(each.p50_ns):>10}{_time(each.p99_ns):>10}"
            f"{each.per_second:>12,.0f}{ratio:>7}  {note}"
        )
    return lines


def _time(ns: float) -> str:
    return f"{ns:.0f} ns" if ns < 10_000 else f"{ns / 1000:.1f} us"


if __name__ == "__main__":
    main()
