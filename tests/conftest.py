"""What all tests share: a server to talk to, and no silent skips in CI."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TypeVar

import hypothesis
import pytest

from daemonlab import Lab, serving
from devicehost_client import DeviceHost

R = TypeVar("R", pytest.TestReport, pytest.CollectReport)

# How long an example takes says nothing here: the machine may be busy.
hypothesis.settings.register_profile("busy", hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("busy")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A server in this process, with the devices for tests."""
    with serving(tmp_path) as running:
        yield running


@pytest.fixture
def host(lab: Lab) -> DeviceHost:
    """A client of the server."""
    return lab.host()


# A test that can't run on somebody's machine is skipped there. CI has all that tests need:
# a skip there means that something real isn't tested any more.


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test into a failed one, in CI."""
    return _without_skips((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a module that is skipped as a whole into a failed one, in CI."""
    return _without_skips((yield))


def _without_skips(report: R) -> R:
    expected = hasattr(report, "wasxfail")
    if report.skipped and not expected and os.environ.get("CI") == "true":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {reason}".replace("CI: Skipped: ", "CI: ")
    return report
