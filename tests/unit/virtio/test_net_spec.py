"""What a network device can be plugged into, as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from devicehost_server.devices.config import parse
from devicehost_server.devices.virtio.net import Config, VirtioNet
from devicehost_server.devices.virtio.net.device import default_mac
from devicehost_server.devices.virtio.net.spec import HubSpec, TapSpec, UnixSpec, parse_spec
from devicehost_server.model.errors import BadConfig


def test_each_form_is_read() -> None:
    assert parse_spec("tap:vm0") == TapSpec("vm0")
    assert parse_spec("hub:lan.1_a-b") == HubSpec("lan.1_a-b")
    assert parse_spec("unix:/run/a:b") == UnixSpec(Path("/run/a:b"), listens=False)
    assert parse_spec("unix-listen:/run/x") == UnixSpec(Path("/run/x"), listens=True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "allowed: tap:NAME, unix:PATH, unix-listen:PATH, hub:NAME"),
        ("tap", "allowed: tap:NAME"),
        ("tap:", "allowed: tap:NAME"),
        ("user", "allowed: tap:NAME"),
        ("tap:0123456789abcdef", "at most 15 characters"),
        ("tap:a/b", "no space, slash"),
        ("tap:a b", "no space, slash"),
        ("tap:tap%d", "percent"),
        ("tap:..", "can't be the name"),
        ("hub:", "allowed: tap:NAME"),
        ("hub:a/b", "can't be the name of a hub"),
        ("unix:", "allowed: tap:NAME"),
        ("unix:" + "x" * 108, "108 bytes long; allowed: at most 107"),
    ],
)
def test_other_text_is_refused_with_what_is_allowed(text: str, why: str) -> None:
    with pytest.raises(BadConfig, match="netdev") as refused:
        parse_spec(text)
    assert why in str(refused.value)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize(
    "mac", ["", "52:54:00:12:34", "52:54:00:12:34:5g", "53:54:00:12:34:56", "00:00:00:00:00:00"]
)
def test_a_mac_that_no_station_has_is_refused(mac: str) -> None:
    config = parse("virtio-net", Config, {"netdev": "hub:x", "mac": mac})
    with pytest.raises(BadConfig, match="52:54:00:12:34:56"):
        VirtioNet(config)


def test_a_mac_of_its_own_is_stable_local_and_different_for_each() -> None:
    macs = {default_mac(f"net{n}", netdev) for n in range(500) for netdev in ("tap:a", "tap:b")}
    assert len(macs) == 1000
    assert all(mac[0] & 3 == 2 and len(mac) == 6 for mac in macs)
    assert default_mac("net0", "tap:vm0") == default_mac("net0", "tap:vm0")
