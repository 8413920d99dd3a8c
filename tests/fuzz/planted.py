"""Not a fuzz target, but a fault to be found: four bytes in a row that nobody would guess.

A fuzzer that isn't told of the comparisons needs four billion inputs for it.
"""

from __future__ import annotations

from fuzz.source import Source

MAGIC = 0x5DEECE66


def test_one_input(data: bytes) -> None:
    """Fail, if the input says so."""
    source = Source(data)
    if source.byte() == 3 and source.number(4) == MAGIC:
        raise AssertionError("the planted fault was found")
