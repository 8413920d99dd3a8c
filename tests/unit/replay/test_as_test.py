"""A recording becomes a test that pytest runs, and that fails as it should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from devicehost.recording import BadRecording
from devicehost.recording.events import Access
from devicehost_server.replay import assert_replays, to_pytest
from replaylab import Bench

POST = 0x80


@pytest.fixture(name="good")
def good_fixture(bench: Bench, tmp_path: Path) -> Path:
    bench.plug("postcode", "post")
    bench.begin()
    bench.pio_out(POST, 0x12)
    bench.pio_in(POST)
    return bench.write(tmp_path / "POST codes.dhrec")


@pytest.fixture(name="bad")
def bad_fixture(bench: Bench, good: Path) -> Path:
    bench.events = [
        event
        for event in bench.events
        if not (isinstance(event, Access) and event.operation.value == "write")
    ]
    return bench.write(good.with_name("bad.dhrec"))


def run(test: Path) -> tuple[int, str]:
    """Run a test where nothing else is; return pytest's status, and what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test.name],
        cwd=test.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_small_recording_is_a_test_that_needs_nothing_but_itself(
    good: Path, tmp_path: Path
) -> None:
    test = tmp_path / "alone" / "test_post.py"
    test.parent.mkdir()
    test.write_text(to_pytest(good))
    status, said = run(test)
    assert status == 0, said
    assert "1 passed" in said
    assert "def test_post_codes_replays" in test.read_text()
    assert "post (postcode)" in test.read_text()


def test_the_test_fails_and_says_what_differs(bad: Path, tmp_path: Path) -> None:
    test = tmp_path / "alone" / "test_bad.py"
    test.parent.mkdir()
    test.write_text(to_pytest(bad))
    status, said = run(test)
    assert status == 1, said
    assert "1 differences from the recording" in said
    assert "0x80" in said


def test_a_recording_that_is_not_embedded_is_found_beside_the_test(good: Path) -> None:
    test = good.with_name("test_beside.py")
    test.write_text(to_pytest(good, embed=False))
    assert len(test.read_text()) < 500
    status, said = run(test)
    assert status == 0, said


def test_a_large_recording_is_not_embedded(bench: Bench, tmp_path: Path) -> None:
    bench.plug("scratch", "ram", base="0xc0000000", size="0x10000")
    bench.begin()
    path = bench.write(tmp_path / "large.dhrec")
    assert path.stat().st_size > 64 << 10
    assert "b64decode" not in to_pytest(path)
    assert "b64decode" in to_pytest(path, embed=True)


def test_an_assertion_needs_no_pytest(good: Path, bad: Path) -> None:
    assert_replays(good)
    assert_replays(good.read_bytes())
    with pytest.raises(AssertionError, match=r"post: read of .*0x80"):
        assert_replays(bad)
    imported = "import sys, devicehost_server.replay; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", imported], check=True, timeout=100)


def test_what_is_no_recording_is_no_test(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"hello, this is no recording")
    with pytest.raises(BadRecording):
        to_pytest(path)
