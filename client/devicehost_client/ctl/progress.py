"""How far long work has come, on stderr, for who waits for it.

    with progress("export", size) as advance:
        for chunk in chunks:
            write(chunk)
            advance(len(chunk))

Only a terminal is shown anything, and only if `rich` is there (it comes with the extra
`debug`): what a program reads stays as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TypeAlias

Advance: TypeAlias = Callable[[float], None]
"""Takes how much more is done now."""

_SHOWN_EVERY_S = 0.1


@contextmanager
def progress(what: str, total: float | None) -> Iterator[Advance]:
    """Show a bar until the block ends; it leaves nothing behind.

    Args:
        what: is done, in a word or two.
        total: how much that is, in a unit of the caller's; None if nobody knows.
    """
    if not sys.stderr.isatty():
        yield _show_nothing
        return
    try:
        from rich.console import Console  # noqa: PLC0415 # not everybody has it
        from rich.progress import Progress  # noqa: PLC0415 # likewise
    except ImportError:
        yield _show_nothing
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        pending = 0.0
        shown_at = monotonic()

        def advance(amount: float) -> None:
            # What is done in small steps would otherwise spend its time on the bar.
            nonlocal pending, shown_at
            pending += amount
            now = monotonic()
            if now - shown_at >= _SHOWN_EVERY_S:
                bar.update(task, advance=pending)
                pending, shown_at = 0.0, now

        yield advance


def _show_nothing(_amount: float) -> None:
    """Stands for the bar where there is none."""
