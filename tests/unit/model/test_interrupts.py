"""Lines, the GSIs that they share, and listeners that miss nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from devicehost_server.model.interrupts import (
    InterruptController,
    InterruptEvent,
    InterruptKind,
    InterruptLine,
)

ASSERTED, DEASSERTED, PULSED = InterruptKind
WAIT_S = 30.0
A_MOMENT_S = 0.05


@pytest.fixture
def controller() -> InterruptController:
    return InterruptController()


@pytest.fixture
def heard(controller: InterruptController) -> list[InterruptEvent]:
    events: list[InterruptEvent] = []
    controller.subscribe(events.append)
    return events


# Levels.


def test_a_line_starts_deasserted_and_knows_where_it_leads(
    controller: InterruptController,
) -> None:
    line = controller.line(4, "uart0")
    assert (line.gsi, line.device, line.asserted) == (4, "uart0", False)
    assert controller.asserted() == []
    assert controller.generation == 0


def test_a_line_asserts_and_deasserts_its_gsi(
    controller: InterruptController, heard: list[InterruptEvent]
) -> None:
    line = controller.line(4, "uart0")
    line.set_level(asserted=True)
    assert (line.asserted, controller.asserted()) == (True, [4])
    line.set_level(asserted=False)
    assert (line.asserted, controller.asserted()) == (False, [])
    assert heard == [
        InterruptEvent(1, 4, ASSERTED, "uart0"),
        InterruptEvent(2, 4, DEASSERTED, "uart0"),
    ]


def test_the_level_that_a_line_has_already_is_no_change(
    controller: InterruptController, heard: list[InterruptEvent]
) -> None:
    line = controller.line(4, "uart0")
    line.set_level(asserted=False)
    assert heard == []
    line.set_level(asserted=True)
    line.set_level(asserted=True)
    assert len(heard) == 1
    line.set_level(asserted=False)
    assert controller.asserted() == []


def test_a_shared_gsi_is_asserted_while_one_of_its_lines_is(
    controller: InterruptController, heard: list[InterruptEvent]
) -> None:
    one, other = controller.line(5, "nic0"), controller.line(5, "disk0")
    one.set_level(asserted=True)
    other.set_level(asserted=True)
    one.set_level(asserted=False)
    assert controller.asserted() == [5]
    assert not one.asserted
    assert other.asserted
    other.set_level(asserted=False)
    assert controller.asserted() == []
    assert [event.kind for event in heard] == [ASSERTED, DEASSERTED]


def test_gsis_are_apart_and_listed_in_ascending_order(controller: InterruptController) -> None:
    for gsi in (11, 3, 7):
        controller.line(gsi, "device").set_level(asserted=True)
    assert controller.asserted() == [3, 7, 11]


def test_a_pulse_is_one_event_and_holds_no_level(
    controller: InterruptController, heard: list[InterruptEvent]
) -> None:
    line = controller.line(24, "disk0")
    line.pulse()
    controller.pulse(25)
    assert not line.asserted
    assert controller.asserted() == []
    assert heard == [InterruptEvent(1, 24, PULSED, "disk0"), InterruptEvent(2, 25, PULSED, "")]


# Listeners.


def test_subscribing_returns_the_moment_that_the_first_event_follows(
    controller: InterruptController,
) -> None:
    line = controller.line(9, "acpi")
    line.set_level(asserted=True)
    controller.pulse(24)
    events: list[InterruptEvent] = []
    assert controller.subscribe(events.append) == (2, [9])
    assert events == []
    line.set_level(asserted=False)
    assert events == [InterruptEvent(3, 9, DEASSERTED, "acpi")]
    assert controller.generation == 3


def test_all_listeners_hear_the_same(
    controller: InterruptController, heard: list[InterruptEvent]
) -> None:
    also_heard: list[InterruptEvent] = []
    controller.subscribe(also_heard.append)
    for gsi in range(5):
        controller.pulse(gsi)
    assert heard == also_heard
    assert [event.generation for event in heard] == [1, 2, 3, 4, 5]


def test_who_unsubscribed_hears_nothing_more_and_the_others_do(
    controller: InterruptController, heard: list[InterruptEvent]
) -> None:
    also_heard: list[InterruptEvent] = []
    controller.subscribe(also_heard.append)
    controller.pulse(1)
    controller.unsubscribe(also_heard.append)
    controller.pulse(2)
    assert [event.gsi for event in also_heard] == [1]
    assert [event.gsi for event in heard] == [1, 2]


# From many threads.

GSIS = [3, 4, 5]
LINES_PER_GSI = 2
TOGGLES = 400


def toggle(line: InterruptLine, together: threading.Barrier) -> None:
    together.wait(WAIT_S)
    for _ in range(TOGGLES):
        line.set_level(asserted=True)
        line.pulse()
        line.set_level(asserted=False)
    line.set_level(asserted=True)


def replay(asserted: Iterable[int], events: Iterable[InterruptEvent]) -> set[int]:
    """Return what is asserted after `events`; each must be a change."""
    now = set(asserted)
    for event in events:
        if event.kind is ASSERTED:
            assert event.gsi not in now
            now.add(event.gsi)
        elif event.kind is DEASSERTED:
            now.remove(event.gsi)
    return now


def test_a_listener_that_joins_while_lines_change_misses_nothing(
    controller: InterruptController,
) -> None:
    lines = [controller.line(gsi, "device") for gsi in GSIS for _ in range(LINES_PER_GSI)]
    together = threading.Barrier(len(lines))
    feeds: list[tuple[int, list[int], list[InterruptEvent]]] = []
    with ThreadPoolExecutor(len(lines)) as pool:
        toggling = [pool.submit(toggle, line, together) for line in lines]
        for milestone in range(0, len(lines) * TOGGLES, 100):  # each pulse alone counts one
            while controller.generation < milestone:
                time.sleep(0)
            events: list[InterruptEvent] = []
            generation, asserted = controller.subscribe(events.append)
            if milestone % 200:
                feeds.append((generation, asserted, events))
            else:  # some go while lines change, too
                controller.unsubscribe(events.append)
        for future in toggling:
            future.result(WAIT_S)
    for generation, asserted, events in feeds:
        numbers = [event.generation for event in events]
        assert numbers == list(range(generation + 1, controller.generation + 1))
        assert sorted(replay(asserted, events)) == controller.asserted() == GSIS


def test_two_threads_that_assert_a_line_at_the_same_moment_count_once(
    controller: InterruptController, heard: list[InterruptEvent]
) -> None:
    line = controller.line(4, "uart0")
    with ThreadPoolExecutor(2) as pool:
        with controller._lock:  # both see that the line isn't asserted, and wait here
            setting = [pool.submit(line.set_level, asserted=True) for _ in range(2)]
            assert not wait(setting, A_MOMENT_S).done
        for future in setting:
            future.result(WAIT_S)
    line.set_level(asserted=False)
    assert controller.asserted() == []
    assert [event.kind for event in heard] == [ASSERTED, DEASSERTED]
