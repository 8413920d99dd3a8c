"""Every fuzz target holds for its corpus and for a short while of guided fuzzing.

`make fuzz` is the long run. That a fault would be found at all is tested with one that was
planted.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import codec, seeds
from fuzz.source import Source
from fuzz.targets import PLANTED, TARGETS, corpus

TESTS = Path(__file__).parent
GUIDED_S = 5
PLANTED_S = 60
"""The longest that the planted fault may stay hidden, in seconds. It takes about one."""
FILES_MAX, BYTES_MAX = 400, 300_000

each_target = pytest.mark.parametrize("target", TARGETS)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `python -m fuzz`, as `make fuzz` does."""
    return subprocess.run(
        [sys.executable, "-m", "fuzz", *arguments],
        cwd=TESTS.parent,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=PLANTED_S + 60,
        check=False,
    )


# Replays have a process of their own: targets count its descriptors, and other tests leave
# threads that still close theirs.


@each_target
def test_every_input_of_the_corpus_holds(target: str) -> None:
    inputs = corpus(target)
    assert inputs
    replayed = run("--replay", target, *inputs)
    assert replayed.returncode == 0, replayed.stdout


@each_target
def test_the_real_messages_that_fuzzing_begins_with_hold(target: str, tmp_path: Path) -> None:
    inputs = [tmp_path / str(number) for number, _ in enumerate(seeds.SEEDS[target]())]
    for file, data in zip(inputs, seeds.SEEDS[target](), strict=True):
        file.write_bytes(data)
    replayed = run("--replay", target, *inputs)
    assert replayed.returncode == 0, replayed.stdout


def test_some_input_of_the_corpus_is_decoded_as_each_payload() -> None:
    decoded = {type(codec.test_one_input(file.read_bytes())) for file in corpus("codec")}
    payloads = {kind for exchange in codec.KINDS for kind in exchange if kind is not None}
    assert payloads <= decoded


def test_the_corpus_is_small_and_named_by_its_contents() -> None:
    files = [file for target in TARGETS for file in corpus(target)]
    assert len(files) <= FILES_MAX
    assert sum(file.stat().st_size for file in files) <= BYTES_MAX
    for file in files:
        assert file.name == hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()


@each_target
def test_guided_fuzzing_finds_nothing(target: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    ran = run("--seconds", str(GUIDED_S), "--build", tmp_path, target)
    assert ran.returncode == 0, ran.stdout
    [executed] = re.findall(r"^stat::number_of_executed_units: +(\d+)$", ran.stdout, re.MULTILINE)
    assert int(executed) > len(corpus(target)), ran.stdout


def test_guided_fuzzing_finds_a_planted_fault_and_says_how_to_see_it_again(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    ran = run("--seconds", str(PLANTED_S), "--build", tmp_path, PLANTED)
    assert ran.returncode != 0, ran.stdout
    [artifact] = tmp_path.glob(f"{PLANTED}-*")
    assert f"input: {artifact.read_bytes().hex()}\n" in ran.stdout
    assert f"--replay {PLANTED} {artifact}\n" in ran.stdout
    again = run("--replay", PLANTED, artifact)
    assert again.returncode != 0
    assert "the planted fault was found" in again.stdout


def test_an_input_has_zeros_behind_its_end() -> None:
    source = Source(b"\x02\x01\x00ab")
    assert (source.byte(), source.blob(), source.left) == (2, b"a", True)
    assert (source.number(8), source.left, source.choose("xyz"), source.blob()) == (
        ord("b"),
        False,
        "x",
        b"",
    )
