"""What a decoder remembers of a device: the bits that decide which register is where."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from devicehost.registers.declare import Access, OnRead, OnWrite, Register, RegisterMap

_WRITTEN: Mapping[OnWrite | None, Callable[[int, int], int]] = MappingProxyType(
    {
        None: lambda _, written: written,
        OnWrite.ONE_CLEARS: lambda old, written: old & ~written,
        OnWrite.ONE_SETS: lambda old, written: old | written,
        OnWrite.ONE_TOGGLES: lambda old, written: old ^ written,
        OnWrite.ZERO_CLEARS: lambda old, written: old & written,
        OnWrite.ZERO_SETS: lambda old, written: old | ~written,
        OnWrite.ZERO_TOGGLES: lambda old, written: old ^ ~written,
        OnWrite.CLEARS: lambda _, __: 0,
        OnWrite.SETS: lambda _, __: -1,
        OnWrite.CHANGES: lambda _, written: written,  # as good a guess as any
    }
)


@dataclass(frozen=True, slots=True)
class Followed:
    """A register that decides where others are.

    Attributes:
        at: which of the decoder's state it is.
        bits: those that decide.
        initial: their value after power-on.
        register: as declared.
    """

    at: int
    bits: int
    initial: int
    register: Register

    def after_write(self, old: int, written: int, mask: int) -> int:
        """Return its bits after a write of those in `mask`."""
        for bits, access, _, on_write in self._parts(mask):
            if access is not Access.READ_ONLY:
                old = (old & ~bits) | (_WRITTEN[on_write](old, written) & bits)
        return old

    def after_read(self, old: int, read: int, mask: int) -> int:
        """Return its bits after a read of those in `mask`: it shows them, and may change them."""
        for bits, access, on_read, _ in self._parts(mask):
            if access is not Access.WRITE_ONLY:
                after = {OnRead.CLEARS: 0, OnRead.SETS: -1}.get(on_read, read) if on_read else read
                old = (old & ~bits) | (after & bits)
        return old

    def _parts(self, mask: int) -> list[tuple[int, Access, OnRead | None, OnWrite | None]]:
        """Return the bits that decide, by what an access does to them."""
        whole = self.register
        rest = self.bits & mask
        parts = []
        for each in whole.fields:
            parts.append(
                (
                    each.mask & self.bits & mask,
                    each.access or whole.access,
                    each.on_read or whole.on_read,
                    each.on_write or whole.on_write,
                )
            )
            rest &= ~each.mask
        parts.append((rest, whole.access, whole.on_read, whole.on_write))
        return parts


def followed(register_map: RegisterMap) -> dict[str, Followed]:
    """Return the registers that decide where others are, by name."""
    bits: dict[str, int] = {}
    for each in register_map:
        if each.when:
            mask = register_map.register(each.when.register).field(each.when.field).mask
            bits[each.when.register] = bits.get(each.when.register, 0) | mask
        if each.via:
            bits[each.via.index] = bits.get(each.via.index, 0) | each.via.mask
    result = {}
    for at, (name, mask) in enumerate(bits.items()):
        register = register_map.register(name)
        whole = mask & ((1 << 8 * register.size) - 1)
        result[name] = Followed(at, whole, (register.reset or 0) & whole, register)
    return result
