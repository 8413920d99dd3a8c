"""What the bus endpoint shows to a vfio-user client: its regions and interrupts.

The whole address map is one platform device. A region's offset *is* a guest address, so a
client that knows vfio-user needs to learn nothing else.

    region 0  PIO     64 KiB; accesses of 1, 2 or 4 bytes
    region 1  MMIO    all guest-physical addresses but the last byte; any size
    region 2  ring    to be mapped (`devicehost.ring`); not to be read or written by messages
    region 3  status  registers, below

    interrupt 0       one subindex for each global system interrupt; eventfds

An eventfd is signalled when its interrupt is asserted, and by each pulse; what falls makes
no signal. One that is connected while its interrupt is asserted is signalled at once. An
eventfd is made non-blocking when it is connected.

Memory that is shared by descriptor (DMA_MAP) is a regular file. If it is sealed against
shrinking (F_SEAL_SHRINK) devices have views of it; otherwise they only read and write.

    status register   offset  bytes
    POSTED_FAILURES     0x00    8    read: how many posted writes of this client failed
    POSTED_FAILURE      0x08    8    read: the AccessStatus of the last of them
    OPEN_QUEUE          0x10    8    write: the number of a queue of the ring, to be polled,
                                     4 bytes; then 0, or the number of its vCPU and 1
    INSTANCE_ID         0x18   16    read: the bytes of the uuid that is GetServer.instance_id

The ring's doorbells are the eventfds of region 2. Each is named by the offset of the word
that says that its owner sleeps: `need_wakeup` for the server's doorbell, `waiting` of a
queue for the one that wakes its client.
"""

from __future__ import annotations

from devicehost.ring.layout import CONTROL_SIZE, CONTROLS, SERVER_LINE
from devicehost.vfio_user import Limits

REGION_PIO = 0
REGION_MMIO = 1
REGION_RING = 2
REGION_STATUS = 3
REGION_COUNT = 4

PIO_SIZE = 1 << 16
MMIO_SIZE = (1 << 64) - 1
STATUS_SIZE = 0x28

POSTED_FAILURES = 0x00
POSTED_FAILURE = 0x08
OPEN_QUEUE = 0x10
INSTANCE_ID = 0x18

IRQ_GSI = 0
IRQ_COUNT = 1
GSI_COUNT = 1024

RING_QUEUES = 15
"""Queues of a ring: with the server's doorbell, as many eventfds as one message carries."""

LIMITS = Limits(max_msg_fds=RING_QUEUES + 1, max_dma_maps=1024)
"""What both ends take from each other. Each mapping costs a file descriptor."""

DOORBELL_OFFSET = SERVER_LINE


def wake_up_offset(queue: int) -> int:
    """The offset in the ring that names the eventfd which wakes the client of a queue."""
    return CONTROLS + queue * CONTROL_SIZE
