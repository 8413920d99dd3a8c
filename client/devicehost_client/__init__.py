"""The client that a VMM links: each trapped access goes to a device server and back."""
