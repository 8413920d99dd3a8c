"""From the error of an access to its status; what a status can't say goes to the log.

The local ways answer with a number, so what a device raised would be lost. A guest may
make a device raise as often as it likes: of each device, one error a second is logged, with
how many were not.
"""

from __future__ import annotations

import threading
import time

import structlog

from devicehost.access_status import AccessStatus
from devicehost.ring.consumer import BadEntry
from devicehost_server.model.errors import DeviceFault, DeviceHostError

_log = structlog.get_logger(__name__)

LOG_EVERY_S = 1.0


def status_of(error: BaseException) -> AccessStatus:
    """The status that stands for a failed access. What a device raised is logged."""
    if isinstance(error, BadEntry):
        return error.status
    if isinstance(error, DeviceFault):
        _faults.note(error)
    if isinstance(error, DeviceHostError) and error.reason in AccessStatus.__members__:
        return AccessStatus[error.reason]
    return AccessStatus.DEVICE_FAULT


class _FaultLog:
    """Logs what devices raise. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next_at: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}

    def note(self, error: DeviceFault) -> None:
        """Log an error, or count it."""
        device = error.metadata.get("device", "")
        now = time.monotonic()
        with self._lock:
            if now < self._next_at.get(device, 0.0):
                self._unlogged[device] = self._unlogged.get(device, 0) + 1
                return
            self._next_at[device] = now + LOG_EVERY_S
            unlogged = self._unlogged.pop(device, 0)
        _log.error("device_fault", device=device, unlogged=unlogged, exc_info=error.__cause__)


_faults = _FaultLog()
