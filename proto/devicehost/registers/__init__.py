"""Register maps: what the registers of a device are, written down once.

A map is a value (`declare`). What is made of it:

    | module      | what is in it                                                        |
    |-------------|----------------------------------------------------------------------|
    | declare     | the map itself: `RegisterMap`, `Register`, `Field`, `When`, `Via`    |
    | places      | names, and what is where: `locate`, `places`, `parse_name`, `scaled` |
    | checks      | the rules that a map keeps: `check`                                  |
    | decode      | what an access means: `Decoder`                                      |
    | json_form   | `to_json`, `from_json`, and the shape                                |
    | svd_write,  | CMSIS-SVD, which vendors have for their chips: `to_svd`, `from_svd`; |
    | svd_read    | what is lost on the way                                              |
    | document    | a document for people: `document`                                    |
"""

from __future__ import annotations

from devicehost.registers.checks import check
from devicehost.registers.declare import (
    Access,
    Field,
    OnRead,
    OnWrite,
    Register,
    RegisterMap,
    Via,
    When,
)
from devicehost.registers.decode import Decoder
from devicehost.registers.decoded import Decoded, DecodedField
from devicehost.registers.document import document
from devicehost.registers.errors import BadRegisterMap, UnknownRegister
from devicehost.registers.json_form import from_json, to_json
from devicehost.registers.places import Place, locate, parse_name, places, scaled
from devicehost.registers.svd_read import from_svd
from devicehost.registers.svd_write import to_svd

__all__ = [
    "Access",
    "BadRegisterMap",
    "Decoded",
    "DecodedField",
    "Decoder",
    "Field",
    "OnRead",
    "OnWrite",
    "Place",
    "Register",
    "RegisterMap",
    "UnknownRegister",
    "Via",
    "When",
    "check",
    "document",
    "from_json",
    "from_svd",
    "locate",
    "parse_name",
    "places",
    "scaled",
    "to_json",
    "to_svd",
]
