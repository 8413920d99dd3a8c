"""Logging where nobody reads it any more."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import logging, os, sys, structlog
from devicehost_server import logs

logs.set_up("info", "json")
{before}
structlog.get_logger().info("lost")
logging.getLogger("other").warning("lost as well")
print("went on", flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(
    "before", ["os.close(2)", "sys.stderr.close()", "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)"]
)
def test_a_line_that_can_not_be_written_harms_nobody(before: str) -> None:
    command = [sys.executable, "-c", PROGRAM.format(before=before)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "went on\n"


def test_a_line_is_written_as_long_as_it_can_be() -> None:
    command = [sys.executable, "-c", PROGRAM.format(before="")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stderr.count("lost") == 2
