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

from devicehost_server.devices.config import option, parse
from devicehost_server.model.errors import BadConfig
from devicehost_server.model.pci import PciDescription

PREFIX = "pci-"
"""What the keys of a place begin with."""


@dataclass(frozen=True, slots=True)
class PciPlacement:
    """A device is a PCI function, which one vfio-user client at a time attaches to.

    Attributes:
        socket: the path of the socket.
        msix: whether it offers MSI-X, if the device has it.
        vendor_id, device_id, class_code, revision, subsystem_vendor_id, subsystem_id: in place
            of what the device says of itself (`model.pci.PciIdentity`); None for that.
    """

    socket: Path = option(help="where a vfio-user client attaches to the PCI function")
    msix: bool = option(default=True, help="whether to offer MSI-X; INTx without")
    vendor_id: int | None = option(None, "who made it", minimum=0, maximum=0xFFFE)
    device_id: int | None = option(None, "what it is", minimum=0, maximum=0xFFFF)
    class_code: int | None = option(None, "its class", minimum=0, maximum=0xFF_FFFF)
    revision: int | None = option(None, "its revision", minimum=0, maximum=0xFF)
    subsystem_vendor_id: int | None = option(None, "who made the card", minimum=0, maximum=0xFFFF)
    subsystem_id: int | None = option(None, "what the card is", minimum=0, maximum=0xFFFF)

    def adapt(self, description: PciDescription) -> PciDescription:
        """Return what a device says of itself, with the numbers that are given here."""
        numbers = {
            field.name: value
            for field in fields(self)
            if field.name not in {"socket", "msix"}
            and (value := getattr(self, field.name)) is not None
        }
        return replace(description, identity=replace(description.identity, **numbers))


def split(type_name: str, config: Mapping[str, str]) -> tuple[PciPlacement | None, dict[str, str]]:
    """Take a configuration apart: the place, and the rest. None stands for the bus.

    Raises:
        BadConfig: an unknown key of a place, a bad value, or no socket.
    """
    of_place = {key: text for key, text in config.items() if key.startswith(PREFIX)}
    rest = {key: text for key, text in config.items() if key not in of_place}
    if not of_place:
        return None, rest
    names = {key.removeprefix(PREFIX).replace("-", "_"): text for key, text in of_place.items()}
    try:
        return parse(type_name, PciPlacement, names), rest
    except BadConfig as error:
        field = error.metadata.get("field", "")
        key = PREFIX + field.replace("_", "-")
        message = str(error).replace(repr(field), repr(key), 1)
        raise BadConfig(message, **{**error.metadata, "field": key}) from None
