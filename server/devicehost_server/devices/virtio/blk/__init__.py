"""A disk for the guest: `virtio-blk` (virtio 1.2, section 5.2), on an image or block device.

    virtio-blk,file=disk.img                    on the bus, through virtio-mmio
    virtio-blk,file=disk.img,pci-socket=PATH    a PCI function
    virtio-blk,file=cd.iso,read_only=yes        which others may read as well

From the outside in: `device` is what the driver sees, `service` carries out requests, as
`request` takes them apart, on a `disk` (with `holes` and `image_lock`), at once or by
`workers`. `traffic` counts them. Numbers and layouts are in `spec`.
"""

from devicehost_server.devices.virtio.blk.device import VirtioBlk, VirtioBlkConfig

__all__ = ["VirtioBlk", "VirtioBlkConfig"]
