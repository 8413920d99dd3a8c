"""What a client can find out about a server beyond its version."""

from __future__ import annotations

from devicehost.ring.membarrier import is_offered

FEATURES: tuple[str, ...] = (
    "interrupt-generation",
    "local-socket",
    "pci-functions",
    *(["ring"] if is_offered() else []),
    "string-pio",
    "virtio",
)
"""Names that never change; a client ignores those that it doesn't know."""
