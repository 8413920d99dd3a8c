"""The devices that come with the server, and what it takes to write another one."""

from devicehost_server.devices.base import ConcurrentDevice, Device, DeviceContext, State
from devicehost_server.devices.config import option
from devicehost_server.devices.register_device import RegisterDevice

__all__ = ["ConcurrentDevice", "Device", "DeviceContext", "RegisterDevice", "State", "option"]
