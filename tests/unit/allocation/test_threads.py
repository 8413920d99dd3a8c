"""The resource manager, used by several threads at once."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from devicehost_server.allocation import ResourceManager
from devicehost_server.model.resources import (
    MmioAddressConstraint,
    MmioAddressRange,
    PioAddressConstraint,
    PioAddressRange,
    Resource,
)


@pytest.fixture
def eager_switches() -> Iterator[None]:
    """Let threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_switches")
def test_threads_never_get_the_same_range(manager: ResourceManager) -> None:
    ready = threading.Barrier(4)
    failures: list[BaseException] = []

    def work(owner: str) -> None:
        turns = random.Random(owner)  # a repeatable mix, not a secret
        held: list[Resource] = []
        ready.wait()
        try:
            for _ in range(300):
                wanted = MmioAddressConstraint(size=turns.randrange(1, 64), align=1)
                held.extend(manager.allocate([wanted], owner))
                if len(held) > 5:
                    turns.shuffle(held)
                    manager.release([held.pop() for _ in range(5)], owner)
        except BaseException as error:  # noqa: BLE001 # the main thread tells of it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"owner-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    allocations = manager.allocations()
    ranges = [each.resource for each in allocations if isinstance(each.resource, MmioAddressRange)]
    assert all(one.last < other.base for one, other in pairwise(ranges))
    for each in allocations:
        manager.release([each.resource], each.owner)
    assert manager.capacity() == ResourceManager().capacity()


@pytest.mark.parametrize(
    "call",
    [
        lambda manager: manager.allocate([PioAddressConstraint(size=8)], "b"),
        lambda manager: manager.release([PioAddressRange(0x24, 8)], "a"),
        ResourceManager.capacity,
        ResourceManager.allocations,
    ],
    ids=["allocate", "release", "capacity", "allocations"],
)
def test_each_call_waits_for_the_one_before(
    manager: ResourceManager, call: Callable[[ResourceManager], object]
) -> None:
    manager.allocate([PioAddressConstraint(size=8)], "a")
    thread = threading.Thread(target=call, args=(manager,))
    with manager._lock:
        thread.start()
        thread.join(0.05)  # it has all the time that it would need
        assert thread.is_alive()
    thread.join()
