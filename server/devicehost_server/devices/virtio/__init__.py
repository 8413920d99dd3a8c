"""Virtio devices, as "Virtual I/O Device (VIRTIO) Version 1.2" (OASIS, 2022) has them.

    device, hooks       what all of them have in common, and what a device type adds
    engine, worker, deliveries
                        what moves in them: the thread that serves queues, and the way of
                        interrupts to the driver
    queue, chain        split virtqueues, and the requests in them
    queue_memory, queue_state, rings, windows
                        where queues are in guest memory, what they know, and how they look
    negotiation         the state behind the registers: status, features, queue settings
    transport           registers on a bus (transport_mmio), or of a PCI function
                        (transport_pci)

Beside them are the devices: rng, blk, net, console.
"""
