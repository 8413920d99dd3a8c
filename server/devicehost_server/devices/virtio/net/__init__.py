"""The virtio network device, and what it can be plugged into.

What follows `--device` says which one that is:

--device virtio-net,netdev=tap:vm0
--device virtio-net,netdev=unix:/run/lan.sock
--device virtio-net,netdev=hub:lan

device      the device: registers, queues, what the driver negotiates
receiver    the receive queue
frames      frames, and the header before each of them
offload     what a sender may leave undone, done
backend     the seam to the other end
spec        the text that says which one
tap         an interface of this host
stream      a Unix socket to QEMU and its like; `framing` is what is spoken there
hub         other guests of this process
"""

from __future__ import annotations

from devicehost_server.devices.virtio.net.device import Config, VirtioNet

__all__ = ["Config", "VirtioNet"]
