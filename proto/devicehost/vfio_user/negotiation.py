"""What comes of two VERSION messages.

    proposed by the client        answered by the server
    major                         the same, or the end
    minor                         the lesser of the two
    max_msg_fds                   its own: each side says what it takes itself
    max_data_xfer_size            its own
    max_dma_maps                  the lesser of the two
    pgsizes                       what both have, or the end if that is nothing
    write_multiple                true if both say so
    migration, twin_socket        never

The specification wants the answer to have no capability that wasn't proposed. That holds
for `write_multiple`, which is a thing to use. The limits are answered in any case, as
libvfio-user does: a client that proposes nothing is better off knowing them.

A sender keeps to what its peer said that it takes. For data it keeps to the lesser of both
sides' numbers, because QEMU limits what it takes by what the server said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from devicehost.vfio_user.errors import BadHandshake
from devicehost.vfio_user.limits import PAGE_4K, Limits
from devicehost.vfio_user.payload import Printed
from devicehost.vfio_user.version import (
    DEFAULT_MAX_DATA_XFER_SIZE,
    DEFAULT_MAX_DMA_MAPS,
    DEFAULT_MAX_MSG_FDS,
    Capabilities,
    Version,
)

MAJOR: Final = 0
MINOR: Final = 9
"""The specification is 0.9. Peers send lower minors (QEMU 0, libvfio-user 2), and no
message depends on it."""


@dataclass(frozen=True, slots=True, repr=False)
class Agreement(Printed):
    """What holds for the rest of the session.

    Attributes:
        minor: the minor version.
        max_msg_fds: file descriptors that the peer takes with one message.
        max_data_xfer_size: data bytes that may be in a message to the peer.
        max_dma_maps: DMA mappings at a time.
        page_sizes: for DMA mappings, or'ed together, in bytes.
        write_multiple: whether the client may send REGION_WRITE_MULTI.
    """

    minor: int
    max_msg_fds: int
    max_data_xfer_size: int
    max_dma_maps: int
    page_sizes: int
    write_multiple: bool


def proposal(limits: Limits) -> Version:
    """What a client proposes."""
    return Version(MAJOR, MINOR, Capabilities.of(limits))


def answer(proposed: Version, limits: Limits) -> Version:
    """What a server answers.

    Raises:
        BadHandshake: there is nothing that both can do.
    """
    if proposed.major != MAJOR:
        raise BadHandshake(
            f"the client speaks version {proposed.major}.{proposed.minor}, this server {MAJOR}.x",
            major=proposed.major,
        )
    theirs = proposed.capabilities
    page_sizes = limits.page_sizes & (theirs.pgsizes or PAGE_4K)
    if not page_sizes:
        raise BadHandshake(
            f"the client has pages of {theirs.pgsizes:#x}, this server of {limits.page_sizes:#x}"
        )
    ours = Capabilities(
        max_msg_fds=limits.max_msg_fds,
        max_data_xfer_size=limits.max_data_xfer_size,
        max_dma_maps=min(limits.max_dma_maps, theirs.max_dma_maps or DEFAULT_MAX_DMA_MAPS),
        pgsizes=page_sizes,
        write_multiple=True if theirs.write_multiple else None,
    )
    return Version(MAJOR, min(proposed.minor, MINOR), ours)


def check_answer(answered: Version, proposed: Version) -> None:
    """Check what a server answered.

    Raises:
        BadHandshake: it isn't an answer to the proposal.
    """
    if answered.major != proposed.major or answered.minor > proposed.minor:
        raise BadHandshake(
            f"the server answered version {answered.major}.{answered.minor} "
            f"to {proposed.major}.{proposed.minor}"
        )
    twin = answered.capabilities.twin_socket
    if twin is not None and twin.supported:
        raise BadHandshake("the server turned on twin_socket, which wasn't proposed")


def agreement(answered: Version, peer: Capabilities, limits: Limits) -> Agreement:
    """What follows from the answer.

    Args:
        answered: the server's answer.
        peer: what the other side said of itself.
        limits: this side's.
    """
    final = answered.capabilities
    theirs = peer.max_data_xfer_size or DEFAULT_MAX_DATA_XFER_SIZE
    return Agreement(
        minor=answered.minor,
        max_msg_fds=DEFAULT_MAX_MSG_FDS if peer.max_msg_fds is None else peer.max_msg_fds,
        max_data_xfer_size=min(theirs, limits.max_data_xfer_size),
        max_dma_maps=final.max_dma_maps or DEFAULT_MAX_DMA_MAPS,
        page_sizes=final.pgsizes or PAGE_4K,
        write_multiple=bool(final.write_multiple),
    )
