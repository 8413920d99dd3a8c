"""A daemon that ends cleanly leaves its devices to the next one, and a guest goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from daemonlab import daemon, run_daemon, wait_until
from devicehost.vfio_user import RegionRead
from pcilab import BAR0, BUS_MASTER, COMMAND, CONFIG, INTX, Vmm

BASE = 0xD000_0000
SCRATCH = f"scratch,id=ram,base={BASE:#x}"
IRQ_OFFSET = 255
"""The register of a scratch that interrupts: its last byte."""
UART = "uart16550,id=com1,chardev=null"


def kept(state: Path) -> dict[str, dict[str, object]]:
    """The devices of a state file, by their ids."""
    return {each["id"]: each for each in json.loads(state.read_text())["devices"]}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder / "vm1.json"


def test_a_guest_finds_its_devices_as_it_left_them(tmp_path: Path, state: Path) -> None:
    devices = ("--state-file", str(state), "--device", SCRATCH, "--device", UART)
    told: list[str] = []
    with daemon(tmp_path, *devices, status=None) as first:
        host = first.host(on_new_server=lambda: told.append("new"))
        vcpu = host.vcpu(0)
        vcpu.mmio_write(BASE, 4, 0xC0FFEE)
        vcpu.pio_write(0x3FB, 1, 0x1B)  # LCR
        vcpu.pio_write(0x3FF, 1, 0x5A)  # SCR
        assert first.terminate() == 0
        assert set(kept(state)) == {"ram", "com1"}
        with daemon(tmp_path, *devices):
            assert not state.exists()  # it is used once
            assert vcpu.mmio_read(BASE, 4) == 0xC0FFEE
            assert (vcpu.pio_read(0x3FB, 1), vcpu.pio_read(0x3FF, 1)) == (0x1B, 0x5A)
            assert told == ["new"]
            host.close()


def test_what_was_plugged_meanwhile_is_there_again_at_its_place(
    tmp_path: Path, state: Path
) -> None:
    with daemon(tmp_path, "--state-file", str(state), "--device", "scratch,size=4096") as first:
        host = first.host()
        host.hotplug.plug("scratch", {"size": "8192"}, device_id="passing")
        host.hotplug.plug("scratch", {"size": "4096"}, device_id="staying")
        host.hotplug.unplug("passing")
        host.hotplug.plug("uart16550", {"bus": "mmio", "base": "none"}, device_id="last")
        before = {each.id: each.resources for each in host.hotplug.devices()}
    assert list(kept(state)) == ["scratch-0", "staying", "last"]
    flags = ("--device", "scratch,size=4096", "--device", "scratch,id=new")
    with daemon(tmp_path, "--state-file", str(state), *flags) as second:
        after = {each.id: each.resources for each in second.host().hotplug.devices()}
        assert after.pop("new")
        assert after == before


def test_a_server_that_is_killed_leaves_no_old_state(tmp_path: Path, state: Path) -> None:
    flags = ("--state-file", str(state), "--device", SCRATCH)
    with daemon(tmp_path, *flags) as first:
        first.host().mmio_write(BASE, 4, 1)
    with daemon(tmp_path, *flags, status=None) as second:
        second.host().mmio_write(BASE, 4, 2)
        second.kill()
    assert not state.exists()
    with daemon(tmp_path, *flags) as third:
        assert third.host().mmio_read(BASE, 4) == 0


def fails(tmp_path: Path, state: Path, *flags: str) -> str:
    """Start a daemon that can't go on; return what it says. The state file stays."""
    before = state.read_bytes()
    ended = run_daemon(
        "--socket-path", str(tmp_path / "other.sock"), "--state-file", str(state), *flags
    )
    assert ended.returncode == 1
    assert state.read_bytes() == before
    return ended.stderr


def left_by_one(tmp_path: Path, state: Path) -> None:
    with daemon(tmp_path, "--state-file", str(state), "--device", SCRATCH):
        pass
    assert state.exists()


def test_a_device_that_is_something_else_now_is_refused(tmp_path: Path, state: Path) -> None:
    left_by_one(tmp_path, state)
    said = fails(tmp_path, state, "--device", "uart16550,id=ram,chardev=null")
    assert "'ram' was a 'scratch' before" in said
    said = fails(tmp_path, state, "--device", f"{SCRATCH},size=8")
    assert "'scratch,id=ram" in said
    assert "it had" in said


@pytest.mark.parametrize("text", ["", "{}", "rubbish", '{"format": "devicehost-snapshot"}'])
def test_a_file_that_is_no_snapshot_is_left_alone(tmp_path: Path, state: Path, text: str) -> None:
    state.write_text(text)
    assert str(state) in fails(tmp_path, state)


def test_a_state_that_was_changed_by_hand_is_refused(tmp_path: Path, state: Path) -> None:
    left_by_one(tmp_path, state)
    found = json.loads(state.read_text())
    found["devices"][0]["state"] = {"moon": 1}
    state.write_text(json.dumps(found))
    said = fails(tmp_path, state, "--device", SCRATCH)
    assert "'ram'" in said
    assert "moon" in said or "missing" in said


def test_a_folder_that_is_missing_is_noticed_at_the_start(tmp_path: Path) -> None:
    flags = ("--socket-path", str(tmp_path / "s"), "--state-file", str(tmp_path / "no" / "file"))
    for more in ((), ("--check-config",)):
        ended = run_daemon(*flags, *more)
        assert ended.returncode == 1
        assert "can't write to folder" in ended.stderr


def test_a_state_that_cannot_be_kept_is_told_by_the_exit_status(
    tmp_path: Path, state: Path
) -> None:
    flags = ("--state-file", str(state), "--device", SCRATCH)
    with daemon(tmp_path, *flags, status=1) as running:
        shutil.rmtree(state.parent)
    assert running.event("state_not_kept")["file"] == str(state)


def test_a_device_that_hangs_is_told_by_the_exit_status_and_the_others_are_kept(
    tmp_path: Path, state: Path
) -> None:
    function = tmp_path / "f.sock"
    slow = f"scratch,id=slow,delay_offset=16,delay_ms=20000,pci-socket={function}"
    flags = ("--state-file", str(state), "--drain-timeout", "0.2", "--device", SCRATCH)
    with daemon(tmp_path, *flags, "--device", slow, status=None) as running, Vmm(function) as vmm:
        hotplug = running.host().hotplug
        vmm.send(RegionRead(0, 16, 4))
        wait_until(lambda: hotplug.get("slow").accesses.reads == 1)
        assert running.terminate() == 1
    assert running.event("state_kept")["not_kept"] == ["slow"]
    assert set(kept(state)) == {"ram"}


def test_a_client_attaches_again_to_a_function_that_goes_on(tmp_path: Path, state: Path) -> None:
    function = tmp_path / "f.sock"
    flags = ("--state-file", str(state), "--device", f"scratch,id=f,irq=5,pci-socket={function}")
    with daemon(tmp_path, *flags, status=None) as running, Vmm(function) as vmm:
        vmm.put(0, 0, 0xC0FFEE)
        vmm.put(CONFIG, BAR0, 0xFEB0_0000)
        vmm.set_command(BUS_MASTER)
        vmm.put(0, IRQ_OFFSET, 1, 1)
        assert running.terminate() == 0
    with daemon(tmp_path, *flags), Vmm(function) as vmm:
        assert vmm.get(0, 0) == 0xC0FFEE
        assert vmm.get(CONFIG, BAR0) == 0xFEB0_0000
        assert vmm.get(CONFIG, COMMAND, 2) == 0, "it is no bus master for whoever comes"
        [interrupt] = vmm.connect(INTX)
        assert interrupt.wait() == 1
