"""Replaying: what was recorded, on fresh devices, to see whether they do the same.

    recording = Recording.open("boot.dhrec")
    replayer = Replayer(recording, DeviceTypes())
    for difference in replayer.run():
        print(difference)

    | module      | what is in it                                                       |
    |-------------|---------------------------------------------------------------------|
    | replayer    | `Replayer`: drives devices with a recording, and compares           |
    | stage       | does what events say, and compares what comes of it                 |
    | player      | one device: made of its record, accessed, woken                     |
    | world       | what surrounds it: clock, memory and streams that know the answers  |
    | difference  | `Difference`: what a device did otherwise                           |
    | spoiled     | `Spoiled`: stuck bits, to try whether a recording would show them   |
    | shrinking   | `shrink`: a smaller recording that shows the same                   |
    | as_test     | `to_pytest`, `assert_replays`: a recording as a test                |
    | __main__    | all of it as a program, for `devicehostctl`                         |

A device whose only inputs are accesses and what passes its doors (`devices.doors`) does
exactly the same each time.
"""

from __future__ import annotations

from devicehost_server.replay.as_test import assert_replays, to_pytest
from devicehost_server.replay.difference import Difference, What
from devicehost_server.replay.player import CannotReplay
from devicehost_server.replay.replayer import Replayer, Source
from devicehost_server.replay.shrinking import NothingToShrink, Shrunk, shrink
from devicehost_server.replay.spoiled import Spoiled
from devicehost_server.replay.stage import Summary

__all__ = [
    "CannotReplay",
    "Difference",
    "NothingToShrink",
    "Replayer",
    "Shrunk",
    "Source",
    "Spoiled",
    "Summary",
    "What",
    "assert_replays",
    "shrink",
    "to_pytest",
]
