"""Register maps as JSON: what is written, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from devicehost.registers import (
    Access,
    BadRegisterMap,
    Field,
    OnRead,
    OnWrite,
    Register,
    RegisterMap,
    Via,
    When,
    from_json,
    to_json,
)

FULL = RegisterMap(
    "chip",
    (
        Register("INDEX", 0),
        Register("DATA", 1),
        Register(
            "MODE",
            0x10,
            4,
            reset=None,
            help="the mode",
            fields=(
                Field(
                    "BANK",
                    0x30,
                    "which bank",
                    {0: "first", 3: "last"},
                    Access.READ_WRITE,
                    OnRead.CHANGES,
                    OnWrite.ONE_TOGGLES,
                ),
            ),
            range=1,
            sizes=(1, 4),
            on_read=OnRead.CHANGES_OTHERS,
            on_write=OnWrite.ZERO_SETS,
        ),
        Register("R", 8, 2, Access.READ_ONLY, 0x1234, count=4, stride=8),
        Register("P", 8, 2, when=When("MODE", "BANK", 3)),
        Register("Q", 9, alternate="R"),
        Register("V", 3, via=Via("INDEX", "DATA", 0x7F)),
    ),
    "all that there is",
)


def test_a_map_is_the_same_after_a_way_through_json() -> None:
    assert from_json(json.loads(json.dumps(to_json(FULL)))) == FULL


def test_what_has_its_default_is_not_written() -> None:
    plain = RegisterMap("chip", (Register("R", 0, fields=(Field("F", 1),)),))
    assert to_json(plain) == {
        "name": "chip",
        "registers": [{"name": "R", "offset": 0, "fields": [{"name": "F", "mask": 1}]}],
    }


def test_the_shape_is_the_documented_one() -> None:
    mode, row = to_json(FULL)["registers"][2:4]  # type: ignore[index] # JSON is of any shape
    assert mode == {
        "name": "MODE",
        "offset": 16,
        "size": 4,
        "reset": None,
        "fields": [
            {
                "name": "BANK",
                "mask": 48,
                "help": "which bank",
                "values": {"0": "first", "3": "last"},
                "access": "read-write",
                "on_read": "modify",
                "on_write": "oneToToggle",
            }
        ],
        "help": "the mode",
        "range": 1,
        "sizes": [1, 4],
        "on_read": "modifyExternal",
        "on_write": "zeroToSet",
    }
    assert row["access"] == "read-only"


def of_register(**more: Any) -> dict[str, Any]:
    return {"name": "chip", "registers": [{"name": "R", "offset": 0, **more}]}


def of_field(**more: Any) -> dict[str, Any]:
    return of_register(fields=[{"name": "F", "mask": 1, **more}])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "register map: None; allowed: an object"),
        ([], "register map: an array; allowed: an object"),
        ({}, "register map: 'name' is missing"),
        ({"name": "x"}, "register map: 'registers' is missing"),
        ({"name": 5, "registers": []}, "register map: name: 0x5; allowed: a string"),
        ({"name": "x", "registers": {}}, "register map: registers: an object; allowed: an array"),
        ({"name": "x", "registers": []}, "register map 'x': registers: 0x0"),
        ({"name": "x", "registers": [1]}, "register map: registers[0]: 0x1; allowed: an object"),
        ({"name": "x", "registers": [{}]}, "registers[0]: 'name' is missing"),
        ({"name": "x", "registers": [{"name": "R"}]}, "register 'R': 'offset' is missing"),
        ({**of_register(), "color": 1}, "register map: unknown key 'color'"),
        (
            {"name": "x", "registers": [{"name": "R", "offset": 0}], 7: 1},
            "register map: unknown key '7'",
        ),
        (of_register(colour=1), "register 'R': unknown key 'colour'"),
        (of_register(size=True), "register 'R': size: True; allowed: an integer from 0"),
        (of_register(size=1.0), "register 'R': size: 1.0; allowed"),
        (of_register(size=9), "register R: size 0x9; allowed: 0x1 to 0x8"),
        (of_register(offset=-1), "register 'R': offset: -0x1; allowed"),
        (of_register(offset=1 << 64), "register 'R': offset: 0x10000000000000000; allowed"),
        (of_register(offset=10**5000), "register 'R': offset: 0x"),
        (
            of_register(access="rw"),
            "access: 'rw'; allowed: 'read-write', 'read-only', 'write-only'",
        ),
        (of_register(access=None), "access: None; allowed: 'read-write'"),
        (of_register(reset="0"), "register 'R': reset: '0'; allowed"),
        (of_register(sizes=["1"]), "register 'R': sizes[0]: '1'; allowed"),
        (of_register(sizes=1), "register 'R': sizes: 0x1; allowed: an array"),
        (of_register(when={"register": "R"}), "register 'R': when: 'field' is missing"),
        (of_register(when=None), "register 'R': when: None; allowed: an object"),
        (of_register(via={"index": "R", "data": "R", "x": 1}), "via: unknown key 'x'"),
        (of_register(alternate=None), "register 'R': alternate: None; allowed: a string"),
        (of_register(name="x" * 10_000), "allowed: upper-case"),
        (of_field(mask="1"), "register 'R': fields[0]: mask: '1'; allowed"),
        (of_field(on_read="explode"), "fields[0]: 'F': on_read: 'explode'; allowed: 'clear'"),
        (of_field(values=[]), "fields[0]: 'F': values: an array; allowed: an object"),
        (of_field(values={"0x1": "on"}), "values: '0x1'; allowed: decimal numbers as keys"),
        (of_field(values={"01": "on"}), "values: '01'; allowed: decimal numbers as keys"),
        (of_field(values={"1": 1}), "values: 1: 0x1; allowed: a string"),
        (of_field(values={"2": "on"}), "field F: values: 0x2; allowed: 0x0 to 0x1"),
        (of_field(values={"9" * 5000: "on"}), "allowed: decimal numbers as keys"),
        (of_field(values={"²": "on"}), "allowed: decimal numbers as keys"),
        ({"name": "x", "registers": [None] * 65537}, "allowed: an array, of at most 65536 items"),
    ],
)
def test_what_is_no_map_is_refused_with_its_place(value: object, message: str) -> None:
    with pytest.raises(BadRegisterMap) as caught:
        from_json(value)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


def test_what_was_read_is_not_changed() -> None:
    value = to_json(FULL)
    before = json.dumps(value)
    from_json(value)
    assert json.dumps(value) == before
