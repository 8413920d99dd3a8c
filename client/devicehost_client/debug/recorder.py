"""A recording that is written to a file while something goes on.

    with host.debug.record_to(Path("boot.rec")) as recorder:
        run_the_guest()
    print(recorder.written)

The server sends what comes next in the file. Told that it is enough, it sends what is left,
and the end. If it can't, the file is a recording that was cut: all that came is in it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from devicehost.recording.layout import CHUNK, END, START
from devicehost_client.debug.feeds import FinishableFeed
from devicehost_client.errors import ClientError, ConnectionLost

FINISH_S = 30.0
"""How long the server may take to send what is left, in seconds."""


class Chunks:
    """Follows the chunks of a recording that comes in parts, however they are cut.

    Attributes:
        whole: up to where the recording has only whole chunks, in bytes.
        events: how many events are in these.
        is_ended: whether the last of these is the end.
    """

    def __init__(self) -> None:
        self.whole = 0
        self.events = 0
        self.is_ended = False
        self._size = 0
        self._next_size = START.size
        self._next_events = 0
        self._next_type = b""
        self._head = bytearray()
        self._head_at = -1

    def add(self, data: bytes) -> None:
        """Take what comes next."""
        position = 0
        while position < len(data):
            if self._head_at < 0:
                position += self._skip(len(data) - position)
            else:
                wanted = CHUNK.size - len(self._head)
                self._head += data[position : position + wanted]
                position += min(wanted, len(data) - position)
                self._size = self._head_at + len(self._head)
                if len(self._head) == CHUNK.size:
                    self._begin_chunk()

    def _skip(self, available: int) -> int:
        """Pass over what belongs to the chunk; return how much of it there was."""
        taken = min(available, self._next_size - self._size)
        self._size += taken
        if self._size == self._next_size:
            self._end_chunk()
        return taken

    def _begin_chunk(self) -> None:
        self._next_type, length, self._next_events, *_ = CHUNK.unpack(self._head)
        self._head.clear()
        self._head_at = -1
        self._next_size = self._size + length
        if not length:
            self._end_chunk()

    def _end_chunk(self) -> None:
        self.whole = self._size
        self.events += self._next_events
        self.is_ended = self._next_type == END
        self._head_at = self._size


class FileRecorder:
    """Writes a recording to a file until it is closed. `Debug.record_to` makes it.

    It records when there is one: what happens from then on is in the file.

    Args:
        path: the file; what was in it is lost.
        record: begins the recording.

    Raises:
        OSError: the file can't be written.
        ClientError: the server can't be reached, or refuses. There is no file then.
    """

    def __init__(self, path: Path, record: Callable[[], FinishableFeed[bytes]]) -> None:
        self._feed = record()
        try:
            self._file: BinaryIO = path.open("wb")
        except BaseException:
            self._feed.close()
            raise
        self._chunks = Chunks()
        self._failure: Exception | None = None
        self._ended = threading.Event()
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    @property
    def written(self) -> int:
        """How many bytes there are so far, in whole chunks."""
        return self._chunks.whole

    @property
    def events(self) -> int:
        """How many events there are so far."""
        return self._chunks.events

    def wait(self, timeout_s: float | None = None) -> bool:
        """Return when it has ended by itself; or after a while, and then False."""
        return self._ended.wait(timeout_s)

    def close(self) -> None:
        """End the recording, and the file.

        Raises:
            RemoteError: the server ended it before, such as with RECORDING_TOO_SLOW. The
                file has what came until then, and isn't marked as complete.
            ConnectionLost: the server is gone, or sends no end; likewise.
            OSError: the file couldn't be written; likewise, as far as there is one.
        """
        with self._closing:
            if self._file.closed:
                return
            self._feed.finish()
            self._ended.wait(FINISH_S)
            self._feed.close()
            self._thread.join()
            try:
                if self._failure is not None:
                    raise self._failure
                if not self._chunks.is_ended:
                    raise ConnectionLost("the server sends no end of the recording")
            finally:
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            for part in self._feed:
                self._file.write(part)
                self._chunks.add(part)
        except (ClientError, OSError) as error:
            self._failure = error
            self._feed.close()
        self._ended.set()
