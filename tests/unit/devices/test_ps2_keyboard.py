"""The keyboard, by itself: its commands, its keys and its buffer."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_server.devices.ps2 import ACK, RESEND
from devicehost_server.devices.ps2_keyboard import KEYS, Keyboard, Translator
from devicehost_server.devices.state import StateReader
from devicehost_server.model.errors import BadState


def taken(keyboard: Keyboard) -> list[int]:
    """Take all that there is."""
    octets: list[int] = []
    while (octet := keyboard.take()) is not None:
        octets.append(octet)
    return octets


def told(keyboard: Keyboard, *octets: int) -> list[int]:
    """Write each of `octets`, and return all answers."""
    answers: list[int] = []
    for octet in octets:
        keyboard.write(octet)
        answers += taken(keyboard)
    return answers


def translated(*octets: int) -> list[int]:
    translator = Translator()
    return [code for octet in octets if (code := translator.feed(octet)) is not None]


@pytest.mark.parametrize(
    ("commands", "answers"),
    [
        ([0xFF], [0xFA, 0xAA]),
        ([0xF2], [0xFA, 0xAB, 0x83]),
        ([0xEE], [0xEE]),
        ([0xF4], [0xFA]),
        ([0xF5], [0xFA]),
        ([0xF6], [0xFA]),
        ([0xED, 0x07], [0xFA, 0xFA]),
        ([0xF3, 0x00], [0xFA, 0xFA]),
        ([0xF0, 0x00], [0xFA, 0xFA, 0x02]),
        ([0xF0, 0x01, 0xF0, 0x00], [0xFA, 0xFA, 0xFA, 0xFA, 0x01]),
    ],
)
def test_a_command_is_answered(commands: list[int], answers: list[int]) -> None:
    assert told(Keyboard(), *commands) == answers


@pytest.mark.parametrize("nonsense", [0x00, 0x05, 0xEC, 0xEF, 0xF1, 0xF7, 0xFD])
def test_what_is_no_command_is_asked_for_again(nonsense: int) -> None:
    assert told(Keyboard(), nonsense) == [RESEND]


def test_set_3_is_refused_and_the_set_stays() -> None:
    keyboard = Keyboard()
    assert told(keyboard, 0xF0, 0x03) == [ACK, RESEND]
    assert keyboard.scan_set == 2


def test_a_resend_gives_the_last_byte_again() -> None:
    keyboard = Keyboard()
    assert told(keyboard, 0xF2) == [0xFA, 0xAB, 0x83]
    assert told(keyboard, 0xFE, 0xFE) == [0x83, 0x83]


def test_a_resend_between_a_command_and_its_option_changes_nothing() -> None:
    keyboard = Keyboard()
    assert told(keyboard, 0xED, 0xFE, 0x05) == [ACK, ACK, ACK]
    assert keyboard.leds == 0x05


def test_leds_are_as_they_were_set_until_a_reset() -> None:
    keyboard = Keyboard()
    told(keyboard, 0xED, 0x02)
    assert keyboard.leds == 0x02
    told(keyboard, 0xF5, 0xF6)
    assert keyboard.leds == 0x02
    told(keyboard, 0xFF)
    assert keyboard.leds == 0


def test_a_command_in_place_of_an_option_is_done_instead() -> None:
    keyboard = Keyboard()
    assert told(keyboard, 0xED, 0xEE) == [0xFA, 0xEE]
    assert told(keyboard, 0x02) == [RESEND]
    assert keyboard.leds == 0
    assert told(keyboard, 0xED, 0xED, 0x01) == [ACK, ACK, ACK]
    assert keyboard.leds == 1


def test_defaults_return_to_set_2_and_the_usual_repeat() -> None:
    keyboard = Keyboard()
    told(keyboard, 0xF0, 0x01, 0xF3, 0x7F)
    assert (keyboard.scan_set, keyboard.typematic) == (1, 0x7F)
    told(keyboard, 0xF6)
    assert (keyboard.scan_set, keyboard.typematic) == (2, 0x2B)


def test_a_key_sends_its_code_and_f0_before_it_when_let_go() -> None:
    keyboard = Keyboard()
    keyboard.press("a")
    keyboard.release("a")
    assert taken(keyboard) == [0x1C, 0xF0, 0x1C]


def test_an_extended_key_has_f0_between_the_two_codes() -> None:
    keyboard = Keyboard()
    keyboard.press("up")
    keyboard.release("up")
    assert taken(keyboard) == [0xE0, 0x75, 0xE0, 0xF0, 0x75]


def test_print_and_pause_send_what_no_other_key_does() -> None:
    keyboard = Keyboard()
    keyboard.press("print")
    keyboard.release("print")
    assert taken(keyboard) == [0xE0, 0x12, 0xE0, 0x7C, 0xE0, 0xF0, 0x7C, 0xE0, 0xF0, 0x12]
    keyboard.press("pause")
    keyboard.release("pause")
    assert taken(keyboard) == [0xE1, 0x14, 0x77, 0xE1, 0xF0, 0x14, 0xF0, 0x77]


def test_in_set_1_a_key_that_is_let_go_has_bit_7_set() -> None:
    keyboard = Keyboard()
    told(keyboard, 0xF0, 0x01)
    for key in ("esc", "a", "delete", "f12"):
        keyboard.press(key)
        keyboard.release(key)
    assert taken(keyboard) == [0x01, 0x81, 0x1E, 0x9E, 0xE0, 0x53, 0xE0, 0xD3, 0x58, 0xD8]


def test_an_unknown_key_is_an_error_that_names_the_keys() -> None:
    keyboard = Keyboard()
    with pytest.raises(ValueError, match=r"no key is called 'any'.*backspace"):
        keyboard.press("any")
    with pytest.raises(ValueError, match=r"no key is called 'any'.*backspace"):
        keyboard.release("any")


def test_no_two_keys_send_the_same() -> None:
    sent = set()
    for key in KEYS:
        keyboard = Keyboard()
        keyboard.press(key)
        sent.add(tuple(taken(keyboard)))
    assert len(sent) == len(KEYS) == 105


def test_a_disabled_keyboard_looks_at_no_key() -> None:
    keyboard = Keyboard()
    told(keyboard, 0xF5)
    keyboard.press("a")
    assert taken(keyboard) == []
    told(keyboard, 0xF4)
    keyboard.press("a")
    assert taken(keyboard) == [0x1C]


@pytest.mark.parametrize("command", [0xF4, 0xF5, 0xF6, 0xFF])
def test_enabling_disabling_and_resetting_drop_keys_that_wait(command: int) -> None:
    keyboard = Keyboard()
    keyboard.press("a")
    assert 0x1C not in told(keyboard, command)


def test_another_set_drops_keys_that_wait_in_the_old_one() -> None:
    keyboard = Keyboard()
    keyboard.press("a")
    keyboard.write(0xF0)
    keyboard.write(0x01)
    keyboard.press("b")
    assert taken(keyboard) == [ACK, 0x30]


def test_an_answer_goes_before_keys_that_wait() -> None:
    keyboard = Keyboard()
    keyboard.press("a")
    assert told(keyboard, 0xEE) == [0xEE, 0x1C]


def test_a_new_command_drops_the_answer_that_was_not_taken() -> None:
    keyboard = Keyboard()
    keyboard.write(0xF2)
    keyboard.write(0xEE)
    assert taken(keyboard) == [0xEE]


def test_the_17th_byte_is_an_overrun_and_the_rest_is_lost() -> None:
    keyboard = Keyboard()
    for _ in range(20):
        keyboard.press("a")
    assert taken(keyboard) == [0x1C] * 16 + [0x00]


def test_a_key_whose_bytes_do_not_all_fit_is_lost_whole() -> None:
    keyboard = Keyboard()
    for _ in range(15):
        keyboard.press("a")
    keyboard.press("up")
    keyboard.press("down")
    assert taken(keyboard) == [0x1C] * 15 + [0x00]


def test_after_an_overrun_keys_count_again_when_there_is_room() -> None:
    keyboard = Keyboard()
    for _ in range(17):
        keyboard.press("a")
    assert [keyboard.take() for _ in range(2)] == [0x1C, 0x1C]
    keyboard.press("b")
    assert taken(keyboard) == [0x1C] * 14 + [0x00, 0x32]


def test_the_overrun_code_of_set_1_is_ff() -> None:
    keyboard = Keyboard()
    told(keyboard, 0xF0, 0x01)
    for _ in range(17):
        keyboard.press("a")
    assert taken(keyboard) == [0x1E] * 16 + [0xFF]


def test_translation_makes_set_1_of_set_2() -> None:
    assert translated(0x1C, 0xF0, 0x1C, 0xE0, 0xF0, 0x75, 0x83) == [0x1E, 0x9E, 0xE0, 0xC8, 0x41]


def test_translation_leaves_replies_as_they_are_but_for_the_identity() -> None:
    replies = [*range(0x85, 0xF0), *range(0xF1, 0x100)]
    assert translated(*replies) == replies
    assert translated(0xAB, 0x83) == [0xAB, 0x41]


def test_translation_keeps_all_codes_apart() -> None:
    assert len({*translated(*range(0x80))}) == 0x80


KEY_EVENTS = st.tuples(st.sampled_from(["press", "release"]), st.sampled_from(sorted(KEYS)))
EVENTS = st.lists(
    st.one_of(
        KEY_EVENTS,
        st.tuples(st.just("write"), st.integers(0, 0xFF)),
        st.tuples(st.just("take"), st.none()),
    )
)


def happen(keyboard: Keyboard, events: list[tuple[str, int | str | None]]) -> list[int | None]:
    """Let `events` happen to `keyboard` and return what was taken."""
    octets: list[int | None] = []
    for name, argument in events:
        if name == "take":
            octets.append(keyboard.take())
        else:
            getattr(keyboard, name)(argument)
    return octets


@given(before=EVENTS, after=EVENTS, scan_set=st.sampled_from([1, 2]))
def test_a_restored_keyboard_has_the_same_future(
    before: list[tuple[str, int | str | None]],
    after: list[tuple[str, int | str | None]],
    scan_set: int,
) -> None:
    original = Keyboard()
    told(original, 0xF0, scan_set)
    happen(original, before)
    state = json.loads(json.dumps(original.save()))
    copy = Keyboard()
    reader = StateReader("copy", state)
    copy.restore(reader)
    reader.finish()
    assert copy.save() == state
    assert happen(copy, after) == happen(original, after)
    assert copy.save() == original.save()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("keyboard_replies", "00" * 6),
        ("keyboard_reports", "00" * 18),
        ("keyboard_expects", 0xEE),
        ("keyboard_scan_set", 3),
        ("keyboard_leds", 8),
        ("keyboard_typematic", 0x80),
        ("keyboard_scanning", 1),
        ("keyboard_last", 0x100),
    ],
)
def test_a_state_that_no_keyboard_can_have_is_refused(field: str, value: int | str) -> None:
    state = Keyboard().save() | {field: value}
    with pytest.raises(BadState, match=field):
        Keyboard().restore(StateReader("keyboard", state))
