"""HotplugService.WatchDevices: all devices, then every change."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from daemonlab import Lab, refused, serving, wait_until
from devicehost.v1 import hotplug_service_pb2 as pb
from devicehost.v1.hotplug_service_pb2_grpc import HotplugServiceStub
from devicehost_client import DeviceHost
from devicehost_server.services.feed import Feed
from wire import CALL_S

PLUGGED, UNPLUGGING, UNPLUGGED = (
    pb.DEVICE_STATE_PLUGGED,
    pb.DEVICE_STATE_UNPLUGGING,
    pb.DEVICE_STATE_UNPLUGGED,
)


@contextmanager
def watch(channel: grpc.Channel) -> Iterator[Any]:
    """Watch; the watch ends with the block."""
    call = HotplugServiceStub(channel).WatchDevices(pb.WatchDevicesRequest(), timeout=CALL_S)
    try:
        yield call
    finally:
        call.cancel()


def test_the_first_message_has_all_devices(lab: Lab, host: DeviceHost) -> None:
    devices = [host.hotplug.plug("register", device_id=device_id) for device_id in "ab"]
    with watch(lab.channel()) as watching:
        first = next(watching)
    assert first.WhichOneof("event") == "snapshot"
    assert first.generation == 2
    assert list(first.snapshot.devices) == devices


def test_each_change_follows_with_the_next_generation(lab: Lab, host: DeviceHost) -> None:
    with watch(lab.channel()) as watching:
        assert next(watching).generation == 0
        host.hotplug.plug("register", device_id="r")
        host.hotplug.unplug("r")
        changes = [next(watching) for _ in range(3)]
    assert [each.generation for each in changes] == [1, 2, 3]
    assert [each.changed.id for each in changes] == ["r"] * 3
    assert [each.changed.state for each in changes] == [PLUGGED, UNPLUGGING, UNPLUGGED]
    assert all(not each.HasField("snapshot") for each in changes)


def test_the_client_brings_snapshot_and_changes(host: DeviceHost) -> None:
    watching = host.hotplug.watch()
    assert next(watching).HasField("snapshot")
    host.hotplug.plug("register", device_id="r")
    assert next(watching).changed.id == "r"


def test_snapshot_and_changes_have_no_gap_whatever_happens_meanwhile(lab: Lab) -> None:
    stop = threading.Event()

    def come_and_go(name: str) -> None:
        while not stop.is_set():
            lab.server.devices.plug("register", {"size": "16"}, device_id=name)
            lab.server.devices.unplug(name)

    threads = [threading.Thread(target=come_and_go, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    channel = lab.channel()
    try:
        for _ in range(20):
            with watch(channel) as watching:
                first = next(watching)
                state = {each.id: each.state for each in first.snapshot.devices}
                for expected in range(first.generation + 1, first.generation + 61):
                    message = next(watching)
                    assert message.generation == expected
                    follow(state, message.changed)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def follow(state: dict[str, Any], changed: pb.Device) -> None:
    """Apply a change; it must be one that can follow the state."""
    before = {PLUGGED: None, UNPLUGGING: PLUGGED, UNPLUGGED: UNPLUGGING}[changed.state]
    assert state.get(changed.id) == before
    if changed.state == UNPLUGGED:
        del state[changed.id]
    else:
        state[changed.id] = changed.state


def test_a_watch_at_rest_sees_the_state_that_a_list_shows(lab: Lab, host: DeviceHost) -> None:
    with watch(lab.channel()) as watching:
        state = {each.id: each.state for each in next(watching).snapshot.devices}
        for number in range(10):
            host.hotplug.plug("register", device_id=f"r{number}")
        for number in range(0, 10, 3):
            host.hotplug.unplug(f"r{number}")
        while (message := next(watching)).generation < lab.server.devices.generation:
            follow(state, message.changed)
        follow(state, message.changed)
    assert sorted(state) == [device.id for device in host.hotplug.devices()]


def test_a_watcher_that_is_too_slow_is_told_so_after_changes_without_a_gap(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    backlog = 500
    monkeypatch.setattr(Feed.__init__, "__defaults__", (backlog,))
    with watch(lab.channel()) as watching:
        assert next(watching).HasField("snapshot")
        # Nobody reads: what is under way fills up, and then the queue in the server.
        while not too_slow(lab):
            lab.server.devices.plug("register", {"size": "16"}, device_id="r")
            lab.server.devices.unplug("r")
        generation = 0
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "WATCH_TOO_SLOW") as metadata:
            for message in watching:
                generation += 1
                assert message.generation == generation
        assert generation > backlog
        assert metadata == {"backlog": str(backlog)}


def too_slow(lab: Lab) -> bool:
    feeds = lab.server._feeds
    with feeds._lock:
        return any(feed._error is not None for feed in feeds._open)


def test_watches_take_the_places_of_streams_and_give_them_back(tmp_path: Path) -> None:
    with serving(tmp_path, streams_max=1) as lab:
        channel = lab.channel()
        with watch(channel) as watching:
            next(watching)
            with (
                watch(channel) as another,
                refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS"),
            ):
                next(another)

        def watched() -> bool:
            with watch(channel) as watching:
                try:
                    return bool(next(watching).HasField("snapshot"))
                except grpc.RpcError:
                    return False

        wait_until(watched, "the place of the watch that ended")


def test_a_watch_ends_when_the_server_stops(lab: Lab) -> None:
    with watch(lab.channel()) as watching:
        next(watching)
        lab.server.stop()
        with refused(grpc.StatusCode.UNAVAILABLE, "DRAINING"):
            list(watching)
