"""Devices, registers, interrupts and latency of a frame, as lines of a given size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from devicehost_client.ctl.top.figures import bar, count_text, mountain, rate_text, sparkline
from devicehost_client.ctl.top.frames import (
    DeviceLine,
    Frame,
    InterruptLine,
    RegisterLine,
    Traffic,
    percentile,
)
from devicehost_client.ctl.top.lines import Column, Columns, Line, Piece, Tone, line
from devicehost_client.ctl.top.order import Order
from devicehost_client.recordings.words import time_text

_RATE, _TIME = 8, 7
_NO_DEVICE = "(no device)"
_SPARK_MIN, _SPARK_MAX = 6, 60
_BAR_MIN, _BAR_MAX = 5, 40
_COUNT = 6
_NAME_MIN, _TYPE_MIN, _TYPE_MAX = 11, 6, 12
_ADDRESS_MIN, _ADDRESS_MAX = 10, 23
_FIGURES = 60


def devices(frame: Frame, order: Order, selected: str, width: int, height: int) -> list[Line]:
    """Return the table of devices; the one that is selected is among those that have room."""
    name = _fitting((each.device.id for each in frame.devices), _NAME_MIN, _name_max(width))
    type_width = _fitting((each.device.type for each in frame.devices), _TYPE_MIN, _TYPE_MAX)
    fixed = name + type_width + 3 * _RATE + 2 * _TIME + 7
    spark = min(_SPARK_MAX, max(_SPARK_MIN, width - fixed))
    columns = Columns(
        Column("device", name, left=True),
        Column("type", type_width, left=True),
        *_traffic_columns(),
        Column("last 60 s", spark, left=True),
    )
    shown = [
        columns.row(
            [
                (each.device.id or _NO_DEVICE, Tone.STRONG),
                (each.device.type or "-", Tone.DIM),
                *_traffic(each.traffic),
                (sparkline(each.trail.columns(spark)), Tone.SPARK),
            ],
            selected=each.device.id == selected,
        )
        for each in visible_devices(frame, order, selected, height)
    ]
    return [_head(columns, order, "device"), *shown]


def visible_devices(frame: Frame, order: Order, selected: str, height: int) -> list[DeviceLine]:
    """Return the devices that have room in the table, below its head."""
    rows = order.devices(frame.devices)
    room = max(1, height - 1)
    chosen = next((n for n, each in enumerate(rows) if each.device.id == selected), 0)
    first = max(0, chosen - room + 1)
    return rows[first : first + room]


def registers(frame: Frame, order: Order, selected: str, width: int, height: int) -> list[Line]:
    """Return the table of the hottest registers; those of the selected device stand out."""
    hottest = max((each.traffic.rate for each in frame.registers), default=0.0)
    rows = order.registers(frame.registers)[: max(0, height - 1)]
    name = _fitting((each.name for each in rows), _NAME_MIN, _name_max(width))
    address = _fitting(map(_address, rows), _ADDRESS_MIN, _ADDRESS_MAX)
    fixed = name + address + 2 * _RATE + 2 * _TIME + 6
    columns = Columns(
        Column("register", name, left=True),
        Column("address", address, left=True),
        *(each for each in _traffic_columns() if each.title != Order.FAILURES.value),
        Column("", min(_BAR_MAX, max(_BAR_MIN, width - fixed)), left=True),
    )
    bar_width = columns.columns[-1].width
    shown = []
    for each in rows:
        traffic = each.traffic
        reads, writes, failures, mean, longest = _traffic(traffic)
        failing = failures[1] is Tone.BAD
        shown.append(
            columns.row(
                [
                    (
                        each.name or _NO_DEVICE,
                        Tone.BAD
                        if failing
                        else Tone.STRONG
                        if each.device == selected
                        else Tone.PLAIN,
                    ),
                    (_address(each), Tone.DIM),
                    reads,
                    writes,
                    mean,
                    longest,
                    (bar(traffic.rate / hottest if hottest else 0, bar_width), Tone.BAR),
                ]
            )
        )
    return [_head(columns, order, "register"), *shown]


def interrupts(frame: Frame, width: int, height: int) -> list[Line]:
    """Return the table of interrupts; if there is no room for all, those that do something."""
    columns = Columns(
        Column("GSI", 4),
        Column("device", max(6, width - 4 - 7 - 8 - 3), left=True),
        Column("rate/s", 7),
        Column("line", 8, left=True),
    )
    rows = list(frame.interrupts)
    room = max(0, height - 1)
    if len(rows) > room:
        busiest = sorted(rows, key=lambda each: (-each.rate, not each.asserted, each.gsi))[:room]
        rows = [each for each in rows if each in busiest]
    return [columns.head(), *(_interrupt(columns, each) for each in rows)]


def latency(frame: Frame, width: int, height: int) -> list[Line]:
    """Return the histogram of latency: a line for each class, or for several if need be."""
    found = [n for n, count in enumerate(frame.latency) if count]
    if not found or height < 1:
        return [line(("no accesses in this interval", Tone.DIM))]
    first, last = found[0], found[-1]
    step = -(-(last - first + 1) // height)
    tops = list(range(last, first - 1, -step))[::-1]
    counts = [sum(frame.latency[max(0, top - step + 1) : top + 1]) for top in tops]
    most = max(counts)
    marks = {_row(tops, frame.latency, percent): f"p{percent}" for percent in (99, 50)}
    label, mark = 9, 4
    bar_width = max(1, width - label - _COUNT - mark - 2)
    return [
        line(
            (f"≤ {time_text(1 << top)}".rjust(label) + " ", Tone.DIM),
            (bar(count / most, bar_width), Tone.BAR),
            (count_text(count).rjust(_COUNT), Tone.PLAIN),
            (f" {marks.get(row, '')}".ljust(mark), Tone.TITLE),
        )
        for row, (top, count) in enumerate(zip(tops, counts, strict=True))
    ]


def chart(frame: Frame, width: int, height: int) -> list[Line]:
    """Return the rate of all accesses over the last minute, as a mountain."""
    values = frame.trail.columns(max(1, width))
    return [line((row, Tone.SPARK)) for row in mountain(values, height)]


def chart_title(frame: Frame) -> str:
    """Say how high the mountain is."""
    peak = max((rate for _, rate in frame.trail.samples), default=0.0)
    return f"last 60 s  peak {rate_text(peak)}/s"


def latency_title(frame: Frame) -> str:
    """Say what most accesses took at most."""
    middle, most = (percentile(frame.latency, percent) for percent in (50, 99))
    if middle is None or most is None:
        return "latency"
    return f"latency  p50 ≤{time_text(middle)}  p99 ≤{time_text(most)}"


def traffic_cells(traffic: Traffic) -> tuple[Piece, Piece]:
    """Return reads and writes per second."""
    reads, writes, *_ = _traffic(traffic)
    return reads, writes


def _row(tops: Sequence[int], counts: Sequence[int], percent: int) -> int:
    """The line of a histogram in which a percentile is."""
    bound = percentile(counts, percent) or 0
    return next(row for row, top in enumerate(tops) if 1 << top >= bound)


def _head(columns: Columns, order: Order, name: str) -> Line:
    return columns.head(name if order is Order.NAME else order.value)


def _traffic_columns() -> tuple[Column, ...]:
    return (
        Column(Order.READS.value, _RATE),
        Column(Order.WRITES.value, _RATE),
        Column(Order.FAILURES.value, _RATE),
        Column(Order.MEAN.value, _TIME),
        Column(Order.LONGEST.value, _TIME),
    )


def _traffic(traffic: Traffic) -> tuple[Piece, ...]:
    def cell(rate: float, tone: Tone) -> Piece:
        return rate_text(rate), tone if rate else Tone.DIM

    def time(ns: float) -> Piece:
        return (time_text(round(ns)), Tone.PLAIN) if traffic.rate else ("-", Tone.DIM)

    return (
        cell(traffic.reads, Tone.READ),
        cell(traffic.writes, Tone.WRITE),
        cell(traffic.failures, Tone.BAD),
        time(traffic.mean_ns),
        time(traffic.longest_ns),
    )


def _interrupt(columns: Columns, each: InterruptLine) -> Line:
    return columns.row(
        [
            (str(each.gsi), Tone.STRONG),
            (" ".join(each.devices) or "-", Tone.PLAIN),
            (rate_text(each.rate), Tone.READ if each.rate else Tone.DIM),
            ("asserted", Tone.ODD) if each.asserted else ("-", Tone.DIM),
        ]
    )


def _address(each: RegisterLine) -> str:
    return f"{each.space.value} {each.address:#x}"


def _fitting(texts: Iterable[str], least: int, most: int) -> int:
    """How wide a column has to be for these texts, within bounds."""
    return min(most, max(least, *map(len, texts), 0))


def _name_max(width: int) -> int:
    """How wide a column of names may be: the figures come first."""
    return max(_NAME_MIN, width - _FIGURES)
