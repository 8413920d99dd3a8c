"""Fuzz target: a server's session, and all that a client can send it. See `twins`.

An input is a byte that says whether the session is open at first, and operations: messages
and rubbish from the client, our answers, requests of ours and the client's replies.
"""

from __future__ import annotations

from typing import Final

from devicehost.vfio_user import ClientSession, RegionRead, RegionWrite, Request, ServerSession
from devicehost.vfio_user.fast_access import ACCESS, DATA, REGION_READ
from devicehost.vfio_user.header import NO_REPLY, Command
from fuzz.messages import SMALL
from fuzz.source import Source
from fuzz.twins import FLAGS, Twins

ODD_FLAGS: Final = (0x02, 0x20, 0x30, 0x40, 0x50, 1 << 31)
OFFSETS: Final = (0, 0xFE00, (1 << 64) - 8, (1 << 64) - SMALL.max_data_xfer_size)
COUNTS: Final = (0, 1, 4, 8, SMALL.max_data_xfer_size - 2)


class Servers(Twins[ServerSession]):
    """Two servers."""

    def access(self, source: Source) -> None:
        """A read or a write, around what is taken by the fast way."""
        flags, region = source.choose((*FLAGS, *ODD_FLAGS)), source.byte()
        offset = (source.choose(OFFSETS) + source.byte()) % (1 << 64)
        count = source.choose(COUNTS) + source.byte() % 4
        wrong = source.choose((0, 0, 0, 1, -1))
        reading = source.byte() & 1
        data = b"" if reading else source.take(8).ljust(count, b"\0")
        command = Command.REGION_READ if reading else Command.REGION_WRITE
        span = offset, region, max(count + wrong, 0)
        size = DATA + len(data)
        self.deliver(source, ACCESS.pack(1, command, size, flags, 0, *span) + data)

    def fast(self, chunk: bytes) -> tuple[int, list[object]]:
        """Take the accesses at the front, as the owner of a socket does."""
        start = 0
        heard: list[object] = []
        while fields := self.first.next_access(chunk, start, len(chunk)):
            message_id, command, size, flags, _, offset, region, count = fields
            data = chunk[start + DATA : start + size]
            access: RegionRead | RegionWrite
            if command == REGION_READ:
                access = RegionRead(region, offset, count)
            else:
                access = RegionWrite(region, offset, data)
            heard.append((Request, message_id, access, bool(flags & NO_REPLY), ()))
            start += size
        return start, heard


def test_one_input(data: bytes) -> None:
    """Carry out the operations, and check what both servers say."""
    source = Source(data)
    servers = Servers(lambda: ServerSession(SMALL))
    if source.byte() & 1:
        servers.read(ClientSession(SMALL).propose().data, 0)
    operations = (
        servers.message,
        servers.raw,
        servers.answer,
        servers.ask,
        servers.reply,
        servers.long,
        servers.abandon,
        servers.access,
    )
    while source.left:
        source.choose(operations)(source)
    servers.finish()
