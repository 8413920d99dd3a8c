"""The virtio entropy device: it fills buffers with random bytes.

Source: VIRTIO 1.2, section 5.4.

    virtio-rng                      from the kernel's generator
    virtio-rng,file=/dev/hwrng      from a file; what it gives at once, if only a part
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devicehost_server.devices.config import option
from devicehost_server.devices.virtio.chain import Chain
from devicehost_server.devices.virtio.device import VirtioConfig, VirtioDevice
from devicehost_server.devices.virtio.queue import VirtQueue
from devicehost_server.model.errors import BadConfig

QUEUE_SIZE = 64

PIECE_BYTES = 1 << 16
"""How many bytes are asked for at a time. A buffer gets no more: a driver asks again."""

RETRY_S = 0.02
"""How long a source that has nothing at the moment is left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RngConfig(VirtioConfig):
    """The configuration of a `virtio-rng`."""

    file: Path | None = option(None, "where the bytes come from; none for the kernel's generator")


class VirtioRng(VirtioDevice[RngConfig]):
    """A virtio entropy device: a source of random bytes."""

    type_name = "virtio-rng"
    config_type = RngConfig
    virtio_id = 4

    _fd: int | None = None

    def queue_sizes(self) -> Sequence[int]:
        """One queue, of buffers to be filled."""
        return [QUEUE_SIZE]

    def open(self) -> None:
        """Open the file, if one is configured."""
        path = self.config.file
        if path is None:
            return
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise BadConfig(
                f"device {self.name!r}: field 'file': {path}: {error.strerror}; "
                "allowed: a file that can be read",
                field="file",
                type=self.type_name,
            ) from error

    def serve(self, queue: VirtQueue) -> None:
        """Fill what there is to be filled."""
        while (chain := queue.pop()) is not None:
            try:
                written = self._fill(chain)
            except BlockingIOError:
                queue.put_back((chain,))
                self.look_again(queue.index, RETRY_S)
                break
            if chain.writable and not written:
                self.fail("the source of random bytes is at its end")
                return
            queue.push(chain, written)
        queue.notify()

    def close(self) -> None:
        """Close the file."""
        super().close()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _fill(self, chain: Chain) -> int:
        """Fill what is writable, as far as there is something at once; return how much.

        Raises:
            BlockingIOError: there is nothing at the moment.
        """
        written = 0
        for buffer in chain.writable:
            try:
                data = self._random(min(len(buffer), PIECE_BYTES))
            except BlockingIOError:
                if not written:
                    raise
                break
            buffer[: len(data)] = data
            written += len(data)
            if len(data) < len(buffer):
                break
        return written

    def _random(self, size: int) -> bytes:
        if self._fd is None:
            return os.getrandom(size)
        return os.read(self._fd, size)
