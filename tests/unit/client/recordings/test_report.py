"""What the page of a recording is made of, as far as it needs no browser to be seen."""

from __future__ import annotations

import base64
import io
import json
import re
import tracemalloc
import zlib
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost.recording import DeviceRecord, Header, Lost, Operation, Space
from devicehost_client.recordings.report import (
    BadDifferences,
    Survey,
    read_differences,
    write_report,
)
from devicehost_client.recordings.report.differences import DIFFERENCES_MAX, Difference
from devicehost_client.recordings.report.latency import Latencies
from devicehost_client.recordings.report.sample import FIRST, LAST, Sample
from devicehost_client.recordings.report.timeline import LANES_MAX, Timeline, cells
from devicehost_client.recordings.source import Source
from unit.client.recordings.synthetic import COM1, Guest, boot, write


def survey(path: Path, differences: str | None = None) -> dict[str, Any]:
    found = None if differences is None else read_differences(differences)
    with Source.open(path) as source:
        return Survey(source, found).run()


def page(path: Path) -> str:
    out = io.BytesIO()
    write_report(survey(path), out)
    return out.getvalue().decode()


def test_the_survey_counts_everything(tmp_path: Path) -> None:
    guest = Guest()
    events = [*guest.setup(), *guest.prints("hi"), *guest.interrupt(4, "com1"), Lost(3)]
    found = survey(write(tmp_path / "some.rec", events))
    assert (found["events"], found["lost"], found["failed"]) == (15, 3, 0)
    assert (found["reads"], found["writes"]) == (3, 9)
    assert found["kinds"] == {"access": 12, "interrupt": 2, "lost": 1}
    lanes = {(each["kind"], each["name"]): each["cells"] for each in found["timeline"]["lanes"]}
    totals = [sum(column) for column in zip(*lanes["device", "com1"], strict=True)][1:]
    assert totals[:4] == [3, 9, 0, 2]
    assert totals[4] == found["busy_ns"]
    assert lanes["device", "rtc"] == []
    registers = {each["name"]: each for each in found["registers"]["rows"]}
    assert (registers["THR"]["reads"], registers["THR"]["writes"]) == (0, 2)
    assert sum(registers["LSR"]["strip"]) == 2


def test_differences_are_shown_with_what_is_around_them(tmp_path: Path) -> None:
    path = write(tmp_path / "boot.rec", boot(120))
    number = FIRST + 500
    found = survey(path, json.dumps({"event": number, "device": "com1", "got": "0x20"}))
    numbers = {each[0] for each in found["sample"]}
    assert set(range(number - 12, number + 13)) <= numbers
    assert number + 100 not in numbers
    assert found["differences"]["kept"][0]["got"] == "0x20"


def test_of_a_large_recording_the_first_and_last_events_are_shown(tmp_path: Path) -> None:
    path = write(tmp_path / "boot.rec", boot(150))
    found = survey(path)
    numbers = [each[0] for each in found["sample"]]
    assert numbers == sorted(set(numbers))
    assert numbers[:FIRST] == list(range(FIRST))
    assert numbers[-LAST:] == list(range(found["events"] - LAST, found["events"]))


def test_what_is_around_a_finding_is_kept_even_if_it_is_found_late(tmp_path: Path) -> None:
    guest = Guest()
    quiet = [guest.inb(COM1 + 5, i % 2) for i in range(FIRST + 200)]
    polls = [guest.inb(COM1 + 5, 0x60) for _ in range(300)]
    rest = [guest.inb(COM1 + 5, i % 2) for i in range(LAST + 2000)]
    found = survey(write(tmp_path / "some.rec", [*quiet, *polls, *rest]))
    first = found["findings"][0]["event"]
    assert first == FIRST + 200
    assert set(range(first - 12, first + 13)) <= {each[0] for each in found["sample"]}


def test_a_page_of_a_few_thousand_events_is_small(tmp_path: Path) -> None:
    path = write(tmp_path / "boot.rec", boot(30))
    assert survey(path)["events"] > 3000
    assert len(page(path)) < 200_000


def test_memory_and_page_are_not_in_proportion_to_the_recording(tmp_path: Path) -> None:
    path = write(tmp_path / "boot.rec", boot(600))
    tracemalloc.start()
    html = page(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The 60,000 events are 30 MB in memory; 8,000 are kept, and the rest is their JSON.
    assert peak < 20 << 20
    assert len(html) < 700_000


def test_the_page_fetches_nothing_and_has_no_markup_of_the_recording(tmp_path: Path) -> None:
    device = DeviceRecord("<script>alert(1)</script>", "x", {"a": "</script><img src=x onerror=1>"})
    header = Header((device,), note="</style><b>", version="&amp;")
    html = page(write(tmp_path / "<i>&.rec", boot(2), header))
    assert "<title>&lt;i&gt;&amp;.rec: a recording of devices</title>" in html
    assert html.count("<script") == 2
    assert html.count("</script>") == 2
    assert "<img" not in html
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy[1]
    assert not re.search(r"""(src|href)=["'](?!#)""", html)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", html)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html)


def test_the_data_of_the_page_can_be_unpacked_by_anybody(tmp_path: Path) -> None:
    path = write(tmp_path / "boot.rec", boot(2))
    packed = re.search(r'id="data">([A-Za-z0-9+/=]*)</script>', page(path))
    assert packed is not None
    unpacked = json.loads(zlib.decompress(base64.b64decode(packed[1])))
    assert unpacked == json.loads(json.dumps(survey(path)))


# Parts.


@given(st.lists(st.integers(-5, 1 << 44), min_size=1, max_size=200))
def test_a_timeline_loses_no_count_when_it_widens(times: list[int]) -> None:
    timeline: Timeline[str] = Timeline(16, 2)
    lane = timeline.lane("a")
    for time_ns in times:
        lane[1][timeline.span(time_ns)] += 1
    found = {span: count for span, _, count in cells(lane)}
    assert sum(found.values()) == len(times)
    for time_ns in times:
        assert max(0, time_ns) // timeline.width_ns in found
    latest = max(times)
    assert latest < 16 * timeline.width_ns
    assert timeline.width_ns == 1024 or latest >= 8 * timeline.width_ns


def test_lanes_beyond_the_limit_share_one() -> None:
    timeline: Timeline[int] = Timeline(4, 1)
    for name in range(LANES_MAX + 5):
        timeline.lane(name)[0][0] += 1
    assert len(timeline.lanes) == LANES_MAX
    assert timeline.others is not None
    assert cells(timeline.others) == [[0, 5]]


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=300), st.sampled_from([50, 90, 99]))
def test_percentiles_are_at_most_an_eighth_too_large(times: list[int], percent: int) -> None:
    latencies = Latencies()
    for each in times:
        latencies.add(each)
    exact = sorted(times)[max(0, -(-len(times) * percent // 100) - 1)]
    assert exact <= latencies.percentile(percent) <= exact * 1.125 + 1
    assert latencies.max_ns == max(times)
    assert sum(count for _, _, count in latencies.histogram()) == len(times)
    for (_, high, _), (low, _, _) in zip(
        list(latencies.histogram()), list(latencies.histogram())[1:], strict=False
    ):
        assert high <= low


def test_the_slowest_accesses_are_shown_slowest_first(tmp_path: Path) -> None:
    guest, random = Guest(), Random(5)
    times = [random.randrange(100, 10_000) for _ in range(500)]
    events = [guest.inb(COM1 + 5, 0, took_ns=each) for each in times]
    slowest = survey(write(tmp_path / "some.rec", events))["slowest"]
    assert [each[2] for each in slowest] == sorted(times, reverse=True)[:40]
    assert all(times[each[0]] == each[2] for each in slowest)


def test_a_sample_of_few_events_is_all_of_them(tmp_path: Path) -> None:
    path = write(tmp_path / "some.rec", boot(3))
    sample = Sample()
    with Source.open(path) as source:
        events = list(source)
    for number, seen in events:
        sample.see(number, seen)
    assert list(sample) == events


# Differences.


@pytest.mark.parametrize(
    "text",
    [
        '{"event": 7, "device": "com1", "what": "read"}\n\n{"event": 9, "got": 32}\n',
        (
            '{"progress": {}}\n{"difference": {"event": 7, "device": "com1", "what": "read"}}\n'
            '{"difference": {"event": 9, "got": 32}}\n{"summary": {"differences": 2}}\n'
        ),
        (
            '{\n "differences": [{"event": 7, "device": "com1", "what": "read"},\n'
            ' {"event": 9, "got": 32}],\n "summary": {}}'
        ),
    ],
    ids=["lines", "lines of the replayer", "a document"],
)
def test_differences_are_read_in_all_forms_that_a_replay_has(text: str) -> None:
    found = read_differences(text)
    assert found.kept == (Difference(7, "com1", what="read"), Difference(9, got="32"))
    assert found.count == 2


def test_registers_of_a_difference_are_shown_as_the_replay_decoded_them() -> None:
    line = json.dumps(
        {
            "event": 7,
            "registers_expected": [{"register": "LSR", "text": "LSR = 0x60 (THRE=1)"}],
            "registers_got": [{"register": "LSR", "text": "LSR = 0x40 (THRE=0)"}],
        }
    )
    (difference,) = read_differences(line).kept
    assert difference.register == "LSR"
    assert (difference.expected, difference.got) == ("LSR = 0x60 (THRE=1)", "LSR = 0x40 (THRE=0)")


def test_only_so_many_differences_are_kept() -> None:
    found = read_differences('{"event": 1}\n' * (DIFFERENCES_MAX + 5))
    assert (len(found.kept), found.count) == (DIFFERENCES_MAX, DIFFERENCES_MAX + 5)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "line 1 is not JSON"),
        ("[1]", "line 1 is not a JSON object: '[1]'"),
        ('{"event": 1}\n{"what": "read"}', "line 2: event is None, but must be a number"),
        ('{"event": -1}', "line 1: event is -1"),
        ('{"event": true}', "line 1: event is True"),
        ('{"differences": [{"event": 1}, 5]}', "difference 1 is not a JSON object: '5'"),
        ('{"difference": 7}', "line 1 is not a JSON object: '7'"),
    ],
)
def test_what_is_no_difference_is_named(text: str, why: str) -> None:
    with pytest.raises(BadDifferences) as caught:
        read_differences(text)
    assert str(caught.value).startswith(why)


def test_an_access_of_an_unknown_vcpu_has_a_lane_too(tmp_path: Path) -> None:
    guest = Guest(vcpu=None)
    access = guest.access(Operation.READ, Space.MMIO, 1 << 60, 0, size=8)
    lanes = survey(write(tmp_path / "some.rec", [access]))["timeline"]["lanes"]
    assert [each["name"] for each in lanes if each["kind"] == "vcpu"] == ["unknown"]
