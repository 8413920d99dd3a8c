"""A virtio device for tests of what all of them have in common."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from devicehost_server.devices.base import State
from devicehost_server.devices.config import option
from devicehost_server.devices.state import StateReader
from devicehost_server.devices.virtio.chain import Chain
from devicehost_server.devices.virtio.device import VirtioConfig, VirtioDevice
from devicehost_server.devices.virtio.queue import VirtQueue

FEATURE = 1 << 3
ANSWER = 0x2A
"""What the writable part begins with where there is nothing to echo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoConfig(VirtioConfig):
    queues: int = option(2, "how many")
    size: int = option(64, "descriptors of each")


class Echo(VirtioDevice[EchoConfig]):
    """Copies what is readable to what is writable.

    Attributes:
        arrange: puts chains that came together into the order in which they go back.
        hold: keeps what comes until `release`; `quiesce` lets go of it.
        content: the configuration.
        log: which hooks were called.
    """

    type_name = "virtio-echo"
    config_type = EchoConfig
    virtio_id = 4
    feature_names: Mapping[int, str] = {3: "ECHO"}  # type: ignore[misc] # a class variable

    def __init__(self, config: EchoConfig) -> None:
        super().__init__(config)
        self.arrange: Callable[[list[Chain]], object] = lambda _: None
        self.hold = False
        self.held: list[tuple[VirtQueue, Chain]] = []
        self.come = threading.Event()
        self.content = bytes(range(8))
        self.log: list[str] = []
        self.served = 0
        self.error: Exception | None = None

    def queue_sizes(self) -> Sequence[int]:
        return [self.config.size] * self.config.queues

    def device_features(self) -> int:
        return FEATURE

    def device_config(self) -> bytes:
        return self.content

    def write_device_config(self, offset: int, data: bytes) -> None:
        self.content = self.content[:offset] + data + self.content[offset + len(data) :]

    def open(self) -> None:
        self.log.append("open")

    def activate(self, features: int) -> None:
        self.log.append(f"activate {features:#x}")

    def quiesce(self) -> None:
        self.held.clear()
        self.log.append("quiesce")

    def reset_device(self) -> None:
        self.log.append("reset")

    def serve(self, queue: VirtQueue) -> None:
        if self.error is not None:
            raise self.error
        chains = []
        while (chain := queue.pop()) is not None:
            chains.append(chain)
        if self.hold:
            self.held.extend((queue, chain) for chain in chains)
            self.come.set()
            return
        self.arrange(chains)
        for chain in chains:
            self.answer(queue, chain)
        queue.notify()

    def answer(self, queue: VirtQueue, chain: Chain) -> None:
        data = b"".join(chain.readable)
        assert len(data) == chain.readable_size
        data = data or bytes([ANSWER])
        at = 0
        for buffer in chain.writable:
            piece = data[at : at + len(buffer)]
            buffer[: len(piece)] = piece
            at += len(piece)
        self.served += 1
        queue.push(chain, at)

    def release(self, count: int | None = None) -> None:
        """Answer what was held, from whatever thread this is."""
        taken = self.held[:count]
        del self.held[: len(taken)]
        for queue, chain in taken:
            self.answer(queue, chain)
        for queue in {queue for queue, _ in taken}:
            queue.notify()

    def save_device(self) -> State:
        return {"content": self.content.hex()}

    def restore_device(self, state: State) -> None:
        reader = StateReader(self.name, state)
        content = reader.octets("content", size_max=64)
        reader.finish()
        self.content = content
