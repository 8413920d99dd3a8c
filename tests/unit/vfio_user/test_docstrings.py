"""What the package's docstrings say is so: examples run, the tree of errors is the tree."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from types import ModuleType

import pytest

from devicehost import vfio_user
from devicehost.vfio_user import errors
from devicehost.vfio_user.errors import BadMessage, PeerFault, ProtocolViolation, VfioUserError

MODULES = [
    vfio_user,
    *(
        importlib.import_module(f"{vfio_user.__name__}.{found.name}")
        for found in pkgutil.iter_modules(vfio_user.__path__)
    ),
]
EXAMPLES = [
    pytest.param(example, id=example.name)
    for module in MODULES
    for example in doctest.DocTestFinder(exclude_empty=True).find(module)
    if example.examples
]


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 6


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_does_what_it_shows(example: doctest.DocTest) -> None:
    results = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST).run(example)
    assert results.failed == 0, "the difference is in the output above"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_a_module_says_what_it_is_about_and_is_in_the_overview(module: ModuleType) -> None:
    assert module.__doc__
    name = module.__name__.rpartition(".")[2].replace("_session", "_")
    assert name == "vfio_user" or re.search(rf"\b{name}", str(vfio_user.__doc__))


def test_the_package_imports_without_a_warning_and_nothing_but_the_standard_library() -> None:
    program = "import sys, devicehost.vfio_user; print(*sorted(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    at_start = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sorted(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {name.partition(".")[0] for name in result.stdout.split()}
    baseline = {name.partition(".")[0] for name in at_start.stdout.split()}
    assert imported - baseline - sys.stdlib_module_names == {"devicehost"}
    assert "socket" not in imported, "it does no I/O"


def test_all_that_is_exported_is_there_and_sorted() -> None:
    assert sorted(vfio_user.__all__) == vfio_user.__all__
    for name in vfio_user.__all__:
        assert hasattr(vfio_user, name), name


# The tree of errors.

CLASSES = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, VfioUserError)
]


def parents_in_docstring() -> dict[str, str]:
    """Read the tree: each class by name, with the name of the one it hangs from."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in str(errors.__doc__).splitlines():
        node = re.fullmatch(r"    ([│ ]*)(?:[├└]── )?([A-Z]\w+)(?: .*)?", line)
        if node is None or not (above or node[2] == "VfioUserError"):
            continue
        depth = len(line.partition(node[2])[0]) // 4 - 1
        del above[depth:]
        if above:
            parents[node[2]] = above[-1]
        above.append(node[2])
    return parents


def test_the_tree_of_errors_in_the_docstring_is_the_tree_of_classes() -> None:
    parents = {kind.__name__: kind.__bases__[0].__name__ for kind in CLASSES}
    del parents["VfioUserError"]
    assert parents_in_docstring() == parents


def test_each_error_has_a_reason_of_its_own_which_stands_beside_it_in_the_tree() -> None:
    parents = {kind.__bases__[0] for kind in CLASSES}
    leaves = [kind for kind in CLASSES if kind not in parents]
    for kind in leaves:
        assert re.search(rf"── {kind.__name__} +{kind.reason}\n", str(errors.__doc__)), kind
        assert re.fullmatch(r"[A-Z]+(_[A-Z]+)*", kind.reason)
        assert kind.__name__ in vfio_user.__all__
    assert len({kind.reason for kind in leaves}) == len(leaves)


def test_a_fault_of_the_peer_either_has_an_errno_or_ends_the_session() -> None:
    leaves = [kind for kind in CLASSES if issubclass(kind, PeerFault)]
    for kind in set(leaves) - {PeerFault}:
        assert issubclass(kind, BadMessage) != issubclass(kind, ProtocolViolation)
