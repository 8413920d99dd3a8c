"""What an access says of a register and its fields."""

from __future__ import annotations

from dataclasses import dataclass

from devicehost.registers.declare import Register

_ONE_DIGIT = 10


@dataclass(frozen=True, slots=True)
class DecodedField:
    """What a field holds.

    Attributes:
        name: the field's.
        value: its bits, shifted down.
        meaning: what that means; empty if the map doesn't say.
    """

    name: str
    value: int
    meaning: str

    def __str__(self) -> str:
        value = str(self.value) if self.value < _ONE_DIGIT else f"{self.value:#x}"
        return f"{self.name}={value} {self.meaning}".rstrip()


@dataclass(frozen=True, slots=True)
class Decoded:
    """What an access says of one register.

    Printed, it leaves out fields that are 0, unless that means something.

    Attributes:
        register: its name, as "R[3]" if it is one of a row; empty if no register is there.
        value: its bits, as far as the access carried them; the others are 0.
        fields: those that the access carried whole, highest bits first.
        reserved: bits that are set but belong to no field.
        declared: what the map says of it; None if no register is there.
        complete: whether the access carried all of it.
    """

    register: str
    value: int
    fields: tuple[DecodedField, ...]
    reserved: int
    declared: Register | None
    complete: bool

    def __str__(self) -> str:
        if self.declared is None:
            return f"no register = {self.value:#x}"
        notes = [str(each) for each in self.fields if each.value or each.meaning]
        if self.reserved:
            notes.append(f"reserved={self.reserved:#x}")
        if not self.complete:
            notes.append("in part")
        text = f"{self.register} = 0x{self.value:0{2 * self.declared.size}x}"
        return f"{text} ({', '.join(notes)})" if notes else text
