"""What passes the doors of the devices, for taps.

A journal is told under the device's lock, so its entries stand in their order. What a
device asks while somebody debugs it isn't told; what it asks while its state is saved for
the beginning of a recording can be gathered, for it has to stand behind that state.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from devicehost.recording import Event
from devicehost.recording.events import Dma, Learned, Operation, Told, Woken
from devicehost_server.debug.entered import is_inside
from devicehost_server.debug.taps import Tap


class _OfThread(threading.local):
    gathered: list[Event] | None = None


class TapJournal:
    """A `Journal` that tells taps.

    Args:
        taps: who is told.
    """

    _of_thread = _OfThread()

    def __init__(self, taps: Sequence[Tap]) -> None:
        self._taps = tuple(taps)

    def learned(self, device: str, source: str, value: int | bytes) -> None:
        """A device asked, and was told `value`."""
        self._tell(Learned(time.monotonic_ns(), device, source, value))

    def woken(self, device: str, source: str) -> None:
        """A device was called by other than an access, and has returned."""
        self._tell(Woken(time.monotonic_ns(), device, source))

    def told(self, device: str, data: bytes) -> None:
        """A device gave `data` to its stream, which took it."""
        self._tell(Told(time.monotonic_ns(), device, data))

    def dma(self, device: str, operation: Operation, address: int, data: bytes) -> None:
        """A device accessed guest memory; no `data` if that failed."""
        self._tell(Dma(time.monotonic_ns(), device, operation, address, data))

    @classmethod
    @contextmanager
    def gathering(cls) -> Iterator[list[Event]]:
        """Gather what the calling thread causes, besides telling it."""
        gathered = cls._of_thread.gathered = []
        try:
            yield gathered
        finally:
            cls._of_thread.gathered = None

    def _tell(self, event: Event) -> None:
        if is_inside():
            return
        gathered = self._of_thread.gathered
        if gathered is not None:
            gathered.append(event)
        for tap in self._taps:
            tap.event(event)
