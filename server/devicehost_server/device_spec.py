"""A device on the command line: `TYPE,key=value,…`, with `id=` for its name.

    uart16550,id=com1,base=0x3f8,chardev=pty:/run/vm1/com1

A comma in a value is written twice, as in QEMU's options. In a TOML file a device is a
table, and nothing needs doubling:

    [[device]]
    type = "uart16550"
    id = "com1"
    base = 0x3f8
    chardev = "pty:/run/vm1/com1"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from devicehost_server.model.errors import DeviceHostError
from devicehost_server.settings import ConfigError, text_of

# A comma that is doubled, while the text is taken apart.
_COMMA = "\0"


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A device to be plugged at the start.

    Attributes:
        type: the name of its type.
        id: its name, or "" to have one made.
        config: its configuration, text by key.
        where: the place that it was read from, for errors.
    """

    type: str
    id: str = ""
    config: Mapping[str, str] = field(default_factory=dict)
    where: str = field(default="", compare=False)


def parse_device(text: str) -> DeviceSpec:
    """Read `TYPE,key=value,…`.

    Raises:
        ConfigError: it isn't of that form, or a key comes twice.
    """
    where = f"--device {text!r}"
    first, *rest = text.replace(",,", _COMMA).split(",")
    if not first or "=" in first:
        raise ConfigError(f"{where}: it must begin with a type: TYPE,key=value,...")
    config: dict[str, str] = {}
    for part in rest:
        key, equals, value = part.partition("=")
        if not key or not equals:
            raise ConfigError(f"{where}: {part!r} is not of the form key=value")
        if key in config:
            raise ConfigError(f"{where}: {key!r} is given twice")
        config[key] = value.replace(_COMMA, ",")
    return DeviceSpec(first, config.pop("id", ""), config, where)


def device_from_table(table: Any, file_name: str, number: int) -> DeviceSpec:
    """Read a `[[device]]` table.

    Args:
        table: what TOML made of it.
        file_name: for errors.
        number: which one it is, from 1, for errors.

    Raises:
        ConfigError: it has no type, or a value that a configuration can't have.
    """
    where = f"{file_name}: device {number}"
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: {table!r} is not a table; write [[device]] above it")
    config = {key: text_of(value, f"{where}: {key}") for key, value in table.items()}
    if "type" not in config:
        raise ConfigError(f"{where}: it has no type")
    return DeviceSpec(config.pop("type"), config.pop("id", ""), config, where)


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Let an error that leaves the block say which device it is about.

    Raises:
        ConfigError: in place of an error of the model.
    """
    try:
        yield
    except DeviceHostError as error:
        raise ConfigError(f"{where}: {error}") from error
