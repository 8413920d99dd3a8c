"""Logs: for people on a terminal, JSON lines otherwise, always on stderr.

An event has a stable name in snake_case; what varies is in its fields. What libraries log
by the standard library's `logging`, gRPC above all, comes out in the same form; their
events are sentences.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from contextlib import suppress
from typing import TextIO, cast

import structlog
from structlog.stdlib import ProcessorFormatter

# The core of gRPC writes lines of its own to stderr, past all of this: for each peer, say,
# whose TLS handshake fails. It looks here when it is imported, which comes later.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


class _Stderr(io.TextIOBase):
    """Standard error, which may be closed, or a pipe that nobody reads any more.

    A line that can't be written is lost. It must not end the thread that logs it. Lines of
    several threads, by structlog and by `logging`, don't mix: each is one call of `write`.
    """

    _lock = threading.Lock()

    def write(self, text: str, /) -> int:
        """Write, if that can be done."""
        with self._lock, suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush likewise."""
        with suppress(OSError, ValueError):
            sys.stderr.flush()


def set_up(level: str, log_format: str) -> None:
    """Set up structlog and `logging` for this process.

    Args:
        level: debug, info, warning or error.
        log_format: console, json, or auto to see whether stderr is a terminal.
    """
    first: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.types.Processor]
    if log_format == "console" or (log_format == "auto" and sys.stderr.isatty()):
        last = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    else:
        # Local variables of a traceback may hold what a guest wrote.
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        last = [
            structlog.processors.ExceptionRenderer(tracebacks),
            structlog.processors.JSONRenderer(),
        ]
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*first, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Stderr())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(_Stderr())
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *first],
            processors=[ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(level=number, handlers=[handler], force=True)
