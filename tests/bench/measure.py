"""Timing, and what is kept of it.

What is compared is measured in turns: each round measures every case for a few
milliseconds, the next one in the opposite order. A ratio is taken within a round, and the
median of those of all rounds is reported, so that it isn't the machine's drift.

    measured = measure([floor, Case("ring.read4", "…", run, beside="floor.shm.spin")], FULL)
    measured.results()
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

SHORT_NS = 10_000
"""A call shorter than this is timed in batches, for its median; its tail, one by one."""

_BATCH_NS = 20_000
_WARM_UP = 10  # one in so many calls of a round isn't looked at
_PATIENCE = 4  # a round ends early when it takes so many times as long as was planned
_SAMPLES_MIN = 5


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    Attributes:
        rounds: of each case.
        round_s: how long one round of one case lasts, in seconds.
        sustained_s: how long what has to be sustained is, in seconds.
        idle_s: how long an idle connection is watched, in seconds.
    """

    rounds: int
    round_s: float
    sustained_s: float
    idle_s: float


FULL = Effort(rounds=60, round_s=0.01, sustained_s=1.5, idle_s=5.0)
QUICK = Effort(rounds=12, round_s=0.008, sustained_s=0.4, idle_s=2.0)
TINY = Effort(rounds=2, round_s=0.001, sustained_s=0.02, idle_s=0.05)


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table.

    Attributes:
        name: stable, for programs: `grpc.stream.read4`.
        note: what is measured, for people.
        p50_ns: the median of the rounds' medians; None where nothing is called.
        p99_ns: the 99th percentile of single calls; of posted writes, of 256 in a row.
        per_second: calls per second: what the median makes possible, or what was counted.
        beside: the name of what it is compared with: its floor, if it has one; or "".
        ratio: how many times as long it takes: the median of the rounds' ratios.
        percent: of one processor, for what idles.
    """

    name: str
    note: str
    p50_ns: float | None = None
    p99_ns: float | None = None
    per_second: float | None = None
    beside: str = ""
    ratio: float | None = None
    percent: float | None = None


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Case:
    """Something to measure.

    Attributes:
        name, note, beside: as in the result. What it is beside is measured in the same rounds.
        run: makes as many calls as it is told, in a loop of its own.
        time_each: times so many calls one by one, where `run` does too much besides.
        begin, end: called before and after each round.
        peer: the process at the other end, if anybody wants to know.
    """

    name: str
    note: str
    run: Callable[[int], object]
    beside: str = ""
    time_each: Callable[[int], list[float]] | None = None
    begin: Callable[[], object] = _nothing
    end: Callable[[], object] = _nothing
    peer: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """What the rounds brought.

    Attributes:
        cases: what was measured.
        medians: of each round, in nanoseconds, by name.
        singles: the times of single calls in all rounds, in nanoseconds, by name.
    """

    cases: Sequence[Case]
    medians: dict[str, list[float]]
    singles: dict[str, list[float]]

    def results(self) -> Iterator[Result]:
        """One for each case."""
        for case in self.cases:
            p50_ns = median(self.medians[case.name])
            yield Result(
                case.name,
                case.note,
                p50_ns,
                percentile(self.singles[case.name], 99),
                per_second=1e9 / p50_ns,
                beside=case.beside,
                ratio=self.ratio(case.name, case.beside) if case.beside else None,
            )

    def ratio(self, name: str, beside: str) -> float:
        """How many times as long a call of `name` takes as one of `beside`."""
        pairs = zip(self.medians[name], self.medians[beside], strict=True)
        return median(subject / other for subject, other in pairs)

    def difference(self, name: str, beside: str) -> float:
        """How many nanoseconds a call of `name` takes more than one of `beside`."""
        pairs = zip(self.medians[name], self.medians[beside], strict=True)
        return median(subject - other for subject, other in pairs)


def measure(cases: Sequence[Case], effort: Effort) -> Measured:
    """Measure all cases in turns."""
    found = Measured(cases, {case.name: [] for case in cases}, {case.name: [] for case in cases})
    plans = [(case, _Plan.of(case, effort.round_s)) for case in cases]
    for number in range(effort.rounds):
        for case, plan in reversed(plans) if number % 2 else plans:
            p50_ns, singles = plan.round(case)
            found.medians[case.name].append(p50_ns)
            found.singles[case.name] += singles
    return found


def percentile(samples: Sequence[float], percent: int) -> float:
    """The sample that `percent` percent of them don't exceed."""
    return sorted(samples)[len(samples) * percent // 100]


def time_each(run: Callable[[int], object], count: int, limit_s: float) -> list[float]:
    """Time up to `count` calls one by one; in nanoseconds. See `time_batches`."""
    return time_batches(run, count, 1, limit_s)


def time_batches(
    run: Callable[[int], object], count: int, batch: int, limit_s: float
) -> list[float]:
    """Time up to `count` batches of `batch` calls; in nanoseconds per call.

    It ends early when `limit_s` seconds are over: somebody else may have the processors.
    """
    now = time.perf_counter_ns
    samples = []
    end = now() + limit_s * 1e9
    for _ in range(count):
        started = now()
        run(batch)
        ended = now()
        samples.append((ended - started) / batch)
        if ended > end and len(samples) >= _SAMPLES_MIN:
            break
    return samples


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one round of a case is: calls to warm up, batches, then single calls."""

    warm_up: int
    batches: int
    batch: int
    singles: int
    limit_s: float

    @classmethod
    def of(cls, case: Case, round_s: float) -> _Plan:
        """Try how long a call takes, and divide the time of a round."""
        limit_s = _PATIENCE * round_s
        trial = cls(warm_up=10, batches=0, batch=1, singles=30, limit_s=limit_s)
        _, singles = trial.round(case)
        call_ns = min(singles)
        calls = max(10, int(round_s * 1e9 / call_ns))
        warm_up = 1 + calls // _WARM_UP
        if call_ns >= SHORT_NS or case.time_each is not None:
            return cls(warm_up, 0, 1, calls, limit_s)
        batch = max(1, min(int(_BATCH_NS / call_ns), calls // 10))
        return cls(warm_up, max(_SAMPLES_MIN, calls // 2 // batch), batch, calls // 2, limit_s)

    def round(self, case: Case) -> tuple[float, list[float]]:
        """Measure; return the median, and the times of single calls."""
        case.begin()
        try:
            time_each(case.run, self.warm_up, self.limit_s)
            batches = time_batches(case.run, self.batches, self.batch, self.limit_s)
            if case.time_each is None:
                singles = time_each(case.run, self.singles, self.limit_s)
            else:
                singles = case.time_each(self.singles)
        finally:
            case.end()
        return median(batches or singles), singles
