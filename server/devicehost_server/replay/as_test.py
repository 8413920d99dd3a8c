"""A recording as a test: a file for pytest that replays it.

A small recording is in the text of the file, which then needs nothing else. A larger one is
looked for beside it.
"""

from __future__ import annotations

import base64
import io
import re
import textwrap
from os import PathLike
from pathlib import Path

from devicehost.recording import Recording
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.replay.replayer import Replayer

EMBEDDED_MAX = 64 << 10
"""The longest recording that is put into the text of a test, in bytes."""

_EMBEDDED = '''\
"""Replays a recording on fresh devices{of}."""

from __future__ import annotations

from base64 import b64decode

from devicehost_server.replay import assert_replays

RECORDING = b64decode(
    """
{content}
"""
)


def test_{name}_replays() -> None:
    assert_replays(RECORDING)
'''

_BESIDE = '''\
"""Replays {file}, the recording beside it, on fresh devices{of}."""

from __future__ import annotations

from pathlib import Path

from devicehost_server.replay import assert_replays


def test_{name}_replays() -> None:
    assert_replays(Path(__file__).with_name({file!r}))
'''


def to_pytest(recording_path: str | PathLike[str], *, embed: bool | None = None) -> str:
    """Return the text of a test that replays a recording.

    Args:
        recording_path: the recording.
        embed: whether to put it into the text; None to do so if it is smaller than 64 KiB.
            If not, the test looks for a file of the same name beside itself.

    Raises:
        BadRecording: it isn't one.
        OSError: it can't be read.
    """
    path = Path(recording_path)
    header = Recording.open(path).header
    name = re.sub(r"\W+", "_", path.stem, flags=re.ASCII).strip("_").lower() or "recording"
    of = "".join(f", {device.id} ({device.type})" for device in header.devices)
    of = of.replace(", ", ": ", 1).translate({ord("\\"): "/", ord('"'): "'"})
    if embed is None:
        embed = path.stat().st_size < EMBEDDED_MAX
    if embed:
        content = "\n".join(textwrap.wrap(base64.b64encode(path.read_bytes()).decode(), 96))
        return _EMBEDDED.format(of=of, content=content, name=name)
    return _BESIDE.format(of=of, file=path.name, name=name)


def assert_replays(
    recording: str | PathLike[str] | bytes, types: DeviceTypes | None = None
) -> None:
    """Replay a recording, and fail if devices do anything otherwise.

    Args:
        recording: its path, or all of its bytes.
        types: the types of devices that can be made; all that are installed by default.

    Raises:
        AssertionError: they do; it has the first difference, register by register.
        CannotReplay: a device can't be made.
        BadRecording: it isn't a recording.
    """
    if isinstance(recording, bytes):
        source = Recording.read(io.BytesIO(recording))
    else:
        source = Recording.open(recording)
    differences = Replayer(source, types or DeviceTypes()).run()
    first = next(differences, None)
    if first is not None:
        more = sum(1 for _ in differences)
        raise AssertionError(f"{1 + more} differences from the recording; the first:\n{first}")
