"""The block device: features, configuration, and its life.

Durability (virtio 1.2, section 5.2.6.2): a flush is answered when all writes that were
answered before it are on the disk: whichever queue and thread they went by, it is one file.
Without a cache, so if the driver didn't accept FLUSH or has switched the cache off, each
write is on the disk when it is answered. Until then it is in the host's page cache, which
outlives this process: only a crash of the host can lose it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from devicehost_server.devices.base import State
from devicehost_server.devices.config import option
from devicehost_server.devices.state import StateReader
from devicehost_server.devices.virtio.blk.disk import Disk
from devicehost_server.devices.virtio.blk.request import Request
from devicehost_server.devices.virtio.blk.service import (
    DISCARD_SECTORS_MAX,
    SEGMENTS_MAX,
    ZERO_SECTORS_MAX,
    Service,
)
from devicehost_server.devices.virtio.blk.spec import (
    CONFIG,
    DEVICE_ID,
    ID_SIZE,
    SECTOR,
    WRITEBACK_OFFSET,
    Feature,
)
from devicehost_server.devices.virtio.blk.traffic import Traffic
from devicehost_server.devices.virtio.device import VirtioConfig, VirtioDevice
from devicehost_server.devices.virtio.queue import VirtQueue
from devicehost_server.devices.virtio.sizes import check_queue_size
from devicehost_server.model.errors import BadConfig, BadState

PAGE = 4096
"""What the page cache, and nearly every file system, works in: bytes."""

_ERRNO_MAX = 4095

NOTIFY_BYTES = 1 << 20
"""After how many bytes the driver is interrupted, though there are more requests."""


class BlockSize(enum.Enum):
    """Bytes of a logical block."""

    SECTOR = "512"
    PAGE = "4096"


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtioBlkConfig(VirtioConfig):
    """The configuration of a disk."""

    file: Path = option(help="the image: a regular file or a block device")
    read_only: bool = option(default=False, help="whether the guest may only read")
    queues: int = option(1, "how many queues, at best one for each vCPU", minimum=1, maximum=8)
    queue_size: int = option(
        256, "descriptors of each queue, a power of two", minimum=4, maximum=1024
    )
    serial: str | None = option(
        None, "the serial number, up to 20 ASCII characters; none for the device's id"
    )
    block_size: BlockSize = option(BlockSize.SECTOR, "bytes of a logical block")
    lock: bool = option(
        default=True, help="whether to lock the image against other programs, as QEMU does"
    )


class VirtioBlk(VirtioDevice[VirtioBlkConfig]):
    """A disk for a guest (virtio 1.2)."""

    type_name = "virtio-blk"
    config_type = VirtioBlkConfig
    virtio_id: ClassVar[int] = DEVICE_ID
    feature_names: ClassVar[Mapping[int, str]] = {
        bit.bit_length() - 1: bit.name or "" for bit in Feature
    }

    def __init__(self, config: VirtioBlkConfig) -> None:
        super().__init__(config)
        check_queue_size(self.type_name, config.queue_size)
        serial = config.serial or ""
        if not serial.isascii() or len(serial) > ID_SIZE:
            allowed = f"allowed: up to {ID_SIZE} ASCII characters"
            raise self._bad("serial", f"{serial!r} is not allowed; {allowed}")
        self._service: Service | None = None  # nor has it one in a replay
        self._capacity = 0
        self._wants_cache = True
        self._traffic = Traffic()

    def device_features(self) -> int:
        """What it offers."""
        features = (
            Feature.SEG_MAX
            | Feature.BLK_SIZE
            | Feature.FLUSH
            | Feature.TOPOLOGY
            | Feature.CONFIG_WCE
        )
        if self.config.queues > 1:
            features |= Feature.MQ
        if self.config.read_only:
            features |= Feature.RO
        else:
            features |= Feature.DISCARD | Feature.WRITE_ZEROES
        return features

    def queue_sizes(self) -> Sequence[int]:
        """All alike."""
        return [self.config.queue_size] * self.config.queues

    def device_config(self) -> bytes:
        """`struct virtio_blk_config`, as far as features are offered."""
        block_size = self._block_size
        blocks_in_page = PAGE // block_size
        writes = not self.config.read_only
        return CONFIG.pack(
            self._capacity // SECTOR,
            0,  # size_max isn't offered
            self.config.queue_size - 2,  # header and status are buffers, too
            0,
            0,
            0,  # nor is a geometry
            block_size,
            blocks_in_page.bit_length() - 1,
            0,
            blocks_in_page,
            0,
            self._is_cached,
            self.config.queues,
            DISCARD_SECTORS_MAX * writes,
            SEGMENTS_MAX * writes,
            PAGE // SECTOR * writes,
            ZERO_SECTORS_MAX * writes,
            SEGMENTS_MAX * writes,
            writes,
        )

    def write_device_config(self, offset: int, data: bytes) -> None:
        """Switch the cache on or off, if the driver accepted that it can; nothing else."""
        if offset == WRITEBACK_OFFSET and len(data) == 1 and self.features & Feature.CONFIG_WCE:
            self._wants_cache = bool(data[0] & 1)
            if self._service is not None:
                self._service.cached = self._is_cached

    def open(self) -> None:
        """Open the image.

        Raises:
            BadConfig: it can't be used, or another program uses it.
        """
        config = self.config
        disk = Disk.open(
            config.file,
            read_only=config.read_only,
            locked=config.lock,
            device_type=self.type_name,
        )
        if disk.size % self._block_size:
            disk.close()
            allowed = f"allowed: a multiple of {self._block_size}, the block size"
            raise self._bad("file", f"{str(config.file)!r} has {disk.size} bytes; {allowed}")
        serial = self.name if config.serial is None else config.serial
        identity = serial.encode("ascii", "replace")[:ID_SIZE]
        self._capacity = disk.size
        self._service = Service(disk, self.name, identity, self._traffic)

    def activate(self, features: int) -> None:
        """Cache writes, or not, as the driver wants it."""
        super().activate(features)
        if self._service is not None:
            self._service.cached = self._is_cached

    def serve(self, queue: VirtQueue) -> None:
        """Carry out what is there, or have it carried out."""
        service = self._service
        if service is None:
            return
        answered, moved = False, 0
        while (chain := queue.pop()) is not None:
            try:
                request = Request(queue, chain)
            except ValueError as error:
                self.fail(str(error))
                break
            answered |= service.begin(request)
            moved += request.size
            if answered and moved >= NOTIFY_BYTES:
                queue.notify()
                answered, moved = False, 0
        if answered:
            queue.notify()

    def quiesce(self) -> None:
        """Wait until the disk has done what it has begun; the rest is for later, if ever."""
        if self._service is not None:
            self._service.drain()

    def close(self) -> None:
        """End the service, and close the image."""
        super().close()
        if self._service is not None:
            self._service.close()
            self._service = None

    def reset_device(self) -> None:
        """Have a cache again."""
        self._wants_cache = True

    def save_device(self) -> State:
        """What the driver may know.

        That is the capacity, in bytes; whether it wants a cache; and the error by which a
        flush has failed, since from then on none may succeed.
        """
        return {
            "capacity": self._capacity,
            "wants_cache": self._wants_cache,
            "flush_error": self._service.disk.flush_error if self._service else 0,
        }

    def restore_device(self, state: State) -> None:
        """Go on as before. If the image has grown since, the guest doesn't learn of it.

        Raises:
            BadState: it doesn't fit, or the image has become smaller.
        """
        reader = StateReader(self.name, state)
        capacity = reader.integer("capacity", maximum=(1 << 63) - 1)
        wants_cache = reader.boolean("wants_cache")
        flush_error = reader.integer("flush_error", maximum=_ERRNO_MAX)
        reader.finish()
        if self._service is not None:
            if capacity > (size := self._service.disk.size):
                raise BadState(
                    f"state of device {self.name!r}: field 'capacity' is {capacity:#x}, allowed:"
                    f" up to {size:#x}, what the image has",
                    device=self.name,
                    field="capacity",
                )
            self._service.capacity = capacity
            self._service.disk.flush_error = flush_error
        self._capacity, self._wants_cache = capacity, wants_cache

    @property
    def config_space(self) -> bytes:
        """The configuration, which says what becomes of the cache by the features accepted."""
        return self.device_config()

    def view(self) -> Mapping[str, Any]:
        """Requests by kind, and what is going on."""
        return {
            **super().view(),
            "capacity": self._capacity,
            "cached": self._is_cached,
            "waiting": self._service.waiting if self._service else 0,
            "traffic": self._traffic.view(),
        }

    @property
    def _is_cached(self) -> bool:
        """Whether a write may be answered before it is on the disk.

        A driver that didn't accept FLUSH couldn't ask for that later.
        """
        return self._wants_cache and bool(self.features & Feature.FLUSH)

    @property
    def _block_size(self) -> int:
        return int(self.config.block_size.value)

    def _bad(self, field: str, why: str) -> BadConfig:
        message = f"device type {self.type_name!r}: field {field!r}: {why}"
        return BadConfig(message, field=field, type=self.type_name)
