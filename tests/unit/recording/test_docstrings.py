"""What the package's docstrings say is so: examples run, the overview names every module."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from types import ModuleType

import pytest

from devicehost import recording
from devicehost.recording import layout

MODULES = [
    recording,
    *(
        importlib.import_module(f"{recording.__name__}.{found.name}")
        for found in pkgutil.iter_modules(recording.__path__)
    ),
]
EXAMPLES = [
    pytest.param(example, id=example.name)
    for module in MODULES
    for example in doctest.DocTestFinder(exclude_empty=True).find(module)
    if example.examples
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_does_what_it_shows(example: doctest.DocTest) -> None:
    results = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST).run(example)
    assert results.attempted
    assert results.failed == 0, "the difference is in the output above"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_a_module_says_what_it_is_about_and_is_in_the_overview(module: ModuleType) -> None:
    assert module.__doc__
    name = module.__name__.rpartition(".")[2]
    assert name == "recording" or re.search(rf"\| {name} +\|", str(recording.__doc__))


def test_the_docstring_has_the_numbers_of_the_layout() -> None:
    text = str(recording.__doc__)
    kinds = {
        "short": layout.SHORT,
        "far": layout.FAR,
        "wide": layout.WIDE,
        "long": layout.LONG,
        "base": layout.TIME,
        "name": layout.NAME,
        "interrupt": layout.INTERRUPT,
        "DMA": layout.DMA,
        "plugged": layout.PLUGGED,
        "unplugged": layout.UNPLUGGED,
        "learned": layout.LEARNED_NUMBER,
        "woken": layout.WOKEN,
        "told": layout.TOLD,
        "lost": layout.LOST,
    }
    said = {name: int(kind, 16) for kind, name in re.findall(r"    (0x\w\w)   (\w+) ", text)}
    assert said.pop("learned") == layout.LEARNED_BYTES
    assert said == {name: kind for name, kind in kinds.items() if name != "learned"}
    assert layout.MAGIC.hex(" ").upper() in text
    assert f"format   {layout.VERSION}\n" in text


def test_either_package_can_be_imported_first_without_a_warning() -> None:
    for names in (
        "devicehost.recording, devicehost.registers",
        "devicehost.registers, devicehost.recording",
    ):
        program = f"import sys, {names}; print(*sorted(sys.modules))"
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.stderr == ""
        assert not {"google", "grpc", "socket"} & set(result.stdout.split())


def test_all_that_is_exported_is_there() -> None:
    for name in recording.__all__:
        assert hasattr(recording, name), name
