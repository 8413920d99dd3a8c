"""The ring: accesses through shared memory, without a system call.

Each vCPU has a queue: the VMM is its only producer, the server its only consumer. An
entry is one cache line. The producer fills it and stores its sequence number, last; the
consumer sees the number, makes the access, in place, and stores the completion, last.
Entries are taken in order, and so completed in order. A posted write is an entry that its
producer doesn't wait for.

`layout` has every offset; with it, the ring can be written in any language. All numbers
are little-endian and aligned to their size, so that each is read and written whole.

Order of stores. A sequence number must become visible after what it announces. x86 keeps
stores in order, and loads in order (Intel SDM volume 3A, 8.2.2), so plain stores do. On
other processors the ring is not offered.

Sleeping, and why no wake-up is lost. Either side may stop looking and sleep on an eventfd.
The one who will sleep says so in a flag, and looks once more; the other one publishes,
and then reads the flag:

    the sleeper                         the other
    S1  flag = 1                        P1  publish (an entry, a completion)
    S2  barrier                         P2  read the flag; if set, signal the eventfd
    S3  look once more, else sleep

x86 may let the load of P2 go before the store of P1, and the load of S3 before the store
of S1. Were both allowed, each side could miss the other. The barrier makes it impossible
from one side alone: it is membarrier(2), MEMBARRIER_CMD_GLOBAL_EXPEDITED, which makes a
full barrier happen on every processor that runs a thread of a registered process, the
publisher's among them, somewhere between S1 and S3. If the publisher was between P1 and
P2 then, P1 is visible to S3. If it was before P1, its later P2 sees S1. If it was after
P2, P1 was before the barrier as well, and S3 sees it. The cost is all on the side that
was going to sleep anyway.

Where a peer is not registered (it is another program, or the kernel is old), sleepers
look again after `LOOK_AGAIN_S`, and count what they find then: late, but bounded.

Shared memory is hostile. The consumer reads each field once, into a local, and then
checks it; the memory is the server's own, sealed, so that nobody can cut it short.
"""
