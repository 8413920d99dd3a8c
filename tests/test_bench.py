"""The bench works: it measures what it says, and its figures reach the table and the JSON.

What the figures are is not tested; a busy machine fails no test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

BENCH = Path(__file__).with_name("bench")
PICTURE = BENCH / "latency.svg"


def accesses(way: str, *, suffix: str = "", posted: bool = False) -> set[str]:
    """The names of what is measured on one way."""
    waited_for = {f"{way}.{kind}{size}" for kind in ("read", "write") for size in (1, 4, 8, 4096)}
    sent_off = {f"{way}.posted{size}" for size in (1, 4, 8)} if posted else set()
    return {name + suffix for name in waited_for | sent_off}


WATCHED = ("traced", "unread", "recorded")
NAMES = {
    *("dispatch.16", "dispatch.64", "dispatch.4096", "dispatch.locked"),
    *("allocate.100", "allocate.10000"),
    *accesses("inprocess"),
    "inprocess.read4.unarmed",
    *accesses("ring", posted=True),
    *("ring.read4.vcpu", "ring.write4.vcpu", "ring.read4.1vcpu", "ring.read4.2vcpu"),
    "ring.read4.locked",
    *("ring.read4.undebugged", "ring.read4.unarmed", "ring.read4.unwatched"),
    *(f"ring.read4.{how}{more}" for how in WATCHED for more in ("", ".added")),
    *accesses("socket", posted=True),
    *accesses("socket", suffix=".spin", posted=True),
    *accesses("grpc.stream", posted=True),
    *accesses("grpc.unary"),
    *("floor.shm.spin", "floor.grpc.stream", "floor.grpc.unary"),
    *("floor.socket", "floor.socket.read4096"),
    *("floor.socket.together", "socket.read4.together"),
    *("floor.socket.spin", "floor.socket.read4096.spin"),
    *("grpc.unary.read4.polling", "idle.server", "idle.client"),
}
WITH_KVM = {"kvm.exit", "kvm.share"}
LIMITED = {
    *("inprocess.read4.unarmed", "ring.read4.unarmed"),
    *(f"ring.read4.{how}.added" for how in WATCHED),
    *("dispatch.16", "dispatch.64", "dispatch.4096", "ring.read4", "ring.posted4"),
    *("socket.read4", "socket.read4.spin", "socket.posted4", "socket.posted4.spin"),
    "socket.read4.together",
    *("grpc.stream.read4", "grpc.unary.read4", "grpc.unary.read4.polling"),
    *("idle.server", "idle.client"),
}
APART = {"floor.socket.apart", "socket.read4.apart"}
"""What needs two processors."""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the bench, which is a program and no package."""
    monkeypatch.syspath_prepend(BENCH)
    return import_module


def test_a_run_measures_all_that_has_a_name_and_writes_it_down(tmp_path: Path) -> None:
    picture = PICTURE.read_bytes() if PICTURE.exists() else None
    run = subprocess.run(
        [sys.executable, BENCH, "--tiny"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert run.returncode == 0, run.stderr
    document = json.loads((tmp_path / "build/bench.json").read_text())
    assert document["machine"]["cores"] == os.cpu_count()
    assert 0 <= document["machine"]["others_percent"] <= 100
    results = {result["name"]: result for result in document["results"]}
    has_kvm = os.access("/dev/kvm", os.R_OK | os.W_OK)
    two = len(os.sched_getaffinity(0)) > 1
    wanted = NAMES | (WITH_KVM if has_kvm else set()) | (APART if two else set())
    assert set(results) == wanted
    assert {name for name in results if results[name]["limits"]} - WITH_KVM - APART == LIMITED
    for name, result in results.items():
        assert result["note"]
        assert result["beside"] in {"", *results}
        assert (result["ratio"] is not None) == bool(result["beside"])
        assert result["met"] in ((True, False) if result["limits"] else (None,))
        if name.startswith("idle."):
            assert 0 <= result["percent"] < 300
        elif name.endswith(".added"):
            assert isinstance(result["p50_ns"], float)
        elif name != "kvm.share":
            assert result["p50_ns"] > 0
            assert result["per_second"] > 0
        assert f"\n{name} " in run.stdout
    assert (PICTURE.read_bytes() if PICTURE.exists() else None) == picture


def test_the_ledger_finds_the_first_posted_write_that_is_lost_or_out_of_order(bench: Any) -> None:
    module = bench("ledger")
    for size in (1, 4, 8):
        ledger = module.Ledger(module.Config())
        values = module.numbers(size)
        turns = values * 2 + values[:10]

        def in_order(written: list[bytes], device: Any = ledger) -> int:
            for value in written:
                device.write(module.BASE, module.LEDGER, value)
            count = bytearray(8)
            device.read(module.BASE, module.IN_ORDER, count)
            return int.from_bytes(count, "little")

        assert in_order(turns) == len(turns)
        assert in_order(turns[:100] + turns[101:]) == 100
        assert in_order(turns[:100] + turns[99:]) == 100
        swapped = [*turns[:200], turns[201], turns[200], *turns[202:]]
        assert in_order(swapped) == 200
        assert in_order([]) == 0


def test_a_ratio_is_the_median_of_the_rounds_and_not_that_of_all_samples(bench: Any) -> None:
    measure = bench("measure")
    floor = measure.Case("floor", "", lambda _times: None)
    subject = measure.Case("subject", "", lambda _times: None, beside="floor")
    # The machine became four times as slow after the first round.
    medians = {"floor": [10.0, 40.0, 40.0], "subject": [20.0, 80.0, 90.0]}
    singles = {"floor": [10.0] * 98 + [50.0, 60.0], "subject": [20.0]}
    first, second = measure.Measured([floor, subject], medians, singles).results()
    assert (first.p50_ns, first.p99_ns, first.ratio) == (40, 60, None)
    assert (second.p50_ns, second.ratio, second.beside) == (80, 2, "floor")


def test_each_round_begins_and_ends_with_calls_in_between(bench: Any) -> None:
    measure = bench("measure")
    told: list[str] = []

    def tell(what: str) -> None:
        if told[-1:] != [what]:
            told.append(what)

    case = measure.Case(
        "case",
        "",
        lambda _times: tell("call"),
        begin=lambda: tell("begin"),
        end=lambda: tell("end"),
    )
    measure.measure([case], measure.TINY)
    rounds = measure.TINY.rounds + 1  # and a trial
    assert told == ["begin", "call", "end"] * rounds


def test_a_round_ends_early_when_somebody_else_has_the_processor(bench: Any) -> None:
    measure = bench("measure")
    assert 5 <= len(measure.time_each(lambda _times: None, 10_000_000, limit_s=0.01)) < 10_000_000
    assert len(measure.time_each(lambda _times: None, 10_000_000, limit_s=0)) == 5
    assert len(measure.time_each(lambda _times: None, 7, limit_s=10)) == 7


def test_a_missed_limit_is_marked_in_the_table_and_in_the_json(bench: Any) -> None:
    measure, report = bench("measure"), bench("report")
    good = measure.Result("ring.read4", "", 1400.0, 2000.0, 7e5, "floor.shm.spin", 2.9)
    slow = measure.Result("ring.posted4", "", 1e4, 2e4, 1e5)
    first, second = report.as_json({}, [good, slow])["results"]
    assert first["met"] is True
    assert [(limit["met"], limit["aim_met"]) for limit in first["limits"]] == [
        (True, False),
        (True, True),
    ]
    assert second["met"] is False
    _heading, good_line, slow_line, last = report.table([good, slow], 0.0)
    assert "MISSED" not in good_line
    assert ">= 600,000/s MISSED" in slow_line
    assert last == "Missed: ring.posted4."
    assert list(report.table([good], 4.0))[-1] == "All limits are met."
    assert list(report.table([good], 6.0))[-1].startswith("Others used 6 % of the processors")


def test_the_picture_says_in_words_and_marks_what_the_results_are(bench: Any) -> None:
    picture = bench("picture")
    document: dict[str, Any] = {
        "machine": {"cpu": "A & B", "cores": 2, "python": "3.11"},
        "results": [
            result("inprocess.read4", 500),
            result("floor.shm.spin", 200),
            result("ring.read4", 1000, beside="floor.shm.spin"),
            result("kvm.exit", 8000),
        ],
    }
    drawn = picture.drawn(document)
    assert drawn == picture.drawn(json.loads(json.dumps(document)))
    svg = ET.fromstring(drawn)  # noqa: S314 # it is ours
    space = {"": "http://www.w3.org/2000/svg"}
    description = svg.findtext("desc", namespaces=space)
    assert description is not None
    assert "Ring: 1.00 µs, 99 % within 2.00 µs, floor 0.20 µs" in description
    assert "a KVM exit: 8.00 µs" in description
    texts = [each.text for each in svg.findall("text", space)]
    assert "the KVM exit alone: 8.00 µs" in texts
    assert "gRPC unary" not in texts  # it wasn't measured
    assert svg.get("role") == "img"
    assert "KVM" not in picture.drawn({**document, "results": document["results"][:3]})


def result(name: str, p50_ns: int, beside: str = "") -> dict[str, Any]:
    ratio = 5.0 if beside else None
    return {"name": name, "p50_ns": p50_ns, "p99_ns": 2 * p50_ns, "beside": beside, "ratio": ratio}
