"""The POST code port."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_server.devices.config import parse
from devicehost_server.devices.postcode import Config, PostCode, PostCodePort
from devicehost_server.model.errors import BadState
from devicehost_server.model.resources import PioAddressConstraint
from devicelab import Lab, pio_in, pio_out

BOOT_NS = 1_700_000_000_000_000_000


@pytest.fixture
def lab() -> Lab:
    return Lab(wall_ns=BOOT_NS)


@pytest.fixture
def port(lab: Lab) -> PostCodePort:
    return lab.host(PostCodePort(Config()))


def test_it_asks_for_its_port() -> None:
    def needs(**values: str) -> list[object]:
        config = parse("postcode", Config, values)
        return list(PostCodePort(config).get_resource_constraints())

    assert needs() == [PioAddressConstraint.exact(0x80, 1)]
    assert needs(base="0x84") == [PioAddressConstraint.exact(0x84, 1)]


def test_it_reads_as_the_last_code(port: PostCodePort) -> None:
    assert pio_in(port, 0x80) == 0
    pio_out(port, 0x80, 0xC0)
    pio_out(port, 0x80, 0xC1)
    assert pio_in(port, 0x80) == 0xC1


def test_codes_are_remembered_with_their_times(lab: Lab, port: PostCodePort) -> None:
    pio_out(port, 0x80, 0x01)
    lab.clock.advance(250)
    pio_out(port, 0x80, 0x02)
    assert port.history == [PostCode(0x01, BOOT_NS), PostCode(0x02, BOOT_NS + 250)]


def test_a_code_shows_itself_in_hexadecimal() -> None:
    assert repr(PostCode(0x0A, 7)) == "PostCode(code=0x0a, wall_ns=7)"


def test_only_the_last_64_codes_are_remembered(port: PostCodePort) -> None:
    for code in range(100):
        pio_out(port, 0x80, code)
    assert [past.code for past in port.history] == list(range(36, 100))
    copy = Lab().host(PostCodePort(Config()))
    copy.restore(port.save())
    assert copy.history == port.history


def test_a_reset_keeps_the_history(port: PostCodePort) -> None:
    pio_out(port, 0x80, 0x55)
    port.reset()
    assert pio_in(port, 0x80) == 0
    assert [past.code for past in port.history] == [0x55]


@given(codes=st.lists(st.integers(0, 0xFF), max_size=80))
def test_a_restored_port_is_like_the_saved_one(codes: list[int]) -> None:
    lab = Lab(wall_ns=BOOT_NS)
    port = lab.host(PostCodePort(Config()))
    for code in codes:
        pio_out(port, 0x80, code)
        lab.clock.advance(1)
    copy = Lab().host(PostCodePort(Config()))
    copy.restore(json.loads(json.dumps(port.save())))
    assert copy.history == port.history
    assert pio_in(copy, 0x80) == pio_in(port, 0x80)
    for past in range(64):
        pio_out(copy, 0x80, past)
    assert [past.code for past in copy.history] == list(range(64))


ENTRY = {"code": 1, "wall_ns": 1}


@pytest.mark.parametrize(
    ("state", "field"),
    [
        ({"history": []}, "last"),
        ({"last": 0x100, "history": []}, "last"),
        ({"last": 0}, "history"),
        ({"last": 0, "history": "01"}, "history"),
        ({"last": 0, "history": [ENTRY] * 65}, "history"),
        ({"last": 0, "history": [1]}, "history"),
        ({"last": 0, "history": [{"code": 1}]}, "wall_ns"),
        ({"last": 0, "history": [ENTRY | {"code": 0x100}]}, "code"),
        ({"last": 0, "history": [ENTRY | {"wall_ns": -1}]}, "wall_ns"),
        ({"last": 0, "history": [ENTRY | {"who": 1}]}, "who"),
        ({"last": 0, "history": [], "first": 0}, "first"),
    ],
)
def test_a_bad_state_is_refused_and_changes_nothing(
    port: PostCodePort, state: dict[str, object], field: str
) -> None:
    pio_out(port, 0x80, 0x55)
    before = port.save()
    with pytest.raises(BadState, match=field):
        port.restore(state)
    assert port.save() == before
