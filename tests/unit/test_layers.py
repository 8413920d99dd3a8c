"""Who may import whom: the layers, read from the source of every module.

    daemon and the rest of the top → services, endpoints → debug, replay → device_manager
        → plugged → new_device → functions → allocation, devices, pci → model

A room imports itself and the layers below, never a room beside it. The client and the
server don't know each other; both know `devicehost`, what goes over the wire.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "devicehost": ROOT / "proto" / "devicehost",
    "devicehost_client": ROOT / "client" / "devicehost_client",
    "devicehost_server": ROOT / "server" / "devicehost_server",
}

# The rooms of the server; what isn't here is the top, which nobody imports but the top.
LAYERS = {
    "": 0,  # the package's version
    "features": 0,
    "unix_socket": 0,
    "model": 0,
    "allocation": 1,
    "devices": 1,
    "pci": 1,
    "device_info": 1,
    "resource_json": 1,
    "functions": 2,
    "new_device": 3,
    "plugged": 4,
    "device_manager": 5,
    "debug": 6,
    "replay": 6,
    "services": 7,
    "endpoints": 7,
}
TOP = max(LAYERS.values()) + 1

# What else than the standard library and devicehost's own code, by package or room.
OTHERS = {
    "devicehost": {"google.protobuf", "grpc"},
    "devicehost_client": {"google.protobuf", "grpc", "rich", "textual", "unicorn"},
    "model": set[str](),
    "allocation": set[str](),
    "devices": {"structlog"},
    "pci": set[str](),
    "device_info": set[str](),
    "functions": set[str](),
    "new_device": set[str](),
    "plugged": set[str](),
    "features": set[str](),
    "unix_socket": set[str](),
    "device_manager": set[str](),
    "debug": {"structlog"},
    "replay": set[str](),
    "resource_json": set[str](),
    "endpoints": {"structlog"},
}


def modules(package: str) -> dict[str, Path]:
    """The modules of a package by their full name."""
    root = PACKAGES[package]
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = [package, *path.relative_to(root).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = {package: modules(package) for package in PACKAGES}
ALL = {name: path for of_package in MODULES.values() for name, path in of_package.items()}


def imports(path: Path) -> Iterator[str]:
    """The full names of all that a module imports, wherever in it that stands."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in ALL else node.module


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def room(module: str) -> str:
    """The room of a module of the server: the first part of its name behind the package's."""
    return [*module.split("."), ""][1]


def is_other(module: str) -> bool:
    """Whether a module comes from outside: not the standard library, and not ours."""
    first = module.partition(".")[0]
    return first not in sys.stdlib_module_names and first not in PACKAGES


def test_all_rooms_that_have_rules_are_there() -> None:
    rooms = {room(module) for module in MODULES["devicehost_server"]}
    assert rooms >= set(LAYERS)
    assert {"daemon", "server", "config"} <= rooms


@pytest.mark.parametrize("module", MODULES["devicehost_server"])
def test_imports_of_the_server_point_downwards(module: str) -> None:
    own = room(module)
    for imported in imports(ALL[module]):
        if is_in(imported, "devicehost_server") and room(imported) != own:
            layer, other = LAYERS.get(own, TOP), LAYERS.get(room(imported), TOP)
            assert other < layer or other == layer == TOP, f"{module} imports {imported}"


@pytest.mark.parametrize("package", PACKAGES)
def test_client_and_server_do_not_know_each_other_nor_the_wire_them(package: str) -> None:
    allowed = {package, "devicehost"}
    for module, path in MODULES[package].items():
        for imported in imports(path):
            first = imported.partition(".")[0]
            assert first not in PACKAGES or first in allowed, f"{module} imports {imported}"


@pytest.mark.parametrize("place", OTHERS)
def test_what_comes_from_outside_is_what_a_place_may_have(place: str) -> None:
    if place in PACKAGES:
        paths = MODULES[place]
    else:
        inside = f"devicehost_server.{place}"
        paths = {name: path for name, path in ALL.items() if is_in(name, inside)}
    assert paths
    for module, path in paths.items():
        for imported in imports(path):
            known = any(is_in(imported, other) for other in OTHERS[place])
            assert known or not is_other(imported), f"{module} imports {imported}"


def test_the_wire_below_the_api_knows_neither_grpc_nor_the_model() -> None:
    """vfio-user and the ring are plain bytes."""
    for module, path in MODULES["devicehost"].items():
        if not is_in(module, "devicehost.v1"):
            outside = [imported for imported in imports(path) if is_other(imported)]
            assert outside == [], module


def test_a_room_of_the_server_that_only_the_api_needs_has_no_grpc_below_it() -> None:
    for module, path in MODULES["devicehost_server"].items():
        if LAYERS.get(room(module), TOP) < LAYERS["services"]:
            assert not [name for name in imports(path) if is_in(name, "grpc")], module
