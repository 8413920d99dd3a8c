"""What a register map is made of: values that are written down once, beside the device.

    LSR = 5
    LSR_DR = 0x01
    LSR_THRE = 0x20

    MAP = RegisterMap(
        "pc16550d",
        registers=(
            Register(
                "LSR", LSR, access=Access.READ_ONLY, reset=0x60, help="line status",
                fields=(
                    Field("DR", LSR_DR, "data ready"),
                    Field("THRE", LSR_THRE, "holding register empty"),
                ),
            ),
        ),
    )

The words for what an access does besides are those of CMSIS-SVD, so that a map can be
written as one, and read from one.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_NO_VALUES: Mapping[int, str] = MappingProxyType({})


class Access(enum.Enum):
    """What a guest may do with a register or a field. The values are SVD's."""

    READ_WRITE = "read-write"
    READ_ONLY = "read-only"
    WRITE_ONLY = "write-only"


class OnRead(enum.Enum):
    """What a read does besides (SVD: readAction)."""

    CLEARS = "clear"
    SETS = "set"
    CHANGES = "modify"
    CHANGES_OTHERS = "modifyExternal"


class OnWrite(enum.Enum):
    """What a write does other than to store (SVD: modifiedWriteValues)."""

    ONE_CLEARS = "oneToClear"
    ONE_SETS = "oneToSet"
    ONE_TOGGLES = "oneToToggle"
    ZERO_CLEARS = "zeroToClear"
    ZERO_SETS = "zeroToSet"
    ZERO_TOGGLES = "zeroToToggle"
    CLEARS = "clear"
    SETS = "set"
    CHANGES = "modify"


@dataclass(frozen=True, slots=True)
class Field:
    """Bits of a register that belong together.

    Attributes:
        name: upper-case letters, digits and underscores.
        mask: which bits, without a gap.
        help: what it is, in a few words.
        values: what a value means, by the value as it is when shifted down to bit 0.
        access: what a guest may do with it; None for what it may with the register.
        on_read: what a read does to it.
        on_write: what a write does to it, if it doesn't just store.
    """

    name: str
    mask: int
    help: str = ""
    values: Mapping[int, str] = field(default_factory=lambda: _NO_VALUES)
    access: Access | None = None
    on_read: OnRead | None = None
    on_write: OnWrite | None = None

    @property
    def lsb(self) -> int:
        """The number of its lowest bit."""
        return (self.mask & -self.mask).bit_length() - 1

    @property
    def width(self) -> int:
        """How many bits it has."""
        return self.mask.bit_count()

    def of(self, value: int) -> int:
        """Return its value in that of the register."""
        return (value & self.mask) >> self.lsb


@dataclass(frozen=True, slots=True)
class When:
    """A register is where it is only while a field of another one has a value.

    Attributes:
        register: the other one.
        field: its field.
        value: the field's value, shifted down.
    """

    register: str
    field: str
    value: int


@dataclass(frozen=True, slots=True)
class Via:
    """A register is reached by a pair of others: write its number to one, access the other.

    Attributes:
        index: the register that the number is written to.
        data: the register that is then accessed in its place.
        mask: which bits of `index` are the number.
    """

    index: str
    data: str
    mask: int = -1


@dataclass(frozen=True, slots=True)
class Register:
    """One register, or a row of equal ones.

    Attributes:
        name: unique in its map: upper-case letters, digits and underscores. One of a row
            is called `NAME[3]`.
        offset: where it begins, in bytes from the base of its range; with `via`, its
            number.
        size: in bytes, 1 to 8. Little-endian.
        access: what a guest may do with it.
        reset: its value after power-on; None if that is left open.
        fields: what it consists of. If there are any, bits of none are reserved. If there
            are none, it is a number.
        help: what it is, in a few words.
        range: which of the device's trapped ranges it is in, by their order.
        count: how many there are of it.
        stride: from one of a row to the next, in bytes; 0 stands for `size`. With `via`, in
            numbers; 0 stands for as many as one takes: a register of 8 bytes behind a data
            register of 4 takes two, its low half first.
        sizes: the sizes of an access that a driver may use, in bytes; empty for `size` only.
        when: a condition, if it shares its place with others.
        via: how it is reached, if not by its own address.
        on_read: what a read does besides.
        on_write: what a write does, if it doesn't just store.
        alternate: another register that has the same place, with nothing that tells which
            of them it is (SVD: alternateRegister). An access is taken to be one to the other.
    """

    name: str
    offset: int
    size: int = 1
    access: Access = Access.READ_WRITE
    reset: int | None = 0
    fields: tuple[Field, ...] = ()
    help: str = ""
    range: int = 0
    count: int = 1
    stride: int = 0
    sizes: tuple[int, ...] = ()
    when: When | None = None
    via: Via | None = None
    on_read: OnRead | None = None
    on_write: OnWrite | None = None
    alternate: str = ""

    @property
    def readable(self) -> bool:
        """Whether a guest may read it."""
        return self.access is not Access.WRITE_ONLY

    @property
    def writable(self) -> bool:
        """Whether a guest may write it."""
        return self.access is not Access.READ_ONLY

    @property
    def reserved(self) -> int:
        """The bits that belong to no field; none if it has no fields."""
        if not self.fields:
            return 0
        mask = (1 << 8 * self.size) - 1
        for each in self.fields:
            mask &= ~each.mask
        return mask

    def field(self, name: str) -> Field:
        """Return a field.

        Raises:
            KeyError: there is none of this name.
        """
        for each in self.fields:
            if each.name == name:
                return each
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class RegisterMap:
    """The registers of a device.

    Attributes:
        name: of the chip, in lower case.
        registers: all of them; those that share a place are told apart by `when`, or by
            one being read-only and the other write-only. One without a `when` is there while
            no other's holds.
        help: what the device is, in a few words.
    """

    name: str
    registers: tuple[Register, ...]
    help: str = ""

    def __iter__(self) -> Iterator[Register]:
        return iter(self.registers)

    def register(self, name: str) -> Register:
        """Return a register, by its name without an index.

        Raises:
            KeyError: there is none of this name.
        """
        for each in self.registers:
            if each.name == name:
                return each
        raise KeyError(name)
