"""A pseudo-terminal that people and programs come to and leave again.

The stream holds the master end. The other end is a terminal device in raw mode, without
echo: the guest at this side does that. It is closed here as soon as it is made, for only
then does the kernel say whether somebody else has it open: the master is hung up when
nobody has.

A hang-up is an event; its end is not, so while nobody is there the stream looks again
every `LOOK_S`. Input from somebody who came and left in between isn't lost: it can be read
at the master after the hang-up.

Closing the master throws away what the other side hasn't read yet, so `close` waits for
that as well.
"""

from __future__ import annotations

import errno
import os
import select
import termios
import tty
from pathlib import Path

from devicehost_server.devices.chardev.stream import Stream

LOOK_S = 0.1
"""How often to look whether somebody has opened the terminal, in seconds."""


class PtyStream(Stream):
    """A pseudo-terminal, and a symbolic link to it at `link` unless that is None.

    A symbolic link that is there already is replaced: an earlier daemon may have left it.

    Raises:
        OSError: there is no terminal left, or something else than a link is at `link`.
    """

    def __init__(self, link: Path | None, capacity: int) -> None:
        super().__init__(capacity, attached=False)
        self._link = link
        self._master, terminal = os.openpty()
        try:
            tty.setraw(terminal, termios.TCSANOW)
            self._terminal = os.ttyname(terminal)
            os.set_blocking(self._master, False)
            if link is not None:
                _replace_link(link, self._terminal)
        except OSError:
            os.close(self._master)
            raise
        finally:
            os.close(terminal)
        self._poll = select.poll()
        self._poll.register(self._master, select.POLLHUP)

    @property
    def address(self) -> str:
        """The path of the link, or else of the terminal."""
        return str(self._link or self._terminal)

    def _transfer(self) -> None:
        present = not self._poll.poll(0)
        if present != self._attached:
            if not present:
                tty.setraw(self._master, termios.TCSANOW)  # for whoever comes next
            self._log.info("chardev_client_came" if present else "chardev_client_left")
            self._set_attached(attached=present)
        if present:
            self._look_at_window(self._master)
        try:
            self._receive(lambda size: os.read(self._master, size))
            if present:
                self._send(lambda chunk: os.write(self._master, chunk))
        except OSError as error:
            if error.errno != errno.EIO:  # which is how a master says that nobody is there
                raise
        self._watch(
            self._master,
            readable=present and self._wants_input(),
            writable=present and bool(self._outbox),
        )
        if not present:
            self._wake_in(LOOK_S)

    def _is_drained(self) -> bool:
        """Whether all has been sent, and read by whoever is there."""
        return super()._is_drained() and not (self._attached and self._has_unread())

    def _has_unread(self) -> bool:
        """Whether the other side could read something now."""
        terminal = os.open(self._terminal, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            # To poll it waits for the bytes that the kernel still carries over; FIONREAD doesn't.
            poll = select.poll()
            poll.register(terminal, select.POLLIN)
            return bool(poll.poll(0))
        finally:
            os.close(terminal)

    def _release(self) -> None:
        if self._started:
            self._watch(self._master)
        os.close(self._master)
        if self._link is not None and _target(self._link) == self._terminal:
            self._link.unlink(missing_ok=True)


def _replace_link(link: Path, target: str) -> None:
    """Make `link` lead to `target`, at once: at no time is there none."""
    if os.path.lexists(link) and not link.is_symlink():
        raise OSError(errno.EEXIST, f"{link} is there, and is no symbolic link")
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)  # of a process that was killed, and had the same number
    fresh.symlink_to(target)
    fresh.replace(link)


def _target(link: Path) -> str | None:
    """Where `link` leads; None if it isn't a link, or isn't there."""
    try:
        return str(link.readlink())
    except OSError:
        return None
