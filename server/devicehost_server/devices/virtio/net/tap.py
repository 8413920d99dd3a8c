"""A tap interface: the guest on a network of this host, usually by a bridge.

    ip tuntap add vm0 mode tap user alice && ip link set vm0 master br0 up

An interface that isn't there is made, and goes when the device does; only root may do that,
and nobody but root then brings it up. A persistent one, made as above, needs no root.

The header before a frame is the kernel's own (tun(4) calls it `IFF_VNET_HDR`), so that a
frame passes between the guest's memory and the kernel by one system call, and what the
guest has left undone is done by the kernel, if it ever needs to be.

Source: the kernel's Documentation/networking/tuntap.rst and include/uapi/linux/if_tun.h.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
import threading
from collections.abc import Mapping
from enum import IntFlag

import structlog

from devicehost_server.devices.chardev.loop import READABLE
from devicehost_server.devices.virtio.net.backend import LOOP, Backend, Nic
from devicehost_server.devices.virtio.net.frames import HEADER_SIZE, Feature, Frame

DEVICE = "/dev/net/tun"

CLOSE_TIMEOUT_S = 2.0

_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_TUNSETVNETHDRSZ = 0x400454D8
_TUNSETVNETLE = 0x400454DC
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_IFREQ = struct.Struct("16sH22x")
_INT = struct.Struct("i")

_NO_BUFFERS = b"\0\0"  # the end of a header, which the kernel doesn't look at
_IOV_MAX = 1024  # UIO_MAXIOV, of writev(2)
_FRAMES_AT_ONCE = 64

_WHY_NO_DEVICE = {
    errno.ENOENT: "modprobe tun makes it, if the kernel has the driver",
    errno.ENODEV: "the kernel has no tun driver",
    errno.EACCES: "it is usually everybody's to open (mode 0666)",
    errno.EPERM: "a container has to be given it (--device=/dev/net/tun)",
}
_WHY_NO_INTERFACE = {
    errno.EPERM: "only root may make it, and only its owner use it (ip tuntap add … user …)",
    errno.EBUSY: "it is in use by another process or device",
    errno.EINVAL: "it isn't a tap interface, or has several queues",
}

_log = structlog.get_logger(__name__)


class _Offload(IntFlag):
    """What the kernel may leave undone (`TUN_F_…`)."""

    CSUM = 0x01
    TSO4 = 0x02
    TSO6 = 0x04


_OFFLOADS = {
    Feature.GUEST_CSUM: _Offload.CSUM,
    Feature.GUEST_TSO4: _Offload.TSO4,
    Feature.GUEST_TSO6: _Offload.TSO6,
}


class TapBackend(Backend):
    """The tap interface `name`.

    Raises:
        OSError: it can't be opened; the message says why.
    """

    def __init__(self, name: str) -> None:
        self.due: float | None = None
        self._name = name
        self._fd = _open(name)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._nic: Nic
        self._log = _log.bind(netdev=name)
        self._started = False
        self._closing = False
        self._closed = threading.Event()
        self._stalled = False  # the guest had no room
        self._gone = False  # somebody deleted the interface

    @property
    def peer(self) -> str:
        """The interface."""
        return f"{self._name} (gone)" if self._gone else self._name

    def start(self, nic: Nic) -> None:
        """Begin to read."""
        self._nic = nic
        self._started = True
        LOOP.add(self)
        nic.set_link(up=True)

    def set_features(self, features: int) -> None:
        """Tell the kernel what the guest accepts undone."""
        if self._gone:
            return
        offloads = _Offload(0)
        if features & Feature.GUEST_CSUM:  # without it the kernel takes none of the others
            for feature, offload in _OFFLOADS.items():
                if features & feature:
                    offloads |= offload
        try:
            fcntl.ioctl(self._fd, _TUNSETOFFLOAD, offloads.value)
        except OSError as error:  # the interface is gone, so nothing comes from it
            self._log.warning("netdev_offload_failed", error=error.strerror)

    def send(self, frame: Frame) -> bool:
        """Hand a frame to the kernel, which never makes anybody wait."""
        if self._gone:
            self._nic.drop("interface_lost")
            return True
        parts = frame.parts if len(frame.parts) < _IOV_MAX - 2 else (b"".join(frame.parts),)
        try:
            os.writev(self._fd, (frame.header, _NO_BUFFERS, *parts))
        except OSError as error:
            self._nic.drop(_reason(error))
        return True

    def flush(self) -> None:
        """Do nothing: each frame went by itself."""

    def resume(self) -> None:
        """Go on reading, if that was given up."""
        if self._stalled:
            LOOP.kick(self)

    def close(self) -> None:
        """Let go of the interface. One that was made here is gone then."""
        if not self._started:
            os.close(self._fd)
            return
        self._closing = True
        LOOP.kick(self)
        if not self._closed.wait(CLOSE_TIMEOUT_S):
            self._log.error("netdev_close_timed_out")

    # For the loop, on its thread.

    def pump(self) -> None:
        """Read what there is, as far as the guest takes it."""
        if self._closed.is_set():
            return
        if self._closing:
            self.finish()
            return
        if self._gone:
            return
        try:
            self._pull()
        except OSError as error:
            self._stalled = False
            self._gone = True
            self._log.error("netdev_lost", error=error.strerror)
        LOOP.watch(self._fd, 0 if self._stalled or self._gone else READABLE, self)
        if self._gone:
            self._nic.set_link(up=False)

    def finish(self) -> None:
        """Let go of the interface, and leave the loop."""
        LOOP.watch(self._fd, 0, self)
        LOOP.remove(self)
        self._gone = True
        os.close(self._fd)
        self._closed.set()

    def _pull(self) -> None:
        """Hand frames to the guest, as far as there are some and it takes them.

        Raises:
            OSError: the interface is gone.
        """
        handed = False
        try:
            for _ in range(_FRAMES_AT_ONCE):
                if not self._poll.poll(0):
                    self._stalled = False
                    return
                self._stalled = True  # before it is tried: `resume` may come meanwhile
                if not self._nic.receive_into(self._read):
                    return
                self._stalled = False
                handed = True
            LOOP.kick(self)  # after the others' turn
        except BlockingIOError:  # a frame that the kernel thought better of
            self._stalled = False
        finally:
            if handed:
                self._nic.received()

    def _read(self, windows: list[memoryview]) -> int:
        return os.readv(self._fd, windows)


def _reason(error: OSError) -> str:
    """Why the kernel took no frame, as counters call it."""
    match error.errno:
        case errno.EIO:
            return "interface_down"
        case errno.EINVAL:
            return "bad_header"
        case errno.EAGAIN | errno.ENOMEM | errno.ENOBUFS:
            return "interface_full"
        case errno.EBADFD:
            return "interface_lost"
        case _:
            return "interface_error"


def _explained(error: OSError, what: str, reasons: Mapping[int, str]) -> OSError:
    """The same error, with what it is about, and what is mostly behind it."""
    code = error.errno or 0
    why = f"; {reasons[code]}" if code in reasons else ""
    return OSError(code, f"{what}: {error.strerror}{why}")


def _open(name: str) -> int:
    """Attach to an interface, with headers as a modern guest has them."""
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _explained(error, DEVICE, _WHY_NO_DEVICE) from None
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        try:
            fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
        except OSError as error:
            raise _explained(error, name, _WHY_NO_INTERFACE) from None
        fcntl.ioctl(fd, _TUNSETVNETHDRSZ, _INT.pack(HEADER_SIZE))
        fcntl.ioctl(fd, _TUNSETVNETLE, _INT.pack(1))
        fcntl.ioctl(fd, _TUNSETOFFLOAD, 0)
    except OSError:
        os.close(fd)
        raise
    return fd
