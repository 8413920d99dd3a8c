"""A request of a vfio-user client that is refused, with the error number for its reply."""

from __future__ import annotations


class Refused(Exception):
    """The client asked for something that it doesn't get.

    Attributes:
        errno: the error number for the reply.
    """

    def __init__(self, errno: int, message: str) -> None:
        super().__init__(message)
        self.errno = errno
