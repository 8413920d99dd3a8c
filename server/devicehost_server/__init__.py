"""The device server: an IoManager and the devices behind it, in a process of their own."""

from importlib.metadata import version

VERSION = version("devicehost")
