"""What deploy/ holds is fit to be installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from daemonlab import run_daemon

DEPLOY = Path(__file__).parents[1] / "deploy"


def test_the_example_configuration_is_right() -> None:
    checked = run_daemon("--config", DEPLOY / "vm1.toml", "--check-config")
    assert checked.returncode == 0, checked.stderr


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    unit = (DEPLOY / "devicehostd@.service").read_text()
    installed = tmp_path / "devicehostd@.service"
    installed.write_text(unit.replace("/usr/bin/devicehostd", "/bin/true"))
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", installed],  # noqa: S607 # the system's
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in found.stderr.splitlines() if "devicehostd" in line]
    assert ours == []
