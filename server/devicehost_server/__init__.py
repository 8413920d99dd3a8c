"""The device server: an IoManager and the devices behind it, in a process of their own."""

from importlib.metadata import version

from devicehost.ring.membarrier import is_offered

VERSION = version("devicehost")

FEATURES: tuple[str, ...] = (
    "interrupt-generation",
    "local-socket",
    *(["ring"] if is_offered() else []),
    "string-pio",
)
"""What a client can find out about a server beyond its version."""
