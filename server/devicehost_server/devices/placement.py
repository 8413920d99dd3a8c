"""Where a device stands: on the bus, or as a PCI function on a socket of its own.

A configuration says so itself. Its keys that begin with `pci-` are about the place, the
rest is what the device type knows:

    virtio-blk,file=disk.img,pci-socket=/run/vm1/disk0.sock
    scratch,pci-socket=/run/vm1/scratch.sock,pci-vendor-id=0x1234,pci-device-id=0x5678
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from devicehost_server.devices.config import OptionSchema, option, parse, schema
from devicehost_server.model.pci import PciDescription

PREFIX = "pci-"
"""What the keys of a place begin with."""

_OWN = "none for the device's own"


@dataclass(frozen=True, slots=True)
class PciPlacement:
    """A device is a PCI function, which one vfio-user client at a time attaches to.

    Attributes:
        socket: the path of the socket, on the server's host.
        msix: whether it offers MSI-X, if the device has it.
        vendor_id, device_id, class_code, revision, subsystem_vendor_id, subsystem_id: in place
            of what the device says of itself (`model.pci.PciIdentity`); None for that.
    """

    socket: Path = option(help="the socket where a vfio-user client attaches, QEMU say")
    msix: bool = option(default=True, help="offer MSI-X, if the device has it")
    vendor_id: int | None = option(None, f"vendor ID; {_OWN}", minimum=0, maximum=0xFFFE)
    device_id: int | None = option(None, f"device ID; {_OWN}", minimum=0, maximum=0xFFFF)
    class_code: int | None = option(None, f"class code; {_OWN}", minimum=0, maximum=0xFF_FFFF)
    revision: int | None = option(None, f"revision ID; {_OWN}", minimum=0, maximum=0xFF)
    subsystem_vendor_id: int | None = option(
        None, f"subsystem vendor ID; {_OWN}", minimum=0, maximum=0xFFFF
    )
    subsystem_id: int | None = option(None, f"subsystem ID; {_OWN}", minimum=0, maximum=0xFFFF)

    def adapt(self, description: PciDescription) -> PciDescription:
        """Return what a device says of itself, with the numbers that are given here."""
        numbers = {
            field.name: value
            for field in fields(self)
            if field.name not in {"socket", "msix"}
            and (value := getattr(self, field.name)) is not None
        }
        return replace(description, identity=replace(description.identity, **numbers))


def options() -> list[OptionSchema]:
    """Return the keys of a place: a configuration of any device type can have them."""
    return schema(PciPlacement, _key)


def split(type_name: str, config: Mapping[str, str]) -> tuple[PciPlacement | None, dict[str, str]]:
    """Take a configuration apart: the place, and the rest. None stands for the bus.

    Raises:
        BadConfig: an unknown key of a place, a bad value, or no socket.
    """
    # With an underscore it is a key of a place that is spelt wrong.
    of_place = {key: text for key, text in config.items() if key.startswith((PREFIX, "pci_"))}
    rest = {key: text for key, text in config.items() if key not in of_place}
    return parse(type_name, PciPlacement, of_place, _key) if of_place else None, rest


def _key(field: str) -> str:
    """What a configuration calls a field of the place."""
    return PREFIX + field.replace("_", "-")
