"""Files that commands read and write; what goes wrong with them is said in words."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from devicehost_client.ctl.command import CommandFailed


def read_text(path: Path) -> str:
    """Return what is in a text file; `-` is stdin.

    Raises:
        CommandFailed: it can't be read, or isn't UTF-8.
    """
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
    except OSError as error:
        raise CommandFailed(f"can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CommandFailed(f"can't read {path}: it isn't text in UTF-8") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file, over one that is there.

    Raises:
        CommandFailed: it can't be written.
    """
    write_parts(path, [text.encode()])


def write_parts(path: Path, parts: Iterable[bytes]) -> int:
    """Write a file as its parts come, over one that is there; return its size.

    Raises:
        CommandFailed: it can't be written.
    """
    written = 0
    try:
        with path.open("wb") as file:
            for part in parts:
                written += file.write(part)
    except OSError as error:
        raise CommandFailed(f"can't write {path}: {error.strerror}") from error
    return written
