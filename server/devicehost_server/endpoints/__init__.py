"""The local ways in: the vfio-user sockets of the bus and of PCI functions, and the ring.

sockets         listens, and serves one client at a time
peers           who may connect
turned_away     how the others learn why not
connection      one client: what arrives, what is answered
buffers         what is read, and what is to be written
endpoint        what is served: the seam between a connection and the two below
attached        what is the same for these
bus             the bus as a device: its regions, interrupts and memory
pci             a function as a device, likewise
pci_bars        what is behind its BARs
pci_irqs        its interrupts
pci_sockets     the sockets of all functions
shutter         the accesses of one client, until it is shut
dma             memory that a client shares
bus_master      when a function may use it
irqfds          eventfds that a client connects to interrupts of the bus
eventfds        eventfds that a client handed over
unmasking       an eventfd by which a client unmasks INTx
ring            the shared-memory ring of one client
poller          the threads that serve its queues
statuses        the status of an access that failed
refused         a request that is refused, with its error number
"""
