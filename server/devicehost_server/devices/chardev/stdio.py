"""The daemon's standard output and input.

Any number of streams may write to the standard output; the input goes to the first that
was opened, and to the next one opened after that was closed.

The descriptors belong to others as well: to the shell, to the log. So they aren't made
non-blocking, which would reach everybody who shares them. A pipe or terminal is opened a
second time instead; and where that isn't allowed, at most a pipe's guaranteed `PIPE_BUF`
bytes are written, and only when it is ready, which doesn't block either unless somebody
else fills it in that moment.

A terminal is switched to single characters without echo (the guest echoes), and back in
the end; Ctrl-C still ends the daemon. A daemon in the background of its terminal leaves
it alone, and has no input: to read there would stop it.

That a terminal was resized, a signal tells (SIGWINCH), but only to the main thread, which
isn't ours. So its size is looked at every now and then, if the device follows it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import termios
import threading
from typing import Any, Final

from devicehost_server.devices.chardev.stream import Stream

_STDIN: Final = 0
_STDOUT: Final = 1
_IFLAG, _LFLAG = 0, 3  # indexes into what termios.tcgetattr returns

_input_free = threading.Lock()
"""Held, without blocking, by the stream that has the input."""


class StdioStream(Stream):
    """Standard output, and standard input if no other stream has it.

    Raises:
        OSError: the standard output is closed.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity, attached=True)
        self._output = _open_output()
        self._output_poll = select.poll()
        self._output_poll.register(self._output, select.POLLOUT)
        self._input: int | None = None
        self._terminal_mode: list[Any] | None = None
        if _input_free.acquire(blocking=False):
            self._open_input()

    @property
    def address(self) -> str:
        """`stdio`, or `stdout` if another stream has the input."""
        return "stdout" if self._input is None else "stdio"

    def _open_input(self) -> None:
        """Take the input, which is ours to take."""
        try:
            self._input = os.dup(_STDIN)
        except OSError:  # it is closed, so there is never any
            _input_free.release()
            return
        self._input_poll = select.poll()
        self._input_poll.register(self._input, select.POLLIN)
        if os.isatty(self._input):
            if _is_background(self._input):
                self._close_input(self._input)
            else:
                self._terminal_mode = _to_single_characters(self._input)

    def _transfer(self) -> None:
        if self._input is not None and self._wants_input() and self._input_poll.poll(0):
            self._take_input(self._input)
        blocked = False
        if self._attached:
            try:
                blocked = not self._send_patiently(self._write, select.PIPE_BUF)
            except OSError as error:  # nobody reads it any more, and nobody will
                self._log.warning("chardev_sink_lost", error=error.strerror)
                self._set_attached(attached=False)
            self._look_at_window(self._output)
        self._watch(self._output, writable=blocked)
        if self._input is not None:
            self._watch(self._input, readable=self._wants_input())

    def _is_final(self, error: OSError) -> bool:
        """Whether the pipe has no reader any more, or the terminal hung up."""
        return error.errno in {errno.EPIPE, errno.EIO}

    def _take_input(self, source: int) -> None:
        try:
            more = self._receive(lambda size: os.read(source, size))
        except OSError:  # a terminal that hung up
            more = False
        if not more:
            self._close_input(source)

    def _write(self, chunk: bytes) -> int:
        if not self._output_poll.poll(0):
            raise BlockingIOError
        return os.write(self._output, chunk)

    def _close_input(self, source: int) -> None:
        if self._terminal_mode is not None:
            with contextlib.suppress(termios.error):  # it hung up
                termios.tcsetattr(source, termios.TCSANOW, self._terminal_mode)
        if self._started:
            self._watch(source)
        os.close(source)
        self._input = None
        _input_free.release()

    def _release(self) -> None:
        if self._input is not None:
            self._close_input(self._input)
        if self._started:
            self._watch(self._output)
        os.close(self._output)


def _open_output() -> int:
    """Return a descriptor for the standard output that can be written without blocking."""
    mode = os.fstat(_STDOUT).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        with contextlib.suppress(OSError):  # it belongs to another user
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            return os.open(f"/proc/self/fd/{_STDOUT}", flags)
    return os.dup(_STDOUT)


def _is_background(terminal: int) -> bool:
    """Whether another process group has our `terminal`."""
    try:
        return os.tcgetpgrp(terminal) != os.getpgrp()
    except OSError:  # it is nobody's job control that this terminal is for
        return False


def _to_single_characters(terminal: int) -> list[Any]:
    """Switch `terminal` to single characters; return the mode to set in the end."""
    before = termios.tcgetattr(terminal)
    mode = termios.tcgetattr(terminal)
    mode[_IFLAG] &= ~termios.ICRNL  # the guest wants the carriage return that Enter is
    mode[_LFLAG] &= ~(termios.ICANON | termios.ECHO)
    termios.tcsetattr(terminal, termios.TCSANOW, mode)
    return before
