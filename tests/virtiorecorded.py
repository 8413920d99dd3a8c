"""A guest that drives a virtio device on a bench where its accesses are recorded."""

from __future__ import annotations

import threading
from typing import Any

from devicehost_server.model.interrupts import InterruptEvent
from replaylab import Bench
from virtiolab import GuestRam, Way


class RecordedGuest:
    """A guest whose accesses are recorded."""

    way = Way.MMIO

    def __init__(self, bench: Bench, device: Any) -> None:
        self.ram = GuestRam()
        self.interrupted = threading.Event()
        self._bench = bench
        self._base = device.context.resources.get_mmio_address_ranges()[0].base
        bench.memory.add(self.ram.block())
        bench.interrupts.subscribe(self._on_interrupt)

    def read(self, offset: int, size: int = 4) -> int:
        return self._bench.mmio_in(self._base + offset, size)

    def write(self, offset: int, value: int, size: int = 4) -> None:
        self._bench.mmio_out(self._base + offset, value, size)

    def _on_interrupt(self, event: InterruptEvent) -> None:
        self.interrupted.set()
