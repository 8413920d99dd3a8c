"""The examples in the docstrings of the package do what they show."""

from __future__ import annotations

import doctest
import importlib

import pytest

import devicehost.registers
from devicehost.recording.events import Operation


@pytest.mark.parametrize("module", ["places", "decode"])
def test_the_examples_of_a_module_hold(module: str) -> None:
    source = importlib.import_module(f"devicehost.registers.{module}")
    names = {**vars(devicehost.registers), "Operation": Operation}
    failed, tried = doctest.testmod(source, globs=names)
    assert (failed, tried > 0) == (0, True)
