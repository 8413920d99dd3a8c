"""Virtio devices, as "Virtual I/O Device (VIRTIO) Version 1.2" (OASIS, 2022) has them.

    device, hooks       what all of them have in common, and what a device type adds
    queue, chain        split virtqueues, and the requests in them
    queue_state, rings, windows
                        what queues know, and how they look at guest memory
    negotiation         the state behind the registers: status, features, queue settings
    transport           registers on a bus (transport_mmio), or of a PCI function
                        (transport_pci)
    worker, deliveries  the thread that serves queues, and the way of interrupts to the driver

Beside them are the devices: rng, blk, net, console.
"""
