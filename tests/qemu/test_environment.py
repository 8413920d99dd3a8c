"""Where QEMU can't be had, what is missing is said, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemulab.environment import NoEnvironment, provide


def test_without_apt_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICEHOST_QEMU_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoEnvironment, match="needs Debian's apt-get"):
        provide()
    assert [path.name for path in tmp_path.iterdir()] == ["root.lock"]


def test_without_network_it_says_what_it_could_not_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVICEHOST_QEMU_ROOT", str(tmp_path / "root"))
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")  # where nobody listens
    with pytest.raises(NoEnvironment, match="apt-get failed: "):
        provide()
    assert [path.name for path in tmp_path.iterdir()] == ["root.lock"]
