"""The mouse, by itself: its commands, its reports and its modes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_server.devices.ps2 import ACK, RESEND
from devicehost_server.devices.ps2_mouse import Mouse, MouseButton
from devicehost_server.devices.state import StateReader
from devicehost_server.model.errors import BadState

WHEEL_KNOCK = (0xF3, 200, 0xF3, 100, 0xF3, 80)


def taken(mouse: Mouse) -> list[int]:
    """Take all that there is."""
    octets: list[int] = []
    while (octet := mouse.take()) is not None:
        octets.append(octet)
    return octets


def told(mouse: Mouse, *octets: int) -> list[int]:
    """Write each of `octets`, and return all answers."""
    answers: list[int] = []
    for octet in octets:
        mouse.write(octet)
        answers += taken(mouse)
    return answers


def enabled_mouse(*commands: int) -> Mouse:
    mouse = Mouse()
    told(mouse, *commands, Mouse.ENABLE)
    return mouse


def moved(report: list[int]) -> tuple[int, int]:
    """What a report of three bytes says of x and y, as 9-bit numbers with sign."""
    first, x, y = report
    return x - (first << 4 & 0x100), y - (first << 3 & 0x100)


@pytest.mark.parametrize(
    ("commands", "answers"),
    [
        ([0xFF], [0xFA, 0xAA, 0x00]),
        ([0xF2], [0xFA, 0x00]),
        ([0xE9], [0xFA, 0x00, 2, 100]),
        ([0xEB], [0xFA, 0x08, 0, 0]),
        ([0xE6], [0xFA]),
        ([0xE7], [0xFA]),
        ([0xEA], [0xFA]),
        ([0xF0], [0xFA]),
        ([0xF4], [0xFA]),
        ([0xF5], [0xFA]),
        ([0xF6], [0xFA]),
        ([0xE8, 3], [0xFA, 0xFA]),
        ([0xF3, 200], [0xFA, 0xFA]),
    ],
)
def test_a_command_is_answered(commands: list[int], answers: list[int]) -> None:
    assert told(Mouse(), *commands) == answers


@pytest.mark.parametrize("nonsense", [0x00, 0xE1, 0xED, 0xF1, 0xF7, 0xFD])
def test_what_is_no_command_is_asked_for_again(nonsense: int) -> None:
    assert told(Mouse(), nonsense) == [RESEND]


def test_a_resolution_or_a_rate_that_there_is_not_is_refused() -> None:
    mouse = Mouse()
    assert told(mouse, 0xE8, 4, 0xF3, 99) == [ACK, RESEND, ACK, RESEND]
    assert told(mouse, 0xE9) == [ACK, 0x00, 2, 100]


@pytest.mark.parametrize("rate", [10, 20, 40, 60, 80, 100, 200])
def test_there_are_seven_rates(rate: int) -> None:
    assert told(Mouse(), 0xF3, rate, 0xE9) == [ACK, ACK, ACK, 0x00, 2, rate]


def test_the_status_shows_the_modes_the_resolution_and_the_rate() -> None:
    mouse = enabled_mouse(0xE7, 0xE8, 0, 0xF3, 40, 0xF0)
    assert told(mouse, 0xE9) == [ACK, 0x70, 0, 40]
    assert told(mouse, 0xE6, 0xEA, 0xF5, 0xE9)[-3:] == [0x00, 0, 40]


@pytest.mark.parametrize(
    ("button", "bit"),
    [(MouseButton.LEFT, 0x04), (MouseButton.MIDDLE, 0x02), (MouseButton.RIGHT, 0x01)],
)
def test_the_status_shows_each_button(button: MouseButton, bit: int) -> None:
    mouse = Mouse()
    mouse.hold(button)
    assert told(mouse, 0xE9) == [ACK, bit, 2, 100]


def test_a_reset_and_defaults_return_to_the_modes_of_the_beginning() -> None:
    for command in (0xF6, 0xFF):
        mouse = enabled_mouse(0xE7, 0xE8, 0, 0xF3, 40, 0xF0)
        told(mouse, command)
        assert told(mouse, 0xE9) == [ACK, 0x00, 2, 100]


def test_an_enabled_mouse_reports_what_it_did() -> None:
    mouse = enabled_mouse()
    mouse.move(5, -3)
    assert taken(mouse) == [0x28, 5, 0xFD]
    mouse.move(-1, 2)
    assert taken(mouse) == [0x18, 0xFF, 2]


def test_a_button_is_reported_when_it_goes_down_and_when_it_goes_up() -> None:
    mouse = enabled_mouse()
    mouse.hold(MouseButton.LEFT | MouseButton.MIDDLE)
    mouse.hold(MouseButton.LEFT | MouseButton.MIDDLE)
    mouse.hold(MouseButton(0))
    assert taken(mouse) == [0x0D, 0, 0, 0x08, 0, 0]


def test_a_mouse_that_is_not_enabled_says_nothing_of_it() -> None:
    mouse = Mouse()
    mouse.move(5, 5)
    mouse.hold(MouseButton.RIGHT)
    assert taken(mouse) == []
    assert told(mouse, 0xF4) == [ACK]


def test_movement_beyond_nine_bits_takes_several_reports() -> None:
    mouse = enabled_mouse()
    mouse.move(600, -300)
    octets = taken(mouse)
    reports = [octets[start : start + 3] for start in range(0, len(octets), 3)]
    assert [moved(report) for report in reports] == [(255, -255), (255, -45), (90, 0)]


def test_movement_that_finds_no_room_adds_up() -> None:
    mouse = enabled_mouse()
    for _ in range(20):
        mouse.move(1, 0)
    octets = taken(mouse)
    reports = [octets[start : start + 3] for start in range(0, len(octets), 3)]
    assert [moved(report)[0] for report in reports] == [1, 1, 1, 1, 1, 15]


def test_no_more_than_16_bytes_of_reports_wait() -> None:
    for commands, size in (((), 15), ((*WHEEL_KNOCK, 0xF2), 16)):
        mouse = enabled_mouse(*commands)
        for _ in range(20):
            mouse.move(1, 0)
        assert len(bytes.fromhex(mouse.save()["mouse_reports"])) == size


def test_room_for_one_report_is_used_at_once() -> None:
    mouse = enabled_mouse()
    for _ in range(20):
        mouse.move(1, 0)
    assert [mouse.take() for _ in range(3)] == [0x08, 1, 0]
    mouse.move(0, 1)
    octets = taken(mouse)
    assert octets[-6:] == [0x08, 15, 0, 0x08, 0, 1]


def test_scaled_movement_also_takes_several_reports() -> None:
    mouse = enabled_mouse(0xE7)
    mouse.move(200, -200)
    octets = taken(mouse)
    assert [moved(octets[:3]), moved(octets[3:])] == [(254, -254), (146, -146)]


def test_scaling_2_to_1_stretches_reports_but_not_those_that_are_read() -> None:
    mouse = enabled_mouse(0xE7)
    for count in (1, 2, 3, 4, 5, 6, -2, -7):
        mouse.move(count, 0)
        assert moved(taken(mouse)) == (
            {1: 1, 2: 1, 3: 3, 4: 6, 5: 9, 6: 12, -2: -1, -7: -14}[count],
            0,
        )
    told(mouse, 0xF0)
    mouse.move(6, 0)
    assert told(mouse, 0xEB) == [ACK, 0x08, 6, 0]


def test_reading_drops_reports_that_wait() -> None:
    mouse = enabled_mouse()
    mouse.move(1, 0)
    mouse.write(0xEB)
    assert taken(mouse) == [ACK, 0x08, 0, 0]


def test_a_remote_mouse_reports_only_when_it_is_read() -> None:
    mouse = enabled_mouse(0xF0)
    mouse.move(7, 0)
    mouse.move(1, 1)
    mouse.hold(MouseButton.LEFT)
    assert taken(mouse) == []
    assert told(mouse, 0xEB) == [ACK, 0x09, 8, 1]
    assert told(mouse, 0xEB) == [ACK, 0x09, 0, 0]


def test_a_wrapping_mouse_sends_everything_back_until_told_otherwise() -> None:
    mouse = enabled_mouse(0xEE)
    mouse.move(1, 1)
    assert told(mouse, 0x00, 0xF4, 0xEE, 0xFE, 0xF2) == [0x00, 0xF4, 0xEE, 0xFE, 0xF2]
    assert told(mouse, 0xEC) == [ACK]
    assert told(mouse, 0xF2) == [ACK, 0x00]


def test_a_wrapping_mouse_can_be_reset() -> None:
    mouse = enabled_mouse(0xEE)
    assert told(mouse, 0xFF, 0xF2) == [ACK, 0xAA, 0x00, ACK, 0x00]


def test_a_command_drops_what_was_not_reported() -> None:
    mouse = enabled_mouse()
    mouse.move(1000, 0)
    assert told(mouse, 0xE6) == [ACK]


def test_a_command_in_place_of_an_option_is_done_instead() -> None:
    mouse = Mouse()
    assert told(mouse, 0xF3, 0xFF) == [ACK, ACK, 0xAA, 0x00]
    assert told(mouse, 0xE8, 0xE6) == [ACK, ACK]


def test_a_resend_gives_the_last_byte_again() -> None:
    mouse = Mouse()
    assert told(mouse, 0xE9, 0xFE) == [ACK, 0x00, 2, 100, 100]


def test_three_sample_rates_in_a_row_show_the_wheel() -> None:
    mouse = Mouse()
    told(mouse, *WHEEL_KNOCK)
    assert told(mouse, 0xF2) == [ACK, 3]
    told(mouse, 0xF4)
    mouse.move(0, 0, 2)
    mouse.move(1, 0, -20)
    assert taken(mouse) == [
        *(0x08, 0, 0, 2),
        *(0x08, 1, 0, 0xF9),
        *(0x08, 0, 0, 0xF9),
        *(0x08, 0, 0, 0xFA),
    ]


def test_without_these_rates_there_is_no_wheel() -> None:
    mouse = enabled_mouse(0xF3, 200, 0xF3, 80, 0xF3, 100, 0xF2)
    mouse.move(0, 0, 2)
    assert taken(mouse) == []
    assert told(mouse, 0xF2) == [ACK, 0]


def test_a_reset_hides_the_wheel_and_defaults_do_not() -> None:
    mouse = Mouse()
    told(mouse, *WHEEL_KNOCK, 0xF2)
    assert told(mouse, 0xF6, 0xF2) == [ACK, ACK, 3]
    assert told(mouse, 0xFF, 0xF2) == [ACK, 0xAA, 0x00, ACK, 0x00]


Event = tuple[str, tuple[Any, ...]]
FAR = st.integers(-100_000, 100_000)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("move"), st.tuples(FAR, FAR, st.integers(-30, 30))),
        st.tuples(st.just("hold"), st.tuples(st.integers(0, 7).map(MouseButton))),
        st.tuples(st.just("write"), st.tuples(st.integers(0, 0xFF))),
        st.tuples(st.just("write"), st.tuples(st.sampled_from([0xF4, 0xF0, 0xEA, 0xEB, 0xE7]))),
        st.tuples(st.just("take"), st.just(())),
    )
)


def happen(mouse: Mouse, events: list[Event]) -> list[int | None]:
    """Let `events` happen to `mouse` and return what was taken."""
    octets = [getattr(mouse, name)(*arguments) for name, arguments in events]
    return [octet for octet, (name, _) in zip(octets, events, strict=True) if name == "take"]


@given(before=EVENTS, after=EVENTS, knock=st.booleans())
def test_a_restored_mouse_has_the_same_future(
    *, before: list[Event], after: list[Event], knock: bool
) -> None:
    original = enabled_mouse(*WHEEL_KNOCK, 0xF2) if knock else enabled_mouse()
    happen(original, before)
    state = json.loads(json.dumps(original.save()))
    copy = Mouse()
    reader = StateReader("copy", state)
    copy.restore(reader)
    reader.finish()
    assert copy.save() == state
    assert happen(copy, after) == happen(original, after)
    assert copy.save() == original.save()


@given(moves=st.lists(st.tuples(st.integers(-400, 400), st.integers(-400, 400)), max_size=40))
def test_no_movement_is_lost(moves: list[tuple[int, int]]) -> None:
    mouse = enabled_mouse()
    for dx, dy in moves:
        mouse.move(dx, dy)
    octets = taken(mouse)
    reports = [moved(octets[start : start + 3]) for start in range(0, len(octets), 3)]
    assert sum(x for x, _ in reports) == sum(dx for dx, _ in moves)
    assert sum(y for _, y in reports) == sum(dy for _, dy in moves)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mouse_replies", "00" * 6),
        ("mouse_reports", "00" * 18),
        ("mouse_expects", 0xE9),
        ("mouse_identity", 4),
        ("mouse_resolution", 4),
        ("mouse_sample_rate", 99),
        ("mouse_buttons", 8),
        ("mouse_modes", 0x100),
        ("mouse_rates", "00" * 4),
        ("mouse_dx", 0x8000),
        ("mouse_dy", -0x8000),
        ("mouse_dz", "1"),
        ("mouse_reported_buttons", -1),
        ("mouse_last", None),
    ],
)
def test_a_state_that_no_mouse_can_have_is_refused(field: str, value: object) -> None:
    state = Mouse().save() | {field: value}
    with pytest.raises(BadState, match=field):
        Mouse().restore(StateReader("mouse", state))
