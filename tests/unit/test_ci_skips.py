"""In CI nothing is skipped in silence: tests/conftest.py sees to it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

SUITE = {
    "test_some.py": """
import pytest

@pytest.mark.skip(reason="by mark")
def test_marked():
    pass

def test_that_skips_itself():
    pytest.skip("by call")

@pytest.fixture
def absent():
    pytest.skip("by fixture")

def test_with_fixture(absent):
    pass

@pytest.mark.xfail(reason="known", strict=True)
def test_that_is_known_to_fail():
    assert False

def test_that_passes():
    pass
""",
    "test_module.py": """
import pytest
pytest.importorskip("a_module_that_nobody_has", reason="by module")
""",
}


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    for name, content in SUITE.items():
        (tmp_path / name).write_text(content)
    shutil.copy(TESTS / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {TESTS}\n")
    return tmp_path


def run(suite: Path, **variables: str) -> tuple[int, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "CI"}
    flags = ["-rA", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *flags, "--rootdir", str(suite)],
        cwd=suite,
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout


def test_a_skip_is_a_skip_on_somebodys_machine(suite: Path) -> None:
    status, output = run(suite)
    assert status == 0
    assert "1 passed, 4 skipped, 1 xfailed" in output


def test_a_skip_is_a_failure_in_ci_and_an_expected_failure_is_not(suite: Path) -> None:
    status, output = run(suite, CI="true")
    assert status != 0
    for reason in ("by mark", "by call", "by fixture", "by module"):
        assert f"skipped in CI: {reason}" in output, output
    assert "1 failed, 1 passed, 1 xfailed, 3 errors" in output
