"""A disk for the guest: `virtio-blk` (virtio 1.2, section 5.2), on an image or block device.

    virtio-blk,file=disk.img                    on the bus, through virtio-mmio
    virtio-blk,file=disk.img,pci-socket=PATH    a PCI function
    virtio-blk,file=cd.iso,read_only=yes        which others may read as well

From the outside in: `device` serves the queues, `request` takes requests apart, `disk` does
what they ask for, with `holes` and `image_lock` below it, and `workers` does it meanwhile.
"""

from devicehost_server.devices.virtio.blk.device import VirtioBlk, VirtioBlkConfig

__all__ = ["VirtioBlk", "VirtioBlkConfig"]
