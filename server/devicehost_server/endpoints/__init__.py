"""The local ways in: the vfio-user socket of the bus, and the ring.

sockets         listens; who may connect
connection      one client: what arrives, what is answered
bus             the bus as a device: its regions, interrupts and memory
dma             memory that a client shares
ring            the shared-memory ring of one client, and its poller
"""
