"""The fuzz targets, by name, and where their corpora are.

Each is a module here with a function `test_one_input(data)`, which raises if something
that has to hold does not.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

TestOneInput: TypeAlias = Callable[[bytes], object]

TARGETS: Final = (
    "codec",
    "server_session",
    "client_session",
    "bus_endpoint",
    "pci_endpoint",
    "ring_consumer",
    "ring_producer",
    "recording",
)
PLANTED: Final = "planted"
"""A target with a fault, to see that it is found."""

INSTRUMENTED: Final = (
    "devicehost",
    "devicehost_server.endpoints",
    "devicehost_server.model",
    "devicehost_server.pci",
)
"""The packages in which a fuzzer looks for new ways to go."""

CORPUS: Final = Path(__file__).with_name("corpus")


def load(name: str) -> TestOneInput:
    """Return the function of a target."""
    found: TestOneInput = importlib.import_module(f"fuzz.{name}").test_one_input
    return found


def corpus(name: str) -> list[Path]:
    """The inputs of a target that are kept in the tree, in a fixed order."""
    return sorted((CORPUS / name).glob("*"))
