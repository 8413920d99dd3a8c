"""What `top` makes of activity."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_client.ctl.top.frames import HISTORY_S, Traffic, Trail, percentile
from devicehost_client.ctl.top.order import Order
from devicehost_client.debug import InterruptActivity
from unit.ctl.toplab import COM1, LSR, NOBODY, RAM, SERVER, THR, WORD, activity, model


def test_counts_become_rates_of_the_interval() -> None:
    frame = model(activity(LSR, THR, WORD)).frame()
    assert frame.interval_s == 2.0
    assert [
        (each.device.id, each.traffic.reads, each.traffic.writes) for each in frame.devices
    ] == [
        ("com1", 150.0, 50.0),
        ("ram", 10.0, 0.0),
    ]
    com1 = frame.device("com1")
    assert com1 is not None
    assert (com1.traffic.mean_ns, com1.traffic.longest_ns) == (1500.0, 9000)
    assert frame.total.rate == 210.0


def test_a_device_that_is_not_accessed_is_there_all_the_same() -> None:
    before = model().frame()
    assert [each.device for each in before.devices] == [COM1, RAM]
    after = model(activity(WORD)).frame()
    com1 = after.device("com1")
    assert com1 is not None
    assert com1.traffic == Traffic()


def test_accesses_without_a_device_have_a_line_as_long_as_they_are_in_the_graph() -> None:
    seen = model(activity(NOBODY))
    assert [each.device.id for each in seen.frame().devices] == ["", "com1", "ram"]
    for _ in range(round(HISTORY_S / 2) - 1):
        seen.add(activity())
    assert seen.frame().device("") is not None
    seen.add(activity())
    assert seen.frame().device("") is None


def test_failures_are_summed_up_since_the_beginning() -> None:
    seen = model(activity(NOBODY), activity(NOBODY))
    assert (seen.frame().failures, seen.frame().total.failures) == (4, 1.0)


def test_a_server_that_is_another_one_begins_anew() -> None:
    seen = model(activity(NOBODY))
    seen.meet(replace(SERVER, uptime_s=62.0))
    assert (seen.frame().failures, seen.frame().uptime_s) == (2, 62.0)
    seen.meet(replace(SERVER, instance_id="two", uptime_s=1.0))
    assert (seen.frame().failures, seen.frame().uptime_s, seen.frame().registers) == (0, 1.0, ())


def test_uptime_goes_on_with_the_intervals() -> None:
    assert model(activity(), activity()).frame().uptime_s == 64.0


def test_interrupts_stay_listed_with_their_devices() -> None:
    five = InterruptActivity(5, 30, asserted=True)
    seen = model(activity(interrupts=(five,)))
    lines = [(each.gsi, each.rate, each.asserted, each.devices) for each in seen.frame().interrupts]
    assert lines == [(4, 0.0, False, ("com1",)), (5, 15.0, True, ())]
    seen.add(activity())
    assert [(each.gsi, each.asserted) for each in seen.frame().interrupts] == [
        (4, False),
        (5, False),
    ]


def test_a_range_is_as_hot_as_what_is_in_it() -> None:
    ranges = model(activity(LSR, THR, WORD)).frame().ranges
    assert {each.range.device: each.rate for each in ranges} == {"com1": 200.0, "ram": 10.0}


def test_the_graph_holds_one_minute() -> None:
    seen = model(*[activity(WORD)] * 100)
    assert len(seen.frame().trail.samples) == HISTORY_S / 2
    assert seen.frame().trail.columns(6) == [10.0] * 6


def test_the_graph_is_blank_where_nothing_is_known_and_has_no_holes() -> None:
    trail = Trail(tuple((float(5 * n), float(n)) for n in range(1, 4)), 15.0)
    columns = trail.columns(60)
    first = next(n for n, each in enumerate(columns) if each is not None)
    assert columns[:first] == [None] * first
    assert None not in columns[first:]
    assert (columns[first], columns[-1]) == (1.0, 3.0)


@given(st.lists(st.floats(0.1, 60), min_size=1, max_size=50), st.integers(1, 80))
def test_the_last_column_is_never_blank(intervals: list[float], count: int) -> None:
    now, samples = 0.0, []
    for each in intervals:
        now += each
        samples.append((now, 1.0))
    columns = Trail(tuple(samples), now).columns(count)
    assert len(columns) == count
    assert columns[-1] == 1.0


@pytest.mark.parametrize(
    ("latency", "percent", "bound"),
    [
        ((), 50, None),
        ((0, 0), 50, None),
        ((0, 0, 10), 50, 4),
        ((50, 50), 50, 1),
        ((49, 51), 50, 2),
        ((98, 0, 0, 1, 1), 99, 8),
        ((98, 0, 0, 1, 1), 100, 16),
    ],
)
def test_a_percentile_is_the_bound_of_its_class(
    latency: tuple[int, ...], percent: int, bound: int | None
) -> None:
    assert percentile(latency, percent) == bound


def test_sorting_goes_through_all_columns_and_begins_again() -> None:
    orders = [Order.RATE]
    while (following := orders[-1].next) is not Order.RATE:
        orders.append(following)
    assert orders == list(Order)


@pytest.mark.parametrize(
    ("order", "first"),
    [(Order.RATE, "com1"), (Order.FAILURES, ""), (Order.MEAN, ""), (Order.NAME, "")],
)
def test_lines_are_sorted_by_what_is_most(order: Order, first: str) -> None:
    frame = model(activity(LSR, WORD, NOBODY)).frame()
    assert order.devices(frame.devices)[0].device.id == first
    assert order.registers(frame.registers)[0].device == first
