"""The client that a VMM links: each trapped access goes to a device server and back.

from devicehost_client import connect

with connect("unix:/run/vm1/devices.sock") as host:
    print(hex(host.vcpu(0).pio_read(0x3FD, 1)))
"""

from devicehost_client.endpoint import Tls
from devicehost_client.errors import (
    AccessTimeout,
    ClientError,
    ConnectionLost,
    NotLocal,
    RemoteError,
)
from devicehost_client.host import DeviceHost, connect
from devicehost_client.policy import Answer, Policy
from devicehost_client.port import AccessPort
from devicehost_client.vcpu import Vcpu

__all__ = [
    "AccessPort",
    "AccessTimeout",
    "Answer",
    "ClientError",
    "ConnectionLost",
    "DeviceHost",
    "NotLocal",
    "Policy",
    "RemoteError",
    "Tls",
    "Vcpu",
    "connect",
]
