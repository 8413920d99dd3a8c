"""The README's session with a stock QEMU, typed as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from daemonlab import WAIT_S
from qemulab.environment import Environment
from qemulab.initramfs import initramfs

README = (Path(__file__).parents[2] / "README.md").read_text()
FUNCTIONS = {"1af4:1042", "1b36:0002"}
"""A disk and a serial card, as Linux shows what it finds on the bus."""


def session() -> str:
    """What is typed behind the prompts, with a wait for the server: people are slower."""
    blocks = re.findall(r"^```console\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    [found] = [each for each in blocks if "vfio-user-pci" in each]
    typed = str(found).replace("$ ", "")
    ready = "until test -S vm1.sock; do sleep 0.01; done\n"
    return typed.replace("$ ", "").replace(".sock &\n", f".sock &\n{ready}")


def test_the_guest_finds_both_functions(environment: Environment, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    qemu = programs / "qemu-system-x86_64"
    share = environment.root / "usr/share"
    command = environment.command(
        "qemu-system-x86_64",
        *("-L", share / "qemu", "-L", share / "seabios", "-accel", "tcg"),
    )
    qemu.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, command))} "$@"\n')
    qemu.chmod(0o755)
    (tmp_path / "vmlinuz").symlink_to(environment.kernel)
    (tmp_path / "initrd.img").symlink_to(initramfs(environment))
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    typed = subprocess.Popen(
        ["/bin/sh", "-e", "-c", session()],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert found_on(typed) == FUNCTIONS
    finally:
        os.killpg(typed.pid, signal.SIGTERM)
        typed.communicate(timeout=WAIT_S)


def found_on(typed: subprocess.Popen[str]) -> set[str]:
    """Read the guest's console until both functions were found, or it ends."""
    found: set[str] = set()
    seen = ""
    for line in typed.stdout or ():
        seen += line
        found |= FUNCTIONS & set(re.findall(r"pci 0000:\S+ \[([0-9a-f:]{9})\]", line))
        if found == FUNCTIONS:
            return found
    raise AssertionError(seen)
