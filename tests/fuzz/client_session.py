"""Fuzz target: a client's session, and all that a server can send it. See `twins`.

An input is a byte that says how far the session is at first, and operations: requests of
ours, accesses by the fast way, the server's replies, requests and rubbish, our answers.
"""

from __future__ import annotations

from devicehost.vfio_user import (
    ClientSession,
    RegionData,
    RegionRead,
    RegionWrite,
    RegionWritten,
    Reply,
    ServerSession,
)
from devicehost.vfio_user.fast_access import DATA
from fuzz.messages import SMALL
from fuzz.source import Source
from fuzz.twins import Twins, opening

_BUFFER_SIZE = DATA + SMALL.max_data_xfer_size


class Clients(Twins[ClientSession]):
    """Two clients."""

    def start(self, source: Source) -> None:
        """An access by the fast way; its reply may be expected there or not."""
        way = source.choose(("start_read", "start_write", "post_write"))
        region, offset, count = source.number(4), source.number(8), source.number(2)
        packed = bytearray(_BUFFER_SIZE)
        message_id = self.both(lambda each: getattr(each, way)(packed, region, offset, count))
        if isinstance(message_id, int):
            reading = way == "start_read"
            access = (
                RegionRead(region, offset, count)
                if reading
                else RegionWrite(region, offset, bytes(count))
            )
            if way != "post_write":
                self.waiting[message_id] = access

    def fast(self, chunk: bytes) -> tuple[int, list[object]]:
        """See if it is the reply to the access that was started last."""
        for message_id in reversed(self.waiting):
            if self.first.finish(chunk, len(chunk), message_id):
                access = self.waiting[message_id]
                outcome: RegionData | RegionWritten
                if isinstance(access, RegionRead):
                    outcome = RegionData(chunk[DATA:])
                else:
                    assert isinstance(access, RegionWrite)
                    outcome = RegionWritten(access.count)
                return len(chunk), [Reply(message_id, outcome)]
        return 0, []


def test_one_input(data: bytes) -> None:
    """Carry out the operations, and check what both clients say."""
    source = Source(data)
    clients = Clients(lambda: ClientSession(SMALL))
    stage = source.byte() % 3
    if stage:
        clients.both(lambda each: each.propose())
    if stage == 1:
        clients.read(opening(ClientSession(SMALL), ServerSession(SMALL)), 0)
    operations = (
        clients.message,
        clients.raw,
        clients.ask,
        clients.reply,
        clients.start,
        clients.answer,
        clients.long,
        clients.abandon,
    )
    while source.left:
        source.choose(operations)(source)
    clients.finish()
