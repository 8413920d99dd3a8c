"""ResourceService.GetCapacity: how much each pool has left."""

from __future__ import annotations

from pathlib import Path

from daemonlab import serving
from devicehost_client import DeviceHost
from devicehost_server.allocation import PoolConfig
from wire import irq_constraint, pio_constraint


def test_the_pools_are_those_of_a_pc(host: DeviceHost) -> None:
    pools = {pool.name: pool for pool in host.resources.capacity()}
    assert list(pools) == [
        "pio",
        "mmio-below-4g",
        "mmio-above-4g",
        "memory-below-4g",
        "memory-above-4g",
        "legacy-irq",
        "msi",
        "kvm-slot",
    ]
    assert (pools["pio"].total, pools["pio"].free) == (65_536, 65_536)
    assert pools["legacy-irq"].total == 16
    assert pools["msi"].total == 1000
    assert pools["kvm-slot"].total == PoolConfig().kvm_slot_count
    assert all(pool.largest_free <= pool.free <= pool.total for pool in pools.values())


def test_what_is_allocated_is_missing(host: DeviceHost) -> None:
    def free() -> dict[str, int]:
        return {pool.name: pool.free for pool in host.resources.capacity()}

    before = free()
    given = host.resources.allocate("vmm", [pio_constraint(8), irq_constraint()])
    host.hotplug.plug("register", device_id="r")
    changes = {name: before[name] - now for name, now in free().items() if now != before[name]}
    assert changes == {"pio": 8, "legacy-irq": 1, "mmio-below-4g": 0x1000}
    host.resources.release("vmm", given)
    host.hotplug.unplug("r")
    assert free() == before


def test_the_largest_free_piece_is_the_largest_that_can_be_had(host: DeviceHost) -> None:
    for _ in range(2):
        pio = host.resources.capacity()[0]
        (given,) = host.resources.allocate("vmm", [pio_constraint(pio.largest_free)])
        assert given.pio.size == pio.largest_free


def test_the_pools_are_as_large_as_the_server_was_told(tmp_path: Path) -> None:
    pools = PoolConfig(physical_address_bits=46, memory_last=(8 << 30) - 1)
    with serving(tmp_path, pools=pools) as lab:
        total = {pool.name: pool.total for pool in lab.host().resources.capacity()}
    assert total["mmio-above-4g"] == (1 << 46) - (8 << 30)
    assert total["memory-above-4g"] == 4 << 30
