"""The panes of `top` as lines of text."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost.recording.events import Space
from devicehost_client.ctl.top import details, header, once, strip, tables
from devicehost_client.ctl.top.details import Peeked
from devicehost_client.ctl.top.frames import Device, Frame, Range, RangeLine
from devicehost_client.ctl.top.header import Link
from devicehost_client.ctl.top.lines import Line
from devicehost_client.ctl.top.order import Order
from devicehost_client.debug import InterruptActivity
from devicehost_client.debug.events import FieldValue, RegisterValue
from unit.ctl.toplab import LSR, NOBODY, RAM_RANGE, THR, WORD, activity, model

BUSY = model(
    activity(
        LSR,
        THR,
        WORD,
        NOBODY,
        interrupts=(InterruptActivity(5, 30, asserted=True),),
        latency=(0,) * 10 + (300, 100, 0, 0, 0, 0, 2),
    )
).frame()
IDLE = model(activity()).frame()
EMPTY = Frame()
SIZES = [(78, 5), (76, 12), (200, 60), (40, 3), (10, 1)]


def texts(lines: list[Line]) -> list[str]:
    return [each.text.rstrip() for each in lines]


def test_devices_are_shown_with_rates_times_and_a_graph() -> None:
    head, com1, *_ = texts(tables.devices(BUSY, Order.READS, "com1", 78, 10))
    assert head.split() == (
        ["device", "type", "▾reads/s", "writes/s", "faults/s", "mean", "longest", "last", "60", "s"]
    )
    *cells, graph = com1.split()
    assert cells == ["com1", "uart16550", "150", "50", "0", "1.5", "us", "9.0", "us"]
    assert graph == "▇"


def test_an_idle_device_has_no_times() -> None:
    assert texts(tables.devices(IDLE, Order.RATE, "", 78, 10))[1].split()[2:7] == (
        ["0", "0", "0", "-", "-"]
    )


def test_the_selected_device_is_among_those_shown() -> None:
    (marked,) = [each for each in tables.devices(BUSY, Order.RATE, "ram", 78, 2) if each.selected]
    assert marked.text.startswith("ram ")


def test_registers_are_shown_by_name_with_their_address() -> None:
    _, first, *_, last = texts(tables.registers(BUSY, Order.RATE, "com1", 78, 10))
    assert first.split()[:4] == ["com1.LSR", "pio", "0x3fd", "150"]
    assert first.endswith("━")
    assert last.startswith("(no device) pio 0xcf8")


def test_interrupts_are_shown_with_their_devices() -> None:
    assert texts(tables.interrupts(BUSY, 36, 5))[1:] == [
        "   4 com1                 0 -",
        "   5 -                   15 asserted",
    ]


def test_where_there_is_no_room_the_busiest_interrupts_are_shown() -> None:
    assert texts(tables.interrupts(BUSY, 36, 2))[1].split()[0] == "5"


def test_the_histogram_marks_the_percentiles() -> None:
    rows = texts(tables.latency(BUSY, 40, 10))
    assert len(rows) == 7
    assert rows[0].split()[1:3] == ["1.0", "us"]
    assert rows[0].endswith("300 p50")
    assert rows[1].endswith("100 p99")
    assert tables.latency_title(BUSY) == "latency  p50 ≤1.0 us  p99 ≤2.0 us"


def test_a_histogram_without_room_takes_classes_together_and_loses_none() -> None:
    rows = texts(tables.latency(BUSY, 40, 2))
    assert len(rows) == 2
    assert rows[0].endswith("400 p50")
    assert rows[1].endswith(" 2")


def test_without_accesses_there_is_no_histogram() -> None:
    assert texts(tables.latency(IDLE, 40, 10)) == ["no accesses in this interval"]
    assert tables.latency_title(IDLE) == "latency"


def test_the_strip_names_ranges_and_is_denser_where_it_is_hotter() -> None:
    pio, ports, mmio, addresses, words = texts(strip.lines(BUSY, "com1", 60, addresses=True))
    assert "█com1█" in pio
    assert "▒ram▒" in mmio
    assert (ports.strip(), addresses.strip()) == ("3f8", "d0000000")
    assert words == "▸ com1 uart16550  pio:0x3f8+0x8 irq:4  200/s"
    assert pio.index("█") == ports.index("3f8")


def test_each_column_of_the_strip_belongs_to_what_is_drawn_there() -> None:
    pio = strip.lines(BUSY, "", 60, addresses=False)[0].text
    assert strip.device_at(BUSY, Space.PIO, 60, pio.index("com1")) == "com1"
    assert strip.device_at(BUSY, Space.PIO, 60, 0) is None
    assert strip.device_at(BUSY, Space.PIO, 60, 59) is None
    assert strip.device_at(BUSY, Space.PIO, 60, 1000) is None


@given(st.integers(1, 300), st.integers(1, 200))
def test_a_strip_is_never_wider_than_its_pane(count: int, width: int) -> None:
    ranges = tuple(
        RangeLine(Range(Space.MMIO, n << 16, (n << 16) + 0xFFF, f"device{n}"), float(n))
        for n in range(count)
    )
    frame = Frame(ranges=ranges)
    blocks = strip.layout(frame, Space.MMIO, width)
    assert sum(block.width for block in blocks) == max(0, width - 5)
    shown = [block.line for block in blocks if block.line]
    assert not blocks or ranges[-1] in shown  # the hottest


def test_a_range_of_all_addresses_is_one_block() -> None:
    whole = Range(Space.MMIO, 0, (1 << 64) - 1, "all")
    (block,) = strip.layout(Frame(ranges=(RangeLine(whole, 1.0),)), Space.MMIO, 60)
    assert block.width == 55


def test_an_empty_map_says_so() -> None:
    assert texts(strip.lines(EMPTY, "", 60, addresses=False)) == [
        "PIO  nothing traps",
        "MMIO nothing traps",
        "no device is selected",
    ]


def test_the_header_says_which_server_and_how_much_goes_on() -> None:
    first, second = texts(header.lines(BUSY, "unix:/run/x.sock", Link.LIVE, 2.0, 90))
    assert first.startswith("top unix:/run/x.sock ")
    assert first.endswith("devicehost 1.2.3  up 00:01:02")
    assert second.startswith("2 devices  211/s = 161 reads + 50 writes  2 failed ")
    assert second.endswith("2 s  ● live")


@pytest.mark.parametrize("frame", [BUSY, IDLE, EMPTY], ids=["busy", "idle", "empty"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_no_pane_has_more_lines_than_fit(frame: Frame, width: int, height: int) -> None:
    for order in Order:
        assert len(tables.devices(frame, order, "ram", width, height)) <= max(2, height)
        assert len(tables.registers(frame, order, "ram", width, height)) <= max(1, height)
    assert len(tables.interrupts(frame, width, height)) <= max(1, height)
    assert len(tables.latency(frame, width, height)) <= height
    assert len(tables.chart(frame, width, height)) == height
    for link in Link:
        assert len(header.lines(frame, "unix:x", link, 1.0, width)) == 2


def test_what_a_terminal_would_act_on_is_escaped() -> None:
    evil = Device("\x1b[2J", "\n", (("\x1b", "\r"),), ("\x07",))
    dirty = model()
    dirty.place([evil], [replace(RAM_RANGE, device="\x1b[2J")])
    dirty.add(activity(replace(WORD, device="\x1b[2J", register="\t")))
    frame = dirty.frame()
    peeked = Peeked("\x1b[2J", (RegisterValue("\n", 1, (FieldValue("\r", 1, "\x00"),)),))
    for each in [
        *tables.devices(frame, Order.RATE, "", 78, 9),
        *tables.registers(frame, Order.RATE, "", 78, 9),
        *strip.lines(frame, "\x1b[2J", 78, addresses=True),
        *header.lines(frame, "\x1b", Link.LIVE, 1.0, 78),
        *details.facts(frame.device("\x1b[2J"), "\x1b[2J"),
        *details.facts(None, "\x1b[2J"),
        *details.registers(peeked, {}, frame, 78),
    ]:
        assert each.text.isprintable()


LCR = RegisterValue("LCR", 0x83, (FieldValue("DLAB", 1), FieldValue("WLS", 3, "8 bits")))
LSR_VALUE = RegisterValue("LSR", 0x60, (FieldValue("THRE", 1), FieldValue("TEMT", 1)))


def test_details_show_registers_decoded_and_how_they_are_accessed() -> None:
    shown = texts(details.registers(Peeked("com1", (LCR, LSR_VALUE)), {}, BUSY, 78))
    assert shown[1].split(maxsplit=4) == ["LCR", "0x83", "0", "0", "DLAB=1, WLS=3 8 bits"]
    assert shown[2].split(maxsplit=4) == ["LSR", "0x60", "150", "0", "THRE=1, TEMT=1"]


def test_details_mark_what_has_changed() -> None:
    before = {"LCR": 0x03, "LSR": 0x60}
    shown = texts(details.registers(Peeked("com1", (LCR, LSR_VALUE)), before, BUSY, 78))
    assert [row.split()[0] for row in shown[1:]] == ["LCR*", "LSR"]


def test_fields_that_need_more_room_go_on_below() -> None:
    many = RegisterValue("X", 1, tuple(FieldValue(f"FIELD{n}", n + 1) for n in range(9)))
    shown = texts(details.registers(Peeked("com1", (many,)), {}, BUSY, 60))
    assert len(shown) > 2
    begin = shown[1].index("FIELD0")
    assert all(not row[:begin].strip() for row in shown[2:])
    assert " ".join(row[begin:] for row in shown[1:]) == many.details


def test_details_say_why_there_is_nothing_to_show() -> None:
    assert texts(details.registers(None, {}, BUSY, 78)) == ["asking …"]
    problem = Peeked("com1", problem="com1 has no register map")
    assert texts(details.registers(problem, {}, BUSY, 78)) == ["com1 has no register map"]
    assert texts(details.facts(None, "com1")) == ["com1 is no longer there"]


def test_one_interval_as_tables() -> None:
    text = once.text(BUSY, "unix:x")
    assert "211 accesses/s, 1.0 failed/s, in 2.0 s" in text
    assert "com1.LSR     pio 0x3fd" in text
    assert "≤ 1.0 us   300" in text


def test_one_interval_as_json() -> None:
    shape = once.shape(BUSY, "unix:x")
    assert shape["devices"] == [
        {
            "device": name,
            "type": kind,
            "reads": reads,
            "writes": writes,
            "failures": failures,
            "mean_ns": mean,
            "longest_ns": longest,
        }
        for name, kind, reads, writes, failures, mean, longest in [
            ("", "", 1.0, 0.0, 1.0, 30_000, 40_000),
            ("com1", "uart16550", 150.0, 50.0, 0.0, 1500, 9000),
            ("ram", "scratch", 10.0, 0.0, 0.0, 1000, 1000),
        ]
    ]
    assert shape["latency"] == {
        "p50_ns": 1024,
        "p99_ns": 2048,
        "at_most": [
            {"ns": 1024, "count": 300},
            {"ns": 2048, "count": 100},
            {"ns": 65536, "count": 2},
        ],
    }
    assert once.shape(IDLE, "unix:x")["mean_ns"] is None
