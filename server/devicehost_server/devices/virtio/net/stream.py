"""A Unix socket to somebody who speaks the framing of QEMU's `-netdev stream`.

    qemu-system-x86_64 -netdev stream,id=n0,server=on,addr.type=unix,addr.path=/run/lan.sock
    devicehostd --device virtio-net,netdev=unix:/run/lan.sock

It connects, and tries again for as long as nobody is there; or it listens, for one peer at
a time. The guest's link is up while a peer is there.

What comes is read in large pieces, many frames by one system call, and copied once. What
the guest sends goes from its memory straight to the socket.

Neither side loses a frame for being slow: a peer that doesn't read makes the guest wait,
and a guest without buffers the peer. When the peer leaves, what was on its way is lost.

Locks: `_lock` is held while the socket is written to or replaced, and under it nothing is
called. All that is read is the loop's.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path

import structlog

from devicehost_server.devices.chardev.loop import READABLE, WRITABLE
from devicehost_server.devices.chardev.sockets import Listener, has_gone, listen_unix
from devicehost_server.devices.virtio.net.backend import LOOP, Backend, Nic
from devicehost_server.devices.virtio.net.frames import (
    FRAME_MAX,
    FRAME_MIN,
    PLAIN,
    BadFrame,
    Frame,
    plain,
)
from devicehost_server.devices.virtio.net.framing import LENGTH, BadLength, FrameReader
from devicehost_server.devices.virtio.net.offload import completed
from devicehost_server.model.device_io import ReadableBuffer

RETRY_MIN_S = 0.05
"""How long to wait before it is tried again to connect, at first."""

RETRY_MAX_S = 1.0
"""How long it waits in the end; each failure doubles the time."""

SEND_BUFFER_SIZE = 1 << 20
"""Bytes that the kernel is asked to keep for a peer (it gives what `wmem_max` allows)."""

CLOSE_TIMEOUT_S = 2.0

_IOV_MAX = 1024  # UIO_MAXIOV, of sendmsg(2)
_READS_AT_ONCE = 4

_log = structlog.get_logger(__name__)


class StreamBackend(Backend):
    """What connecting and listening have in common: frames, once there is a socket."""

    def __init__(self, path: Path) -> None:
        self.due: float | None = None
        self._path = path
        self._nic: Nic
        self._log = _log.bind(netdev=str(path))
        self._started = False
        self._closing = False
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._rest = memoryview(b"")  # of a frame that was sent in part
        self._refused = False  # `send` returned False
        self._reader = FrameReader()
        self._stalled = False  # the guest had no room

    @property
    def peer(self) -> str:
        """Whether somebody is there."""
        return f"{self._path} ({'connected' if self._socket else self._alone()})"

    def start(self, nic: Nic) -> None:
        """Begin to look for a peer."""
        self._nic = nic
        self._started = True
        nic.set_link(up=False)
        LOOP.add(self)

    def send(self, frame: Frame) -> bool:
        """Send a frame; one that is begun is finished later if the peer is slow."""
        if frame.header == PLAIN:
            return self._send(frame)
        with self._lock:
            if self._socket is not None and self._rest:
                self._refused = True
                return False
        try:  # all or nothing, as far as waiting goes: it is one frame to the guest
            pieces = list(completed(frame))
        except BadFrame as bad:
            self._nic.drop(str(bad))
            return True
        parts: list[ReadableBuffer] = []
        for piece in pieces:
            parts += (LENGTH.pack(piece.size), *piece.parts)
        return self._send_parts([b"".join(parts)])

    def set_features(self, features: int) -> None:
        """Do nothing: no metadata comes."""

    def flush(self) -> None:
        """Do nothing: each frame went by itself."""

    def resume(self) -> None:
        """Go on reading, if that was given up."""
        if self._stalled:
            LOOP.kick(self)

    def close(self) -> None:
        """Leave the peer."""
        if not self._started:
            self._free()
            return
        self._closing = True
        LOOP.kick(self)
        if not self._closed.wait(CLOSE_TIMEOUT_S):
            self._log.error("netdev_close_timed_out")

    # For the loop, on its thread.

    def pump(self) -> None:
        """Move what can be moved."""
        if self._closed.is_set():
            return
        if self._closing:
            self.finish()
            return
        self.due = None
        self._look()
        if self._socket is None:
            return
        self._push()
        self._pull()

    def finish(self) -> None:
        """Leave the peer and the loop."""
        if self._socket is not None:
            self._part("closed")
        self._free()
        LOOP.remove(self)
        self._closed.set()

    # For subclasses.

    @abstractmethod
    def _alone(self) -> str:
        """What it does while there is no peer, in a word or two."""

    @abstractmethod
    def _look(self) -> None:
        """Look for a peer, and `_welcome` it."""

    @abstractmethod
    def _free(self) -> None:
        """Close what there is beside the peer's socket."""

    def _welcome(self, peer: socket.socket) -> None:
        peer.settimeout(0)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_SIZE)
        with self._lock:
            self._socket = peer
            self._rest = memoryview(b"")
        self._log.info("netdev_peer_came")
        self._nic.set_link(up=True)
        self._nic.room()

    def _part(self, why: str) -> None:
        """Be done with the peer."""
        with self._lock:
            peer, self._socket = self._socket, None
            lost = bool(self._rest)
            self._rest = memoryview(b"")
        if peer is not None:
            LOOP.watch(peer.fileno(), 0, self)
            peer.close()
        lost_frames = self._reader.clear() + lost
        if lost_frames:
            self._nic.drop("peer_left", lost_frames)
        self._stalled = False
        self._log.info("netdev_peer_left", reason=why)
        if not self._closing:
            self._nic.set_link(up=False)
            self._nic.room()
            LOOP.kick(self)  # to look for another one

    def _pull(self) -> None:
        """Read, and hand to the guest what is whole."""
        peer = self._socket
        if peer is None:
            return
        why = ""
        for _ in range(_READS_AT_ONCE):
            window = self._reader.room()
            size = 0
            if window:
                try:
                    size = peer.recv_into(window)
                    why = "" if size else "it ended the connection"
                except BlockingIOError:
                    pass
                except OSError as error:
                    why = error.strerror or str(error)
                self._reader.filled(size)
            try:
                self._deliver()
            except BadLength as bad:
                why = f"it announced a frame of {bad} bytes"
                self._log.warning("netdev_bad_length", size=bad.args[0])
            if why:
                self._part(why)
                return
            if size < len(window) or self._stalled:
                break
        else:
            LOOP.kick(self)  # after the others' turn
        with self._lock:
            events = WRITABLE if self._rest else 0
        LOOP.watch(peer.fileno(), events | (READABLE if self._reader.room() else 0), self)

    def _deliver(self) -> None:
        """Hand whole frames to the guest, as far as it takes them."""
        nic, reader = self._nic, self._reader
        self._stalled = False
        handed = False
        try:
            while (data := reader.frame()) is not None:
                if not FRAME_MIN <= len(data) <= FRAME_MAX:
                    nic.drop("short" if len(data) < FRAME_MIN else "long")
                else:
                    self._stalled = True  # before it is tried: `resume` may come meanwhile
                    if not nic.receive(plain(data)):
                        return
                    self._stalled = False
                    handed = True
                reader.frame_done()
        finally:
            if handed:
                nic.received()

    def _push(self) -> None:
        """Go on with a frame that was sent in part."""
        with self._lock:
            if self._socket is not None and self._rest:
                try:
                    self._rest = self._rest[self._socket.send(self._rest) :]
                except BlockingIOError:
                    return
                except OSError:  # the end is read, too
                    self._rest = memoryview(b"")
            if self._rest or not self._refused:
                return
            self._refused = False
        self._nic.room()

    def _send(self, frame: Frame) -> bool:
        parts = frame.parts if len(frame.parts) < _IOV_MAX else (b"".join(frame.parts),)
        return self._send_parts([LENGTH.pack(frame.size), *parts])

    def _send_parts(self, parts: list[ReadableBuffer]) -> bool:
        with self._lock:
            if self._socket is None:
                self._nic.drop("no_peer")
                return True
            if self._rest:
                self._refused = True
                return False
            try:
                sent = self._socket.sendmsg(parts)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._nic.drop("no_peer")
                return True
            if sent == sum(map(len, parts)):
                return True
            self._rest = memoryview(b"".join(parts))[sent:]
        LOOP.kick(self)
        return True

    def view(self) -> Mapping[str, int | str]:
        """How many bytes wait for the peer."""
        return {"unsent": len(self._rest)}


class ConnectingBackend(StreamBackend):
    """Connects to the socket at `path`, and again whenever that ends."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._retry_s = 0.0
        self._retry_at = 0.0

    def _alone(self) -> str:
        return "connecting"

    def _look(self) -> None:
        if self._socket is not None:
            return
        if time.monotonic() >= self._retry_at:
            peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            peer.settimeout(0)  # a queue that is full is to be told, not waited for
            code = peer.connect_ex(bytes(self._path))
            if code == 0:
                self._retry_s = 0.0
                self._retry_at = time.monotonic() + RETRY_MIN_S  # one that leaves at once
                self._welcome(peer)
                return
            peer.close()
            if not self._retry_s:
                self._log.info("netdev_connect_failed", error=os.strerror(code))
            self._retry_s = min(max(RETRY_MIN_S, self._retry_s * 2), RETRY_MAX_S)
            self._retry_at = time.monotonic() + self._retry_s
        self.due = self._retry_at

    def _free(self) -> None:
        """Free nothing: it has only the peer's socket."""


class ListeningBackend(StreamBackend):
    """Listens at `path`, for one peer at a time.

    Raises:
        OSError: it can't be bound.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._listener: Listener = listen_unix(path)
        self._listen_at = 0.0

    def _alone(self) -> str:
        return "listening"

    def _look(self) -> None:
        now = time.monotonic()
        if now >= self._listen_at:
            self._accept()
        listening = now >= self._listen_at
        LOOP.watch(self._listener.socket.fileno(), READABLE if listening else 0, self)
        if not listening:
            self.due = self._listen_at

    def _accept(self) -> None:
        while True:
            try:
                newcomer, _ = self._listener.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:  # no descriptor left, most likely
                self._log.error("netdev_accept_failed", error=errno.errorcode.get(error.errno or 0))
                self._listen_at = time.monotonic() + RETRY_MAX_S
                return
            if self._socket is not None and has_gone(self._socket):
                self._part("another one came")
            if self._socket is None:
                self._welcome(newcomer)
            else:
                self._log.warning("netdev_peer_refused")
                newcomer.close()

    def _free(self) -> None:
        if self._started:
            LOOP.watch(self._listener.socket.fileno(), 0, self)
        self._listener.close()
