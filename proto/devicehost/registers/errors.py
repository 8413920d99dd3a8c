"""What goes wrong with register maps.

BadRegisterMap (ValueError)    a map, or what should have become one, breaks a rule
UnknownRegister (KeyError)     a map has no register of this name
"""

from __future__ import annotations


class BadRegisterMap(ValueError):
    """A register map breaks a rule. The message names the map, the register and the rule."""


class UnknownRegister(KeyError):
    """A register map has no register of this name. The message says what it has."""

    def __str__(self) -> str:
        return str(self.args[0])
