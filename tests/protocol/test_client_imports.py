"""What a VMM loads when it loads the client: gRPC, protobuf, and nothing of the server."""

from __future__ import annotations

import subprocess
import sys

import pytest

# `grpc` itself looks whether grpc_health and its like are installed, so their empty
# packages may be there; what is in them may not.
FOREIGN = (
    "devicehost_server",
    "google.rpc",
    "grpc_health.v1",
    "grpc_reflection.v1alpha",
    "grpc_status.rpc_status",
    "structlog",
    "unicorn",
)


def loaded_by(module: str) -> set[str]:
    """The names of all modules that a new process has after it imported one."""
    program = f"import sys, {module}; print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(ended.stdout.split())


def foreign(modules: set[str]) -> list[str]:
    """Those of the modules that a VMM has no use for."""
    return sorted(
        module
        for module in modules
        if any(module == name or module.startswith(f"{name}.") for name in FOREIGN)
    )


@pytest.mark.parametrize("module", ["devicehost_client", "devicehost_client.adapters.kvm"])
def test_the_client_loads_nothing_of_the_server(module: str) -> None:
    modules = loaded_by(module)
    assert "grpc" in modules or module != "devicehost_client"
    assert foreign(modules) == []


def test_the_wire_loads_neither() -> None:
    modules = loaded_by("devicehost")
    assert foreign(modules) == []
    assert "grpc" not in modules
    assert not {name for name in modules if name.startswith("devicehost_client")}


def test_the_server_loads_nothing_of_the_client() -> None:
    modules = loaded_by("devicehost_server.daemon")
    assert "structlog" in foreign(modules)  # so the list above means something
    assert not {name for name in modules if name.startswith("devicehost_client")}
