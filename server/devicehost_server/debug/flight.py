"""The flight recorder: the last accesses, to be read after something went wrong.

It is armed with how many are kept. What it holds is a recording that can be looked at, but
not replayed: the devices' states at its beginning aren't known.

With a folder for dumps, what it holds is written to a file there when a device faults. At
most one a minute for each device, and `DUMPS_MAX` files: a guest may make a device fault as
often as it likes.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import structlog

from devicehost.access_status import AccessStatus
from devicehost.recording import Event, Header, Space, file_block, file_end, file_start
from devicehost_server import VERSION
from devicehost_server.debug.records import DeviceRecords
from devicehost_server.debug.taps import FlightTap
from devicehost_server.model import address_map
from devicehost_server.model.device_io import ReadableBuffer
from devicehost_server.model.errors import NotArmed
from devicehost_server.model.io_manager import IoManager

_log = structlog.get_logger(__name__)

FLIGHT_MAX = 1_000_000
"""The most accesses that the flight recorder keeps: some 20 MB."""

DUMP_EVERY_S = 60.0
"""How long after a dump for a device there is no other one for it, in seconds."""

DUMPS_MAX = 16
"""How many dumps are kept; the oldest go."""

SUFFIX = ".dhrec"

_DUMP = re.compile(r"\d{8}T\d{6}\.\d{6}-.*" + re.escape(SUFFIX))
"""What dumps are called. Other files in the folder are somebody else's."""


def flight_recording(tap: FlightTap | None, records: DeviceRecords, note: str) -> Iterator[bytes]:
    """Give what a flight recorder holds, as a file, in chunks.

    Raises:
        NotArmed: there is none.
    """
    if tap is None:
        raise NotArmed("the flight recorder isn't armed: it holds nothing")
    return _file(tap, records, note)


def _file(tap: FlightTap, records: DeviceRecords, note: str) -> Iterator[bytes]:
    blocks = tap.blocks()
    wall_ns = time.time_ns()
    yield file_start(
        Header(
            tuple(records.all()),
            version=VERSION,
            started=datetime.fromtimestamp(wall_ns / 1e9, UTC).isoformat(),
            wall_ns=wall_ns,
            now_ns=time.monotonic_ns(),
            note=note,
        )
    )
    for block in blocks:
        yield file_block(block.data)
    yield file_end(sum(block.count for block in blocks))


class FaultDumps:
    """Dumps the flight recorder when a device faults. A `Tap`, behind the recorder's.

    Args:
        folder: where the files go.
        tap: the recorder.
        records: describes the devices.
        io: knows whose an address is.
    """

    def __init__(self, folder: Path, tap: FlightTap, records: DeviceRecords, io: IoManager) -> None:
        self._folder = folder
        self._tap = tap
        self._records = records
        self._io = io
        self._lock = threading.Lock()
        self._next_at: dict[str, float] = {}

    def access(  # noqa: PLR0917 # as of a Tap
        self,
        started_ns: int,
        took_ns: int,
        vcpu: int,
        write: bool,  # noqa: FBT001 # likewise
        pio: bool,  # noqa: FBT001 # likewise
        address: int,
        size: int,
        data: ReadableBuffer,
        status: int,
        /,
    ) -> None:
        """Begin a dump if a device faulted, on a thread of its own."""
        del started_ns, took_ns, vcpu, write, size, data
        if status != AccessStatus.DEVICE_FAULT:
            return
        space = Space.PIO if pio else Space.MMIO
        trap = self._io.find(address_map.Space(space.value), address)
        device = trap.device.name if trap is not None else ""
        now = time.monotonic()
        with self._lock:
            if now < self._next_at.get(device, 0.0):
                return
            self._next_at[device] = now + DUMP_EVERY_S
        note = f"device {device!r} faulted in an access to {space.value} {address:#x}"
        try:
            threading.Thread(target=self._dump, args=(device, note), name="flight dump").start()
        except RuntimeError as error:  # there can't be one more thread
            _log.error("flight_dump_failed", device=device, error=str(error))

    def event(self, event: Event) -> None:
        """Nothing else is a fault."""

    def _dump(self, device: str, note: str) -> None:
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        path = self._folder / f"{moment}-{device}{SUFFIX}"
        unfinished = path.with_suffix(".part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with unfinished.open("xb") as file:
                for chunk in _file(self._tap, self._records, note):
                    file.write(chunk)
            unfinished.rename(path)
            dumps = (each for each in self._folder.iterdir() if _DUMP.fullmatch(each.name))
            for old in sorted(dumps)[:-DUMPS_MAX]:
                old.unlink(missing_ok=True)
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            _log.error("flight_dump_failed", path=str(path), error=str(error))
        else:
            _log.warning("flight_dumped", path=str(path), device=device)
