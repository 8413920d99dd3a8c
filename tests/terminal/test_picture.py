"""The picture of the README."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from daemonlab import WAIT_S, environment

HERE = Path(__file__).parent
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("options", [(), ("--light",)])
def test_the_picture_can_be_made_again(tmp_path: Path, options: tuple[str, ...]) -> None:
    out = tmp_path / "top.svg"
    done = subprocess.run(
        [sys.executable, HERE / "picture.py", out, "--seconds", "2.5", *options],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    check(out)


def test_the_picture_of_the_readme_needs_nothing_else() -> None:
    check(HERE / "top.svg")


def check(picture: Path) -> None:
    """Check that a picture shows the view, and fetches nothing."""
    text = picture.read_text()
    assert "@font-face" not in text
    assert text.count("http") == text.count("http://www.w3.org/") + text.count(
        "https://www.textualize.io"
    )
    root = ET.fromstring(text)  # noqa: S314 # it is ours
    words = {each.text for each in root.iter(f"{SVG}text")}
    assert {"com1", "uart16550", "kbd.STATUS", "unix:/run/vm1/devices.sock", "live"} <= words
    assert len(list(root.iter(f"{SVG}rect"))) > 20
