"""Keep of what was found the few small inputs that still go every way.

    PYTHONPATH=tests python -m fuzz.minimize [TARGET]

Takes the corpora in `build/fuzz/corpus` and in the tree, and writes those in the tree anew:
each time the input that goes most ways which none of the others goes, the shortest of them.
A way is a step from one line to the next in the code under test, or what a target returns.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any, Final, TypeAlias

from fuzz.targets import CORPUS, INSTRUMENTED, TARGETS, TestOneInput, corpus, load

FOUND: Final = Path("build/fuzz/corpus")

Way: TypeAlias = tuple[str, int, int]
"""File, the line before, and the line."""


class Ways:
    """Watches where a call goes.

    Attributes:
        gone: the ways.
    """

    def __init__(self) -> None:
        self.gone: set[Way] = set()
        self._under_test = tuple(_folder(package) for package in INSTRUMENTED)

    def of(self, call: TestOneInput, data: bytes) -> set[Way]:
        """Return the ways that an input goes."""
        self.gone = set()
        sys.settrace(self._enter)
        try:
            returned = call(data)
        finally:
            sys.settrace(None)
        self.gone.add((type(returned).__name__, 0, 0))
        return self.gone

    def _enter(self, frame: FrameType, _event: str, _argument: object) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(self._under_test):
            return None
        before = 0

        def step(frame: FrameType, event: str, _argument: object) -> Any:
            nonlocal before
            if event == "line":
                self.gone.add((name, before, frame.f_lineno))
                before = frame.f_lineno
            return step

        return step


def _folder(package: str) -> str:
    """Where the modules of a package are."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return next(iter(spec.submodule_search_locations))


def minimized(target: str, inputs: Iterable[bytes]) -> list[bytes]:
    """The inputs that are needed to go every way that they all go."""
    ways, call = Ways(), load(target)
    call(b"")  # what is only done the first time is no way
    found = [(data, ways.of(call, data)) for data in sorted(inputs)]
    left = set().union(*(gone for _, gone in found))
    kept = []
    while left:
        data, gone = max(found, key=lambda each: (len(each[1] & left), -len(each[0])))
        left -= gone
        kept.append(data)
    return kept


def main() -> None:
    """Minimize the corpora of all targets, or of one."""
    for target in sys.argv[1:] or TARGETS:
        folder = CORPUS / target
        files = [*(FOUND / target).glob("*"), *corpus(target)]
        kept = minimized(target, {file.read_bytes() for file in files})
        folder.mkdir(parents=True, exist_ok=True)
        for file in corpus(target):
            file.unlink()
        for data in kept:
            name = hashlib.sha1(data, usedforsecurity=False).hexdigest()
            (folder / name).write_bytes(data)
        sys.stdout.write(f"{target}: {len(kept)} of {len(files)}, {sum(map(len, kept))} bytes\n")


if __name__ == "__main__":
    main()
