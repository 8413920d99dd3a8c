"""What the README says is true: its examples are run here, as they stand.

The two commands at its top are what runs these tests, and `guests/test_demo.py`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daemonlab import daemon, wait_until
from devicehost_client import connect
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.server import DeviceServer, ServerConfig
from devicehost_server.unix_socket import UnixListener
from pcilab import BUS_MASTER, CAP_MSI, CONFIG, MSI, MSI_ENABLE, Vmm

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


def test_the_device_with_a_register_map_works_and_can_be_looked_at(tmp_path: Path) -> None:
    namespace: dict[str, Any] = {}
    exec(block("python", "class Counter"), namespace)  # noqa: S102 # as a reader would
    server = DeviceServer(
        ServerConfig(unix=UnixListener(tmp_path / "sock")), DeviceTypes([namespace["Counter"]])
    )
    server.start()
    try:
        with connect(f"unix:{tmp_path / 'sock'}", transport="grpc-stream") as host:
            device = host.hotplug.plug("counter", device_id="c")
            base = device.resources[0].mmio.base
            assert host.mmio_read(base + 4, 4) == 0
            host.mmio_write(base, 4, 1)
            assert [host.mmio_read(base + 4, 4) for _ in range(3)] == [1, 2, 3]
            server.debugger.registers.poke("c", "STATUS", 0x80)
            host.mmio_write(base + 8, 4, 0x80)
            assert host.mmio_read(base + 8, 4) == 0
            assert (
                str(server.debugger.registers.peek("c", "CONTROL")) == "CONTROL = 0x00000001 (EN=1)"
            )
    finally:
        server.stop()


def test_the_device_that_sums_up_memory_is_a_pci_function_with_dma_and_msi(
    tmp_path: Path,
) -> None:
    namespace: dict[str, Any] = {}
    exec(block("python", "class Summer"), namespace)  # noqa: S102 # as a reader would
    server = DeviceServer(
        ServerConfig(unix=UnixListener(tmp_path / "sock")), DeviceTypes([namespace["Summer"]])
    )
    server.start()
    try:
        server.devices.plug("summer", {"pci-socket": str(tmp_path / "summer.sock")})
        with Vmm(tmp_path / "summer.sock") as vmm:
            assert vmm.get(CONFIG, 0) == 0x5A5A_1234
            memory = vmm.share(0x10_0000, 0x1000)
            memory[:3] = bytes((1, 2, 200))
            vmm.set_command(BUS_MASTER)
            [message] = vmm.connect(MSI)
            vmm.enable_messages(CAP_MSI, MSI_ENABLE)
            vmm.put(0, 0, 0x10_0000, 8)
            vmm.put(0, 8, 3)
            assert message.wait() == 1
            assert vmm.get(0, 12) == 203
    finally:
        server.stop()


def test_the_shell_session_of_somebody_who_debugs(tmp_path: Path) -> None:
    output = shell(block("console", "devicehostctl peek"), tmp_path)
    assert "com1.LCR  0x83   DLAB=1, WLS=3 8 bits" in output
    assert "no difference" in output
    assert "nothing found" in output
    assert "1 events" in output
    assert (tmp_path / "last.html").read_text().startswith("<!DOCTYPE html>")


def test_the_shell_session_of_daemon_and_hand_tool(tmp_path: Path) -> None:
    output = shell(block("console", "devicehostctl health"), tmp_path)
    assert "uart16550" in output
    assert "0x12345678" in output
    assert "pad" in output


def test_the_pictures_are_there() -> None:
    for path in re.findall(r"^!\[[^]]*\]\(([^)]*)\)$", README, re.MULTILINE):
        assert (ROOT / path).stat().st_size > 0


def shell(session: str, directory: Path) -> str:
    """Type what stands behind the prompts; return what was printed."""
    lines = ["set -em", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for line in session.splitlines():
        lines.append(line.removeprefix("$ "))
        if line.endswith("&"):  # a person types slower than a server starts
            lines.append("until test -S vm1.sock; do sleep 0.01; done")
    return run(["bash", "-c", "\n".join(lines)], directory)
