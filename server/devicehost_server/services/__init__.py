"""The gRPC API: one file per service, which turns messages into calls and back.

No logic lives here. `gate` is in front of every call; errors are translated in `errors`.
"""
