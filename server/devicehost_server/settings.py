"""Settings by name, from four places: flags over environment over file over defaults.

A setting `access-timeout` is the flag `--access-timeout`, the environment variable
`DEVICEHOST_ACCESS_TIMEOUT`, and the key `access-timeout` of the TOML file. Every value
arrives as text and is parsed once, so an error names the place that it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

ENVIRONMENT_PREFIX = "DEVICEHOST_"


class ConfigError(Exception):
    """The configuration is wrong; the message says where and what is allowed."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        name: lower case, with dashes.
        parse: turns text into the value; ValueError if it can't.
        default: the value if it is given nowhere.
        metavar: what stands for the value in the help; empty for a yes or no.
        help: what it does.
        group: the heading that it stands under.
    """

    name: str
    parse: Callable[[str], Any]
    default: Any
    metavar: str
    help: str
    group: str

    @property
    def key(self) -> str:
        """The name as an identifier."""
        return self.name.replace("-", "_")

    @property
    def environment(self) -> str:
        """The environment variable."""
        return ENVIRONMENT_PREFIX + self.key.upper()


def resolve(
    settings: tuple[Setting, ...],
    *,
    flags: Mapping[str, str | None],
    environment: Mapping[str, str],
    file: Mapping[str, Any],
    file_name: str,
) -> dict[str, Any]:
    """Find the value of each setting.

    Args:
        settings: what there is to set.
        flags: text by key; None if the flag wasn't given.
        environment: the process's.
        file: the top level of the TOML file, by name; `_` and `-` are the same.
        file_name: for errors.

    Returns:
        The values by key.

    Raises:
        ConfigError: a value can't be parsed, or the file has a key that isn't a setting.
    """
    in_file = {name.replace("-", "_"): value for name, value in file.items()}
    known = {setting.key for setting in settings}
    for name in file:
        if name.replace("-", "_") not in known:
            names = ", ".join(setting.name for setting in settings)
            raise ConfigError(f"{file_name}: no such setting {name!r}; known: {names}")
    values = {}
    for setting in settings:
        flag = flags.get(setting.key)
        if flag is not None:
            values[setting.key] = _parse(setting, flag, f"--{setting.name}")
        elif setting.environment in environment:
            text = environment[setting.environment]
            values[setting.key] = _parse(setting, text, setting.environment)
        elif setting.key in in_file:
            text = text_of(in_file[setting.key], f"{file_name}: {setting.name}")
            values[setting.key] = _parse(setting, text, f"{file_name}: {setting.name}")
        else:
            values[setting.key] = setting.default
    return values


def text_of(value: Any, where: str) -> str:
    """A TOML value as the text that the same setting has on a command line.

    Raises:
        ConfigError: it is a table, a list of anything but plain values, or a date.
    """
    match value:
        case bool():
            return "true" if value else "false"
        case str() | int() | float():
            return str(value)
        case list() if all(isinstance(item, str | int | float) for item in value):
            return ",".join(str(item) for item in value)
    raise ConfigError(f"{where}: {value!r} is not allowed; allowed: text, a number, true or false")


def _parse(setting: Setting, text: str, where: str) -> Any:
    try:
        return setting.parse(text)
    except ValueError as error:
        raise ConfigError(f"{where}: {text!r} is not allowed: {error}") from None
