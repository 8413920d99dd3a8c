"""Fuzz, guided by coverage (atheris), or replay what was found.

    python -m fuzz                          each target in turn, for 300 seconds
    python -m fuzz --seconds 20 codec       one of them
    python -m fuzz --replay codec FILE      inputs by hand; needs no atheris

Run it from the top of the tree with `PYTHONPATH=tests`, or as `make fuzz`. What a run
learns stays in `build/fuzz/corpus`, and inputs that fail are put into `build/fuzz`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

from fuzz.targets import CORPUS, PLANTED, TARGETS, load

BUILD: Final = Path("build/fuzz")

_LIBFUZZER: Final = (
    "-max_len=4096",
    "-timeout=20",  # an input that takes longer has failed, in seconds
    "-rss_limit_mb=2048",
    "-print_final_stats=1",
)


def main() -> int:
    """Do as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=int, default=300, help="for each target [300]")
    parser.add_argument("--build", type=Path, default=BUILD, help=f"for what is found [{BUILD}]")
    parser.add_argument("--replay", action="store_true", help="run a target on FILEs, once")
    parser.add_argument("target", nargs="?", choices=[*TARGETS, PLANTED], metavar="TARGET")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.replay:
        for file in options.files:
            data = file.read_bytes()
            try:
                load(options.target)(data)
            except Exception as error:
                error.add_note(f"input: {data.hex()}, {file}")
                raise
        return 0
    targets = [options.target] if options.target else TARGETS
    return max(fuzz(target, options.build, options.seconds) for target in targets)


def fuzz(target: str, build: Path, seconds: int) -> int:
    """Fuzz a target in a process of its own; return its exit status."""
    found = build / "corpus" / target
    found.mkdir(parents=True, exist_ok=True)
    before = set(build.glob(f"{target}-*"))
    command = [
        *(sys.executable, "-m", "fuzz.guided", target, *_LIBFUZZER),
        *(f"-max_total_time={seconds}", f"-artifact_prefix={build}/{target}-"),
        *map(str, filter(Path.is_dir, [found, CORPUS / target])),
    ]
    status = subprocess.run(command, check=False).returncode
    for artifact in sorted(set(build.glob(f"{target}-*")) - before):
        sys.stderr.write(
            f"input: {artifact.read_bytes().hex()}\n"
            f"again: PYTHONPATH=tests {sys.executable} -m fuzz --replay {target} {artifact}\n"
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
