"""The local ways in: the vfio-user socket of the bus, and the ring.

sockets         listens, and serves one client at a time
peers           who may connect
turned_away     how the others learn why not
connection      one client: what arrives, what is answered
buffers         what is read, and what is to be written
bus             the bus as a device: its regions, interrupts and memory
shutter         the accesses of one client, until it is shut
dma             memory that a client shares
irqfds          eventfds that a client connects to interrupts
ring            the shared-memory ring of one client, and its poller
refused         a request that is refused, with its error number
"""
