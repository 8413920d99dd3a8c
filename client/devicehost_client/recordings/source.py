"""A recording being gone through: its events, numbered and decoded, once.

    with Source.open(path) as source:
        for number, seen in source:
            print(number, seen.device, seen.event)
    if source.damage is not None:
        print(f"good up to event {source.events}: {source.damage}")

Events are numbered from 0, in the order of the file: the number of an event is its place,
and the same for all who read the recording.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from devicehost.recording import Annotated, Annotator, BadRecording, Header, Lost, Recording

_REPORTED_EVERY = 1024
"""Events from one report of progress to the next."""


class Source:
    """Goes through a recording once.

    Attributes:
        name: of the file, without its directories.
        size: of the file, in bytes; 0 if it is a pipe.
        header: what the recording begins with.
        events: how many were gone through so far.
        lost: how many of them the recording says are missing.
        begin_ns: the time of the first, on the server's monotonic clock; 0 before it.
        on_progress: called now and then with how many more bytes have been read.

    Args:
        file: the recording; it is closed with this.
        name: what to call it.

    Raises:
        BadRecording: it is none.
        OSError: it can't be read.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self.name = name
        self.size = os.fstat(file.fileno()).st_size
        self._recording = Recording.read(file)
        self.header: Header = self._recording.header
        self._annotator = Annotator(self.header.devices)
        self._nonsense = ""
        self.events = 0
        self.lost = 0
        self.begin_ns = 0
        self.on_progress: Callable[[float], None] | None = None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file.

        Raises:
            BadRecording: it is no recording.
            OSError: it can't be read.
        """
        file = path.open("rb")
        try:
            return cls(file, path.name)
        except BaseException:
            file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def damage(self) -> str | None:
        """What is wrong with it, as far as it was gone through; None if nothing is."""
        return "; ".join(filter(None, (self._recording.damage, self._nonsense))) or None

    @property
    def is_complete(self) -> bool:
        """Whether it was gone through to its end, and nothing is wrong."""
        return self._recording.is_complete and not self._nonsense

    def __iter__(self) -> Iterator[tuple[int, Annotated]]:
        reported = 0
        for number, event in enumerate(self._recording):
            try:
                seen = self._annotator.annotate(event)
            except BadRecording as error:
                self._nonsense = f"nothing can be told from event {number} on: {error}"
                return
            self.events = number + 1
            if isinstance(event, Lost):
                self.lost += event.count
            elif not self.begin_ns:
                self.begin_ns = event.time_ns
            yield number, seen
            if self.size and self.on_progress and not number % _REPORTED_EVERY:
                position = self._file.tell()
                self.on_progress(position - reported)
                reported = position
