"""How an access ended, as a number: the same for the ring and for the local socket.

gRPC carries the reason as text, with its metadata. The fast ways have a byte, and an
errno where the protocol wants one. One table relates them:

    >>> AccessStatus.NO_DEVICE.errno == errno.ENODEV
    True
"""

from __future__ import annotations

import enum
import errno


class AccessStatus(enum.IntEnum):
    """How an access ended. The names are the reasons of the gRPC API."""

    OK = 0
    NO_DEVICE = 1
    ACCESS_OUT_OF_RANGE = 2
    BAD_ACCESS_SIZE = 3
    BAD_ACCESS = 4
    DEVICE_FAULT = 5
    DEVICE_TIMEOUT = 6
    DRAINING = 7

    @property
    def errno(self) -> int:
        """The error number that stands for it in a vfio-user reply; 0 for OK."""
        return _ERRNOS[self]

    @classmethod
    def from_errno(cls, number: int) -> AccessStatus:
        """The status that an error number in a reply to an access stands for."""
        return _FROM_ERRNO.get(number, cls.DEVICE_FAULT)


_ERRNOS = {
    AccessStatus.OK: 0,
    AccessStatus.NO_DEVICE: errno.ENODEV,
    AccessStatus.ACCESS_OUT_OF_RANGE: errno.ERANGE,
    AccessStatus.BAD_ACCESS_SIZE: errno.EINVAL,
    AccessStatus.BAD_ACCESS: errno.ENOTSUP,
    AccessStatus.DEVICE_FAULT: errno.EIO,
    AccessStatus.DEVICE_TIMEOUT: errno.ETIMEDOUT,
    AccessStatus.DRAINING: errno.ESHUTDOWN,
}
_FROM_ERRNO = {number: status for status, number in _ERRNOS.items()}
