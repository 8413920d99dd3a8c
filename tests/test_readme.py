"""What the README says is true: its examples are run here, as they stand.

The two commands at its top are what runs these tests, and `guests/test_demo.py`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from daemonlab import daemon, wait_until

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}


def block(language: str, containing: str) -> str:
    """The one code block of this language that has this text in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    (found,) = [each for each in blocks if containing in each]
    return str(found)


def run(command: list[str], directory: Path, **environment: str) -> str:
    result = subprocess.run(
        command,
        cwd=directory,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    commands = re.findall(r"^make (\w+)", block("console", "make demo"), re.MULTILINE)
    assert commands == ["demo", "test"]
    for target in commands:
        run(["make", "--dry-run", target], ROOT)


def test_the_vmm_runs_its_guest_on_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/kvm")
    (tmp_path / "vmm.py").write_text(block("python", "from devicehost_client.adapters.kvm"))
    monkeypatch.chdir(tmp_path)  # where the server's files go
    with daemon(tmp_path, socket_path=tmp_path / "devices.sock"):
        printed = run([sys.executable, "vmm.py"], tmp_path)
        console = tmp_path / "console.log"
        wait_until(lambda: console.read_text() == "Hi")
    assert "Halted" in printed
    assert "0xffffffff" in printed


def test_the_device_joins_the_server_by_its_entry_point_and_works(tmp_path: Path) -> None:
    (tmp_path / "doorbell.py").write_text(block("python", "class Doorbell"))
    entry_points = block("toml", "devicehost.devices")
    # What an installer makes of a package's pyproject.toml.
    dist_info = tmp_path / "doorbell-1.dist-info"
    dist_info.mkdir()
    (dist_info / "METADATA").write_text("Metadata-Version: 2.1\nName: doorbell\nVersion: 1\n")
    (dist_info / "entry_points.txt").write_text(
        entry_points.replace("[project.entry-points.", "[").replace('"', "")
    )
    with daemon(tmp_path, variables={"PYTHONPATH": str(tmp_path)}) as running:
        host = running.host()
        device = host.hotplug.plug("doorbell", {"limit": "2"})
        levels: list[tuple[int, bool]] = []
        host.interrupts.start(on_level=lambda gsi, /, *, asserted: levels.append((gsi, asserted)))
        mmio, irq = device.resources
        vcpu = host.vcpu(0)
        vcpu.mmio_write(mmio.mmio.base, 4, 1)
        assert levels == []
        vcpu.mmio_write(mmio.mmio.base, 4, 1)
        assert levels == [(irq.legacy_irq, True)]
        assert vcpu.mmio_read(mmio.mmio.base, 4) == 2
        assert levels[1:] == [(irq.legacy_irq, False)]


def test_the_shell_session_of_daemon_and_hand_tool(tmp_path: Path) -> None:
    lines = ["set -em", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for line in block("console", "devicehostctl health").splitlines():
        lines.append(line.removeprefix("$ "))
        if line.endswith("&"):  # a person types slower than a server starts
            lines.append("until test -S vm1.sock; do sleep 0.01; done")
    output = run(["bash", "-c", "\n".join(lines)], tmp_path)
    assert "uart16550" in output
    assert "0x12345678" in output
    assert "pad" in output
