"""Handing out ports, addresses, interrupts and memory slots: the pools of one VM.

manager         ResourceManager: the one object that others hold
pool_config     how large the pools are, and what is reserved
space           one kind of number: its pools, and its errors
range_pool      consecutive integers, and who has which
gap_tree        the free ones, as a balanced tree
pinning         asking again for what one had
"""

from devicehost_server.allocation.manager import ResourceManager
from devicehost_server.allocation.pinning import pinned
from devicehost_server.allocation.pool_config import PoolConfig
from devicehost_server.allocation.range_pool import PoolCapacity, Reserved
from devicehost_server.allocation.space import Allocation

__all__ = ["Allocation", "PoolCapacity", "PoolConfig", "Reserved", "ResourceManager", "pinned"]
