"""The device server: an IoManager and the devices behind it, in a process of their own."""
