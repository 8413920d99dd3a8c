"""How large a register map may be: security limits, since maps come from strangers too."""

from __future__ import annotations

MAX_REGISTERS = 65536
"""In a map. A row counts once."""

MAX_COUNT = 1 << 20
"""In a row."""

MAX_SIZE = 8
"""Of a register, in bytes."""

MAX_RANGE = 255
"""Trapped ranges of a device are numbered from 0 to this."""

MAX_NAME = 128
"""Of a register or field, in characters."""

MAX_TEXT = 4096
"""Of what something is or means, in characters."""

MAX_SHARING = 256
"""Registers that share a place."""

MAX_STRETCHES = 1 << 18
"""Pieces of address space that the registers of a map take up. A row without gaps is one."""
