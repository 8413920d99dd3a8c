"""Devices come and go beside a vCPU that never stops: it notices nothing."""

from __future__ import annotations

import threading
from pathlib import Path

from daemonlab import daemon
from devicehost_client import Answer, DeviceHost, Policy
from wire import RawStream, mmio_read

CHANGES = 1000
BASE = 0xD000_0000
RAISE = Policy(Answer.RAISE, Answer.RAISE, Answer.RAISE)


def come_and_go(host: DeviceHost) -> None:
    """Plug and unplug devices below, above and beside the one at BASE, with other content."""
    neighbours = (BASE - 0x100, BASE + 0x100, 0xC000_0000)
    for number in range(CHANGES):
        base = neighbours[number % len(neighbours)]
        config = {"base": hex(base), "size": "256"}
        device = host.hotplug.plug("scratch", config, device_id=f"n{number}")
        assert device.resources[0].mmio.base == base
        host.hotplug.unplug(device.id)


def test_no_access_fails_or_goes_astray(tmp_path: Path) -> None:
    with daemon(tmp_path, "--device", f"scratch,id=s,base={BASE:#x},size=256") as running:
        host = running.host(policy=RAISE)
        vcpu = host.vcpu(0)
        done = threading.Event()
        failures: list[BaseException] = []

        def change() -> None:
            try:
                come_and_go(running.host())
            except BaseException as error:  # noqa: BLE001 # shown by the test
                failures.append(error)
            finally:
                done.set()

        changing = threading.Thread(target=change)
        changing.start()
        accesses = 0
        try:
            while not done.is_set():
                accesses += 1
                vcpu.mmio_write(BASE + 8, 8, accesses)
                assert vcpu.mmio_read(BASE + 8, 8) == accesses
        finally:
            changing.join()
        assert failures == []
        assert accesses > 100
        assert host.server().pid == running.process.pid
        device = host.hotplug.get("s")
        assert (device.accesses.reads, device.accesses.writes) == (accesses, accesses)
        assert [device.id for device in host.hotplug.devices()] == ["s"]


def test_a_device_that_comes_and_goes_is_there_or_is_not(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        host = running.host()
        done = threading.Event()
        config = {"base": hex(BASE), "size": "8"}

        def change() -> None:
            try:
                for _ in range(CHANGES // 4):
                    host.hotplug.plug("scratch", config, device_id="s")
                    host.mmio_write(BASE, 8, 0xA5A5_A5A5_A5A5_A5A5)
                    host.hotplug.unplug("s")
            finally:
                done.set()

        changing = threading.Thread(target=change)
        changing.start()
        seen: set[tuple[str, bytes]] = set()
        with RawStream(running.channel()) as stream:
            while not done.is_set():
                stream.send(*(mmio_read(n, BASE, 8) for n in range(16)))
                for completion in stream.completions(16):
                    seen.add((completion.failure.info.reason, completion.data))
        changing.join()
    # Never something in between: the device is new, or written to, or not there.
    assert seen <= {("NO_DEVICE", b""), ("", bytes(8)), ("", b"\xa5" * 8)}
    assert len(seen) > 1
