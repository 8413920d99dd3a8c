"""What this side takes from a peer. These are security limits.

A peer is another process, which may be mistaken or hostile. Without limits it decides how
much memory, how many file descriptors and how much time it costs here.
"""

from __future__ import annotations

from dataclasses import dataclass

from devicehost.vfio_user.errors import BadValue

PAGE_4K = 0x1000

ACCESS_OVERHEAD = 32
"""Bytes of the header and the fixed part of the longest messages: those that carry data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one session. The first four are told to the peer as capabilities.

    Attributes:
        max_data_xfer_size: data bytes in one read or write. The specification's default.
        max_msg_fds: file descriptors with one message. The specification's default is 1,
            which would need a message for each interrupt; QEMU refuses a server that
            offers more than 16.
        max_dma_maps: DMA mappings at a time. The specification's default.
        page_sizes: the page sizes for DMA mappings, or'ed together, in bytes.
        max_version_data: bytes of JSON in a VERSION message. QEMU sends about 200.
        max_drained_size: a message longer than `max_message_size` is read to its end,
            thrown away and answered, up to this many bytes. A size beyond it is taken for
            garbage, and ends the connection: a peer that is out of step would otherwise
            have up to 4 GiB of its further messages swallowed.
    """

    max_data_xfer_size: int = 1 << 20
    max_msg_fds: int = 8
    max_dma_maps: int = 65535
    page_sizes: int = PAGE_4K
    max_version_data: int = 4096
    max_drained_size: int = 16 << 20

    def __post_init__(self) -> None:
        for name in ("max_data_xfer_size", "max_dma_maps", "max_version_data"):
            if getattr(self, name) < 1:
                raise BadValue(f"{name} is {getattr(self, name)}, but must be 1 or more")
        if self.max_msg_fds < 0:
            raise BadValue(f"max_msg_fds is {self.max_msg_fds}, but must be 0 or more")
        if self.page_sizes < PAGE_4K or self.page_sizes % PAGE_4K:
            raise BadValue(
                f"page_sizes is {self.page_sizes:#x}, but must be pages of 4 KiB or more"
            )

    @property
    def max_message_size(self) -> int:
        """The longest message that is taken, with its header, in bytes."""
        return ACCESS_OVERHEAD + max(self.max_data_xfer_size, self.max_version_data)
