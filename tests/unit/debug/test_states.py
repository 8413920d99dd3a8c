"""Saving and restoring devices: all or nothing, whatever the text or the device says."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from debuglab import DebugBench, debugging, occupied
from devicehost_server.debug import entered, states
from devicehost_server.device_info import DeviceState
from devicehost_server.model.errors import (
    BadRequest,
    BadState,
    DeviceFault,
    DeviceTimeout,
    NoSuchDevice,
)


@pytest.fixture
def bench() -> Iterator[DebugBench]:
    with debugging() as running:
        yield running


def saved(value: int, **other: Any) -> dict[str, Any]:
    """A state of a teller, whose A is `value`."""
    return {"type": "teller", "state": {"values": {"A": value}}, **other}


def refused(bench: DebugBench, obj: object) -> dict[str, str]:
    """Expect that a state is refused; return the metadata."""
    with pytest.raises(BadState) as caught:
        bench.states.restore(obj)
    return caught.value.metadata


def test_what_was_saved_can_be_restored(bench: DebugBench) -> None:
    one, two = bench.teller("one"), bench.teller("two")
    one.values["A"], two.values["A"] = 1, 2
    found = states.from_text(states.to_text(bench.states.save()))
    assert found.keys() == {"one", "two"}
    assert found["one"]["type"] == "teller"
    one.values["A"], two.values["A"] = 8, 9
    bench.states.restore(found)
    assert (one.values["A"], two.values["A"]) == (1, 2)


def test_only_the_devices_that_are_named_are_saved(bench: DebugBench) -> None:
    bench.teller("one")
    bench.teller("two")
    assert bench.states.save(["two"]).keys() == {"two"}
    with pytest.raises(NoSuchDevice):
        bench.states.save(["two", "three"])


def test_what_was_saved_shares_nothing_with_the_device(bench: DebugBench) -> None:
    teller = bench.teller("t")
    found = bench.states.save(["t"])
    teller.values["A"] = 99
    assert found["t"]["state"]["values"]["A"] == 0


def test_a_device_that_is_about_to_go_is_not_among_all(bench: DebugBench) -> None:
    bench.teller("t")
    record = bench.devices._records["t"]
    assert record is not None
    bench.devices._take_off_bus(record)
    assert bench.devices.get("t").state is DeviceState.UNPLUGGING
    assert bench.states.save() == {}


@pytest.mark.parametrize("state", [{"values": {1, 2}}, {"values": float("nan")}])
def test_a_state_that_is_not_json_is_the_device_s_fault(
    bench: DebugBench, state: dict[str, Any]
) -> None:
    teller = bench.teller("t")
    teller.values = state["values"]
    with pytest.raises(DeviceFault, match="'t'"):
        bench.states.save()


def test_a_device_that_hangs_is_not_waited_for_without_end(
    bench: DebugBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entered, "LOCK_TIMEOUT_S", 0.01)
    with occupied(bench.teller("t")):
        with pytest.raises(DeviceTimeout):
            bench.states.save()
        with pytest.raises(DeviceTimeout):
            bench.states.restore({"t": saved(1)})
    bench.states.restore({"t": saved(1)})


# What doesn't fit.


@pytest.mark.parametrize("obj", [None, [], "x", 5, True])
def test_what_is_not_an_object_is_refused(bench: DebugBench, obj: object) -> None:
    assert refused(bench, obj) == {"field": "states"}


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        (5, "states"),
        ({}, "states"),
        ({"type": "teller"}, "states"),
        (saved(1, extra=1), "states"),
        ({"type": "teller", "state": []}, "state"),
        ({"type": "teller", "state": None}, "state"),
        ({"type": "plain", "state": {}}, "type"),
        ({"type": 5, "state": {}}, "type"),
        ({"type": ["x" * 100_000], "state": {}}, "type"),
    ],
)
def test_an_entry_that_cannot_be_is_refused_before_any_device_is_touched(
    bench: DebugBench, entry: object, field: str
) -> None:
    first, second = bench.teller("first"), bench.teller("second")
    assert refused(bench, {"first": saved(5), "second": entry}) == {
        "device": "second",
        "field": field,
    }
    assert first.values["A"] == second.values["A"] == 0


def test_a_state_of_a_device_that_is_not_there_is_refused(bench: DebugBench) -> None:
    assert refused(bench, {"gone": saved(1)}) == {"device": "gone", "field": "device"}


def test_when_a_device_refuses_its_state_those_before_it_get_back_what_they_had(
    bench: DebugBench,
) -> None:
    tellers = [bench.teller(name) for name in ("one", "two", "three")]
    for number, teller in enumerate(tellers):
        teller.values["A"] = number
    tellers[1].refuses = True
    wanted = {name: saved(7) for name in ("one", "two", "three")}
    assert refused(bench, wanted) == {"device": "two", "field": "values"}
    assert [teller.values["A"] for teller in tellers] == [0, 1, 2]


def test_when_a_device_fails_in_it_the_error_names_it(bench: DebugBench) -> None:
    one = bench.teller("one")
    bench.teller("two")
    with pytest.raises(DeviceFault, match=r"'two'.*KeyError"):
        bench.states.restore({"one": saved(7), "two": {"type": "teller", "state": {}}})
    assert one.values["A"] == 0


def test_a_device_that_does_not_even_take_back_what_it_had_is_logged(bench: DebugBench) -> None:
    one, two = bench.teller("one"), bench.teller("two")
    one.refuses = False
    two.refuses = True
    original = one.restore

    def restore_once(state: dict[str, Any]) -> None:
        original(state)
        one.refuses = True

    one.restore = restore_once  # type: ignore[method-assign] # it breaks when it was used once
    with capture_logs() as logs:
        assert refused(bench, {"one": saved(7), "two": saved(7)})["device"] == "two"
    assert {entry["device"] for entry in logs} == {"one", "two"}
    assert {entry["event"] for entry in logs} == {"state_not_given_back"}


def test_who_wants_to_know_is_told_which_devices_got_a_state(bench: DebugBench) -> None:
    bench.teller("one")
    two = bench.teller("two")
    told: list[str] = []
    told_inside: list[str] = []
    bench.states.on_changed(told.append, inside=told_inside.append)
    bench.states.restore(bench.states.save())
    assert told == told_inside == ["one", "two"]
    refused(bench, {"one": 5})
    assert told == ["one", "two"]
    two.refuses = True
    refused(bench, bench.states.save())
    assert told == ["one", "two"] * 2  # what they had came back, but it was another meanwhile


# Text.


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "isn't JSON"),
        ("{", "isn't JSON"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        ('{"a": {"b": 1, "b": 2}}', "'b' stands twice"),
        ("[" * 100_000, "isn't JSON"),
        ("1" * 10_000, "isn't JSON"),
        ('"' + "é" * (states.TEXT_MAX // 2) + '"', "longer"),
        (" " * (states.TEXT_MAX + 1), "longer"),
    ],
)
def test_text_that_is_none_of_states_is_refused(text: str, why: str) -> None:
    with pytest.raises(BadState, match=why) as caught:
        states.from_text(text)
    assert caught.value.metadata == {"field": "states"}


def test_states_that_do_not_fit_into_a_message_are_refused() -> None:
    large = {"t": {"type": "teller", "state": {"values": "x" * states.TEXT_MAX}}}
    with pytest.raises(BadRequest, match="fewer devices"):
        states.to_text(large)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(value=json_values | st.dictionaries(st.sampled_from(["t", "u"]), json_values))
def test_any_json_is_taken_or_refused_with_a_reason(value: object) -> None:
    with debugging() as bench:
        bench.teller("t")
        with contextlib.suppress(BadState):
            bench.states.restore(states.from_text(json.dumps(value)))
            assert value == {}
