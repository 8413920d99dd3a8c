"""The devices that come with the server, and the registry that others join."""
