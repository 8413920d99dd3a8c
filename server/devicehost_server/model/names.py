"""Names that people give: of devices, and of owners of resources."""

from __future__ import annotations

import re

from devicehost_server.model.errors import BadRequest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(what: str, name: str) -> None:
    """Check that `name` is fit for logs, listings and command lines.

    Args:
        what: what is named, for the error: `device id`.
        name: 1 to 64 letters, digits, dots, dashes and underscores; the first is a
            letter or a digit.

    Raises:
        BadRequest: it isn't.
    """
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"{what} {name!r} is not allowed; allowed: 1 to 64 letters, digits, '.', '-', '_',"
            " the first a letter or a digit",
            field=what,
            value=name,
        )
