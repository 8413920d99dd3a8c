"""In a device from outside of the bus, with the manners of an access.

    with entered(device, "uart0", "while its state was saved") as hosted:
        state = hosted.save()

Nobody else is in the device meanwhile, if it is one that is entered by one thread at a
time, and what it raises is its own fault, not a bug of who called it.

What the device asks of the outside meanwhile, the time say, is no part of what a guest has
it do. So a recording leaves it out: `is_inside` tells.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from devicehost_server.devices.base import Hosted
from devicehost_server.model.device_io import DEVICE_EXCEPTIONS, DeviceIo, DeviceIoMut
from devicehost_server.model.errors import DeviceFault, DeviceHostError, DeviceTimeout

LOCK_TIMEOUT_S = 5.0
"""How long to wait for a device that another thread is in, unless told otherwise."""


class _OfThread(threading.local):
    depth = 0


_of_thread = _OfThread()


def is_inside() -> bool:
    """Whether the calling thread is in a device by `entered`."""
    return _of_thread.depth > 0


@contextmanager
def entered(
    device: DeviceIo,
    device_id: str,
    doing: str,
    *,
    is_recorded: bool = False,
    timeout_s: float = LOCK_TIMEOUT_S,
) -> Iterator[Hosted[Any]]:
    """Hold the device's own lock, if it has one, for as long as the block runs.

    Args:
        device: the device.
        device_id: its id, for errors.
        doing: what for, to follow "device X raised Y" in an error.
        is_recorded: whether what it asks of the outside is part of a recording.
        timeout_s: how long to wait for a device that another thread is in, in seconds.

    Raises:
        DeviceTimeout: another thread is in it for too long.
        DeviceFault: it raised something that isn't of our tree of errors.
    """
    lock = device.lock if isinstance(device, DeviceIoMut) else None
    if lock is not None and not lock.acquire(timeout=timeout_s):
        raise DeviceTimeout(
            f"device {device_id!r} was in use for longer than {timeout_s:g} s",
            device=device_id,
            timeout_s=f"{timeout_s:g}",
        )
    depth = _of_thread.depth
    _of_thread.depth = 0 if is_recorded else depth + 1
    try:
        yield cast("Hosted[Any]", device)
    except DeviceHostError:
        raise
    except DEVICE_EXCEPTIONS as error:
        raise DeviceFault(device_id, doing, error) from error
    finally:
        _of_thread.depth = depth
        if lock is not None:
            lock.release()
