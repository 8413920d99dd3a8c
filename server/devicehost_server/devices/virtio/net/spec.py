"""The text that says what a network device is plugged into, read without opening anything.

    tap:NAME            the tap interface NAME of this host; made if it isn't there
    unix:PATH           the Unix socket PATH, where somebody listens who speaks the framing
                        of QEMU's `-netdev stream`
    unix-listen:PATH    the same, but listening there
    hub:NAME            the other devices of this process that say the same

>>> parse_spec("hub:lan")
HubSpec(name='lan')
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from devicehost_server.model.errors import BadConfig

ALLOWED = "tap:NAME, unix:PATH, unix-listen:PATH, hub:NAME"

_UNIX_PATH_MAX = 107
"""Bytes of a socket's path: `sun_path` is 108 long, with a zero at the end (unix(7))."""

_TAP_NAME = re.compile(r"[^\s/%:]{1,15}")
"""What an interface may be called (IFNAMSIZ is 16). The kernel would replace a %d."""

_HUB_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class TapSpec:
    """The tap interface `name`."""

    name: str


@dataclass(frozen=True, slots=True)
class UnixSpec:
    """A Unix socket at `path`, to connect to or to listen at."""

    path: Path
    listens: bool


@dataclass(frozen=True, slots=True)
class HubSpec:
    """The hub `name` of this process."""

    name: str


Spec: TypeAlias = TapSpec | UnixSpec | HubSpec


def bad_spec(text: str, why: str) -> BadConfig:
    """Return the error for the netdev `text`, whatever is wrong with it."""
    return BadConfig(f"netdev {text!r}: {why}", field="netdev", value=text)


def parse_spec(text: str) -> Spec:
    """Read a netdev's text form.

    Raises:
        BadConfig: it is none of the allowed forms.
    """
    kind, _, rest = text.partition(":")
    if kind == "tap" and rest:
        if not _TAP_NAME.fullmatch(rest) or rest in {".", ".."}:
            why = "allowed: at most 15 characters, no space, slash, colon or percent sign"
            raise bad_spec(text, f"{rest!r} can't be the name of an interface; {why}")
        return TapSpec(rest)
    if kind in {"unix", "unix-listen"} and rest:
        size = len(rest.encode())
        if size > _UNIX_PATH_MAX:
            why = f"the path is {size} bytes long; allowed: at most {_UNIX_PATH_MAX}"
            raise bad_spec(text, why)
        return UnixSpec(Path(rest), listens=kind == "unix-listen")
    if kind == "hub" and rest:
        if not _HUB_NAME.fullmatch(rest):
            why = "allowed: at most 64 letters, digits, dots, dashes and underscores"
            raise bad_spec(text, f"{rest!r} can't be the name of a hub; {why}")
        return HubSpec(rest)
    raise bad_spec(text, f"is not allowed; allowed: {ALLOWED}")
