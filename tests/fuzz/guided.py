"""Run one target in this process under atheris; what follows its name is for libFuzzer.

    python -m fuzz.guided codec -max_total_time=20 build/fuzz/corpus/codec

See https://llvm.org/docs/LibFuzzer.html for the options.
"""

from __future__ import annotations

import sys

import atheris

from fuzz.targets import INSTRUMENTED, PLANTED, load

if __name__ == "__main__":
    _name, *_options = sys.argv[1:]
    _packages = [*INSTRUMENTED, f"fuzz.{PLANTED}"]
    with atheris.instrument_imports(include=_packages):
        _target = load(_name)
    atheris.Setup([sys.argv[0], *_options], _target)
    atheris.Fuzz()
