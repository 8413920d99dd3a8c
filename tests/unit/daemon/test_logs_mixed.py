"""Lines of several threads, and of both ways to log, stay lines."""

from __future__ import annotations

import json
import subprocess
import sys

EACH = 2000
PROGRAM = f"""
import logging, sys, threading
import structlog
from devicehost_server import logs

logs.set_up("info", "json")
sys.setswitchinterval(1e-5)

def one():
    for number in range({EACH}):
        structlog.get_logger("one").info("event", number=number)

def other():
    for number in range({EACH}):
        logging.getLogger("other").info("a sentence %d", number)

threads = [threading.Thread(target=each) for each in (one, other, one, other)]
for each in threads:
    each.start()
for each in threads:
    each.join()
"""


def test_lines_that_are_logged_at_the_same_time_do_not_mix() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    events = [json.loads(line)["event"] for line in ran.stderr.splitlines()]
    assert len(events) == 4 * EACH
    assert events.count("event") == 2 * EACH
