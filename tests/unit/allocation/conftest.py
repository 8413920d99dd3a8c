"""What the tests of the resource manager begin with."""

from __future__ import annotations

import pytest

from devicehost_server.allocation import ResourceManager


@pytest.fixture
def manager() -> ResourceManager:
    return ResourceManager()
