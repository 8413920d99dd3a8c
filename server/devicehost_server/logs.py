"""Logs: for people on a terminal, JSON lines otherwise, always on stderr.

An event has a stable name in snake_case; what varies is in its fields.
"""

from __future__ import annotations

import logging
import sys

import structlog


def set_up(level: str, log_format: str) -> None:
    """Set up structlog for this process.

    Args:
        level: debug, info, warning or error.
        log_format: console, json, or auto to see whether stderr is a terminal.
    """
    for_people = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    if for_people:
        last: list[structlog.types.Processor] = [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        ]
    else:
        last = [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
