"""A PCI function: what a device says of itself and needs, as a client sees it.

    function = PciFunction("uart0", device.describe_function(), device.get_resource_constraints())
    allocated = manager.allocate(function.constraints, owner)
    resources = function.assign(allocated)      # for the device
    function.config.read(0, data)               # the client accesses configuration space,
    base = function.ranges[0].base              # BAR 0: the device's registers are there,
    function.msix.read(0, data)                 # and the MSI-X table and pending bits
    interrupts.subscribe(lambda event: function.vectors.changed(event.gsi, event.kind))

The guest places the BARs. On the server, the ranges may be anywhere, and so may the
interrupts: they are numbers that nobody else has.

    constraint of the device            on the server               for the client
    PIO, MMIO, memory                   the size, anywhere          a BAR
    legacy IRQ                          a message's number          INTx, pin A; several share it
    PCI MSI                             numbers of messages         MSI, at most 32
    PCI MSI-X, generic MSI              numbers of messages         MSI-X, at most 2048
    anything else                       as it is                    nothing
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from devicehost_server.model.errors import BadConstraint, BadState
from devicehost_server.model.guest_memory import GuestMemory
from devicehost_server.model.pci import PciDescription
from devicehost_server.model.resources import (
    PAGE_SIZE,
    AddressConstraint,
    AddressRange,
    DeviceResources,
    LegacyIrq,
    LegacyIrqConstraint,
    MsiConstraint,
    MsiIrq,
    PciMsiIrqConstraint,
    PioAddressConstraint,
    Resource,
    ResourceConstraint,
)
from devicehost_server.pci import config_space, msi, msix
from devicehost_server.pci.bars import Bar, BarKind, lay_out
from devicehost_server.pci.capability import Vendor
from devicehost_server.pci.config_space import ConfigSpace
from devicehost_server.pci.interrupts import IrqKind, Vectors
from devicehost_server.pci.msi import Msi
from devicehost_server.pci.msix import Msix


class PciFunction:
    """One function. Its registers are accessed by one thread at a time; the rest by any.

    Args:
        device_id: what the device is called.
        description: what it says of itself.
        constraints: what it needs, if it were on the bus.
        offer_msix: whether to offer MSI-X, if it needs that. Without, it has INTx, if it needs
            that as well.

    Attributes:
        device_id: as above.
        identity: its numbers.
        constraints: what is to be allocated for it on the server, one for each of its own.
        bars: its BARs, by index.
        config: its configuration space.
        msix: the MSI-X table and pending bits, for the BAR of that kind; None without MSI-X.
        vectors: its interrupts.
        memory: the memory of its guest, as far as its client shares it.
        ranges: by the index of a BAR, where on the server what is behind it is; after `assign`.

    Raises:
        BadConstraint: its ranges don't fit in BARs, or it has too many interrupts.
        BadConfig: its capabilities don't fit in configuration space.
    """

    def __init__(
        self,
        device_id: str,
        description: PciDescription,
        constraints: Sequence[ResourceConstraint],
        *,
        offer_msix: bool = True,
    ) -> None:
        self.device_id = device_id
        self.identity = description.identity
        self.memory = GuestMemory()
        self.ranges: Mapping[int, AddressRange] = {}
        self._wanted = tuple(constraints)
        self.constraints = [_anywhere(constraint) for constraint in constraints]
        msix_count = _count(constraints, IrqKind.MSIX, msix.COUNT_MAX) if offer_msix else 0
        self.bars = lay_out(constraints, msix_length=msix.length(msix_count))
        self.msix = Msix(msix_count, self.bars[-1], self._settle) if msix_count else None
        msi_count = _count(constraints, IrqKind.MSI, msi.COUNT_MAX)
        self._msi = Msi(msi_count) if msi_count else None
        has_pin = any(_kind(each) is IrqKind.INTX for each in constraints)
        vendors = map(Vendor, description.capabilities)
        self.config = ConfigSpace(
            description.identity,
            self.bars,
            [*(each for each in (self._msi, self.msix) if each is not None), *vendors],
            has_pin=has_pin,
            asserted=lambda: self.vectors.asserted,
            changed=self._settle,
        )
        self.vectors = Vectors(
            has_pin=has_pin,
            msi=self._msi,
            msix=self.msix,
            intx_disabled=lambda: self.config.intx_disabled,
        )

    def bar(self, index: int) -> Bar | None:
        """Return the BAR of this index; None if there is none, or it is the second of a pair."""
        return next((bar for bar in self.bars if bar.index == index), None)

    @property
    def memory_bars(self) -> list[Bar]:
        """The BARs with memory behind them, in the order of `Hosted.offered_memory`."""
        return [bar for bar in self.bars if bar.kind is BarKind.MEMORY]

    def assign(self, allocated: Iterable[Resource]) -> DeviceResources:
        """Take what was allocated for `constraints`, and return what the device is to get."""
        resources = list(allocated)
        ranges = [each for each in resources if isinstance(each, AddressRange)]
        bars = [bar for bar in self.bars if bar.kind is not BarKind.MSIX]
        self.ranges = {bar.index: range_ for bar, range_ in zip(bars, ranges, strict=True)}
        kinds = iter([kind for each in self._wanted if (kind := _kind(each)) is not None])
        return DeviceResources(
            self._route(each, next(kinds)) if isinstance(each, MsiIrq) else each
            for each in resources
        )

    def reset(self) -> None:
        """Return to the state after power-on. The device isn't reset by this."""
        self.config.reset()
        self._settle()

    def save(self) -> dict[str, Any]:
        """Return what the driver has written, and what waits, as JSON values."""
        state: dict[str, Any] = {
            "bars": [bar.size for bar in self.bars],
            "config": self.config.save().hex(),
        }
        if self._msi is not None:
            state["msi_pending"] = self._msi.pending
        if self.msix is not None:
            state["msix_pending"] = self.msix.pending
            state["msix_table"] = self.msix.table.hex()
            state["msix_table_used"] = self.msix.table_used
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `save` of a function of the same shape returned.

        Raises:
            BadState: it doesn't fit; the function is as it was.
        """
        expected = self.save()
        for field in {**expected, **state}:
            if field not in expected or field not in state:
                raise self._bad(field, "is missing" if field in expected else "is unknown")
        if state["bars"] != expected["bars"]:
            raise self._bad("bars", f"is {state['bars']!r}, allowed: {expected['bars']}")
        config = self._octets(state, "config", config_space.SIZE)
        if not self.config.fits(config):
            raise self._bad("config", "is that of a function of another shape")
        pending = {
            field: self._bits(state, field, messages.count)
            for field, messages in (("msi_pending", self._msi), ("msix_pending", self.msix))
            if messages is not None
        }
        if self.msix is not None:
            table = self._octets(state, "msix_table", len(self.msix.table))
            used = state["msix_table_used"]
            if not isinstance(used, bool):
                raise self._bad("msix_table_used", f"is {used!r}, allowed: true or false")
            self.msix.load(table, used=used)
        self.config.load(config)
        if self.msix is not None:
            self.msix.pending = pending["msix_pending"]
        if self._msi is not None:
            self._msi.pending = pending["msi_pending"]
        self._settle()

    def view(self) -> Mapping[str, Any]:
        """Return what somebody who debugs may want to see."""
        number = self.identity
        return {
            "identity": f"{number.vendor_id:04x}:{number.device_id:04x}",
            "class": f"{number.class_code:06x}",
            "command": " ".join(self.config.command_names),
            "bars": {str(bar.index): self._view_of(bar) for bar in self.bars},
            **self.vectors.view(),
        }

    def _view_of(self, bar: Bar) -> dict[str, Any]:
        shown = {
            "kind": bar.kind.value,
            "size": f"{bar.size:#x}",
            "guest-address": f"{self.config.address(bar):#x}",
        }
        if (range_ := self.ranges.get(bar.index)) is not None:
            shown["on-server"] = str(range_)
        return shown

    def _settle(self) -> None:
        """Let interrupts follow from registers that have changed."""
        self.vectors.settle()

    def _route(self, allocated: MsiIrq, kind: IrqKind) -> Resource:
        """Take numbers of interrupts, and return them as what the device has asked for."""
        if kind is IrqKind.INTX:
            self.vectors.route(allocated.base, kind)
            return LegacyIrq(allocated.base)
        for gsi in range(allocated.base, allocated.base + allocated.size):
            self.vectors.route(gsi, kind)
        return allocated

    def _octets(self, state: Mapping[str, Any], field: str, size: int) -> bytes:
        try:
            octets = bytes.fromhex(state[field])
        except (TypeError, ValueError):
            allowed = "allowed: hexadecimal digits"
            raise self._bad(field, f"is {state[field]!r}, {allowed}") from None
        if len(octets) != size:
            raise self._bad(field, f"is {len(octets)} bytes long, allowed: {size}")
        return octets

    def _bits(self, state: Mapping[str, Any], field: str, count: int) -> int:
        bits = state[field]
        if not isinstance(bits, int) or isinstance(bits, bool) or bits < 0 or bits >> count:
            raise self._bad(field, f"is {bits!r}, allowed: a number of {count} bits")
        return bits

    def _bad(self, field: str, why: str) -> BadState:
        return BadState(
            f"state of PCI function {self.device_id!r}: field {field!r} {why}",
            device=self.device_id,
            field=field,
        )


def _anywhere(constraint: ResourceConstraint) -> ResourceConstraint:
    """Return what stands for a constraint of the device on the server."""
    match constraint:
        case PioAddressConstraint():
            return replace(constraint, min=None, max=None)
        case AddressConstraint(align=align):
            return replace(constraint, min=None, max=None, align=max(align, PAGE_SIZE))
        case LegacyIrqConstraint():
            return PciMsiIrqConstraint()
    return constraint


def _kind(constraint: ResourceConstraint) -> IrqKind | None:
    """Return which way the interrupts of a constraint take; None if it has none."""
    match constraint:
        case LegacyIrqConstraint():
            return IrqKind.INTX
        case PciMsiIrqConstraint():
            return IrqKind.MSI
        case MsiConstraint():
            return IrqKind.MSIX
    return None


def _count(constraints: Iterable[ResourceConstraint], kind: IrqKind, most: int) -> int:
    """Return how many messages of a kind are wanted, or raise BadConstraint."""
    count = sum(
        each.size for each in constraints if isinstance(each, MsiConstraint) and _kind(each) is kind
    )
    if count > most:
        raise BadConstraint(
            f"PCI function: {count} {kind.name} vectors; allowed: at most {most}",
            field="size",
            value=count,
        )
    return count
