"""The ways for a client on the same host: the local socket, and the ring that comes with it.

A thread watches the connection. When it is lost, accesses fail, and the thread connects
again: at once, after `BACKOFF_FIRST_S`, then after twice as long each time, up to
`BACKOFF_MAX_S`. An access makes it hurry, if it hasn't tried for `HURRY_S`.

The new server is handed the memory and the eventfds that the last one had, before any
access goes there. If it is another server than before, whoever wants to know is told, and
only that thread can make accesses until it has returned: so devices can be plugged before
a guest misses them.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from devicehost.vfio_user import DmaRead, DmaWrite, ReplyPayload
from devicehost_client.errors import ClientError, ConnectionLost
from devicehost_client.transports import TOOL_VCPU, Queue
from devicehost_client.transports.link import Link, Refusal
from devicehost_client.transports.ring_queue import RingQueue
from devicehost_client.transports.shared_ring import Attachment, open_ring
from devicehost_client.transports.socket_queue import SocketQueue

_log = logging.getLogger(__name__)

BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 2.0

HURRY_S = 0.001
"""How long accesses fail without another look for a server: a guest that polls goes on."""


class HandedOver(Protocol):
    """What each server is to have: memory, eventfds."""

    def hand_over(self, link: Link) -> None:
        """Give all of it to a server that has nothing yet.

        Raises:
            Refusal, ClientError: it doesn't take it.
        """


class DmaHandler(Protocol):
    """Serves accesses to memory that the server has no descriptor for."""

    @property
    def is_needed(self) -> bool:
        """Whether there is such memory."""

    def serve(self, request: DmaRead | DmaWrite) -> ReplyPayload[Any] | None:
        """Serve one; return None if there is no such memory."""


class LocalTransport:
    """Accesses through the ring, or over the local socket.

    Args:
        path: the local socket.
        use_ring: whether to use the ring, if the server offers it.
        timeout_s: how long an access may take, in seconds.
        spin_s: the longest to look for its end before sleeping, in seconds.
        handed_over: what each server is given before any access.
        dma: serves what the server asks of our memory.
        on_opened: told the instance id of each server that is connected to later.
        after_access: told the interrupt generation after each access, while interrupts are
            watched.

    Attributes:
        are_interrupts_watched: whether they are.
        name: `ring` or `socket`.
        instance_id: of the server at first.

    Raises:
        ConnectionLost: nobody is there, or we aren't wanted.
    """

    def __init__(
        self,
        path: Path,
        *,
        use_ring: bool,
        timeout_s: float,
        spin_s: float,
        handed_over: Sequence[HandedOver],
        dma: DmaHandler,
        on_opened: Callable[[str], None],
        after_access: Callable[[int], None],
    ) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._spin_s = spin_s
        self._handed_over = handed_over
        self._dma = dma
        self._on_opened = on_opened
        self.after_access = after_access
        self.are_interrupts_watched = False
        self._queues: list[Queue] = []
        self._changed = threading.Condition()  # of the next four
        self._hurry = False  # an access wants to know whether a server is there
        self._connecting = False
        self._settling = False  # a new server is being made ready for the guest
        self._tried_at = 0.0
        self._handing_over = threading.RLock()
        self._closed = False
        self._current = self._connect()
        self.name = "ring" if use_ring and self._current.ring is not None else "socket"
        self.instance_id = self._current.link.instance_id
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="local connection", daemon=True)
        self._thread.start()

    def open_queue(self, vcpu: int) -> Queue:
        """Open the queue of a vCPU."""
        opened: Queue
        if self.name == "ring" and vcpu != TOOL_VCPU:
            opened = RingQueue(self, vcpu, self._timeout_s, self._spin_s)
        else:
            opened = SocketQueue(self)
        self._queues.append(opened)
        return opened

    def attachment(self) -> Attachment:
        """Return the live connection; one that is coming up is waited for.

        Raises:
            ConnectionLost: there is none.
        """
        with self._changed:
            if threading.current_thread() is not self._thread:
                overdue = time.monotonic() >= self._tried_at + HURRY_S
                if self._current.link.lost and overdue and not self._closed:
                    self._hurry = True
                    self._changed.notify_all()
                self._changed.wait_for(lambda: not self._is_coming_up(), self._timeout_s)
                if self._settling:
                    raise ConnectionLost("the new server isn't ready")
            if self._current.link.lost:
                raise ConnectionLost("the server is lost")
            return self._current

    def _is_coming_up(self) -> bool:
        return (self._hurry or self._connecting or self._settling) and not self._closed

    def watch_interrupts(self) -> None:
        """Have `after_access` called from here on."""
        self.are_interrupts_watched = True

    @contextmanager
    def handing_over(self) -> Iterator[Link | None]:
        """Keep the connection as it is while something is handed over.

        Yields:
            The live link; None if there is none: the next one gets it with all the rest.
        """
        with self._handing_over:
            link = self._current.link
            yield None if link.lost else link
        self._ring_bell()  # what is watched for may have changed

    def close(self) -> None:
        """End all queues and the connection; once is enough, more is harmless."""
        if self._closed:
            return
        for opened in self._queues:
            opened.close()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._ring_bell()
        self._current.link.lose()
        if self._thread is not threading.current_thread():
            self._thread.join()
        # Whoever still has this object doesn't need the memory and the descriptors.
        self._current = Attachment(self._current.link, None)

    def _connect(self) -> Attachment:
        link = Link(self._path, self._timeout_s, self._spin_s, self._dma.serve)
        try:
            # Without its queues as well: it says how far the interrupts are.
            return Attachment(link, open_ring(link))
        except BaseException:
            link.close()
            raise

    def _ring_bell(self) -> None:
        with self._changed:  # by whose number nobody else's file is written
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    # The thread.

    def _run(self) -> None:
        try:
            while not self._closed:
                self._watch(self._current.link)
                self._current.link.close()
                self._connect_again()
        finally:
            self._current.link.close()
            with self._changed:
                bell, self._bell = self._bell, -1
                os.close(bell)

    def _watch(self, link: Link) -> None:
        """Return when the link is lost, or nobody wants it any more."""
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        while not (link.lost or self._closed):
            # That the peer hung up is reported always. Replies are for whoever asked: to be
            # woken by them as well would make each access slower.
            poll.register(link.fileno(), select.POLLIN if self._dma.is_needed else 0)
            for fd, events in poll.poll():
                if fd == self._bell:
                    os.eventfd_read(fd)
                elif events & ~select.POLLIN:
                    link.lose()
                else:
                    with suppress(ClientError):  # then it is lost
                        link.serve()

    def _connect_again(self) -> None:
        """Try until a server is there and has all that it needs, or nobody wants it any more."""
        backoff_s = 0.0
        while not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: self._hurry or self._closed, backoff_s)
                self._hurry, self._connecting = False, True
                self._tried_at = time.monotonic()
            try:
                if not self._closed:
                    self._take_over(self._connect())
                    return
            except ClientError as error:
                _log.debug("no server yet: %s", error)
            except Refusal as error:
                _log.warning("the server doesn't take what it is to have: %s", error)
            except Exception:  # noqa: BLE001 # no descriptor left, say: it must go on
                _log.exception("the local connection can't be made")
            finally:
                with self._changed:
                    self._hurry = self._connecting = False
                    self._changed.notify_all()
            backoff_s = min(2 * backoff_s or BACKOFF_FIRST_S, BACKOFF_MAX_S)

    def _take_over(self, attachment: Attachment) -> None:
        """Make a new server ready, and let accesses go there."""
        with self._handing_over:
            try:
                for each in self._handed_over:
                    each.hand_over(attachment.link)
            except BaseException:
                attachment.link.close()
                raise
            with self._changed:
                self._settling = True
                self._current = attachment
        try:
            self._on_opened(attachment.link.instance_id)
        except Exception:  # noqa: BLE001 # the VMM's mistake must not end its accesses
            _log.exception("the VMM's callback for a new server raised")
        finally:
            with self._changed:
                self._settling = False
                self._changed.notify_all()
