"""From a stream of bytes and file descriptors to whole messages.

A read from the socket ends anywhere: within a message, or behind any number of them. The
buffer copies only what a read leaves unfinished; messages that came whole are views of the
bytes that were fed, and stay valid until the caller reuses those.

Whose file descriptors are they? On an `AF_UNIX` stream they travel with a segment of
bytes, and Linux ends a read behind a segment that carried some. So in one read, the ones
that came belong to the segment that the read ends with, and thereby to the message that
holds the read's **last byte**. All that came before in the same read had none. This holds
as long as the peer sends a message with file descriptors by a call of its own, as QEMU,
libvfio-user and this package do.

What can be wrong, and what comes of it:

    size below 16                                   OutOfStep, and nothing after it
    size above the limit, up to `max_drained_size`  the message is read, thrown away, and
                                                    handed out without a payload, at fault
    size above that                                 OutOfStep
    more file descriptors than the limit            the message is handed out at fault, its
                                                    file descriptors are stray
    file descriptors of no message                  stray

Stray ones have to be closed by the caller. Each one that is fed comes out exactly once: with
a message, or as stray. The caller reads with room for one more than the limit; otherwise the
kernel closes what is too many, and nobody learns of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from devicehost.vfio_user.errors import BadMessage, MalformedMessage, MessageTooLong, OutOfStep
from devicehost.vfio_user.header import HEADER_SIZE, Header, ReadableBuffer
from devicehost.vfio_user.limits import Limits


@dataclass(frozen=True, slots=True)
class Message:
    """One message from the peer.

    Attributes:
        header: its header.
        payload: what stands behind the header; empty if the message was thrown away.
        fds: the file descriptors that came with it, now the caller's.
        fault: why it has to be refused, if it has.
    """

    header: Header
    payload: memoryview
    fds: tuple[int, ...] = ()
    fault: BadMessage | None = None


@dataclass(frozen=True, slots=True)
class StrayFds:
    """File descriptors that nobody wants. The caller closes them."""

    fds: tuple[int, ...]


Item: TypeAlias = Message | StrayFds | OutOfStep

_NOTHING = memoryview(b"")


class ReceiveBuffer:
    """Puts messages together.

    Attributes:
        empty: whether the next byte begins a message.

    Example:
        >>> buffer = ReceiveBuffer(Limits())
        >>> reset = bytes.fromhex("0100 0d00 10000000 00000000 00000000")
        >>> buffer.feed(reset[:5])
        []
        >>> [message.header for message in buffer.feed(reset[5:] + reset)]
        [<DEVICE_RESET #1: command, 16 bytes>, <DEVICE_RESET #1: command, 16 bytes>]
        >>> buffer.empty
        True
    """

    __slots__ = (
        "_broken",
        "_fds",
        "_header",
        "_longest_drained",
        "_longest_taken",
        "_max_fds",
        "_partial",
        "_refused_fds",
        "_to_drain",
        "empty",
    )

    def __init__(self, limits: Limits) -> None:
        self._longest_taken = limits.max_message_size
        self._longest_drained = max(limits.max_message_size, limits.max_drained_size)
        self._max_fds = limits.max_msg_fds
        self._broken = False
        self.empty = True
        # Of the message that is unfinished, if there is one:
        self._header: Header | None = None  # once it is there
        self._partial = bytearray()  # all that is there, unless it is to be thrown away
        self._to_drain = 0  # how much is still to be thrown away
        self._fds: tuple[int, ...] = ()
        self._refused_fds = 0  # how many were too many, and are stray already

    def feed(self, data: ReadableBuffer, fds: Sequence[int] = ()) -> list[Item]:
        """Take what one read brought.

        Args:
            data: the bytes. Views of them are in the messages returned.
            fds: the file descriptors that came in the same read.

        Returns:
            The messages that are whole now, in order, and what else there is to say.
        """
        items: list[Item] = []
        view = memoryview(data)
        at, end = 0, len(view)
        if fds and (self._broken or not end):
            items.append(StrayFds(tuple(fds)))
        while at < end and not self._broken:
            try:
                at, whole = self._step(view, at)
            except OutOfStep as error:
                self._fds += tuple(fds)
                items += [*self.close(), error]
                break
            came = tuple(fds) if at == end else ()
            if whole is not None:
                self._finish(*whole, came, items)
            elif came:
                self._hold(came, items)
        self.empty = not (self._partial or self._to_drain or self._broken)
        return items

    def close(self) -> list[StrayFds]:
        """Take no more. The file descriptors of a message that is unfinished are stray."""
        fds, self._fds = self._fds, ()
        self._broken = True
        self.empty = False
        self._partial = bytearray()
        return [StrayFds(fds)] if fds else []

    def _step(self, view: memoryview, at: int) -> tuple[int, tuple[Header, memoryview] | None]:
        """Take bytes from `at` on, at most to the end of a message.

        Returns:
            Where the bytes end that were taken, and the message, if it is whole.
        """
        if self._header is not None and self._to_drain:
            taken = min(self._to_drain, len(view) - at)
            self._to_drain -= taken
            return at + taken, None if self._to_drain else (self._header, _NOTHING)
        if self._partial or len(view) - at < HEADER_SIZE:
            return self._gather(view, at)
        header = self._read_header(view, at)
        stop = at + header.size
        if header.size > self._longest_taken:
            self._header, self._to_drain = header, header.size
            return at, None
        if stop <= len(view):
            return stop, (header, view[at + HEADER_SIZE : stop])
        self._header = header
        self._partial += view[at:]
        return len(view), None

    def _gather(self, view: memoryview, at: int) -> tuple[int, tuple[Header, memoryview] | None]:
        """Add to the unfinished message: first its header, then the rest."""
        partial = self._partial
        header = self._header
        wanted = HEADER_SIZE if header is None else header.size
        stop = min(at + wanted - len(partial), len(view))
        partial += view[at:stop]
        if len(partial) < wanted:
            return stop, None
        if header is None:
            header = self._header = self._read_header(partial, 0)
            if header.size > self._longest_taken:
                self._to_drain = header.size - HEADER_SIZE
                self._partial = bytearray()
                return stop, None
        if len(partial) < header.size:
            return stop, None
        self._partial = bytearray()
        return stop, (header, memoryview(partial)[HEADER_SIZE:])

    def _read_header(self, buffer: ReadableBuffer, at: int) -> Header:
        header = Header.decode(buffer, at)
        if not HEADER_SIZE <= header.size <= self._longest_drained:
            allowed = f"{HEADER_SIZE} to {self._longest_drained}"
            raise OutOfStep(
                f"{header!r} can't be a message: its size isn't from {allowed}",
                size=header.size,
            )
        return header

    def _hold(self, fds: tuple[int, ...], items: list[Item]) -> None:
        """Keep file descriptors for the unfinished message, but no more than are allowed."""
        self._fds += fds
        if len(self._fds) > self._max_fds:
            items.append(StrayFds(self._fds))
            self._refused_fds += len(self._fds)
            self._fds = ()

    def _finish(
        self, header: Header, payload: memoryview, came: tuple[int, ...], items: list[Item]
    ) -> None:
        """Hand out a message that is whole."""
        fds = self._fds + came
        number = self._refused_fds + len(fds)
        self._fds, self._refused_fds, self._header = (), 0, None
        fault: BadMessage | None = None
        if header.size > self._longest_taken:
            fault = MessageTooLong(header.name, header.size, self._longest_taken)
        elif number > self._max_fds:
            allowed = f"at most {self._max_fds}"
            fault = MalformedMessage(header.name, "number of fds", number, allowed)
        if fault is not None and fds:
            items.append(StrayFds(fds))
            fds = ()
        items.append(Message(header, payload, fds, fault))
