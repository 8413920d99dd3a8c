"""The server's live state as a tree, of which one looks at a part by its path.

    inspection = Inspection()
    inspection.add("server", lambda: {"version": "1.2", "draining": False})
    inspection.inspect("server/version")        Node("version", "1.2")

Whoever has state to show adds a branch: a `Provider`, which is called each time that
somebody looks, and returns what is there now. What it returns is made of plain values, of
mappings by name, and of functions for what is made only when somebody looks that far. So to
look at one device asks no other one.

A path is names with "/" between them. A name may have one in it, too: of the names that a
path can go on with, the longest is meant.

Invariants:
    What can't be looked at right now, since a device hangs say, is a node that says so;
    it never keeps one from seeing the others.
    However large the state is, an answer is bounded: what is too much is left out, and
    the node above is marked as cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from devicehost_server.model.errors import DeviceHostError, NoSuchPath

DEPTH_MAX = 32
"""How many levels are shown at once: messages may not be nested much deeper."""

VALUE_MAX = 4096
"""The longest value, in characters; of a longer one the beginning is shown."""

SIZE_MAX = 1 << 20
"""How much is shown at once, in bytes of a message, about."""

_NODE_SIZE = 16  # what a message needs for a node, beside its texts
_SHOWN = 20  # names, in an error

Leaf: TypeAlias = str | int | None
"""A value as it is to be shown: a truth value is "yes" or "no"; None is no value."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A node that has a value as well as nodes below it."""

    value: Leaf
    below: Mapping[str, Look]


Look: TypeAlias = "Leaf | Branch | Mapping[str, Look] | Callable[[], Look]"
"""What somebody sees: a value, nodes by name, both, or a function that returns one of these.

A function may raise a `DeviceHostError` for what can't be seen.
"""

Provider: TypeAlias = Callable[[], Look]
"""Returns a branch of the tree. Called from any thread."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the tree.

    Attributes:
        name: the last part of its path; empty for the root.
        value: its value as text, if it has one.
        nodes: those below, in order.
        cut: whether there are nodes below that were left out.
    """

    name: str
    value: str | None = None
    nodes: tuple[Node, ...] = ()
    cut: bool = False


class Inspection:
    """The tree. Safe to use from any thread, once all branches are added."""

    def __init__(self) -> None:
        self._providers: dict[str, Look] = {}

    def add(self, name: str, provider: Provider) -> None:
        """Add a branch to the root; branches stand in the order of their adding."""
        self._providers[name] = provider

    def inspect(self, path: str = "", depth: int = 0) -> Node:
        """Return a part of the tree.

        Args:
            path: where; empty for the root.
            depth: how many levels below that; 0 for all, as far as that is possible.

        Raises:
            NoSuchPath: nothing is there. Metadata: `path`, `known`.
            DeviceHostError: what is on the way there can't be seen.
        """
        name = ""
        found: Look = self._providers
        rest = path.strip("/")
        while rest:
            below = _below(found)
            name = _next_name(below, rest, path)
            found = _called(below[name])
            rest = rest[len(name) + 1 :]
        return _Sight(SIZE_MAX).node(name, found, min(depth or DEPTH_MAX, DEPTH_MAX))


class _Sight:
    """What one call sees, as long as there is room."""

    def __init__(self, room: int) -> None:
        self._room = room

    def node(self, name: str, look: Look, depth: int) -> Node:
        """Return a node with `depth` levels below it."""
        try:
            look = _called(look)
        except DeviceHostError as error:
            look = f"({error})"
        value = _text(look.value if isinstance(look, Branch) else look)
        self._room -= _NODE_SIZE + _size(name) + _size(value or "")
        below = _below(look)
        nodes: list[Node] = []
        for each, further in below.items():
            if not depth or self._room <= 0:
                break
            nodes.append(self.node(each, further, depth - 1))
        return Node(name, value, tuple(nodes), cut=len(nodes) < len(below))


def _called(look: Look) -> Look:
    """Call what is a function, until it is none."""
    while callable(look):
        look = look()
    return look


def _below(look: Look) -> Mapping[str, Look]:
    """The nodes below something; none if it is a value only."""
    below = look.below if isinstance(look, Branch) else look
    return below if isinstance(below, Mapping) else {}


def _size(text: str) -> int:
    return len(text.encode(errors="replace"))


def _text(look: Look) -> str | None:
    """A value as text; None if it isn't one."""
    match look:
        case bool():
            return "yes" if look else "no"
        case int() | str():
            text = str(look)
            if len(text) > VALUE_MAX:
                return f"{text[:VALUE_MAX]}… ({len(text)} characters)"
            return text
    return None


def _next_name(below: Mapping[str, Look], rest: str, path: str) -> str:
    """Return the name that the rest of a path begins with."""
    fits = [name for name in below if rest == name or rest.startswith(f"{name}/")]
    if fits:
        return max(fits, key=len)
    known = ", ".join([*below][:_SHOWN]) + (", …" if len(below) > _SHOWN else "")
    raise NoSuchPath(
        f"nothing is at {path!r}: there is no {rest!r}; known there: {known or 'nothing'}",
        path=path,
        known=known,
    )
