"""Settings: four places, in order, and errors that name the place."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from devicehost_server.settings import ConfigError, Setting, resolve, text_of


def _positive(text: str) -> int:
    number = int(text)
    if number <= 0:
        raise ValueError("allowed: at least 1")
    return number


SETTINGS = (
    Setting("max-speed", _positive, 50, "N", "how fast", "limits"),
    Setting("name", str, "", "NAME", "who", "limits"),
)


def resolved(
    flags: dict[str, str | None] | None = None,
    environment: dict[str, str] | None = None,
    file: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return resolve(
        SETTINGS,
        flags=flags or {},
        environment=environment or {},
        file=file or {},
        file_name="vm.toml",
    )


def test_without_anything_there_are_the_defaults() -> None:
    assert resolved() == {"max_speed": 50, "name": ""}


def test_each_place_goes_over_the_next() -> None:
    flags: dict[str, str | None] = {"max_speed": "1"}
    environment = {"DEVICEHOST_MAX_SPEED": "2"}
    file = {"max-speed": 3}
    assert resolved(flags, environment, file)["max_speed"] == 1
    assert resolved({"max_speed": None}, environment, file)["max_speed"] == 2
    assert resolved({}, {}, file)["max_speed"] == 3
    assert resolved({}, {"DEVICEHOST_OTHER": "2", "MAX_SPEED": "4"}, {})["max_speed"] == 50


def test_a_file_may_write_dashes_or_underscores() -> None:
    assert resolved(file={"max_speed": 7})["max_speed"] == 7
    assert resolved(file={"max-speed": 7})["max_speed"] == 7


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"flags": {"max_speed": "0"}}, "--max-speed: '0' is not allowed: allowed: at least 1"),
        (
            {"environment": {"DEVICEHOST_MAX_SPEED": ""}},
            "DEVICEHOST_MAX_SPEED: '' is not allowed: ",
        ),
        ({"file": {"max-speed": -1}}, "vm.toml: max-speed: '-1' is not allowed: "),
        ({"file": {"max-sped": 1}}, "vm.toml: no such setting 'max-sped'; known: max-speed, name"),
        ({"file": {"name": {}}}, "vm.toml: name: {} is not allowed; allowed: text, a number"),
    ],
)
def test_an_error_names_the_place_the_value_and_what_is_allowed(
    places: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        resolved(**places)
    assert str(caught.value).startswith(message)


def test_a_value_that_is_not_used_is_not_parsed() -> None:
    assert resolved({"max_speed": "1"}, {"DEVICEHOST_MAX_SPEED": "x"})["max_speed"] == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        (5, "5"),
        (0.5, "0.5"),
        (True, "true"),
        (False, "false"),
        (["a", "b", 3], "a,b,3"),
        ([], ""),
    ],
)
def test_a_value_of_toml_is_the_text_of_a_command_line(value: Any, text: str) -> None:
    assert text_of(value, "here") == text


@pytest.mark.parametrize("value", [{}, [{}], [[1]], dt.date(2024, 1, 1), None])
def test_what_a_command_line_can_not_say_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^here: "):
        text_of(value, "here")
