"""What the model's docstrings say is so: examples run, the tree of errors is the tree."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from types import ModuleType

import pytest

from devicehost_server import model
from devicehost_server.model import errors
from devicehost_server.model.errors import DeviceHostError

MODULES = [
    importlib.import_module(f"{model.__name__}.{found.name}")
    for found in pkgutil.iter_modules(model.__path__)
]
EXAMPLES = [
    pytest.param(module, example, id=example.name)
    for module in MODULES
    for example in doctest.DocTestFinder(exclude_empty=True).find(module)
    if example.examples
]


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize(("_module", "example"), EXAMPLES)
def test_an_example_does_what_it_shows(_module: ModuleType, example: doctest.DocTest) -> None:
    results = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST).run(example)
    assert results.failed == 0, "the difference is in the output above"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_a_module_says_what_it_is_about(module: ModuleType) -> None:
    assert module.__doc__


def test_the_model_imports_without_a_warning_and_nothing_but_the_standard_library() -> None:
    names = [module.__name__ for module in MODULES]
    program = f"import sys, {', '.join(names)}; print(*sorted(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    imported = {name.partition(".")[0] for name in result.stdout.split()}
    baseline = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sorted(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    at_start = {name.partition(".")[0] for name in baseline.stdout.split()}
    assert imported - at_start - sys.stdlib_module_names == {"devicehost_server"}


# The tree of errors.


CLASSES = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, DeviceHostError)
]


def parents_in_docstring() -> dict[str, str]:
    """Read the tree: each class by name, with the name of the one it hangs from."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in str(errors.__doc__).splitlines():
        node = re.fullmatch(r"    ([│ ]*)(?:[├└]── )?([A-Z]\w+)(?: .*)?", line)
        if node is None or not (above or node[2] == "DeviceHostError"):
            continue
        depth = len(line.partition(node[2])[0]) // 4 - 1
        del above[depth:]
        if above:
            parents[node[2]] = above[-1]
        above.append(node[2])
    return parents


def test_the_tree_of_errors_in_the_docstring_is_the_tree_of_classes() -> None:
    parents = {kind.__name__: kind.__bases__[0].__name__ for kind in CLASSES}
    del parents["DeviceHostError"]
    assert parents_in_docstring() == parents


def test_each_error_has_a_reason_of_its_own_which_stands_beside_it_in_the_tree() -> None:
    parents = {kind.__bases__[0] for kind in CLASSES}
    leaves = [kind for kind in CLASSES if kind not in parents]
    for kind in leaves:
        assert re.search(rf"── {kind.__name__} +{kind.reason}\n", str(errors.__doc__)), kind
        assert re.fullmatch(r"[A-Z]+(_[A-Z]+)*", kind.reason)
    assert len({kind.reason for kind in leaves}) == len(leaves)


def test_the_facts_of_an_error_travel_as_strings() -> None:
    error = DeviceHostError("it broke", size=4, device="uart0")
    assert str(error) == "it broke"
    assert error.metadata == {"size": "4", "device": "uart0"}


def test_an_error_says_in_which_step_it_happened_and_the_innermost_one_counts() -> None:
    error = DeviceHostError("it broke")
    error.in_step("allocate")
    error.in_step("plug")
    assert str(error) == "it broke (in step 'allocate')"
    assert error.metadata == {"step": "allocate"}
