"""What the tests of replaying share: a bench that records."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from replaylab import Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A bench without devices."""
    with capture_logs():
        bench = Bench()
        yield bench
        bench.close()
