"""Virtio devices, as "Virtual I/O Device (VIRTIO) Version 1.2" (OASIS, 2022) has them.

device              what all of them have in common, and what a device adds
queue, chain        split virtqueues, and the requests in them
negotiation         status, features, and the queues' settings: the registers' state
transport_mmio      the registers on a bus
transport_pci       the registers of a PCI function
worker              the thread that serves the queues
windows, rings      guest memory, as queues look at it
rng, blk, net, console
"""
