"""What a virtio device says of itself, and what it is asked to do.

A device type derives from `device.VirtioDevice`, which derives from what is here. When each
of these is called, and on which thread, is told there.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from devicehost_server.devices.base import State
from devicehost_server.devices.config import option
from devicehost_server.devices.peeking import Peekable
from devicehost_server.devices.virtio.queue import VirtQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtioConfig:
    """Where a device is on the bus; nothing of it counts for a PCI function.

    Configurations of device types derive from it, with `kw_only=True` as well.
    """

    base: int | None = option(None, "guest-physical address; none to be given one", minimum=0)
    irq: int | None = option(None, "legacy IRQ; none to be given one", minimum=0)


VirtioConfigT = TypeVar("VirtioConfigT", bound=VirtioConfig)


class VirtioHooks(Peekable[VirtioConfigT]):
    """What device types implement.

    Attributes:
        virtio_id: what it is (section 5).
        feature_names: what its own feature bits are called, by their numbers.
    """

    virtio_id: ClassVar[int]
    feature_names: ClassVar[Mapping[int, str]] = {}

    @abstractmethod
    def queue_sizes(self) -> Sequence[int]:
        """How many descriptors each queue has at most: powers of two, up to 32768.

        It follows from the configuration alone: it is asked before anything is open.
        """

    @abstractmethod
    def serve(self, queue: VirtQueue) -> None:
        """Look into `queue`: there may be something. Called on the device's own thread.

        It is called when the driver kicks, for every queue when queues begin to run, and
        after `serve_soon`. What it raises is logged, and the device needs a reset. It should
        return soon: a driver that resets the device waits for it, as `save` does.
        """

    def device_features(self) -> int:
        """The feature bits of this device. The core adds those of `CORE_FEATURES`."""
        return 0

    def device_config(self) -> bytes:
        """The device-specific configuration as it is now, at most 256 bytes.

        It is asked when the driver may have to see another one: after `open`, `restore`,
        `config_changed` and `write_device_config`. In between the driver reads what it was.
        """
        return b""

    def write_device_config(self, offset: int, data: bytes) -> None:
        """The driver writes `data` to the configuration, `offset` bytes into it.

        All of it lies within what `device_config` returned. Ignored by default.
        """

    def open(self) -> None:
        """Open what the configuration names. `context` is there, but nothing runs.

        Raises:
            BadConfig: it can't be opened.
        """

    def activate(self, features: int) -> None:
        """Queues run from here on, by these negotiated features. Called under the lock."""

    def quiesce(self) -> None:
        """Come to rest: the driver resets, or the server saves or unplugs.

        When it returns, no request is being worked on, and none will be pushed. Those that
        were popped and not pushed will be popped again if queues run again without a reset.
        Called under the lock; `serve` isn't running, and `pop` gives nothing.
        """

    def reset_device(self) -> None:
        """Forget what the driver set by way of queues or configuration. After `quiesce`."""

    def save_device(self) -> State:
        """Return what state there is beyond registers and queues. After `quiesce`."""
        return {}

    def restore_device(self, state: State) -> None:
        """Take over what `save_device` returned. Before `activate`.

        What came from files, and the driver can see, comes from here in a replay.

        Raises:
            BadState: it doesn't fit; the device is as it was.
        """
