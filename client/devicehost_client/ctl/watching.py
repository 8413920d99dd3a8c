"""What ends a watch: Ctrl-C, or nobody being there to read it.

Either is how a watch is meant to end, so neither is an error. Both end the process at
once: all that was to be said is flushed, and the server sees the connection close. To
unwind the stack instead would be unsafe: an exception that a signal raises in the middle
of gRPC's work can leave one of its locks held, and closing the channel waits for it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from types import FrameType


def end_with_its_reader() -> None:
    """From here on, end with status 0 on SIGINT, or when stdout's reader has closed it."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as for what runs in a background
        signal.signal(signal.SIGINT, _end)
    # A watch may have nothing to write for hours, and would learn nothing of its pipe.
    threading.Thread(target=_wait_for_hang_up, name="reader", daemon=True).start()


def _wait_for_hang_up() -> None:
    hung_up = select.poll()
    hung_up.register(sys.stdout.fileno(), 0)  # errors and hang-ups are always told
    hung_up.poll()
    os._exit(0)


def _end(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)
