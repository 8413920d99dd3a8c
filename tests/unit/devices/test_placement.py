"""A configuration says where a device stands: keys that begin with `pci-` are about that."""

from __future__ import annotations

from pathlib import Path

import pytest

from devicehost_server.devices.placement import PciPlacement, options, split
from devicehost_server.model.errors import BadConfig
from devicehost_server.model.pci import PciDescription, PciIdentity

SOCKET = {"pci-socket": "/run/x.sock"}


def test_without_such_a_key_a_device_is_on_the_bus() -> None:
    assert split("scratch", {"size": "8"}) == (None, {"size": "8"})


def test_the_keys_of_the_place_are_kept_from_the_device() -> None:
    place, rest = split("scratch", {"size": "8", **SOCKET, "pci-device-id": "0x10"})
    assert rest == {"size": "8"}
    assert place == PciPlacement(Path("/run/x.sock"), device_id=0x10)


def test_numbers_go_over_what_the_device_says_of_itself() -> None:
    said = PciDescription(PciIdentity(1, 2, 3, 4, 5, 6))
    place, _ = split(
        "scratch", {**SOCKET, "pci-vendor-id": "0xbeef", "pci-class-code": "0", "pci-msix": "off"}
    )
    assert place is not None
    assert not place.msix
    assert place.adapt(said) == PciDescription(PciIdentity(0xBEEF, 2, 0, 4, 5, 6))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pci-vendor-id": "1"}, "'pci-socket': required"),
        ({**SOCKET, "pci-colour": "red"}, "'pci-colour': no such field"),
        ({**SOCKET, "pci-vendor-id": "0xffff"}, "'pci-vendor-id'.*0xfffe"),
        ({**SOCKET, "pci-class-code": "uart"}, "'pci-class-code'"),
        ({**SOCKET, "pci-msix": "perhaps"}, "'pci-msix'"),
        ({"pci_socket": "/run/x.sock"}, "'pci_socket': no such field; known: pci-socket, pci-msix"),
        ({"pci-socket": "/run/\0.sock"}, "'pci-socket'.*allowed: a path"),
    ],
)
def test_nonsense_is_named_by_its_key(config: dict[str, str], message: str) -> None:
    with pytest.raises(BadConfig, match=message) as caught:
        split("scratch", config)
    assert caught.value.metadata["field"] in config or "pci-socket" not in config


def test_the_keys_are_listed_as_they_are_written() -> None:
    keys = [each.name for each in options()]
    assert keys[:3] == ["pci-socket", "pci-msix", "pci-vendor-id"]
    assert all(split("scratch", {**SOCKET, key: "0"})[0] for key in keys)
