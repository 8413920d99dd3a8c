"""The devices that come with the server, and what it takes to write another one."""

from devicehost_server.devices.base import ConcurrentDevice, Device, DeviceContext, State
from devicehost_server.devices.config import option

__all__ = ["ConcurrentDevice", "Device", "DeviceContext", "State", "option"]
