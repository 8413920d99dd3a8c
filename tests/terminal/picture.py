"""Make the picture of `devicehostctl top` that the README shows.

    python tests/terminal/picture.py [FILE] [--light] [--seconds N]

It runs a server with the devices of a small machine and a guest that uses them, shows the
view for a minute, so that the graphs are full, and writes its screen as SVG.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from daemonlab import daemon
from devicehost_client import connect
from devicehost_client.ctl.top.app import TopApp
from terminal.guestload import DEVICES, load
from terminal.svg import portable

SIZE = (120, 40)
SECONDS = 62.0
OUT = Path(__file__).with_name("top.svg")
SHOWN_ENDPOINT = "unix:/run/vm1/devices.sock"
_SELECTED = ("down",)


def main() -> None:
    """Make the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", nargs="?", type=Path, default=OUT)
    parser.add_argument("--light", action="store_true", help="dark letters on light ground")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long to watch")
    options = parser.parse_args()
    os.environ.pop("NO_COLOR", None)
    os.environ["COLORFGBG"] = "0;15" if options.light else "15;0"
    with (
        tempfile.TemporaryDirectory(prefix="devicehost-") as name,
        daemon(Path(name), *DEVICES) as running,
        load(running.host()),
        connect(running.endpoint, transport="grpc-stream") as host,
    ):
        app = TopApp(host, SHOWN_ENDPOINT, 1.0)
        picture = asyncio.run(_watch(app, options.seconds))
    options.file.write_text(portable(picture))


async def _watch(app: TopApp, seconds: float) -> str:
    """Return the screen of an app that ran for a while, as SVG."""
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press(*_SELECTED)
        await asyncio.sleep(seconds)
        return app.export_screenshot(title="devicehostctl top", simplify=True)


if __name__ == "__main__":
    main()
