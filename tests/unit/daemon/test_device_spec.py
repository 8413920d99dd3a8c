"""Devices on the command line and in a file."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_server.device_spec import DeviceSpec, device_from_table, parse_device
from devicehost_server.settings import ConfigError


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("scratch", DeviceSpec("scratch")),
        ("scratch,id=a", DeviceSpec("scratch", "a")),
        ("scratch,base=0x10,id=a", DeviceSpec("scratch", "a", {"base": "0x10"})),
        ("uart16550,chardev=file:/a,,b", DeviceSpec("uart16550", "", {"chardev": "file:/a,b"})),
        ("x,a=b=c", DeviceSpec("x", "", {"a": "b=c"})),
        ("x,a=", DeviceSpec("x", "", {"a": ""})),
        ("x,a=,,,,,b=1", DeviceSpec("x", "", {"a": ",,", "b": "1"})),
    ],
)
def test_a_device_is_a_type_and_keys(text: str, spec: DeviceSpec) -> None:
    assert parse_device(text) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it must begin with a type"),
        ("id=a", "it must begin with a type"),
        (",id=a", "it must begin with a type"),
        ("x,", "'' is not of the form key=value"),
        ("x,a", "'a' is not of the form key=value"),
        ("x,=a", "'=a' is not of the form key=value"),
        ("x,a=1,a=2", "'a' is given twice"),
    ],
)
def test_what_is_not_of_that_form_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_device(text)
    assert str(caught.value).startswith(f"--device {text!r}: {message}")


keys = st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(lambda key: key != "id")
values = st.text(st.characters(exclude_characters="\0"), max_size=8)


@given(st.dictionaries(keys, values, max_size=4))
def test_any_value_can_be_written_with_its_commas_doubled(config: dict[str, str]) -> None:
    written = "".join(f",{key}={value.replace(',', ',,')}" for key, value in config.items())
    assert parse_device(f"x{written}") == DeviceSpec("x", "", config)


@given(st.text())
def test_any_text_is_a_device_or_is_refused(text: str) -> None:
    with suppress(ConfigError):
        assert parse_device(text).type


def test_a_table_needs_nothing_doubled() -> None:
    table = {"type": "uart16550", "id": "com1", "base": 0x3F8, "chardev": "file:/a,b", "on": True}
    config = {"base": "1016", "chardev": "file:/a,b", "on": "true"}
    assert device_from_table(table, "vm.toml", 1) == DeviceSpec("uart16550", "com1", config)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("scratch", "vm.toml: device 3: 'scratch' is not a table"),
        ({"id": "x"}, "vm.toml: device 3: it has no type"),
        ({"type": "x", "size": {}}, "vm.toml: device 3: size: {} is not allowed"),
    ],
)
def test_what_is_no_device_is_refused_by_its_place(table: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        device_from_table(table, "vm.toml", 3)
    assert str(caught.value).startswith(message)


def test_a_device_knows_where_it_was_read() -> None:
    assert parse_device("scratch,id=a").where == "--device 'scratch,id=a'"
    assert device_from_table({"type": "scratch"}, "vm.toml", 2).where == "vm.toml: device 2"
