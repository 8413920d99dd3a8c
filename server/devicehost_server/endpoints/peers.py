"""Who is at the other end of a Unix socket, and whether it may use the bus.

The mode of a socket says who can connect. That is the first check, and whoever sets the
mode may have been generous, or the directory's owner careless. The second one doesn't
depend on it: a peer is root, or our own user, or in the group that owns the socket. So a
socket of mode 0666 lets in nobody whom one of mode 0660 would keep out.

The kernel tells who the peer was when it connected (unix(7), SO_PEERCRED), and which
other groups it is in (SO_PEERGROUPS, socket(7)).
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid
_SO_PEERGROUPS = 59  # Linux, include/uapi/asm-generic/socket.h
_GROUPS_SIZE = 1024  # the most that `getsockopt` takes: 256 groups


@dataclass(frozen=True, slots=True)
class Peer:
    """A process that has connected.

    Attributes:
        pid: its number; 0 if it is in another namespace.
        uid: its user.
        gid: its group.
        groups: the others that it is in. None are known of a peer with more than 256.
    """

    pid: int
    uid: int
    gid: int
    groups: frozenset[int]

    @classmethod
    def of(cls, connection: socket.socket) -> Peer:
        """Ask the kernel who is at the other end.

        Raises:
            OSError: the kernel doesn't say.
        """
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        try:
            groups = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_SIZE)
        except OSError:  # too many
            groups = b""
        pid, uid, gid = _CREDENTIALS.unpack(found)
        return cls(pid, uid, gid, frozenset(memoryview(groups).cast("I")))

    def may_connect(self, group: int) -> bool:
        """Whether it may use a socket that belongs to `group`."""
        return self.uid in (0, os.geteuid()) or group == self.gid or group in self.groups
