"""The sizes of queues, as configurations give them."""

from __future__ import annotations

from devicehost_server.model.errors import BadConfig


def check_queue_size(device_type: str, size: int) -> None:
    """Check the configuration's `queue_size`.

    Raises:
        BadConfig: it isn't a power of two (VIRTIO 1.2, section 2.7).
    """
    if size < 1 or size & (size - 1):
        raise BadConfig(
            f"device type {device_type!r}: field 'queue_size': {size} is not allowed; "
            "allowed: a power of two",
            field="queue_size",
            type=device_type,
        )
