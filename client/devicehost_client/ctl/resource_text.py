"""Resources and constraints as text.

A resource is what an owner has. What `format_resource` gives, `parse_resource` takes:

    pio:0x3f8+0x8                   BASE+SIZE, ports that trap
    mmio:0xc0000000+0x1000          BASE+SIZE, addresses that trap
    mem:0x0+0x40000000              BASE+SIZE, addresses of memory
    irq:4                           a legacy interrupt
    msi:24+4,type=pci-msix          FIRST+COUNT, message-signalled interrupts
    slot:3                          a slot of KVM's memory map
    mac:52:54:00:12:34:56           the address of a network card

A constraint is what an owner wants. The exact form is that of the resource; otherwise
fields say what is needed, in any order:

    pio:0x3f8+8                     these ports and no others; likewise mmio, mem
    mmio:size=0x1000,align=0x1000,max=0xffffffff
                                    size, min, max, align; likewise pio, mem
    irq:4, irq                      this interrupt; any exclusive one
    msi:size=4,type=pci-msix        size [1], align [1], type
    slot:3, slot:3+2, slot          this slot; two from 3 on; any
    slot:size=2                     any two that are consecutive

Numbers are decimal or 0x.
"""

from __future__ import annotations

import re

from devicehost.v1 import resource_pb2 as pb
from devicehost_client.ctl.numeral import U32_MAX, U64_MAX, number

RESOURCE_FORMS = (
    "pio:BASE+SIZE, mmio:BASE+SIZE, mem:BASE+SIZE, irq:N, msi:FIRST+COUNT,type=TYPE, slot:N,"
    " mac:ADDRESS"
)
CONSTRAINT_FORMS = (
    "pio, mmio or mem with :BASE+SIZE or :size=N[,min=N][,max=N][,align=N];"
    " irq[:N]; msi:type=TYPE[,size=N][,align=N]; slot[:N[+COUNT]] or slot:size=N"
)

MSI_TYPES = {
    "pci-msi": pb.MSI_TYPE_PCI_MSI,
    "pci-msix": pb.MSI_TYPE_PCI_MSIX,
    "generic-msi": pb.MSI_TYPE_GENERIC_MSI,
}
MSI_TYPE_NAMES = {value: name for name, value in MSI_TYPES.items()}

_ADDRESS_KINDS = ("pio", "mmio", "mem")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE)


class _Parts:
    """`KIND[:PLACE][,FIELD=VALUE]…` taken apart. Whatever isn't right is a `ValueError`."""

    def __init__(self, text: str) -> None:
        self.kind, colon, rest = text.partition(":")
        self.place = ""
        self.fields: dict[str, str] = {}
        if not colon:
            return
        for position, part in enumerate(rest.split(",")):
            field, equals, value = part.partition("=")
            if not equals and part and position == 0:
                self.place = part
            elif not (field and equals):
                raise ValueError(f"{part!r} is not of the form FIELD=VALUE")
            elif field in self.fields:
                raise ValueError(f"field {field!r} is given twice")
            else:
                self.fields[field] = value

    def allow_fields(self, *allowed: str) -> None:
        for field in self.fields:
            if field not in allowed:
                shown = ", ".join(allowed) or "none here"
                raise ValueError(f"no field {field!r}; allowed: {shown}")

    def number(self, field: str, *, least: int = 0, most: int) -> int | None:
        """The value of a field; None if it isn't given."""
        if field not in self.fields:
            return None
        try:
            return number(self.fields[field], least=least, most=most)
        except ValueError as error:
            raise ValueError(f"field {field!r}: {error}") from None

    def single(self, most: int) -> int:
        """The place, as one number."""
        if not self.place:
            raise ValueError(f"it has no number; allowed: {self.kind}:N")
        return number(self.place, most=most)

    def range(self, most: int) -> tuple[int, int]:
        """The place, as BASE+SIZE."""
        base_text, plus, size_text = self.place.partition("+")
        if not plus:
            raise ValueError(f"{self.place!r} is not a range; allowed: BASE+SIZE")
        base = number(base_text, most=most)
        return base, number(size_text, least=1, most=min(most, most - base + 1))

    def msi_type(self) -> pb.MsiType.ValueType:
        name = self.fields.get("type", "")
        if name not in MSI_TYPES:
            raise ValueError(f"type {name!r} is not allowed; allowed: {', '.join(MSI_TYPES)}")
        return MSI_TYPES[name]


def format_resource(resource: pb.Resource) -> str:
    """Return a resource as text; `unknown` for a kind that a newer server may have."""
    match resource.WhichOneof("kind"):
        case "pio" | "mmio" | "mem" as kind:
            addresses: pb.AddressRange = getattr(resource, kind)
            return f"{kind}:{addresses.base:#x}+{addresses.size:#x}"
        case "legacy_irq":
            return f"irq:{resource.legacy_irq}"
        case "msi":
            msi = resource.msi
            name = MSI_TYPE_NAMES.get(msi.type, msi.type)
            return f"msi:{msi.base}+{msi.size},type={name}"
        case "kvm_mem_slot":
            return f"slot:{resource.kvm_mem_slot}"
        case "mac_address":
            return f"mac:{resource.mac_address}"
        case _:
            return "unknown"


def parse_resource(text: str) -> pb.Resource:
    """Read a resource.

    Raises:
        ValueError: it isn't one; the message says why, and what is allowed.
    """
    try:
        return _resource(_Parts(text))
    except ValueError as error:
        raise ValueError(f"resource {text!r}: {error}") from None


def parse_constraint(text: str) -> pb.ResourceConstraint:
    """Read a constraint.

    Raises:
        ValueError: it isn't one; the message says why, and what is allowed.
    """
    try:
        return _constraint(_Parts(text))
    except ValueError as error:
        raise ValueError(f"constraint {text!r}: {error}") from None


def _resource(parts: _Parts) -> pb.Resource:
    parts.allow_fields(*(("type",) if parts.kind == "msi" else ()))
    match parts.kind:
        case "pio" | "mmio" | "mem" as kind:
            base, size = parts.range(U64_MAX)
            addresses = pb.AddressRange(base=base, size=size)
            resource = pb.Resource()
            getattr(resource, kind).CopyFrom(addresses)
            return resource
        case "irq":
            return pb.Resource(legacy_irq=parts.single(U32_MAX))
        case "msi":
            base, size = parts.range(U32_MAX)
            return pb.Resource(msi=pb.MsiRange(type=parts.msi_type(), base=base, size=size))
        case "slot":
            return pb.Resource(kvm_mem_slot=parts.single(U32_MAX))
        case "mac":
            if not _MAC.fullmatch(parts.place):
                raise ValueError(f"{parts.place!r} is not allowed; allowed: aa:bb:cc:dd:ee:ff")
            return pb.Resource(mac_address=parts.place)
        case kind:
            raise ValueError(f"unknown kind {kind!r}; allowed: {RESOURCE_FORMS}")


def _constraint(parts: _Parts) -> pb.ResourceConstraint:
    match parts.kind:
        case "pio" | "mmio" | "mem":
            return _address_constraint(parts)
        case "irq":
            return _irq_constraint(parts)
        case "msi":
            return _msi_constraint(parts)
        case "slot":
            return _slot_constraint(parts)
        case kind:
            raise ValueError(f"unknown kind {kind!r}; allowed: {CONSTRAINT_FORMS}")


def _address_constraint(parts: _Parts) -> pb.ResourceConstraint:
    if parts.place:
        parts.allow_fields()
        base, size = parts.range(U64_MAX)
        wish = pb.AddressConstraint(size=size, min=base, max=base + size - 1, align=1)
    else:
        parts.allow_fields("size", "min", "max", "align")
        size_wanted = parts.number("size", least=1, most=U64_MAX)
        if size_wanted is None:
            raise ValueError(f"it has no size; allowed: {CONSTRAINT_FORMS}")
        wish = pb.AddressConstraint(
            size=size_wanted,
            min=parts.number("min", most=U64_MAX),
            max=parts.number("max", most=U64_MAX),
            align=parts.number("align", least=1, most=U64_MAX),
        )
    constraint = pb.ResourceConstraint()
    getattr(constraint, parts.kind).CopyFrom(wish)
    return constraint


def _irq_constraint(parts: _Parts) -> pb.ResourceConstraint:
    parts.allow_fields()
    irq = parts.single(U32_MAX) if parts.place else None
    return pb.ResourceConstraint(legacy_irq=pb.LegacyIrqConstraint(irq=irq))


def _msi_constraint(parts: _Parts) -> pb.ResourceConstraint:
    if parts.place:
        raise ValueError(f"{parts.place!r}: nobody can ask for a certain MSI; allowed: size=N")
    parts.allow_fields("size", "type", "align")
    return pb.ResourceConstraint(
        msi=pb.MsiConstraint(
            type=parts.msi_type(),
            size=parts.number("size", least=1, most=U32_MAX) or 1,
            align=parts.number("align", least=1, most=U32_MAX),
        )
    )


def _slot_constraint(parts: _Parts) -> pb.ResourceConstraint:
    slot, size = None, 1
    if "+" in parts.place:
        slot, size = parts.range(U32_MAX)
    elif parts.place:
        slot = parts.single(U32_MAX)
    parts.allow_fields(*(() if parts.place else ("size",)))
    size = parts.number("size", least=1, most=U32_MAX) or size
    return pb.ResourceConstraint(kvm_mem_slot=pb.KvmMemSlotConstraint(slot=slot, size=size))
