"""The results for people, as a table, and for programs, as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from limits import Figure, Limit, limits_of
from measure import Result

NOISE_PERCENT = 5.0
"""What others may use of the processors without being mentioned."""


class Others:
    """What others use of the processors, from here on; they make figures worthless."""

    def __init__(self) -> None:
        self._before = self._used_s()

    def percent(self) -> float:
        """Of all processors. Ours are this process and its children that have ended."""
        total_s, idle_s, own_s = (
            after - before for after, before in zip(self._used_s(), self._before, strict=True)
        )
        return 100 * max(0.0, total_s - idle_s - own_s) / total_s

    @staticmethod
    def _used_s() -> tuple[float, float, float]:
        """Processor time so far, in seconds: in all, idle, and our own (proc_stat(5))."""
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, fields[:8])
        total = user + nice + system + idle + iowait + irq + softirq + steal
        ticks = os.sysconf("SC_CLK_TCK")
        return total / ticks, (idle + iowait) / ticks, sum(os.times()[:4])


def machine() -> dict[str, object]:
    """What the figures are measured on."""
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


def as_json(of: dict[str, object], found: Iterable[Result]) -> dict[str, Any]:
    """All of it, each result with its limits and whether they are met."""
    return {"machine": of, "results": [_result(each) for each in found]}


def _result(result: Result) -> dict[str, Any]:
    limits = [
        {**asdict(limit), "met": limit.met(result), "aim_met": limit.reached(result)}
        for limit in limits_of(result)
    ]
    met = all(limit["met"] for limit in limits) if limits else None
    return {**asdict(result), "limits": limits, "met": met}


def table(found: Sequence[Result], others_percent: float) -> Iterator[str]:
    """A line for each result, what missed its limit, and whether others disturbed."""
    yield (
        f"{'name':<28}{'median':>10}{'99 %':>10}{'per second':>12}{'ratio':>7}  {'limit':<36}what"
    )
    for each in found:
        p50 = f"{each.percent:.2f} %" if each.percent is not None else _time(each.p50_ns)
        rate = f"{each.per_second:,.0f}" if each.per_second is not None else ""
        ratio = f"{each.ratio:.2f}" if each.ratio is not None else ""
        what = f"{each.note} (beside {each.beside})" if each.beside else each.note
        yield (
            f"{each.name:<28}{p50:>10}{_time(each.p99_ns):>10}{rate:>12}{ratio:>7}"
            f"  {_limits(each):<36}{what}"
        )
    missed = [each.name for each in found if not all(x.met(each) for x in limits_of(each))]
    yield f"Missed: {', '.join(missed)}." if missed else "All limits are met."
    if others_percent > NOISE_PERCENT:
        yield (
            f"Others used {others_percent:.0f} % of the processors meanwhile:"
            " measure again when they are idle."
        )


def _limits(result: Result) -> str:
    parts = [
        f"{_bound(limit)}{'' if limit.met(result) else ' MISSED'}" for limit in limits_of(result)
    ]
    return ", ".join(parts)


def _bound(limit: Limit) -> str:
    texts: dict[Figure, str] = {
        "p50_ns": f"<= {_time(limit.limit)}",
        "per_second": f">= {limit.limit:,.0f}/s",
        "ratio": f"<= {limit.limit:g} x",
        "percent": f"<= {limit.limit:g} %",
    }
    return texts[limit.figure]


def _time(ns: float | None) -> str:
    if ns is None:
        return ""
    if ns < 10_000:
        return f"{ns:.0f} ns"
    return f"{ns / 1e3:.1f} us" if ns < 1e6 else f"{ns / 1e6:.1f} ms"
