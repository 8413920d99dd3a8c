"""The path of a listening Unix socket: whose it is, and who may connect.

A path is ours only while we hold a lock on the file beside it (`PATH.lock`): a second
server would silently take over the path of the first. With the lock, a socket that is
there is left over from a server that died, and is replaced. What is there and isn't a
socket is left alone.

Nobody connects before the mode and the group are set: until then the umask keeps all
others out. The umask is the process's, so one socket is bound at a time.
"""

from __future__ import annotations

import fcntl
import grp
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

UNIX_PATH_MAX = 107
"""The length of a Unix socket's path (unix(7), sun_path), in bytes."""


_umask = threading.Lock()


class ListenError(Exception):
    """The server can't listen where it should; the message says why."""


@dataclass(frozen=True, slots=True)
class UnixListener:
    """A Unix socket.

    Attributes:
        path: where.
        mode: its permissions.
        group: the group that owns it, or "" for the process's own.
    """

    path: Path
    mode: int = 0o600
    group: str = ""


def check_path(path: Path) -> None:
    """Check that a path can be that of a socket, without a look at what is there.

    Raises:
        ListenError: it can't.
    """
    if not path.name:
        raise ListenError(f"socket path {str(path)!r} doesn't name a file")
    if len(os.fsencode(path)) > UNIX_PATH_MAX:
        raise ListenError(f"socket path {path} is longer than {UNIX_PATH_MAX} bytes")


class SocketPath:
    """The path of a Unix socket that is listened on, ours until `close`.

    Args:
        listener: where, and for whom.
        bind: makes the socket there. It raises RuntimeError or OSError if it can't.

    Attributes:
        path: where.
        gid: the number of the group that owns the socket.

    Raises:
        ListenError: the path is too long, in use, not a socket, or not ours to make.
    """

    def __init__(self, listener: UnixListener, bind: Callable[[], object]) -> None:
        check_path(listener.path)
        self.path = listener.path.absolute()  # a VMM that we are in may change its folder
        self._lock_path = self.path.with_name(self.path.name + ".lock")
        self._lock_fd: int | None = self._take_lock()
        self._is_ours = False
        try:
            self._bind(bind)
            self.gid = self._set_owner(listener)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the socket, if there is one of ours, and its lock file. Once is enough."""
        if self._lock_fd is None:
            return
        with suppress(OSError):
            if self._is_ours:
                self.path.unlink()
        with suppress(OSError):
            self._lock_path.unlink()
        os.close(self._lock_fd)
        self._lock_fd = None

    def _take_lock(self) -> int:
        while True:
            try:
                fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise ListenError(f"can't make {self._lock_path}: {error.strerror}") from error
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
                os.close(fd)
                other = "this" if holder == str(os.getpid()) else "another"
                raise ListenError(
                    f"socket {self.path} is in use by {other} devicehostd (pid {holder})"
                ) from None
            except OSError as error:  # a file system without locks
                os.close(fd)
                raise ListenError(f"can't lock {self._lock_path}: {error.strerror}") from error
            # The holder before may have removed the file between our open and our lock.
            with suppress(FileNotFoundError):
                if os.fstat(fd).st_ino == self._lock_path.stat().st_ino:
                    break
            os.close(fd)
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        return fd

    def _bind(self, bind: Callable[[], object]) -> None:
        with _umask:
            before = os.umask(0o177)
            try:
                with suppress(FileNotFoundError):
                    if not stat.S_ISSOCK(self.path.lstat().st_mode):
                        raise ListenError(f"{self.path} exists and is not a socket")
                    self.path.unlink()
                bind()
            except (RuntimeError, OSError) as error:
                raise ListenError(f"can't listen on {self.path}: {error}") from error
            finally:
                os.umask(before)
        self._is_ours = True

    def _set_owner(self, listener: UnixListener) -> int:
        try:
            if listener.group:
                os.chown(self.path, -1, grp.getgrnam(listener.group).gr_gid)
            self.path.chmod(listener.mode)
            return self.path.stat().st_gid
        except KeyError:
            raise ListenError(f"there is no group {listener.group!r}") from None
        except OSError as error:
            raise ListenError(f"can't set the owner of {self.path}: {error.strerror}") from error
